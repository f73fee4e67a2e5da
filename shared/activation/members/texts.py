"""The columns of a batch: text for whoever looks, and bytes for whoever can do without."""

from __future__ import annotations

from abc import abstractmethod
from binascii import hexlify
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


class Texts(Sequence[str | None]):
    """One column of a batch, None in rows that have nothing of its type. The texts are made when
    they are first looked at; most of a large batch needs none."""

    def __init__(self, at: Positions, rows: int) -> None:
        self.at = at
        """The row of each value."""
        self._rows = rows

    @abstractmethod
    def _made(self) -> list[str | None]:
        """The values that there are."""

    @cached_property
    def texts(self) -> list[str | None]:
        """The column as a list."""
        import numpy as np

        texts = self._made()
        if len(texts) == self._rows:
            return texts
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
        return f"{type(self).__name__}({len(self.at)} of {self._rows})"


class HashTexts(Texts):
    """Hashes, as lower-case hex digits."""

    def __init__(self, octets: Octets, at: Positions, rows: int) -> None:
        super().__init__(at, rows)
        self.octets = octets
        """(hashes, 32) bytes."""

    def _made(self) -> list[str | None]:
        digits = self.octets.tobytes().hex()
        return [digits[i : i + HEX] for i in range(0, len(digits), HEX)]

    def digits(self) -> Any:
        """(hashes, 64) ASCII digits."""
        import numpy as np

        return np.frombuffer(hexlify(self.octets.data), np.uint8).reshape(-1, HEX)


class PlainTexts(Texts):
    """Values that are sent as they are; `values` is an Arrow array of strings without nulls."""

    def __init__(self, values: Any, at: Positions, rows: int) -> None:
        super().__init__(at, rows)
        self.values = values

    def _made(self) -> list[str | None]:
        made: list[str | None] = self.values.to_pylist()
        return made

    def utf8(self) -> Octets:
        """The bytes of all values, one after the other."""
        import numpy as np

        _, ends, text = self.values.buffers()
        ends = np.frombuffer(ends, np.int32)[self.values.offset :]
        return np.frombuffer(text or b"", np.uint8)[ends[0] : ends[len(self.values)]]
