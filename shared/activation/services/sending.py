"""Sending one batch, finding the rows that spoil it, and counting what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from activation.domain.delivery import Delivery
from activation.domain.distribution import MAX_REJECTED_ROWS, BatchRecord, BatchState, Progress
from activation.errors import PlatformRowsError
from activation.ports import Account, Clock, Connector

Columns = Mapping[str, Sequence[Any]]

INVALID_ROW = "refused_by_platform"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a batch: rejected rows by zero-based position, the rest was accepted."""

    rejected: Mapping[int, str] = field(default_factory=dict)
    unplaced: Mapping[str, int] = field(default_factory=dict)
    receipt: str | None = None


def send_rows(
    connector: Connector, account: Account, delivery: Delivery, seq: int, columns: Columns
) -> Sent:
    """Send batch `seq`; when the platform refuses it whole because of some rows, send the rest.

    Rows that the platform names are left out; when it names none, the batch is halved until the
    bad rows are alone: log2(rows) requests for each of them.
    """
    rows = list(range(len(next(iter(columns.values())))))
    return _send(connector, account, delivery, seq, columns, rows)


def _send(
    connector: Connector,
    account: Account,
    delivery: Delivery,
    seq: int,
    columns: Columns,
    rows: Sequence[int],
) -> Sent:
    if not rows:
        return Sent()
    try:
        outcome = connector.send(account, delivery, seq, _chosen(columns, rows))
    except PlatformRowsError as error:
        reason = error.platform_code or INVALID_ROW
        if error.rows:
            named = set(error.rows)
            bad = {rows[position]: reason for position in named}
            good = [row for position, row in enumerate(rows) if position not in named]
            return _joined(Sent(bad), _send(connector, account, delivery, seq, columns, good))
        if len(rows) == 1:
            return Sent({rows[0]: reason})
        half = len(rows) // 2
        return _joined(
            _send(connector, account, delivery, seq, columns, rows[:half]),
            _send(connector, account, delivery, seq, columns, rows[half:]),
        )
    placed = {rows[position]: reason for position, reason in outcome.rejected.items()}
    return Sent(placed, outcome.unplaced_rejects, outcome.receipt)


def _chosen(columns: Columns, rows: Sequence[int]) -> Columns:
    whole = len(next(iter(columns.values())))
    if len(rows) == whole:
        return columns
    return {name: [values[row] for row in rows] for name, values in columns.items()}


def _joined(first: Sent, second: Sent) -> Sent:
    unplaced = Counter(first.unplaced) + Counter(second.unplaced)
    receipts = [sent.receipt for sent in (first, second) if sent.receipt]
    joined = ",".join(receipts) or None
    return Sent({**first.rejected, **second.rejected}, unplaced, joined)


def done(record: BatchRecord, sent: Sent, offset: int, clock: Clock) -> BatchRecord:
    """The record of a batch that is through; rows are numbered over the whole list, from 1."""
    reasons: Counter[str] = Counter(sent.rejected.values())
    reasons.update(sent.unplaced)
    rejected = reasons.total()
    rows = sorted(sent.rejected.items())[:MAX_REJECTED_ROWS]
    return record.changed(
        state=BatchState.DONE,
        sent=record.rows - rejected,
        rejected=rejected,
        rejected_by_reason=dict(reasons),
        rejected_rows=tuple((offset + row + 1, reason) for row, reason in rows),
        receipt=sent.receipt,
        attempts=record.attempts + 1,
        updated_at=clock.now(),
    )


def progressed(progress: Progress, done: BatchRecord) -> Progress:
    reasons: Mapping[str, int] = Counter(progress.rejected_by_reason) + Counter(
        done.rejected_by_reason
    )
    return progress.model_copy(
        update={
            "sent": progress.sent + done.sent,
            "rejected": progress.rejected + done.rejected,
            "pending": progress.pending - done.rows,
            "rejected_by_reason": dict(reasons),
            "batches_done": progress.batches_done + 1,
        }
    )
