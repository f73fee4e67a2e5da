"""Distributions end as if nothing had happened, wherever a process dies, sleeps, meets another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.faults.conftest import Tell
from tests.faults.dispatch import CANCEL, DISPATCH, PAUSE, WORKER
from tests.faults.dispatch_mutants import WRONG_WAYS, WrongWay
from tests.faults.flows import FLOWS
from tests.faults.interleave import Interleaver, Pair
from tests.faults.lab import Lab

KNOWN = {**FLOWS, **DISPATCH, **{flow.name: flow for flow in (CANCEL, PAUSE, WORKER)}}
DRAWN, MORE, MANY = 10, 60, 300
"""Ways to die, and schedules of a pair, in the usual run, the nightly and the exhaustive one."""

USUAL = (
    *("send changes", "send changes to google", "refresh as of an instant", "refresh by session"),
    *("send with rejects", "send and fail", "send and be throttled", "go on after a pause"),
    *("cancel in the middle", "resume", "send too many removals", "release", "send by the clock"),
    *("retry", "new credentials", "reconcile", "archive distributions"),
)
"""Flows of the usual run."""

EXACT = (
    ("approve", "another worker"),
    ("send changes", "send changes"),
    ("send changes", "upsert"),
    ("sweep after sending", "send changes"),
)
FURTHER_EXACT = (
    ("go on after a pause", "another worker"),
    ("retry", "another worker"),
    ("release", "another worker"),
    ("send changes", "import"),
    ("send changes", "remove"),
    ("send changes", "delete"),
    ("send changes", "archive"),
    ("refresh by the schedule", "refresh by the schedule"),
)
"""Two at once that end as one after the other would have."""

SOUND = (
    ("approve", "cancel"),
    ("approve", "pause"),
    ("approve", "opt out"),
    ("go on after a pause", "cancel in the middle"),
    ("retry", "send changes"),
    ("reconcile", "send changes"),
    ("archive the idle", "send changes"),
)
FURTHER_SOUND = (
    ("approve", "delete"),
    ("approve", "archive"),
    ("approve", "disconnect"),
    ("go on after a pause", "switch off"),
    ("release", "cancel in the middle"),
    ("resume", "cancel in the middle"),
    ("resume", "pause in the middle"),
    ("retry", "cancel in the middle"),
    ("new credentials", "send"),
    ("send and be refused", "new credentials"),
    ("refresh by session", "send changes"),
    ("refresh as of an instant", "send changes"),
    ("refresh by the schedule", "send changes"),
)
"""Two at once of which one may stop the other anywhere: what must hold does, and one more run
brings the platform in step."""

DEATHS = (
    ("approve", "cancel"),
    ("approve", "opt out"),
    ("retry", "send changes"),
    ("reconcile", "send changes"),
)
FURTHER_DEATHS = (
    ("approve", "pause"),
    ("refresh by session", "send changes"),
    ("refresh as of an instant", "send changes"),
    ("send with rejects", "send changes"),
    ("send changes", "archive"),
    ("new credentials", "send"),
)
"""The first one dies, the second happens, the first is done again."""

SLEEPS = (
    ("approve", "another worker"),
    ("approve", "cancel"),
    ("approve", "send changes"),
    ("retry", "another worker"),
)
FURTHER_SLEEPS = (
    ("approve", "delete"),
    ("approve", "opt out"),
    ("retry", "send changes"),
    ("go on after a pause", "cancel in the middle"),
    ("refresh by session", "send changes"),
    ("refresh as of an instant", "send changes"),
)
"""The first one's worker is held up for longer than its lease, and wakes after the second."""

Names = tuple[str, str]


def pair_of(names: Names) -> Pair:
    """Two flows on what the first one finds."""
    first, second = (KNOWN[name] for name in names)
    return Pair(first, second, serial=names in (*EXACT, *FURTHER_EXACT))


def marked(usual: Sequence[Names], further: Sequence[Names]) -> list[Any]:
    """Pairs, of which the further ones are for the nightly run."""
    return [
        pytest.param(names, marks=pytest.mark.nightly if names in further else ())
        for names in (*usual, *further)
    ]


@pytest.fixture(scope="session")
def interleaver(lab: Lab) -> Interleaver:
    """The lab's interleaver."""
    return Interleaver(lab)


@pytest.mark.parametrize("name", USUAL)
def test_a_crash_changes_nothing(lab: Lab, name: str, tell: Tell) -> None:
    flow = DISPATCH[name]
    tell(lab.explored(flow, lab.expected(flow), at_most=DRAWN))


@pytest.mark.nightly
@pytest.mark.parametrize("name", DISPATCH)
def test_a_crash_changes_nothing_in_more_ways(lab: Lab, name: str, tell: Tell) -> None:
    flow = DISPATCH[name]
    tell(lab.explored(flow, lab.expected(flow), at_most=MORE))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", DISPATCH)
def test_a_crash_anywhere_changes_nothing(lab: Lab, name: str, tell: Tell) -> None:
    flow = DISPATCH[name]
    tell(lab.explored(flow, lab.expected(flow), reads=True))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", DISPATCH)
def test_a_second_crash_during_recovery_changes_nothing(lab: Lab, name: str, tell: Tell) -> None:
    tell(lab.explored_twice(DISPATCH[name], lab.expected(DISPATCH[name])))


# two processes --------------------------------------------------------------------------------

PAIRS, FURTHER = (*EXACT, *SOUND), (*FURTHER_EXACT, *FURTHER_SOUND)


@pytest.mark.parametrize("names", marked(PAIRS, FURTHER), ids=" x ".join)
def test_two_at_once(interleaver: Interleaver, names: Names, tell: Tell) -> None:
    tell(interleaver.explored(pair_of(names), DRAWN))


@pytest.mark.exhaustive
@pytest.mark.parametrize("names", [*PAIRS, *FURTHER], ids=" x ".join)
def test_two_at_once_in_many_more_ways(interleaver: Interleaver, names: Names, tell: Tell) -> None:
    tell(interleaver.explored(pair_of(names), MANY))


@pytest.mark.parametrize("names", marked(DEATHS, FURTHER_DEATHS), ids=" x ".join)
def test_one_dies_and_another_happens(interleaver: Interleaver, names: Names, tell: Tell) -> None:
    tell(interleaver.explored_deaths(pair_of(names), DRAWN))


@pytest.mark.parametrize("names", marked(SLEEPS, FURTHER_SLEEPS), ids=" x ".join)
def test_one_wakes_too_late(interleaver: Interleaver, names: Names, tell: Tell) -> None:
    tell(interleaver.explored_sleeps(pair_of(names), DRAWN))


@pytest.mark.exhaustive
@pytest.mark.parametrize("names", [*DEATHS, *FURTHER_DEATHS], ids=" x ".join)
def test_one_dies_anywhere(interleaver: Interleaver, names: Names, tell: Tell) -> None:
    tell(interleaver.explored_deaths(pair_of(names)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("names", [*SLEEPS, *FURTHER_SLEEPS], ids=" x ".join)
def test_one_wakes_too_late_anywhere(interleaver: Interleaver, names: Names, tell: Tell) -> None:
    tell(interleaver.explored_sleeps(pair_of(names)))


# wrong ways -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", WRONG_WAYS, ids=lambda wrong: str(wrong.name))
def test_a_wrong_way_is_found(lab: Lab, wrong: WrongWay, note: Tell) -> None:
    assert lab.once(wrong.flow, lab.expected(wrong.right)) == []
    report = wrong.looked_for(lab)
    note(report)
    assert report.bad
