"""Messages in SQLite: a durable queue per subscription, delivered in this process."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import orjson

from activation import observability
from activation.adapters.embedded.database import Database
from activation.adapters.embedded.presence import Presence
from activation.errors import ActivationError
from activation.message_codec import Subscription, decode, encode
from activation.ports import Clock, DeadLetter, Message

SCHEMA = (
    # `ready_at` is when the message may be delivered (seconds since 1970): now, after a pause, or
    # when its present lease runs out. It is NULL while an earlier message of its lane is there, so
    # that one step along an index finds the next message, however long the lanes are.
    """CREATE TABLE IF NOT EXISTS queue (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        subscription TEXT NOT NULL, lane TEXT, data BLOB NOT NULL, attributes BLOB NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, ready_at REAL)""",
    """CREATE INDEX IF NOT EXISTS queue_ready ON queue (ready_at, seq)
        WHERE ready_at IS NOT NULL""",
    "CREATE INDEX IF NOT EXISTS queue_lane ON queue (subscription, lane, seq)",
    """CREATE TABLE IF NOT EXISTS dead_letters (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        subscription TEXT NOT NULL, lane TEXT, data BLOB NOT NULL, attributes BLOB NOT NULL,
        attempts INTEGER NOT NULL, reason TEXT NOT NULL)""",
    # Who has taken a message, so that it need not wait for its lease when he has died.
    "CREATE TABLE IF NOT EXISTS holders (seq INTEGER PRIMARY KEY, holder TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS dead_letters_of ON dead_letters (subscription, seq)",
)

_ENQUEUE = """INSERT INTO queue (subscription, lane, data, attributes, ready_at)
    VALUES (?1, ?2, ?3, ?4, CASE WHEN EXISTS
        (SELECT 1 FROM queue WHERE subscription = ?1 AND lane = ?2) THEN NULL ELSE ?5 END)"""
_NEXT = """SELECT seq, subscription, lane, data, attributes, attempts
    FROM queue INDEXED BY queue_ready
    WHERE ready_at <= ? AND subscription IN (SELECT value FROM json_each(?))
    ORDER BY ready_at, seq LIMIT 1"""
_NEXT_READY = """SELECT ready_at FROM queue INDEXED BY queue_ready
    WHERE ready_at IS NOT NULL AND subscription IN (SELECT value FROM json_each(?))
    ORDER BY ready_at LIMIT 1"""
_LEASE = "UPDATE queue SET attempts = ?, ready_at = ? WHERE seq = ?"
_REMOVE = "DELETE FROM queue WHERE seq = ? AND attempts = ?"
_POSTPONE = "UPDATE queue SET ready_at = ? WHERE seq = ? AND attempts = ?"
_RELEASE_LANE = """UPDATE queue SET ready_at = ? WHERE seq =
    (SELECT min(seq) FROM queue WHERE subscription = ? AND lane = ?)"""
_BURY = """INSERT INTO dead_letters (subscription, lane, data, attributes, attempts, reason)
    VALUES (?, ?, ?, ?, ?, ?)"""
_DEAD = """SELECT seq, subscription, lane, data, attributes, attempts, reason FROM dead_letters
    WHERE subscription = ? ORDER BY seq LIMIT ?"""
_DEAD_AFTER = """SELECT seq, data, attributes FROM dead_letters
    WHERE subscription = ? AND seq > ? ORDER BY seq LIMIT 100"""
_REPLACE = "UPDATE dead_letters SET data = ? WHERE seq = ?"
_UNBURY = "DELETE FROM dead_letters WHERE seq = ?"

_BEHIND = """SELECT seq, data, attributes, attempts FROM queue
    WHERE subscription = ? AND lane = ? AND seq > ? ORDER BY seq LIMIT ?"""
_TAKE_ALONG = "UPDATE queue SET attempts = 1 WHERE seq = ?"
_REMOVE_ALONG = "DELETE FROM queue WHERE seq = ?"

_HOLD = "INSERT OR REPLACE INTO holders (seq, holder) VALUES (?, ?)"
_LET_GO = "DELETE FROM holders WHERE seq = ?"
_HOLDERS = "SELECT DISTINCT holder FROM holders"
_FREE = """UPDATE queue SET ready_at = ?1
    WHERE ready_at > ?1 AND seq IN (SELECT seq FROM holders WHERE holder = ?2)"""
_FORGET = "DELETE FROM holders WHERE holder = ?"

NO_ANSWER = "no answer within the ack deadline"
LOOK_SECONDS = 10.0
"""How often a deliverer looks whether another one has died."""
MAX_JOINED = 64
MAX_JOINED_BYTES = 1_000_000
"""How many messages of a lane, and how many bytes, may be handed out as one."""

Handler = Callable[[str, Message, int], None]
"""Gets subscription, message and the number of the attempt (1-based); raises to see it again."""

Join = Callable[[Message, Message], Message | None]
"""A message that says what both say, the second one after the first; None when none can."""


@dataclass(frozen=True, slots=True)
class _Lease:
    """A message in the hands of one deliverer; `attempt` tells his lease from later ones."""

    seq: int
    subscription: str
    lane: str | None
    data: bytes
    attributes: bytes
    attempt: int
    joined: Message | None = None
    """What is handed out instead, when messages behind it were taken along."""
    along: tuple[int, ...] = ()

    @property
    def message(self) -> Message:
        return self.joined or decode(self.data, orjson.loads(self.attributes), "")


class SqliteBus:
    """The port MessageBus on one file, for any number of threads and processes.

    `subscriptions` says who gets the messages of each topic; a topic that is not in it is our
    mistake and raises ValueError. Of a subscription in `joins`, messages of one ordering key that
    wait behind each other are handed out together, at their first attempt.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        subscriptions: Mapping[str, Sequence[Subscription]],
        joins: Mapping[str, Join] | None = None,
    ) -> None:
        self._clock = clock
        self._joins = joins or {}
        self._topics = dict(subscriptions)
        self._known = {s.name: s for group in subscriptions.values() for s in group}
        self._names = orjson.dumps(sorted(self._known)).decode()
        self._news = threading.Condition()
        self._presence, self._look_at = Presence(path), 0.0
        self._database = Database(path, SCHEMA)

    def publish(self, messages: Sequence[Message]) -> None:
        """Return when every subscription has its copy on disk."""
        rows = [row for message in messages for row in self._copies(message)]
        if rows:
            self._database.write(lambda connection: self._enqueue(connection, rows))
            self._announce()

    def dead_letters(self, subscription: str, limit: int = 100) -> list[DeadLetter]:
        """The oldest dead letters of a subscription."""
        with self._database.read() as connection:
            rows = connection.execute(_DEAD, (subscription, limit)).fetchall()
        return [
            DeadLetter(name, decode(data, orjson.loads(attributes), ""), attempts, reason)
            for _, name, _, data, attributes, attempts, reason in rows
        ]

    def redrive(self, subscription: str, limit: int = 100) -> int:
        """Put dead letters back at the end of their subscription's queue; returns how many."""
        moved = self._database.write(lambda c: self._unbury(c, subscription, limit))
        self._announce()
        return moved

    def revise(self, subscription: str, revised: Callable[[Message], Message | None]) -> bool:
        """Put in the place of each dead letter what `revised` makes of it. One that is redriven
        meanwhile is left alone."""
        after = 0
        while rows := self._dead_after(subscription, after):
            found = [(seq, decode(d, orjson.loads(a), "")) for seq, d, a in rows]
            made = [(seq, message, revised(message)) for seq, message in found]
            changes = [(seq, new) for seq, message, new in made if new is not message]
            if changes:
                self._database.write(partial(self._replace, changes))
            after = rows[-1][0]
        return True

    def ping(self) -> None:
        """Return when the bus answers."""
        with self._database.read() as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()

    def close(self) -> None:
        """Release the file, and everybody in `wait`."""
        self._database.close()
        self._presence.end()
        self._announce()

    # The delivering side --------------------------------------------------------------------

    def deliver_due(self, handler: Handler, limit: int = 100, only: Sequence[str] = ()) -> int:
        """Call `handler` for up to `limit` (at least 1) ready messages; returns the calls made.
        `only`: those of these subscriptions.

        Messages of one ordering key are handled one at a time and in order. When the handler
        raises, the message comes again after the subscription's back-off (or what the error's
        `retry_after_seconds` says), and is a dead letter after its last attempt. A deliverer that
        takes longer than the ack deadline is taken for failed; one whose process has died is
        noticed within seconds.
        """
        delivered, names = 0, self._asked(only)
        lease = self._database.write(partial(self._lease, names))
        while lease is not None:
            settle = self._handled(lease, handler)
            delivered += 1
            more = names if delivered < limit else None
            lease = self._database.write(partial(self._go_on, settle, more))
            self._announce()
        return delivered

    def wait(self, timeout_seconds: float, only: Sequence[str] = ()) -> bool:
        """Block until a message (of `only` these subscriptions) may be ready, `timeout_seconds` at
        most; whether one may be.

        Messages published by other processes are not announced here: bound the time.
        """
        names = self._asked(only)
        with self._news:
            delay = self._seconds_to_next(names)
            if delay > 0:
                self._news.wait(min(delay, timeout_seconds))
                delay = self._seconds_to_next(names)
        return delay <= 0

    def _asked(self, only: Sequence[str]) -> str:
        return orjson.dumps(sorted(only)).decode() if only else self._names

    def _handled(self, lease: _Lease, handler: Handler) -> Callable[[sqlite3.Connection], object]:
        """Call the handler; returns what is to be written of it."""
        try:
            handler(lease.subscription, lease.message, lease.attempt)
        except Exception as error:  # noqa: BLE001 - every failure of a handler means: once more
            return partial(self._failed, lease, error)
        return partial(self._finish, lease)

    def _go_on(
        self,
        settle: Callable[[sqlite3.Connection], object],
        more: str | None,
        connection: sqlite3.Connection,
    ) -> _Lease | None:
        """Settle one message and take the next, with one sync of the disk for both."""
        settle(connection)
        return None if more is None else self._lease(more, connection)

    def _lease(self, names: str, connection: sqlite3.Connection) -> _Lease | None:
        """Take the next message; one that was taken for the last time and not answered is dead."""
        while True:
            now = self._now()
            if not self._look_at - LOOK_SECONDS <= now < self._look_at:
                self._free(now, connection)
            row = connection.execute(_NEXT, (now, names)).fetchone()
            if row is None:
                return None
            last = _Lease(*row)
            policy = self._known[last.subscription]
            if last.attempt < policy.max_attempts:
                lease = replace(last, attempt=last.attempt + 1)
                until = now + policy.ack_deadline_seconds
                connection.execute(_LEASE, (lease.attempt, until, lease.seq))
                connection.execute(_HOLD, (lease.seq, self._presence.name))
                return self._joined(lease, connection)
            self._bury(last, NO_ANSWER, connection)

    def _free(self, now: float, connection: sqlite3.Connection) -> None:
        """Let messages be taken at once that somebody holds who has died."""
        self._look_at = now + LOOK_SECONDS
        self._presence.begin()
        for (holder,) in connection.execute(_HOLDERS).fetchall():
            if self._presence.is_gone(holder):
                connection.execute(_FREE, (now, holder))
                connection.execute(_FORGET, (holder,))

    def _joined(self, lease: _Lease, connection: sqlite3.Connection) -> _Lease:
        """The lease with what may be taken along. What was tried once goes alone: so a message
        that fails does not fail others for good."""
        join = self._joins.get(lease.subscription)
        if join is None or lease.lane is None or lease.attempt > 1:
            return lease
        joined, along, size = lease.message, [], len(lease.data)
        asked = (lease.subscription, lease.lane, lease.seq, MAX_JOINED - 1)
        for seq, data, attributes, attempts in connection.execute(_BEHIND, asked):
            size += len(data)
            if attempts or size > MAX_JOINED_BYTES:
                break
            both = join(joined, decode(data, orjson.loads(attributes), ""))
            if both is None:
                break
            joined = both
            along.append(seq)
        connection.executemany(_TAKE_ALONG, [(seq,) for seq in along])
        return replace(lease, joined=joined, along=tuple(along)) if along else lease

    def _failed(self, lease: _Lease, error: Exception, connection: sqlite3.Connection) -> None:
        policy = self._known[lease.subscription]
        if lease.attempt >= policy.max_attempts:
            alone = replace(lease, joined=None, along=())
            self._bury(alone, _reason(error), connection)
            return
        told = getattr(error, "retry_after_seconds", None)
        delay = policy.backoff_seconds(lease.attempt) if told is None else told
        if connection.execute(_POSTPONE, (self._now() + delay, lease.seq, lease.attempt)).rowcount:
            connection.execute(_LET_GO, (lease.seq,))

    def _bury(self, lease: _Lease, reason: str, connection: sqlite3.Connection) -> None:
        if self._finish(lease, connection):
            values = (lease.subscription, lease.lane, lease.data, lease.attributes, lease.attempt)
            connection.execute(_BURY, (*values, reason))
            observability.event(
                "dead letter",
                level=logging.ERROR,
                function=lease.subscription,
                message_id=lease.message.id,
                organization=lease.message.organization_id,
                trace=lease.message.trace_id,
            )

    def _finish(self, lease: _Lease, connection: sqlite3.Connection) -> bool:
        """Remove the message and let its lane go on; False when the lease is no longer ours."""
        if connection.execute(_REMOVE, (lease.seq, lease.attempt)).rowcount == 0:
            return False
        connection.execute(_LET_GO, (lease.seq,))
        connection.executemany(_REMOVE_ALONG, [(seq,) for seq in lease.along])
        if lease.lane is not None:
            connection.execute(_RELEASE_LANE, (self._now(), lease.subscription, lease.lane))
        return True

    def _unbury(self, connection: sqlite3.Connection, subscription: str, limit: int) -> int:
        rows = connection.execute(_DEAD, (subscription, limit)).fetchall()
        self._enqueue(connection, (row[1:5] for row in rows))
        connection.executemany(_UNBURY, [row[:1] for row in rows])
        return len(rows)

    def _dead_after(self, subscription: str, after: int) -> list[tuple[int, bytes, bytes]]:
        with self._database.read() as connection:
            return connection.execute(_DEAD_AFTER, (subscription, after)).fetchall()

    def _replace(
        self, changes: Sequence[tuple[int, Message | None]], connection: sqlite3.Connection
    ) -> None:
        for seq, message in changes:
            if message is None:
                connection.execute(_UNBURY, (seq,))
            else:
                connection.execute(_REPLACE, (encode(message)[0], seq))

    def _enqueue(
        self, connection: sqlite3.Connection, rows: Iterable[tuple[str, str | None, bytes, bytes]]
    ) -> None:
        now = self._now()
        connection.executemany(_ENQUEUE, [(*row, now) for row in rows])

    def _copies(self, message: Message) -> list[tuple[str, str | None, bytes, bytes]]:
        if message.topic not in self._topics:
            raise ValueError(f"There is no topic {message.topic}.")
        published_at = message.published_at or self._clock.now()
        data, attributes = encode(replace(message, published_at=published_at))
        packed = orjson.dumps(attributes)
        return [
            (subscription.name, message.ordering_key, data, packed)
            for subscription in self._topics[message.topic]
        ]

    def _seconds_to_next(self, names: str) -> float:
        with self._database.read() as connection:
            row = connection.execute(_NEXT_READY, (names,)).fetchone()
        return float("inf") if row is None else float(row[0]) - self._now()

    def _announce(self) -> None:
        with self._news:
            self._news.notify_all()

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _reason(error: Exception) -> str:
    """What may be kept of a failure: our own errors in full, of others only the kind."""
    if isinstance(error, ActivationError):
        return f"{error.code}: {error.message}"
    return type(error).__name__
