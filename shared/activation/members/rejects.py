"""What was not taken from a file: row, column and reason; never the value."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from activation.domain.member import RejectReason
from activation.members.normalise import REASONS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Reject:
    """One value, or one row (then without a column), that was not taken."""

    row: int
    column: str
    reason: RejectReason


def rejects_of(
    rows: npt.NDArray[np.int64], columns: Sequence[str], reasons: npt.NDArray[np.uint8]
) -> list[Reject]:
    """Rejects from arrays, position by position; `reasons` are codes above 0."""
    found = zip(rows.tolist(), columns, reasons.tolist(), strict=True)
    return [Reject(row, column, REASONS[code - 1]) for row, column, code in found]


def by_reason(rejects: Sequence[Reject]) -> dict[str, int]:
    """How many rejects there are of each reason."""
    return dict(Counter(reject.reason.value for reject in rejects))


def reject_file(rejects: Sequence[Reject]) -> bytes:
    """The rejects as CSV without a header, in the order of rows: part of an import's file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    ordered = sorted(rejects, key=lambda reject: (reject.row, reject.column))
    writer.writerows((r.row, _harmless(r.column), r.reason.value) for r in ordered)
    return text.getvalue().encode()


def _harmless(column: str) -> str:
    """A column name that no spreadsheet takes for a formula."""
    return f"'{column}" if column.startswith(_FORMULA) else column
