"""One seed is one story of a shard: events that come twice, late and out of order, workers that
meet and die at any store call, messages that nobody confirmed, a clock that jumps.

Each worker is a thread of which one at a time may go on, to its next store call: who goes on, and
who dies there, is the seed's choice. At the end nothing is missing and nothing is there twice.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.adapters.embedded.documents import SqliteDocuments
from activation.domain.event import Event
from activation.domain.membership import Transition
from activation.domain.segment import Segment
from activation.errors import ActivationError
from activation.ports import Batch, DeadLetter, Message, Query
from activation.services.kept_states import KeptStates
from activation.services.segment_shards import TRANSITIONS, ShardWorker
from tests.faults.ports import Crash
from tests.segments.recount import memberships
from tests.segments.shards import worker_on
from tests.segments.worlds import NOON, segment

MINUTE = timedelta(minutes=1)
USERS = ("ann", "bob")
LAST_EVENT = 8
END = 24
"""Minutes: after it no window holds anything any more."""
SHARD = 0
ON = (
    segment(
        "busy",
        rules=[{"event_type": "clicks", "operator": "GTE", "value": 3, "window_minutes": 4}],
    ),
    segment(
        "calm",
        rules=[{"event_type": "clicks", "operator": "LTE", "value": 1, "window_minutes": 3}],
    ),
    segment(
        "rich",
        rules=[
            {
                "event_type": "clicks",
                "attribute": "sum",
                "operator": "GT",
                "value": 0.5,
                "window_minutes": 6,
            }
        ],
    ),
    segment("odd", expression="busy OR (calm AND rich)"),
)
LATER = (
    segment(
        "busy",
        rules=[{"event_type": "clicks", "operator": "GTE", "value": 2, "window_minutes": 5}],
    ),
    *ON[1:],
)


class Gate:
    """Where one thread waits until the story lets it go on; `die` says that it does not."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.arrived = threading.Semaphore(0)
        self.die = False
        self.dead = False

    def wait(self) -> None:
        """Called before and after every store call."""
        if self.dead:
            raise Crash
        self.arrived.release()
        self.go.acquire()
        if self.die:
            self.dead = True
            raise Crash


