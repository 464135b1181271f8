"""CRC-24 as OpenPGP uses it (RFC 9580, section 6.1), with all bits inverted at the end.

Not inverted, a file with its checksum and zeros after it would have the checksum zero.
"""

POLYNOMIAL = 0x1864CFB
INITIAL = 0xB704CE
NUM_BYTES = 3
NUM_BITS = 8 * NUM_BYTES
# Longer data is cut into pieces of equal length, whose registers are computed side by side.
_NUM_PIECES = 2048
_LONG_BYTES = 16 * _NUM_PIECES


def _table() -> tuple[int, ...]:
    entries: list[int] = []
    for byte in range(256):
        register = byte << 16
        for _ in range(8):
            register <<= 1
            if register & 0x1000000:
                register ^= POLYNOMIAL
        entries.append(register)
    return tuple(entries)


_TABLE = _table()


def crc24(data: bytes) -> bytes:
    """Checksum of 3 bytes, most significant first; 32 megabytes take half a second.

    It detects every change within 24 neighbouring bits, so every change of one byte, and of any other change all but
    one in 16.8 million.
    """
    register, table = INITIAL, _TABLE
    whole = len(data) - len(data) % _NUM_PIECES if len(data) >= _LONG_BYTES else 0
    if whole:
        register = _of_pieces(register, memoryview(data)[:whole])
    for byte in memoryview(data)[whole:]:
        register = (register << 8) & 0xFFFFFF ^ table[register >> 16 ^ byte]
    return (register ^ 0xFFFFFF).to_bytes(NUM_BYTES, "big")


def _of_pieces(register: int, data: memoryview) -> int:
    """Return the register after data that can be cut into pieces of equal length.

    The register is linear in the one before and in the data. So each piece starts from zero, and what is in the
    register before a piece is carried over it bit by bit: the last rows carry one bit each over bytes that are zero.
    """
    import numpy as np  # only for long data: commands that read none start without it

    pieces = np.frombuffer(data, np.uint8).reshape(_NUM_PIECES, -1)
    table = np.array(_TABLE, np.uint32)
    registers = np.zeros(len(pieces) + NUM_BITS, np.uint32)
    registers[len(pieces) :] = 1 << np.arange(NUM_BITS, dtype=np.uint32)
    bytes_of_all = np.zeros(len(registers), np.uint8)
    for place in range(pieces.shape[1]):
        bytes_of_all[: len(pieces)] = pieces[:, place]
        registers = (registers << 8) & 0xFFFFFF ^ table[registers >> 16 ^ bytes_of_all]
    carried = registers[len(pieces) :].tolist()
    for of_piece in registers[: len(pieces)].tolist():
        register = of_piece ^ _carry(register, carried)
    return register


def _carry(register: int, carried: list[int]) -> int:
    after = 0
    for bit, value in enumerate(carried):
        if register >> bit & 1:
            after ^= value
    return after
