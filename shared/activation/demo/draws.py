"""Random numbers without a generator's state: each is a pure function of seed, place and purpose.

So a row is the same whatever was made before it, in blocks of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Draws:
    """SplitMix64 over numbers; `purpose` keeps two questions about one number independent."""

    seed: int

    def words(self, numbers: NDArray[np.uint64], purpose: int) -> NDArray[np.uint64]:
        """64 random bits for each number."""
        import numpy as np

        start = (self.seed * _FIRST + purpose * _SECOND) & _WORD
        words = (numbers + np.uint64(1)) * np.uint64(_GOLDEN) + np.uint64(start)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(_FIRST)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(_SECOND)
        return words ^ (words >> np.uint64(31))

    def shares(self, numbers: NDArray[np.uint64], purpose: int) -> NDArray[np.float64]:
        """A number in [0, 1) for each number."""
        import numpy as np

        bits = self.words(numbers, purpose) >> np.uint64(11)
        return bits.astype(np.float64) * 2.0**-53

    def picks(self, numbers: NDArray[np.uint64], purpose: int, choices: int) -> NDArray[np.int64]:
        """One of `choices` positions for each number."""
        import numpy as np

        return (self.words(numbers, purpose) % np.uint64(choices)).astype(np.int64)
