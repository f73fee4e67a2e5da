"""The hashes of a batch, as text for whoever looks, and as bytes for whoever can do without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Octets = npt.NDArray[np.uint8]
    Positions = npt.NDArray[np.int64]

HEX = 64
"""Digits of a SHA-256."""


class HashTexts(Sequence[str | None]):
    """One column: lower-case hex digits, None in rows that have no hash. The texts are made when
    they are first looked at; most of a large batch needs none."""

    def __init__(self, octets: Octets, at: Positions, rows: int) -> None:
        self.octets = octets
        """(hashes, 32) bytes."""
        self.at = at
        """The row of each."""
        self._rows = rows

    @cached_property
    def texts(self) -> list[str | None]:
        """The column as a list."""
        import numpy as np

        digits = self.octets.tobytes().hex()
        texts = [digits[i : i + HEX] for i in range(0, len(digits), HEX)]
        if len(texts) == self._rows:
            return list[str | None](texts)
        values = np.full(self._rows, None, object)
        values[self.at] = texts
        found: list[str | None] = values.tolist()
        return found

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, row: int) -> str | None: ...
    @overload
    def __getitem__(self, row: slice) -> list[str | None]: ...
    def __getitem__(self, row: int | slice) -> str | list[str | None] | None:
        return self.texts[row]

    def __iter__(self) -> Iterator[str | None]:
        return iter(self.texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.texts == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of lists

    def __repr__(self) -> str:
        return f"HashTexts({len(self.at)} of {self._rows})"

    def digits(self) -> Any:
        """(hashes, 64) ASCII digits."""
        import numpy as np

        packed = self.octets.tobytes().hex().encode()
        return np.frombuffer(packed, np.uint8).reshape(-1, HEX)
