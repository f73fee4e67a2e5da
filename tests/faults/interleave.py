"""Two processes on one installation, of which one runs at a time; they change at store calls.

A schedule (i, j): the first makes i calls, the second j, then the first runs to its end and the
second after it. What comes out must be what some serial order of the requests and of the work on
their messages gives: answers, refusals, and all that the stores say.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from activation.app import App
from tests.faults.lab import Flow, Lab, Report, differences, drawn
from tests.faults.ports import Crash, Fault, Tape, When
from tests.faults.state import broken, unsettled, view
from tests.faults.world import ROUND_SECONDS, Answer, Refused, Scene, World, handle_own, settle

PATIENCE = 60.0
"""Seconds after which two processes that wait for each other are a failure."""
TOLD = (
    *("received", "accepted", "added", "updated", "removed", "unknown", "duplicate", "rejected"),
    *("size", "version", "status"),
)
"""What of an answer does not depend on when it was given."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two flows on what the first one's `prepare` makes, unless `found` makes something else.
    With the `same_key` they are one request that a client sent twice."""

    first: Flow
    second: Flow
    found: Callable[[App], Scene] | None = None
    same_key: bool = False
    serial: bool = True
    """Whether only what some serial order gives is right; otherwise what must hold counts, and
    that one more run brings everything in step."""

    @property
    def name(self) -> str:
        if self.same_key:
            return f"{self.first.name} x itself again"
        return f"{self.first.name} x {self.second.name}"

    @property
    def prepare(self) -> Callable[[App], Scene]:
        """What makes the world that they find."""
        return self.found or self.first.prepare

    def refit(self, app: App) -> None:
        """What makes its processes other ones."""
        self.first.refit(app)
        self.second.refit(app)


Outcome = tuple[Any, Any, Mapping[str, Any]]
"""What each client was told, and what the stores say."""


class Baton:
    """Who may make the next store call, by a list of (process, number of calls)."""

    def __init__(self, phases: Sequence[tuple[int, float]]) -> None:
        self._phases = list(phases)
        self._ended: set[int] = set()
        self._turn = threading.Condition()
        self.between: Callable[[], None] = lambda: None
        """Called once, before the first call of the second."""

    def gate(self, process: int) -> None:
        """Wait until the process may make a call."""
        with self._turn:
            while not self._may_call(process):
                if not self._turn.wait(PATIENCE):
                    raise AssertionError("Two processes wait for each other.")

    def ended(self, process: int) -> None:
        """The process makes no more calls."""
        with self._turn:
            self._ended.add(process)
            self._turn.notify_all()

    def _may_call(self, process: int) -> bool:
        while self._phases:
            whose, calls = self._phases[0]
            if whose in self._ended or calls == 0:
                self._phases.pop(0)
                self._turn.notify_all()
            elif whose == process:
                self._phases[0] = whose, calls - 1
                if process:
                    self.between()
                    self.between = lambda: None
                return True
            else:
                return False
        return True


@dataclass(slots=True)
class _Process:
    """One of the two: its client and its worker."""

    flow: Flow
    key: str
    tape: Tape
    told: Any = None
    error: BaseException | None = None

    def request(self, app: App, world: World) -> None:
        """The client's part."""
        try:
            answer = self.flow.asks(app, world.scene, self.key, self.flow.act)
            self.flow.then(app, world.scene, answer)
        except Refused as refused:
            self.told = str(refused)
        else:
            self.told = _told(answer)

    def work(self, app: App) -> None:
        """The worker's part."""
        handle_own(app, self.tape)

    def all(self, app: App, world: World, ended: Callable[[], None]) -> None:
        """Both, in a thread."""
        try:
            self.request(app, world)
            self.work(app)
        except BaseException as error:  # noqa: BLE001 - told to the one who started the thread
            self.error = error
        finally:
            ended()


def _told(answer: Answer) -> Any:
    return {name: answer[name] for name in TOLD if name in answer}


