"""What an engine has made of a log, and where two engines differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from activation import observability
from activation.app import App
from activation.digests.log import ORGANIZATION, Log
from activation.domain.entity import timestamp
from activation.domain.membership import Transition
from activation.domain.segment_shard import SHARDS, shard_id
from activation.ports import Batch, Query
from activation.segments.codec import told_of
from activation.segments.minutes import micros_of
from activation.services.segment_shards import TRANSITIONS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the rows of a log."""

    counted: int
    duplicate: int
    refused: int


@dataclass(slots=True)
class Counts:
    """What the lines of this process say of rows."""

    counted: int = 0
    duplicate: int = 0
    refused: int = 0

    def saw(self, message: str, fields: Mapping[str, Any]) -> None:
        """Count one line."""
        if message == "events evaluated":
            self.counted += fields["events"]
            self.duplicate += fields["duplicates"]
        elif message == "events refused":
            self.refused += fields["events"]

    @property
    def outcome(self) -> Outcome:
        """What became of all rows so far."""
        return Outcome(self.counted, self.duplicate, self.refused)


@contextmanager
def counting() -> Iterator[Counts]:
    """Counts what is said from now on to the end of the block."""
    counts = Counts()
    observability.listen(counts)
    try:
        yield counts
    finally:
        observability.unlisten(counts)


@dataclass(frozen=True, slots=True)
class Report:
    """What an engine has made of a log.

    `state` is a digest of what every shard knows of its users and of who is in which segment, at
    the end of the log: it does not depend on how events were put into batches. `memberships` adds
    since when, `history` is all transitions: these follow the steps.
    """

    engine: str
    rows: int
    counted: int
    duplicate: int
    refused: int
    users: int
    members: int
    transitions: int
    state: str
    memberships: str
    history: str
    seconds: float = 0.0

    @property
    def digest(self) -> str:
        """All three in one."""
        return _hashed([self.state, self.memberships, self.history])


COMPARED = (
    *("rows", "counted", "duplicate", "refused", "users", "members", "transitions"),
    *("state", "memberships", "history"),
)


def differences(reports: Sequence[Report]) -> list[str]:
    """In what the reports are not all the same."""
    return [name for name in COMPARED if len({getattr(one, name) for one in reports}) > 1]


def prepare(app: App, log: Log) -> None:
    """Put the log's segments in force in empty stores."""
    app.organizations.ensure(ORGANIZATION)
    app.documents.commit(Batch(app.shards.books.change(ORGANIZATION, log.segments)))


def reported(engine: str, app: App, log: Log, outcome: Outcome) -> Report:
    """The report on what an engine has left in the stores."""
    states: list[str] = []
    pairs: list[str] = []
    stays: list[str] = []
    users = 0
    for shard in range(SHARDS):
        opened = app.shards.states.open(ORGANIZATION, shard)
        if opened.stored is None:
            continue
        state, book = opened.state, opened.book
        users += len(state.users)
        moved = replace(state, micros=max(state.micros, micros_of(log.end)))
        states.append(f"{shard_id(shard)} {moved.digest()}")
        for segment_id in book.segment_ids:
            pairs += [_line(user, segment_id) for user in state.members_of(segment_id, book)]
        for user in state.users.names:
            stays += [
                _line(user, one.segment_id, timestamp(one.entered_at))
                for one in state.memberships_of(user, book)
            ]
    told = [_told(one) for one in history(app)]
    return Report(
        engine,
        log.rows,
        outcome.counted,
        outcome.duplicate,
        outcome.refused,
        users,
        len(pairs),
        len(told),
        _hashed([*states, *sorted(pairs)]),
        _hashed(sorted(stays)),
        _hashed(sorted(told)),
    )


def history(app: App) -> Iterator[Transition]:
    """All transitions, newest step first."""
    after = None
    while True:
        query = Query(ORGANIZATION, TRANSITIONS, after=after)
        page = app.documents.query(query)
        for document in page:
            told = told_of(app.shards.parcels.opened(document))
            yield from told.transitions.listed(told.users, told.segment_ids, told.seq, told.micros)
        if len(page) < query.limit:
            return
        after = page[-1].key.id


def next_minute(app: App, end: datetime) -> datetime | None:
    """The minute, up to `end`, at which somebody has to be looked at without news."""
    from activation.digests.log import MINUTE
    from activation.services.shard_states import HEADS

    due = app.documents.due(HEADS, end, 1)
    if not due:
        return None
    at = datetime.fromisoformat(due[0].data["due_at"])
    minute = at.replace(second=0, microsecond=0)
    minute = minute if minute == at else minute + MINUTE
    return minute if minute <= end else None


def _told(one: Transition) -> str:
    return _line(one.user_id, one.segment_id, str(one.entered), timestamp(one.happened_at))


def _line(*texts: str) -> str:
    return "\x1f".join(texts)


def _hashed(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
