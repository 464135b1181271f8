"""What the symbols of a model are, for all that codes, checks or reshapes them."""

import dataclasses

# No entropy model codes symbols outside +- this.
LARGEST_SYMBOL = 2**15 - 1


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
    def bits(self) -> int | None:
        """Bits of a symbol in a code of fixed length; None where the symbols are not 0 to 2^bits - 1 in one channel."""
        is_codebook = self.num_channels == 1 and self.first == 0 and (self.last + 1) & self.last == 0
        return self.last.bit_length() if is_codebook else None
