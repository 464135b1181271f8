"""The format of a model's symbols, for all that codes, checks or reshapes them."""

import dataclasses

# No entropy model codes symbols outside +- this.
LARGEST_SYMBOL = 2**15 - 1
# Longest symbols that are stored with a fixed number of bits.
MAX_BITS = 16


@dataclasses.dataclass(frozen=True)
class SymbolFormat:
    """The symbols of a model: int32 arrays [B, h, w, num_channels], and a quality level for each picture.

    Attributes:
        num_channels: Symbols at each grid position; 1 with a codebook.
        first: Smallest symbol.
        last: Largest symbol.
        num_levels: Quality levels of the model; 1 where there is no choice. Levels count from 0, the lowest quality.
    """

    num_channels: int
    first: int
    last: int
    num_levels: int = 1

    @property
    def size(self) -> int:
        """Number of different symbols."""
        return self.last - self.first + 1

    @property
    def bits(self) -> int | None:
        """Bits of a symbol in a code of fixed length, 1 to 16; None where there is no such code.

        There is one for symbols 0 to 2^bits - 1 in one channel, at one quality level.
        """
        if (self.num_channels, self.num_levels, self.first) != (1, 1, 0):
            return None
        bits = self.last.bit_length()
        return bits if 1 <= bits <= MAX_BITS and self.size == 2**bits else None

    def __str__(self) -> str:
        """Describe the symbols in a message."""
        if self.bits is not None:
            return f"symbols of {self.bits} bits"
        return f"symbols {self.first} to {self.last} of {self.num_levels} levels and {self.num_channels} channels"
