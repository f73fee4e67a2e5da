"""Rows that a platform refused, and whether sending them again can help."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from activation.domain.distribution import BatchRecord


class Retriable(StrEnum):
    """Whether the same row may be accepted another time."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


REJECT_COLUMNS = b"batch,operation,row,reason,retriable,rows\n"

_NO_CODE = re.compile(r"[^\w.:-]", re.ASCII)
_PASSES = re.compile(
    r"internal|unavailable|timeout|time_out|deadline|throttl|rate_limit|quota|temporar|exhausted"
    r"|refused_with_others",
    re.IGNORECASE,
)
_STAYS = re.compile(
    r"invalid|malformed|missing|unsupported|not_supported|too_many|too_long|duplicate|not_hashed"
    r"|no_identifier|format|encoding|opted_out|opt_out|suppressed|refused_by_platform",
    re.IGNORECASE,
)


def retriable(reason: str) -> Retriable:
    """By the words in a platform's reason code; a code that says nothing is unknown."""
    if _PASSES.search(reason):
        return Retriable.YES
    return Retriable.NO if _STAYS.search(reason) else Retriable.UNKNOWN


@dataclass(frozen=True, slots=True)
class Reject:
    """Refused rows of a batch: one, by its number in the list of its operation; or several of which
    the platform (or we, above MAX_REJECTED_ROWS) told no number: `row` is None."""

    seq: int
    operation: str
    row: int | None
    reason: str
    rows: int = 1

    def line(self) -> bytes:
        """The reject in the order of REJECT_COLUMNS; a reason that is no code is made one."""
        reason = _NO_CODE.sub("_", self.reason)
        row = "" if self.row is None else self.row
        text = f"{self.seq},{self.operation},{row},{reason},{retriable(reason)},{self.rows}\n"
        return text.encode()


def rejects_of(batch: BatchRecord) -> Iterator[Reject]:
    """All refused rows of a batch; `rows` add up to `batch.rejected`."""
    for row, reason in batch.rejected_rows:
        yield Reject(batch.seq, batch.operation, row, reason)
    unplaced = Counter(batch.rejected_by_reason)
    unplaced.subtract(reason for _, reason in batch.rejected_rows)
    for reason, rows in sorted(unplaced.items()):
        if rows > 0:
            yield Reject(batch.seq, batch.operation, None, reason, rows)
