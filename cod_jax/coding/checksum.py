"""CRC-24 as OpenPGP uses it (RFC 9580, section 6.1), with all bits inverted at the end.

Not inverted, a file with its checksum and zeros after it would have the checksum zero.
"""

POLYNOMIAL = 0x1864CFB
INITIAL = 0xB704CE
NUM_BYTES = 3


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
    """Checksum of 3 bytes, most significant first.

    It detects every change within 24 neighbouring bits, so every change of one byte, and of any other change all but
    one in 16.8 million.
    """
    register, table = INITIAL, _TABLE
    for byte in data:
        register = (register << 8) & 0xFFFFFF ^ table[register >> 16 ^ byte]
    return (register ^ 0xFFFFFF).to_bytes(NUM_BYTES, "big")
