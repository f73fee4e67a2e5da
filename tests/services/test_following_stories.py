"""Random stories of a dynamic audience: users, silence, deaths, operators. In step once quiet."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activation import observability
from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.identifier import IdentifierType
from activation.domain.segment_record import SegmentDefinition
from activation.domain.suppression import (
    SuppressionReason,
    SuppressionReference,
    SuppressionsDraft,
)
from activation.errors import ActivationError
from activation.ports import Message
from activation.settings import Settings
from tests.conftest import START
from tests.examples import examples
from tests.faults.conftest import RAM_DISK
from tests.faults.ports import Crash, Fault, Tape, When, attach
from tests.services.following import ANN, HANDLERS, Shop, address, email, emails

PEOPLE = tuple(map(address, (1, 2, 3)))
HASHES = emails(1, 2, 3)
USERS = (
    *HASHES,
    *(one.upper() for one in HASHES),
    f" {HASHES[0]} ",
    *emails(4, 5, 6),
    *("nobody", "", "x@y"),
)
RULE = {"event_type": "orders", "operator": "EQ", "value": 1, "window_minutes": 600}

users = st.lists(st.sampled_from([one for one in USERS if one]), min_size=1, max_size=6)
couple = st.lists(st.sampled_from(USERS[:3]), min_size=1, max_size=1)
"""One person under one of his names."""
deaths = st.none() | st.none() | st.tuples(st.integers(1, 30), st.sampled_from(When), st.booleans())


@dataclass(slots=True)
class Story:
    """One installation, its processes one after the other, and what happens to it."""

    folder: Path
    most_changed: int
    clock: MovableClock = field(default_factory=lambda: MovableClock(START))
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))
    segment_id: str = ""
    audience_id: str = ""

    @contextmanager
    def process(self, fault: Fault | None = None) -> Iterator[Shop]:
        """A process; one with a fault dies of it if it comes so far."""
        options = Settings(data_folder=str(self.folder), database_threshold=6)
        app = attach(App(options, self.clock), Tape(fault))
        app.__dict__["store"] = replace(app.store, max_deltas=2, delta_from=4)
        worker = replace(
            app.follow_worker, most_changed=self.most_changed, interval=timedelta(minutes=5)
        )
        app.__dict__["follow_worker"] = worker
        shop = Shop(app, self.clock, numbers=self.numbers, segment_id=self.segment_id or "none")
        try:
            yield shop
        except Crash:
            self.clock.sleep(61)
        finally:
            app.close()

    def begun(self) -> None:
        """A segment, and an audience that follows it."""
        with self.process() as shop:
            self.segment_id = shop.segment("Once", **RULE)
            shop.segment_id = self.segment_id
            self.audience_id = shop.audience()
            shop.work()

    # what may happen ------------------------------------------------------------------------------

    def buys(self, shop: Shop, names: list[str]) -> None:
        shop.buys(*names)

    def waits(self, shop: Shop, minutes: int) -> None:
        shop.clock.sleep(60 * minutes)
        shop.app.due.run()

    def delivers(self, shop: Shop, count: int) -> None:
        def deliver(subscription: str, message: Message, _attempt: int) -> None:
            HANDLERS[subscription](shop.app, message)

        shop.app.bus.deliver_due(deliver, count, only=tuple(HANDLERS))  # type: ignore[attr-defined]

    def settles(self, shop: Shop, minutes: int) -> None:
        shop.minutes(minutes)

    def erases(self, shop: Shop, person: str) -> None:
        given = {"identifier_type": "email", "identifier_value": person, "reason": "erasure"}
        shop.app.suppressions.add(ANN, SuppressionsDraft.model_validate({"suppressions": [given]}))
        shop.app.recovery.erased.taken_out("acme")

    def forgives(self, shop: Shop, person: str) -> None:
        shop.app.suppressions.remove(ANN, reference(person))

    def restores(self, shop: Shop, back: int) -> None:
        version = shop.record(self.audience_id).version - back
        shop.app.versions.restore(ANN, self.audience_id, max(version, 1))

    def compacts(self, shop: Shop, _: int) -> None:
        shop.app.member_upkeep.compact(ANN, self.audience_id)

    def changes_rules(self, shop: Shop, value: int) -> None:
        rules = [{**RULE, "value": value}]
        draft = {"name": "Once", "type": "INDEPENDENT", "rules": rules}
        shop.app.segments.replace(ANN, self.segment_id, SegmentDefinition.model_validate(draft))

    def binds(self, shop: Shop, region: str) -> None:
        shop.bind(self.audience_id, default_region=region)

    # the end --------------------------------------------------------------------------------------

    def ended(self) -> None:
        """No more deaths; everybody is told, and all must be right."""
        with self.process() as shop:
            shop.app.recovery.erased.taken_out("acme")
            shop.minutes(12)
            shop.buys(email(99))
            shop.minutes(12)
            pairs = zip(PEOPLE, HASHES, strict=True)
            erased = [one for person, one in pairs if is_erased(shop.app, person)]
            shop.require_in_step(self.audience_id, erased)
            assert not shop.app.bus.dead_letters("run_job")
            assert shop.following(self.audience_id).waiting_since is None


Happening = Callable[[Story, Shop, object], None]

happenings = st.one_of(
    st.tuples(st.just(Story.buys), users),
    st.tuples(st.just(Story.buys), users),
    st.tuples(st.just(Story.buys), couple),
    st.tuples(st.just(Story.waits), st.sampled_from([1, 6, 6, 30, 300])),
    st.tuples(st.just(Story.waits), st.sampled_from([1, 6, 6, 30, 300])),
    st.tuples(st.just(Story.delivers), st.sampled_from([1, 3, 20])),
    st.tuples(st.just(Story.settles), st.just(6)),
    st.tuples(st.just(Story.settles), st.just(6)),
    st.tuples(st.just(Story.settles), st.just(6)),
    st.tuples(st.just(Story.erases), st.sampled_from(PEOPLE)),
    st.tuples(st.just(Story.forgives), st.sampled_from(PEOPLE)),
    st.tuples(st.just(Story.restores), st.integers(0, 3)),
    st.tuples(st.just(Story.compacts), st.just(0)),
    st.tuples(st.just(Story.changes_rules), st.integers(1, 2)),
    st.tuples(st.just(Story.binds), st.sampled_from(["DE", "FR"])),
)


def reference(person: str) -> SuppressionReference:
    return SuppressionReference(identifier_type=IdentifierType.EMAIL, identifier_value=person)


def is_erased(app: App, person: str) -> bool:
    found = app.suppressions.check(ANN, reference(person)).findings
    return any(one.reason is SuppressionReason.ERASURE for one in found)


Death = tuple[int, When, bool] | None
Script = list[tuple[tuple[Happening, object], Death]]


def told(story: Story, script: Script) -> None:
    """Live through a script: what happens, and where in it the process dies."""
    story.begun()
    for (happens, what), death in script:
        fault = Fault(death[0], death[1], of_reads=death[2]) if death else None
        with story.process(fault) as shop, suppress(ActivationError):
            happens(story, shop, what)
    story.ended()


QUICK = settings(max_examples=examples(8), suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=examples(80), suppress_health_check=list(HealthCheck))
scripts = st.lists(st.tuples(happenings, deaths), max_size=25)


def lived(most_changed: int, script: Script) -> None:
    with TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else None) as folder:
        told(Story(Path(folder), most_changed), script)


@QUICK
@given(st.sampled_from([2, 1000]), scripts)
def test_an_audience_is_its_segment_once_quiet(most_changed: int, script: Script) -> None:
    lived(most_changed, script)


@pytest.mark.slow
@LONG
@given(st.sampled_from([2, 1000]), scripts)
def test_so_it_is_in_more_stories(most_changed: int, script: Script) -> None:
    lived(most_changed, script)


@pytest.mark.long_on_google
@pytest.mark.parametrize("seed", [1])
def test_a_busy_day_is_followed_step_by_step(app: App, clock: MovableClock, seed: int) -> None:
    """Nothing but users who come and go, under all of their names: compared once, then never."""
    draw, shop = random.Random(seed), Shop(app, clock)
    audience = shop.audience(segment_id=shop.segment("Once", **{**RULE, "window_minutes": 60}))
    outcomes = Counter[str]()
    meter = SimpleNamespace(
        saw=lambda message, fields: outcomes.update(
            [fields["outcome"]] if message == "audience followed" else []
        )
    )
    observability.listen(meter)
    for _ in range(40):
        shop.buys(*draw.choices([one for one in USERS if one], k=draw.randint(1, 4)))
        shop.minutes(draw.choice([2, 2, 3, 10]))
        shop.minutes(2)
        shop.require_in_step(audience)
    observability.unlisten(meter)
    assert outcomes["compared"] == 1
    assert outcomes["broken"] == 0
    assert outcomes["steps"] >= 40