@dataclass(slots=True)
class Interleaver:
    """Runs of pairs in a lab."""

    lab: Lab
    _serial: dict[Pair, list[Outcome]] = field(default_factory=dict)

    # what is allowed --------------------------------------------------------------------------

    def serial(self, pair: Pair) -> list[Outcome]:
        """The outcomes of all serial orders of requests and work."""
        if pair not in self._serial:
            orders = {*itertools.permutations([0, 0, 1, 1])}
            self._serial[pair] = [self._in_order(pair, order) for order in sorted(orders)]
        return self._serial[pair]

    def _in_order(self, pair: Pair, order: Sequence[int]) -> Outcome:
        world = self.lab.world(pair.prepare, pair.refit)
        both = _both(pair)
        with ExitStack() as stack:
            apps = [stack.enter_context(world.process(p.tape)) for p in both]
            for place, number in enumerate(order):
                if number in order[:place]:
                    both[number].work(apps[number])
                else:
                    both[number].request(apps[number], world)
        outcome, problems = self._outcome(world, both)
        assert not problems, f"{pair.name} in order {order}: {problems}"
        return outcome

    # what happens -----------------------------------------------------------------------------

    def explored(self, pair: Pair, at_most: int | None = None) -> Report:
        """All schedules, or `at_most` of them, drawn with a fixed seed."""
        calls = [self._calls(pair, number) for number in (0, 1)]
        schedules = [*itertools.product(range(calls[0] + 1), range(calls[1] + 1))]
        report = Report(pair.name, sum(calls))
        for first, second in drawn(schedules, at_most):
            report.add(f"({first}, {second})", self.scheduled(pair, first, second))
        return report

    def explored_sleeps(self, pair: Pair, at_most: int | None = None) -> Report:
        """The first falls asleep before each of its calls, for longer than every lease; the
        second happens; then the first goes on as if nothing had been."""
        calls = range(1, self._calls(pair, 0) + 1)
        report = Report(f"{pair.first.name} sleeps, then {pair.second.name}", len(calls))
        for call in drawn(calls, at_most):
            report.add(f"before call {call}", self.scheduled(pair, call - 1, 10**9, asleep=True))
        return report

    def scheduled(self, pair: Pair, first: int, second: int, *, asleep: bool = False) -> list[str]:
        """One run; what was wrong in it."""
        world = self.lab.world(pair.prepare, pair.refit)
        both = _both(pair)
        baton = Baton([(0, first), (1, second), (0, float("inf")), (1, float("inf"))])
        if asleep:
            baton.between = lambda: _overslept(world)
        with ExitStack() as stack:
            apps = [stack.enter_context(world.process(p.tape)) for p in both]
            threads = []
            for number, process in enumerate(both):
                process.tape.gate = _gate(baton, number)
                threads.append(_thread(process, apps[number], world, baton, number))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        errors = [f"{type(p.error).__name__}: {p.error}" for p in both if p.error]
        if errors:
            world.removed()
            return errors
        outcome, problems = self._outcome(world, both)
        return problems or self._not_serial(pair, outcome)

    def explored_deaths(self, pair: Pair, at_most: int | None = None, *, at: str = "") -> Report:
        """The first dies after each of its effects (`at_most` of them, those named so); the second
        happens; then the first is done again: a client's retry, a redelivery."""
        tape = Tape()
        world = self.lab.world(pair.prepare, pair.refit)
        with world.process(tape) as app:
            process = _Process(pair.first, "first", tape)
            process.request(app, world)
            process.work(app)
        world.removed()
        report = Report(f"{pair.first.name} dies, then {pair.second.name}", len(tape.effects))
        calls = [call for call, name in enumerate(tape.effects, 1) if at in name]
        for call in drawn(calls, at_most):
            fault = Fault(call, When.AFTER)
            report.add(f"{fault} ({tape.effects[call - 1]})", self.death(pair, fault))
        return report

    def death(self, pair: Pair, fault: Fault) -> list[str]:
        """One such run; what was wrong in it."""
        world = self.lab.world(pair.prepare, pair.refit)
        both = _both(pair)
        both[0].tape.fault = fault
        with world.process(both[0].tape) as app:
            try:
                both[0].request(app, world)
                both[0].work(app)
            except Crash:
                world.platforms.witness.deaths += 1
                world.clock.sleep(ROUND_SECONDS)
        with world.process(both[1].tape) as app:
            both[1].request(app, world)
            both[1].work(app)
        with world.process(Tape()) as app:
            if both[0].told is None:
                both[0].request(app, world)
        outcome, problems = self._outcome(world, both)
        return problems or self._not_serial(pair, outcome)

    # parts ------------------------------------------------------------------------------------

    def _calls(self, pair: Pair, number: int) -> int:
        """How many calls one of the two makes alone."""
        calls = itertools.count()
        world = self.lab.world(pair.prepare, pair.refit)
        process = _both(pair)[number]
        process.tape.gate = lambda: _ignored(next(calls))
        with world.process(process.tape) as app:
            process.request(app, world)
            process.work(app)
        world.removed()
        return next(calls)

    def _outcome(self, world: World, both: Sequence[_Process]) -> tuple[Outcome, list[str]]:
        """What came of a run once everything is delivered, and what does not hold."""
        try:
            with world.process(Tape()) as app:
                settle(app)
                problems = [*broken(app, {}), *unsettled(app)]
                seen = {} if problems else view(app)
                if world.platforms.twins and not problems:
                    problems = self.lab.caught_up(app, seen)
                return (both[0].told, both[1].told, seen), problems
        finally:
            world.removed()

    def _not_serial(self, pair: Pair, outcome: Outcome) -> list[str]:
        if not pair.serial:
            return []
        allowed = self.serial(pair)
        if outcome in allowed:
            return []
        nearest = min((_apart(wanted, outcome) for wanted in allowed), key=len)
        return ["as in no serial order", *nearest]


def _apart(wanted: Outcome, found: Outcome) -> list[str]:
    answers = [
        f"told {got}, not {want}"
        for want, got in zip(wanted[:2], found[:2], strict=True)
        if want != got
    ]
    return [*answers, *differences(wanted[2], found[2])]


def _both(pair: Pair) -> tuple[_Process, _Process]:
    other = "first" if pair.same_key else "second"
    return _Process(pair.first, "first", Tape()), _Process(pair.second, other, Tape())


def _gate(baton: Baton, number: int) -> Callable[[], None]:
    return lambda: baton.gate(number)


def _thread(
    process: _Process, app: App, world: World, baton: Baton, number: int
) -> threading.Thread:
    return threading.Thread(
        target=process.all, args=(app, world, lambda: baton.ended(number)), daemon=True
    )


def _overslept(world: World) -> None:
    """Time passes while one process sleeps; it may still send what it has in its hands."""
    world.clock.sleep(ROUND_SECONDS)
    world.platforms.witness.deaths += 1
    world.platforms.witness.sleepers += 1


def _ignored(_value: object) -> None:
    """For a gate that only counts."""
