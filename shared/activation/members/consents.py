"""The column of consent as numbers: its four parts are compared, joined and put together again."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from activation.domain.consent import PART_SIZES
from activation.members.layout import CONSENTS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Parts = npt.NDArray[np.uint8]
    """(n, 4): `MemberConsent.parts` of each member."""

USER_DATA, PERSONALIZATION, LIMITED, VENDORS = range(len(PART_SIZES))
"""Columns of Parts."""


@functools.cache
def _parts_by_code() -> Parts:
    """The parts of each code; the last row is for members who carry none."""
    import numpy as np

    nothing = (0,) * len(PART_SIZES)
    return np.array([*(consent.parts for consent in CONSENTS), nothing], np.uint8)


@functools.cache
def _code_by_parts() -> npt.NDArray[np.int64]:
    """The inverse, by the number that the parts spell; -1 where nothing was said."""
    import numpy as np

    numbers = np.ravel_multi_index(tuple(_parts_by_code()[:-1].T), PART_SIZES)
    codes = np.full(np.prod(PART_SIZES), -1, np.int64)
    codes[numbers] = np.arange(len(CONSENTS))
    return codes


def parts_of(column: Any) -> Parts:
    """The parts of a column of codes."""
    codes = column.fill_null(len(CONSENTS)).to_numpy()
    parts: Parts = _parts_by_code()[codes]
    return parts


def column_of(parts: Parts) -> Any:
    """The inverse of `parts_of`."""
    import numpy as np
    import pyarrow as pa

    codes = _code_by_parts()[np.ravel_multi_index(tuple(parts.T), PART_SIZES)]
    return pa.array(codes.astype(np.uint8), mask=codes < 0)


def stricter(first: Any, second: Any) -> Any:
    """What two columns of one file say of its rows together: where they differ, the no counts."""
    import numpy as np

    return column_of(np.maximum(parts_of(first), parts_of(second)))


def last_said(column: Any, order: Any, starts: Any) -> Any:
    """The consent of each member whose rows are `column[order]` from `starts` on: of every part
    what was said last, so that a row that is silent on one does not take it back."""
    import numpy as np

    parts = parts_of(column)[order]
    ranks = np.arange(len(order))[:, None]
    latest = np.maximum.reduceat(np.where(parts > 0, ranks, -1), starts)
    found = np.take_along_axis(parts, np.maximum(latest, 0), axis=0)
    return column_of(np.where(latest >= 0, found, 0))
