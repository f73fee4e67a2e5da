"""Runs of one flow: without a crash, and with one at every store call.

A run: the client asks, the workers handle the messages; somewhere on the way the process dies. A
new process finds the same stores, later. Then, in one of two orders, the client (who had no
answer) asks again with his key, and everything that waits is delivered; at last every message and
the request come once more. What the stores say then must be what they say after a run that no
crash disturbed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from activation.app import App
from activation.domain.job import JobKind
from activation.services.audience_sweep import GRACE
from tests.faults.deliveries import caught_up
from tests.faults.platforms import platforms_of
from tests.faults.ports import Crash, Fault, Tape, When
from tests.faults.state import (
    BrokenError,
    Members,
    broken,
    members_by_version,
    orphans,
    unjournalled,
    unsettled,
    view,
)
from tests.faults.world import (
    ANN,
    ROUND_SECONDS,
    Act,
    Answer,
    Scene,
    World,
    handle,
    handle_own,
    insist,
    settle,
)

T = TypeVar("T")

SEED = 20261121
KEY = "key-1"
AFTER_GRACE = GRACE.total_seconds() + 3600


def nothing(_app: App, _scene: Scene, _answer: Answer) -> None:
    """The client does nothing more."""


def as_it_is(_app: App) -> None:
    """Nothing is another one."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One thing that people or the clock let happen.

    `prepare` makes what the flow finds; `act` is the request. `then` is what the client does after
    its answer, such as sending a file, and does again when he is not sure of it.
    """

    name: str
    prepare: Callable[[App], Scene]
    act: Act
    then: Callable[[App, Scene, Answer], None] = nothing
    asks: Callable[[App, Scene, str, Act], Answer] = insist
    refit: Callable[[App], None] = as_it_is
    """What makes each process of its worlds another one."""
    exact: bool = True
    """Whether all runs of it end alike; where chance has its say, only what must hold counts."""
    ages: bool = False
    """Whether its members change with time alone: users leave segments by silence."""


@dataclass(slots=True)
class Report:
    """Runs of one flow, and which of them were bad."""

    name: str
    calls: int = 0
    runs: int = 0
    bad: list[str] = field(default_factory=list)

    def add(self, run: str, found: Sequence[str]) -> None:
        """Count a run with what was wrong in it."""
        self.runs += 1
        if found:
            self.bad.append(f"{run}: {'; '.join(found)}")


@dataclass(frozen=True, slots=True)
class Expected:
    """What the stores say after a run without a crash."""

    view: Mapping[str, Any]
    effects: Sequence[str]
    tearable: Sequence[int]
    reads: Sequence[str]
    before: Mapping[str, Any]
    """What they say when the flow never happened."""


class Lab:
    """Worlds in one folder (best on a RAM disk), and the runs made in them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prepared: dict[Callable[[App], Scene], World] = {}
        self._numbers = itertools.count()
        self._good: set[str] = set()

    def world(
        self, prepare: Callable[[App], Scene], refit: Callable[[App], None] = as_it_is
    ) -> World:
        """A fresh copy of what `prepare` makes, for processes that are fitted by `refit`."""
        if prepare not in self._prepared:
            self._prepared[prepare] = World.made(self._new_folder(), prepare)
        return replace(self._prepared[prepare].copied_to(self._new_folder()), refit=refit)

    def _new_folder(self) -> Path:
        return self._folder / f"world-{next(self._numbers)}"

    def caught_up(self, app: App, seen: Mapping[str, Any]) -> list[str]:
        """What is wrong after one more run from the state `seen`. Of one state only once: it
        decides what follows."""
        state = str(seen)
        if state in self._good:
            return []
        found = [*caught_up(app), *broken(app, {}), *unsettled(app)]
        if not found:
            self._good.add(state)
        return found

    # without a crash --------------------------------------------------------------------------

    def expected(self, flow: Flow) -> Expected:
        """Let the flow happen undisturbed, and take down what the stores say then."""
        expected, problems = self._undisturbed(flow)
        assert not problems, f"{flow.name} without a crash: {problems}"
        return expected

    def once(self, flow: Flow, right: Expected) -> list[str]:
        """Let a flow happen undisturbed; how it differs from the right one."""
        expected, problems = self._undisturbed(flow)
        return problems or differences(right.view, expected.view)

    def recorded(self, flow: Flow, right: Expected) -> Expected:
        """The calls of a flow, to be judged by what the right one leads to."""
        expected, _ = self._undisturbed(flow)
        calls = expected.effects, expected.tearable, expected.reads
        return Expected(right.view, *calls, right.before)

    def _undisturbed(self, flow: Flow) -> tuple[Expected, list[str]]:
        world = self.world(flow.prepare, flow.refit)
        with world.process(Tape()) as app:
            before, versions = view(app), members_by_version(app)
        tape = Tape()
        with world.process(tape) as app:
            play(app, tape, world.scene, flow)
        calls = tuple(tape.effects), tuple(tape.tearable), tuple(tape.reads)
        with world.process(Tape()) as app:
            settle(app)
            problems = [*broken(app, versions), *unsettled(app)]
            after = view(app) if not problems else {}
        world.removed()
        return Expected(after, *calls, before), problems

    def faults(self, expected: Expected, *, reads: bool = False) -> Iterator[Fault]:
        """Every way to die in this flow, once."""
        for call in range(1, len(expected.effects) + 1):
            yield Fault(call, When.BEFORE)
            if call in expected.tearable:
                yield Fault(call, When.TORN)
            yield Fault(call, When.AFTER)
        if reads:
            for call in range(1, len(expected.reads) + 1):
                yield Fault(call, When.BEFORE, of_reads=True)

    # with a crash -----------------------------------------------------------------------------

    def explored(
        self,
        flow: Flow,
        expected: Expected,
        *,
        reads: bool = False,
        at_most: int | None = None,
        at: str = "",
    ) -> Report:
        """Die everywhere, once each; or in so many ways, or where the call is named so."""
        report = Report(flow.name, len(expected.effects) + len(expected.reads))
        faults = [
            fault
            for fault in self.faults(expected, reads=reads)
            if at in self._named(fault, expected)
        ]
        for fault in drawn(faults, at_most):
            report.add(self._named(fault, expected), self.crashed(flow, expected, [fault]))
        return report

    def explored_twice(self, flow: Flow, expected: Expected) -> Report:
        """Die after each effect, and then after each effect of the recovery."""
        report = Report(f"{flow.name}, twice", len(expected.effects))
        for first in range(1, len(expected.effects) + 1):
            for second in itertools.count(1):
                faults = [Fault(first, When.AFTER), Fault(second, When.AFTER)]
                reached: list[bool] = []
                found = self.crashed(flow, expected, faults, reached)
                if not reached[-1]:
                    break
                report.add(" + ".join(map(str, faults)), found)
        return report

    def crashed(
        self,
        flow: Flow,
        expected: Expected,
        faults: Sequence[Fault],
        reached: list[bool] | None = None,
    ) -> list[str]:
        """One run that dies of each of `faults`, one process after the other; what was wrong."""
        world = self.world(flow.prepare, flow.refit)
        with world.process(Tape()) as app:
            run = _Run(world, flow, expected, members_by_version(app), self.caught_up)
        try:
            for number, fault in enumerate(faults):
                died = run.process(fault, first=number == 0)
                if reached is not None:
                    reached.append(died)
            return run.recovered(client_first=faults[-1].when is When.BEFORE)
        finally:
            world.removed()

    def _named(self, fault: Fault, expected: Expected) -> str:
        calls = expected.reads if fault.of_reads else expected.effects
        return f"{fault} ({calls[fault.call - 1]})"