class Gated:
    """A store at whose every call a worker waits, and may die before or after it took effect."""

    def __init__(self, inner: Any, gate: Gate, calls: Sequence[str]) -> None:
        self._inner, self._gate, self._calls = inner, gate, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return partial(self._call, found) if name in self._calls else found

    def _call(self, act: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self._gate.wait()
        result = act(*args, **options)
        self._gate.wait()
        return result


@dataclass(slots=True)
class Wire:
    """A bus with one subscriber, who hears of a message at once, and only once by its id."""

    hear: Callable[[Message], None]
    known: set[str] = field(default_factory=set)

    def publish(self, messages: Sequence[Message]) -> None:
        """Take messages; the same one may come again."""
        for message in messages:
            if message.id not in self.known:
                self.known.add(message.id)
                self.hear(message)

    def dead_letters(self, subscription: str, limit: int = 100) -> list[DeadLetter]:
        """None: the subscriber takes everything."""
        return []

    def redrive(self, subscription: str, limit: int = 100) -> int:
        """Nothing to do."""
        return 0

    def revise(self, subscription: str, revised: Callable[[Message], Message | None]) -> bool:
        """There is nothing to change."""
        return True

    def ping(self) -> None:
        """It is there."""


@dataclass(frozen=True, slots=True)
class Work:
    """Something that a worker has to do: events, or a sweep when there are none."""

    events: tuple[Event, ...] = ()


@dataclass(slots=True)
class Running:
    """A worker at its work."""

    work: Work
    gate: Gate
    thread: threading.Thread
    done: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Ground:
    """Stores in which many stories take place, each in an organization of its own."""

    documents: SqliteDocuments
    blobs: FileBlobs
    clock: MovableClock

    @classmethod
    def in_folder(cls, folder: Path) -> Ground:
        """Empty stores."""
        clock = MovableClock(NOON)
        return cls(
            SqliteDocuments(folder / "documents.sqlite", clock),
            FileBlobs(folder / "segments", clock, sync=lambda _file: None),
            clock,
        )


@dataclass(slots=True)
class Story:
    """One seed."""

    ground: Ground
    seed: int
    kind: type[ShardWorker] = ShardWorker
    crash: float = 0.05
    twice: float = 0.25
    draw: random.Random = field(init=False)
    wire: Wire = field(init=False)
    heard: list[Transition] = field(default_factory=list)
    too_early: int = 0
    events: list[Event] = field(default_factory=list)
    queue: list[Work] = field(default_factory=list)
    workers: list[Running] = field(default_factory=list)
    processes: list[ShardWorker] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.wire = Wire(self._hear)

    def _hear(self, message: Message) -> None:
        found = self.read(message.data["number"])
        self.too_early += not found
        self.heard += found

    @property
    def organization(self) -> str:
        """Where the story takes place."""
        return f"{self.kind.__name__}-{self.seed}"

    def told(self) -> list[Transition]:
        """All transitions that were committed."""
        query = Query(self.organization, TRANSITIONS, {"shard": SHARD}, limit=1_000)
        found = self.ground.documents.query(query)
        return [one for step in found for one in self.read(int(step.key.id.split("-")[1]))]

    def read(self, number: int) -> list[Transition]:
        """The transitions of one step."""
        return self.fresh().told(self.organization, SHARD, number)

    def fresh(self) -> ShardWorker:
        """A process that nothing happens to."""
        return worker_on(
            self.ground.documents,
            self.ground.blobs,
            self.wire,
            self.ground.clock,
            kind=self.kind,
        )

    def run(self) -> set[str]:
        """Live through it; returns what is wrong at the end, in words."""
        self.ground.clock.set(NOON)
        self._define(ON)
        self.events = [self._event(number) for number in range(self.draw.randint(4, 14))]
        coming = self._coming()
        rules_change = self.draw.choice([None, self.draw.randint(1, LAST_EVENT)])
        segments: Sequence[Segment] = ON
        for half in range(2 * LAST_EVENT + 8):
            now = NOON + half * MINUTE / 2 + timedelta(seconds=self.draw.randint(0, 29))
            jump = self.draw.choice([0] * 9 + [-3])
            self.ground.clock.set(now + jump * MINUTE)
            if rules_change is not None and half == 2 * rules_change:
                segments = LATER
                self._define(segments)
            while coming and coming[0][0] <= now:
                self.queue.append(coming.pop(0)[1])
            if half % 2:
                self.queue.append(Work())
            self._play(self.draw.randint(0, 40))
        try:
            self._finish([work for _, work in coming])
            return self._wrong(segments)
        except ActivationError as error:
            return {f"the shard cannot go on: {error.code}"}

    # what happens ---------------------------------------------------------------------------------

    def _event(self, number: int) -> Event:
        at = NOON + timedelta(seconds=self.draw.randint(0, 60 * LAST_EVENT))
        return Event.model_validate(
            {
                "user_id": self.draw.choice(USERS),
                "event_type": "clicks",
                "timestamp": at,
                "attributes": {"value": self.draw.choice([0.1, 0.2, 0.3])},
                "event_id": f"e{number}",
            }
        )

    def _coming(self) -> list[tuple[datetime, Work]]:
        found = []
        for event in self.events:
            at = event.timestamp + timedelta(seconds=self.draw.choice([0, 1, 30, 90, 200, -60]))
            found.append((at, event))
            while self.draw.random() < self.twice:
                found.append((at + timedelta(seconds=self.draw.choice([0, 5, 150])), event))
        found.sort(key=lambda one: (one[0], one[1].event_id))
        works = []
        while found:
            size = self.draw.choice([1, 1, 2, 3])
            some, found = found[:size], found[size:]
            works.append((some[-1][0], Work(tuple(event for _, event in some))))
        return works

    def _define(self, segments: Sequence[Segment]) -> None:
        books = self.fresh().books
        self.ground.documents.commit(Batch(books.change(self.organization, segments)))

    def _play(self, steps: int) -> None:
        """Let workers go on, one store call at a time."""
        for _ in range(steps):
            while self.queue and len(self.workers) < 3:
                self._start(self.queue.pop(self.draw.randrange(len(self.queue))))
            if not self.workers:
                return
            self._advance(self.draw.choice(self.workers), self.crash)

    def _finish(self, late: list[Work]) -> None:
        """No more faults: everything is delivered, swept and relayed."""
        self.queue += late
        while self.workers:
            self._advance(self.workers[0], 0.0)
        self.ground.clock.set(NOON + (LAST_EVENT + 6) * MINUTE)
        worker = self.fresh()
        for work in self.queue:
            self._act(worker, work)
        for minutes in (END, END, END + 1):
            self.ground.clock.set(NOON + minutes * MINUTE)
            worker.adopt(self.organization, SHARD)
            while worker.sweep_shard(self.organization, SHARD):
                pass
        self._relay(worker)

    def _relay(self, worker: ShardWorker) -> None:
        left = self.ground.documents.query(Query(self.organization, "outbox", limit=1_000))
        from activation.message_codec import message_of

        worker.commits.publish([message_of(one) for one in left])

    def _start(self, work: Work) -> None:
        gate = Gate()
        worker = self._process(gate)
        running = Running(work, gate, threading.Thread())
        running.thread = threading.Thread(target=self._live, args=(running, worker), daemon=True)
        self.workers.append(running)
        running.thread.start()
        gate.arrived.acquire()

    def _process(self, gate: Gate) -> ShardWorker:
        """A process for one piece of work; its memory may be an older one's, as life has it."""
        reads, acts = ("get", "get_many", "query", "due"), ("commit", "publish", "put", "delete")
        documents = Gated(self.ground.documents, gate, (*reads, *acts))
        wire = Gated(self.wire, gate, acts)
        blobs = Gated(self.ground.blobs, gate, ("get", *acts))
        fold = self.draw.choice([1, 3, 64])
        worker = worker_on(
            documents,
            blobs,
            wire,
            self.ground.clock,
            fold_every=fold,
            kind=self.kind,
        )
        if self.processes and self.draw.random() < 0.7:
            older = self.draw.choice(self.processes)
            for shard, (kept, _) in older.states.kept._states.items():
                worker.states.kept.put(shard, kept)
            worker.books._books.update(older.books._books)
        self.processes.append(worker)
        return worker

    def _live(self, running: Running, worker: ShardWorker) -> None:
        try:
            running.gate.wait()
            self._act(worker, running.work)
        except Crash:
            running.failed = True
            object.__setattr__(worker.states, "kept", KeptStates())
        except ActivationError:
            running.failed = True
        finally:
            running.done = True
            running.gate.arrived.release()

    def _act(self, worker: ShardWorker, work: Work) -> None:
        if work.events:
            worker.process(self.organization, SHARD, work.events)
        else:
            worker.sweep_shard(self.organization, SHARD, users=1)

    def _advance(self, running: Running, crash: float) -> None:
        running.gate.die = self.draw.random() < crash
        self.tally["crashes"] += running.gate.die
        self.tally["calls"] += 1
        running.gate.go.release()
        running.gate.arrived.acquire()
        if running.done:
            running.thread.join()
            self.workers.remove(running)
            unconfirmed = self.draw.random() < crash
            if running.failed or unconfirmed:
                self.queue.append(running.work)

    # what is wrong --------------------------------------------------------------------------------

    def _wrong(self, segments: Sequence[Segment]) -> set[str]:
        told = self.told()
        wrong = {*self._wrong_turns(told), *self._wrong_notices(told)}
        opened = self.fresh().states.open(self.organization, SHARD)
        now = self.ground.clock.now()
        expected = memberships(segments, self.events, now, now)
        found = {
            (user, one)
            for user in opened.state.users.names
            for one in opened.state.segments_of(user, opened.book)
        }
        if found != expected:
            wrong.add("memberships differ from a recount")
        if self.kind is ShardWorker and len(opened.state.seen) != len(self.events):
            wrong.add("events counted differ from distinct events")
        if self.ground.documents.count(Query(self.organization, "outbox")):
            wrong.add("something is left in the outbox")
        inside: set[tuple[str, str]] = set()
        for one in sorted(told, key=lambda transition: transition.seq):
            (inside.add if one.entered else inside.discard)((one.user_id, one.segment_id))
        if inside != expected:
            wrong.add("what was told does not lead to the memberships")
        self.tally["transitions"] += len(told)
        return wrong

    def _wrong_turns(self, told: Sequence[Transition]) -> set[str]:
        last: dict[tuple[str, str], tuple[int, bool]] = {}
        for one in sorted(told, key=lambda transition: transition.seq):
            seq, entered = last.get((one.user_id, one.segment_id), (0, False))
            if one.seq == seq:
                return {"a seq was used twice"}
            if one.entered == entered:
                return {"entries and exits do not take turns"}
            last[one.user_id, one.segment_id] = (one.seq, one.entered)
        return set()

    def _wrong_notices(self, told: Sequence[Transition]) -> set[str]:
        """What the subscriber heard, and what was committed."""
        heard = Counter((one.user_id, one.segment_id, one.seq, one.entered) for one in self.heard)
        committed = {(one.user_id, one.segment_id, one.seq, one.entered) for one in told}
        wrong = set()
        if self.too_early or heard.keys() - committed:
            wrong.add("something was told that had not come to be")
        if committed - heard.keys():
            wrong.add("a transition was never told")
        if max(heard.values(), default=1) > 1:
            wrong.add("a transition was told twice")
        return wrong
