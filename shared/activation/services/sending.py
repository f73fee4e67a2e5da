"""Sending one batch, finding the rows that spoil it, and counting what became of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from activation import observability
from activation.domain.delivery import Delivery, Operation
from activation.domain.distribution import MAX_REJECTED_ROWS, BatchRecord, BatchState
from activation.errors import PlatformError, PlatformRowsError, PlatformTransientError
from activation.ports import Account, Clock, Connector
from activation.services.suppressions import SuppressionService

Columns = Mapping[str, Sequence[Any]]

INVALID_ROW = "refused_by_platform"
SUPPRESSED = "suppressed"
OPTED_OUT = "optout"
"""What an operator of raw ids says of who wants none."""
UNRESOLVED = "refused_with_others"
"""Rows of a piece that was refused when the search for the bad ones had cost too much."""
MAX_PIECES = 500
"""Requests that one batch may take."""


_REASON = re.compile(r"[a-z][a-z_]{1,39}")


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a batch: rejected rows by zero-based position, the rest was accepted."""

    rejected: Mapping[int, str] = field(default_factory=dict)
    unplaced: Mapping[str, int] = field(default_factory=dict)
    receipt: str | None = None


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends batches, without the people who have opted out since the list was frozen."""

    suppressions: SuppressionService

    def send(
        self,
        organization_id: str,
        connector: Connector,
        account: Account,
        delivery: Delivery,
        seq: int,
        columns: Columns,
        keep: Callable[[], bool],
    ) -> Sent:
        """Send batch `seq`, whose intent is recorded: whoever opted out before that is not in it.

        When the platform refuses it whole because of some rows, the rest is sent. `keep` is
        called between two requests, and says whether there is time to search on.
        """
        out = self._opted_out(organization_id, delivery, columns)
        every = range(len(next(iter(columns.values()))))
        rows = [row for row in every if row not in out] if out else every
        if not rows and delivery.operation == Operation.REPLACE:
            raise PlatformError("Nobody is left in a batch of a replacement.", reason=SUPPRESSED)
        sent = _Pieces(connector, account, delivery, seq, columns, keep).sent(rows)
        return _joined(Sent(dict.fromkeys(out, SUPPRESSED)), sent)

    def _opted_out(
        self, organization_id: str, delivery: Delivery, columns: Columns
    ) -> frozenset[int]:
        """The rows that are not sent; people are taken out whoever they are."""
        if delivery.operation == Operation.REMOVE:
            return frozenset()
        view = self.suppressions.view(organization_id)
        return frozenset(view.hits(columns)) if view.size else frozenset()


@dataclass(slots=True)
class _Pieces:
    """One batch, in as many requests as it takes to find the rows that spoil it.

    Rows that the platform names are left out; when it names none, the batch is halved until the
    bad rows are alone: log2(rows) requests for each of them, at most MAX_PIECES together, and
    while there is time.
    """

    connector: Connector
    account: Account
    delivery: Delivery
    seq: int
    columns: Columns
    keep: Callable[[], bool]
    requests: int = 0
    over: bool = False
    """Whether nothing is halved any more."""

    def sent(self, rows: Sequence[int]) -> Sent:
        """Send some rows of the batch."""
        if not rows:
            return Sent()
        if self.requests:
            self.over = not self.keep() or self.requests >= MAX_PIECES
        self.requests += 1
        chosen = _chosen(self.columns, rows)
        try:
            outcome = self.connector.send(self.account, self.delivery, self.seq, chosen)
        except PlatformRowsError as error:
            return self._without(rows, error)
        placed = {rows[position]: reason for position, reason in outcome.rejected.items()}
        unplaced = _at_most(outcome.unplaced_rejects, len(rows) - len(placed))
        return Sent(placed, unplaced, outcome.receipt)

    def _without(self, rows: Sequence[int], error: PlatformRowsError) -> Sent:
        reason = error.platform_code or INVALID_ROW
        if error.rows:
            named = set(error.rows)
            bad = {rows[position]: reason for position in named}
            good = [row for position, row in enumerate(rows) if position not in named]
            return _joined(Sent(bad), self.sent(good))
        if len(rows) == 1:
            return Sent({rows[0]: reason})
        if self.over:
            return Sent(dict.fromkeys(rows, UNRESOLVED))
        half = len(rows) // 2
        return _joined(self.sent(rows[:half]), self.sent(rows[half:]))


def _chosen(columns: Columns, rows: Sequence[int]) -> Columns:
    whole = len(next(iter(columns.values())))
    if len(rows) == whole:
        return columns
    return {name: [values[row] for row in rows] for name, values in columns.items()}


def _at_most(reasons: Mapping[str, int], rows: int) -> Mapping[str, int]:
    """Rejects by reason that are not more than so many rows: where a platform counts something
    else, such as the identifiers of rows, all of them are."""
    left, kept = rows, {}
    for reason, count in reasons.items():
        kept[reason] = max(0, min(count, left))
        left -= kept[reason]
    return {reason: count for reason, count in kept.items() if count}


def _joined(first: Sent, second: Sent) -> Sent:
    unplaced = Counter(first.unplaced) + Counter(second.unplaced)
    receipts = [sent.receipt for sent in (first, second) if sent.receipt]
    joined = ",".join(receipts) or None
    return Sent({**first.rejected, **second.rejected}, unplaced, joined)


def not_understood(error: Exception) -> PlatformTransientError:
    """What is shown of a fault of ours, which answers of an unknown shape bring about."""
    kind = type(error).__name__
    return PlatformTransientError(f"The platform's answer was not understood ({kind}).")


def tell_reasons(message: str, distribution_id: str, reasons: Mapping[str, int]) -> None:
    """Log counts by reason, a line each; a platform's own codes, which nobody can list, are one
    reason."""
    ours: Counter[str] = Counter()
    for reason, count in reasons.items():
        ours[reason if _REASON.fullmatch(reason) else "platform"] += count
    for reason, count in ours.items():
        observability.event(message, distribution_id=distribution_id, reason=reason, count=count)


def done(record: BatchRecord, sent: Sent, offset: int, clock: Clock) -> BatchRecord:
    """The record of a batch that is through; rows are numbered over its step's list, from 1."""
    reasons: Counter[str] = Counter(sent.rejected.values())
    reasons.update(sent.unplaced)
    rejected = reasons.total()
    rows = sorted(sent.rejected.items())[:MAX_REJECTED_ROWS]
    return record.changed(
        state=BatchState.DONE,
        first_row=offset,
        sent=record.rows - rejected,
        rejected=rejected,
        rejected_by_reason=dict(reasons),
        rejected_rows=tuple((offset + row + 1, reason) for row, reason in rows),
        receipt=sent.receipt,
        attempts=record.attempts + 1,
        updated_at=clock.now(),
    )