def play(app: App, tape: Tape, scene: Scene, flow: Flow) -> Answer:
    """The client's request and what he does after it, then the work on its messages."""
    answer = flow.asks(app, scene, KEY, flow.act)
    flow.then(app, scene, answer)
    handle_own(app, tape)
    return answer


@dataclass(slots=True)
class _Run:
    """One run of a flow: its processes, one after the other."""

    world: World
    flow: Flow
    expected: Expected
    versions: Mapping[str, Mapping[int, Members]]
    caught_up: Callable[[App, Mapping[str, Any]], list[str]]
    answers: list[Answer] = field(default_factory=list)
    tapes: list[Tape] = field(default_factory=list)

    def process(self, fault: Fault, *, first: bool) -> bool:
        """A process that dies of `fault`; whether it came so far."""
        tape = Tape(fault)
        self.tapes.append(tape)
        with self.world.process(tape) as app:
            try:
                if first:
                    self._ask(app)
                    handle_own(app, tape)
                else:
                    self.world.clock.sleep(ROUND_SECONDS)
                    self._ask(app)
                    settle(app)
            except Crash:
                self.world.platforms.witness.deaths += 1
                return True
        return False

    def recovered(self, *, client_first: bool) -> list[str]:
        """Everything that has to happen after a crash; what was wrong then."""
        self.world.clock.sleep(ROUND_SECONDS)
        tape = Tape()
        self.tapes.append(tape)
        with self.world.process(tape) as app:
            try:
                return self._outcome(app, client_first=client_first)
            except Exception as error:  # noqa: BLE001 - whatever stops a recovery is bad
                return [f"{type(error).__name__}: {error}"]

    def _outcome(self, app: App, *, client_first: bool) -> list[str]:
        found = [f"at once: {b}" for b in broken(app, self.versions)]
        found += self._undecided(app, client_first=client_first)
        self._ask(app)
        settle(app)
        self._again(app)
        settle(app)
        seen = view(app)
        return [
            *found,
            *broken(app, self.versions),
            *unsettled(app),
            *unjournalled(app),
            *(differences(self.expected.view, seen) if self.flow.exact else ()),
            *self._swept(app, members_view(seen)),
        ]

    def _swept(self, app: App, members: Any) -> list[str]:
        """What a sweep leaves that it should take, or takes that it should leave."""
        for _ in range(2):
            app.clock.sleep(AFTER_GRACE)
            app.jobs.start(ANN, JobKind.SWEEP)
            settle(app)
        found = [*broken(app, self.versions), *orphans(app), *unsettled(app)]
        if not self.flow.ages and members_view(view(app)) != members:
            found.append("I17 members are others after a sweep")
        if platforms_of(app).twins and not found:
            found += self.caught_up(app, view(app))
        return found

    def _undecided(self, app: App, *, client_first: bool) -> list[str]:
        """The deliveries, while the client is silent: all of the flow has happened, or nothing."""
        if client_first:
            return []
        settle(app)
        now = members_view(view(app))
        either = members_view(self.expected.before), members_view(self.expected.view)
        return [] if now in either else ["I3 neither before nor after"]

    def _ask(self, app: App) -> None:
        """The client asks, unless he has his answer, and does what follows from it."""
        if not self.answers:
            self.answers.append(self.flow.asks(app, self.world.scene, KEY, self.flow.act))
        self.flow.then(app, self.world.scene, self.answers[0])

    def _again(self, app: App) -> None:
        """Every message and the request, once more."""
        for tape in self.tapes:
            for message in tuple(tape.published):
                handle(app, message)
        repeated = self.flow.asks(app, self.world.scene, KEY, self.flow.act)
        if dict(repeated) != dict(self.answers[0]):
            raise BrokenError("I5 the same key has another answer")


def drawn(all_of_them: Sequence[T], at_most: int | None) -> Sequence[T]:
    """All, or so many of them in their order, drawn with a fixed seed."""
    if at_most is None or len(all_of_them) <= at_most:
        return all_of_them
    chosen = random.Random(SEED).sample(range(len(all_of_them)), at_most)
    return [all_of_them[number] for number in sorted(chosen)]


def members_view(seen: Mapping[str, Any]) -> Any:
    """Of a view only who is a member of what."""
    return [(a["name"], a["members"]) for a in seen["audiences"]]


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The fields of two views that differ, with short values."""
    return [
        f"{name}: expected {_brief(value)}, found {_brief(found[name])}"
        for name, value in expected.items()
        if value != found[name]
    ]


def _brief(value: Any) -> str:
    if isinstance(value, frozenset):
        return f"{len(value)} members"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_brief(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_brief, value)) + "]"
    return repr(value)
