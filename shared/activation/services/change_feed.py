"""Changes of memberships as they happen: one look at the store for all who follow in a process.

While anybody follows an organization, one thread is told by the store how far its shards are,
reads the new steps once, and hands them to those whom they concern; now and then it looks by
itself, because a store's word can get lost. Who joins reads what he has missed from the store
himself, up to the step from which on he is handed everything: so nobody misses a change or gets
one twice, and nobody waits for anybody else.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from activation import observability
from activation.domain.change_position import Position
from activation.domain.membership import Transition
from activation.errors import ActivationError, NotFoundError
from activation.services.feed_targets import Target, Unread
from activation.services.head_watch import HeadWatch, Numbers
from activation.services.segment_changes import ALL_SHARDS, Look, SegmentChanges, Step

MAX_PENDING = 10_000
"""Changes that may wait for one who follows; when there are more, he has to come again."""
PAUSE_SECONDS = 0.05
"""Between two readings of steps, so that what comes close together is read together."""
MAX_PAUSE_SECONDS = 5.0
CLOSE_SECONDS = 2.0
SLOW, GONE, RESTORED, STOPPING = "slow", "gone", "restored", "stopping"

Wake = Callable[[], None]


class FeedMessage(NamedTuple):
    """One message: `entered`, `exited`, `size` or `segments` (the present state), `reset`, `end`.
    Who has read it reads on from `id`."""

    kind: str
    id: str
    data: dict[str, Any]

    def json(self) -> bytes:
        """The data as JSON text."""
        return orjson.dumps(self.data)


@dataclass(frozen=True, slots=True)
class Handed:
    """A step as it is handed to those whom it concerns, with the places around it."""

    step: Step
    before: Position
    after: Position


@dataclass(eq=False, slots=True)
class Follower:
    """One who follows. `beginning` first, to its end; then `taken` whenever `wake` was called.

    `ended` is the reason for which nothing more will come: he has to come again, with his last id.
    Used by one thread at a time.
    """

    feed: OrganizationFeed
    target: Target
    came: Position | None
    wake: Wake
    ended: str | None = None
    left: bool = False
    pending: int = 0
    handed: deque[Handed] = field(default_factory=deque)
    _position: Position | None = None

    def beginning(self) -> Iterator[list[FeedMessage]]:
        """What was missed, and the present state; reads the store."""
        self.feed.join(self)
        changes, organization_id = self.feed.changes, self.feed.organization_id
        numbers = self.target.count()
        look = Look(numbers, changes.look(organization_id, ()).era)
        counted = changes.place(self.target.shards, look)
        came, self._position = self.came, counted
        reason: str | None = None
        if came is not None:
            reason = changes.gap(organization_id, came, counted)
            if reason is None:
                yield from self._missed(came, counted)
                reason = changes.gap(organization_id, came, counted)  # what went meanwhile
            self._position = counted
        if reason is not None:
            observability.event("realtime reset", reason=reason)
            yield [self._message("reset", {"reason": reason, **self.target.present()})]
        else:
            yield [self._message(self.target.state, self.target.present())]

    def taken(self) -> list[FeedMessage]:
        """What has come since; nothing when nothing has."""
        handed, now = self.feed.take(self)
        found: list[FeedMessage] = []
        shards = self.target.shards
        for one in handed:
            self._position = self._place.joined(one.before.cut(shards))
            unread = self.target.unread(self._place, one.step)
            for _, change in unread:
                self.target.apply(change)
            found += self._shown(unread)
            self._position = self._place.joined(one.after.cut(shards))
        if now is not None:
            self._position = self._place.joined(now)
        if found:
            found.append(self._message(self.target.state, self.target.present()))
        return found

    def last(self, reason: str | None = None) -> FeedMessage:
        """The last message: why it ends."""
        why = reason or self.ended or STOPPING
        observability.event("realtime ended", reason=why)
        return self._message("end", {"reason": why})

    def check(self) -> None:
        """End when the caller does not see any more what he follows."""
        try:
            self.target.require()
        except NotFoundError:
            self.ended = self.ended or GONE

    def id(self) -> str:
        """The place to read on from, after all that was taken."""
        return self._place.text()

    @property
    def _place(self) -> Position:
        assert self._position is not None
        return self._position

    def _missed(self, after: Position, until: Position) -> Iterator[list[FeedMessage]]:
        """The changes between two places, step by step."""
        self._position = after
        for step in self.feed.changes.since(self.feed.organization_id, after, until):
            if self.target.weight(step):
                yield self._shown(self.target.unread(self._place, step))
                self._position = self._place.at(step.shard, step.number)

    def _shown(self, unread: Unread) -> list[FeedMessage]:
        found = [
            FeedMessage("entered" if change.entered else "exited", position.text(), shown)
            for position, change in unread
            if (shown := self.target.shown(change)) is not None
        ]
        if found:
            self._measure(unread[0][1], len(found))
        return found

    def _measure(self, change: Transition, count: int) -> None:
        waited = (self.feed.changes.clock.now() - change.told_at).total_seconds()
        observability.event(
            "realtime sent", level=logging.DEBUG, changes=count, waited_seconds=max(waited, 0.0)
        )

    def _message(self, kind: str, data: dict[str, Any]) -> FeedMessage:
        position = self._position or self.came
        return FeedMessage(kind, position.text() if position else "", data)


class OrganizationFeed:
    """Those of one process who follow changes of an organization, and the thread that looks: when
    it is told to, and every `poll_seconds`."""

    def __init__(
        self,
        organization_id: str,
        changes: SegmentChanges,
        poll_seconds: float,
        max_pending: int,
    ) -> None:
        self.organization_id, self.changes = organization_id, changes
        self._poll_seconds, self._max_pending = poll_seconds, max_pending
        self._followers: set[Follower] = set()
        self._look = Look({})
        self._heads = HeadWatch(changes.documents, organization_id, changes.clock)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._left = threading.Event()
        self._closed = False
        self._look_at = 0.0
        self._doubts = False

    def join(self, follower: Follower) -> None:
        """From now on, hand the follower every step that concerns him."""
        fresh = self.changes.look(self.organization_id, follower.target.shards)
        with self._lock:
            if self._thread is None:
                self._look = Look({}, fresh.era)
                self._look_at = self.changes.clock.monotonic() + self._poll_seconds
            self._look = Look({**fresh.numbers, **self._look.numbers}, self._look.era)
            self._followers.add(follower)
            if self._thread is None:
                name = f"activation-changes-{self.organization_id}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()

    def leave(self, follower: Follower) -> None:
        """Hand him nothing more; without anybody, nobody looks."""
        with self._lock:
            self._followers.discard(follower)
            if not self._followers:
                self._release()

    def take(self, follower: Follower) -> tuple[list[Handed], Position | None]:
        """What was handed to him, and the place of all that was looked at, while he is here."""
        with self._lock:
            handed = list(follower.handed)
            follower.handed.clear()
            follower.pending = 0
            if follower.ended is not None:
                return handed, None
            return handed, self.changes.place(follower.target.shards, self._look)

    def close(self) -> None:
        """Let everybody go, and look no more."""
        self._closed = True
        self.end(STOPPING)
        with self._lock:
            self._release()
        thread = self._thread
        if thread is not None:
            thread.join(CLOSE_SECONDS)

    def end(self, reason: str) -> None:
        """Let everybody go."""
        with self._lock:
            for follower in self._followers:
                follower.ended = follower.ended or reason
                follower.wake()

    def _release(self) -> None:
        self._left.set()
        self._heads.stop()

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        while True:
            with self._lock:
                if not self._followers or self._closed:
                    self._thread = None
                    return
                self._left.clear()
                self._heads.go_on()
            try:
                pause = PAUSE_SECONDS if self._wait_and_poll() else pause
            except ActivationError as error:
                observability.event("realtime waits", code=error.code)
                pause, self._doubts = min(pause * 2, MAX_PAUSE_SECONDS), True
            except Exception as error:  # noqa: BLE001 - without this thread nobody hears anything
                observability.failure("realtime poll failed", error)
                pause, self._doubts = MAX_PAUSE_SECONDS, True
            self._left.wait(pause)

    def _wait_and_poll(self) -> bool:
        """Wait until the store tells something, or it is time to look without that; after a failure
        look at once. Whether it could be waited."""
        clock, waits = self.changes.clock, not self._doubts
        told = self._heads.wait(max(self._look_at - clock.monotonic(), 0.0)) if waits else {}
        if self._left.is_set():
            return waits
        known = self._look.numbers
        moved = [number - known[shard] for shard, number in told.items() if shard in known]
        if not told or clock.monotonic() >= self._look_at or min(moved, default=0) < 0:
            self._poll(known)
            self._look_at, self._doubts = clock.monotonic() + self._poll_seconds, False
        elif any(moved):
            self._poll({})
        return waits

    def _poll(self, doubted: Numbers) -> None:
        """Hand out what is new: as was told, and of doubted shards as the store has it."""
        before = self._look
        look = self.changes.look(self.organization_id, doubted)
        went_back = any(number < before.numbers[shard] for shard, number in look.numbers.items())
        if went_back or look.era != before.era:
            self._end_restored()
            return
        reached = self._heads.reached({**before.numbers, **look.numbers})
        for step in self.changes.steps(self.organization_id, before.numbers, reached):
            self._hand_out(step)
        with self._lock:
            self._look = Look({**self._look.numbers, **reached}, look.era)
        if doubted:
            self._heads.checked(look.numbers)

    def _end_restored(self) -> None:
        self.end(RESTORED)
        self._heads.renew()
        look = self.changes.look(self.organization_id, self._look.numbers)
        with self._lock:
            self._look = Look({**self._look.numbers, **look.numbers}, look.era)

    def _hand_out(self, step: Step) -> None:
        with self._lock:
            numbers = {**self._look.numbers, step.shard: step.number}
            before = self.changes.place(ALL_SHARDS, self._look)
            self._look = Look(numbers, self._look.era)
            after = self.changes.place(ALL_SHARDS, self._look)
            for follower in self._followers:
                count = follower.target.weight(step)
                if count and follower.ended is None:
                    self._hand(follower, Handed(step, before, after), count)

    def _hand(self, follower: Follower, handed: Handed, count: int) -> None:
        """Put a step into his queue; when there is too much in it, he gets that and no more."""
        if follower.handed and follower.pending + count > self._max_pending:
            follower.ended = SLOW
        else:
            follower.handed.append(handed)
            follower.pending += count
        follower.wake()
