"""Events and segments end as if nothing had happened, wherever a process dies or meets another."""

from __future__ import annotations

import pytest

from activation.ports import Batch, Query, Write
from activation.services.event_log import LOG
from activation.services.segment_shards import TRANSITIONS
from tests.faults.conftest import Tell
from tests.faults.interleave import Interleaver, Pair
from tests.faults.lab import Lab
from tests.faults.ports import Tape
from tests.faults.segments import SEGMENTS
from tests.faults.shards import broken_segments

DRAWN, MORE, MANY = 16, 60, 300
"""Ways to die, and schedules of a pair, in the usual run, the nightly and the exhaustive one."""

AUDIENCES = "erase a user from audiences"
"""Twenty times as many calls as the others."""
USUAL = ("accept events", "leave by silence", "change the rules", "delete a segment")
PAIRS = (
    ("accept more events", "change the rules"),
    ("accept more events", "erase a user"),
    ("erase a user", "change the rules"),
)
FURTHER = (
    ("accept more events", "accept more events"),
    ("accept more events", "delete a segment"),
    ("accept more events", "archive events"),
    ("erase a user", "erase a user"),
    ("erase a user", "accept more events"),
    ("erase a user", "archive events"),
    ("erase a user", "delete a segment"),
    ("change the rules", "delete a segment"),
)


@pytest.fixture(scope="session")
def interleaver(lab: Lab) -> Interleaver:
    """The lab's interleaver."""
    return Interleaver(lab)


def pair(first: str, second: str) -> Pair:
    """Two flows at once: shards go on one by one, so that what must hold counts."""
    return Pair(SEGMENTS[first], SEGMENTS[second], serial=False)


@pytest.mark.parametrize(
    ("collection", "problem"), [(TRANSITIONS, "S3"), (LOG, "S4"), ("segment_states", "S1")]
)
def test_what_is_lost_is_noticed(lab: Lab, collection: str, problem: str) -> None:
    world = lab.world(SEGMENTS["erase a user"].prepare)
    with world.process(Tape()) as app:
        assert broken_segments(app) == []
        for one in app.documents.query(Query("acme", collection, limit=100)):
            app.documents.commit(Batch([Write(one.key, None)]))
    with world.process(Tape()) as app:
        assert {found.partition(" ")[0] for found in broken_segments(app)} == {problem}
    world.removed()


@pytest.mark.parametrize("name", USUAL)
def test_a_crash_changes_nothing(lab: Lab, name: str, tell: Tell) -> None:
    tell(lab.explored(SEGMENTS[name], lab.expected(SEGMENTS[name]), at_most=DRAWN))


def test_a_crash_anywhere_lets_an_erasure_go_on(lab: Lab, tell: Tell) -> None:
    flow = SEGMENTS["erase a user"]
    tell(lab.explored(flow, lab.expected(flow), at_most=2 * DRAWN))


def test_a_crash_anywhere_lets_nobody_who_was_erased_stay_in_an_audience(
    lab: Lab, tell: Tell
) -> None:
    flow = SEGMENTS[AUDIENCES]
    tell(lab.explored(flow, lab.expected(flow), at_most=DRAWN // 2))


@pytest.mark.nightly
@pytest.mark.parametrize("name", SEGMENTS)
def test_a_crash_anywhere_changes_nothing(lab: Lab, name: str, tell: Tell) -> None:
    at_most = DRAWN if name == AUDIENCES else MORE
    tell(lab.explored(SEGMENTS[name], lab.expected(SEGMENTS[name]), at_most=at_most))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SEGMENTS)
def test_also_at_every_read(lab: Lab, name: str, tell: Tell) -> None:
    tell(lab.explored(SEGMENTS[name], lab.expected(SEGMENTS[name]), reads=True))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SEGMENTS)
def test_a_second_crash_during_recovery_changes_nothing(lab: Lab, name: str, tell: Tell) -> None:
    tell(lab.explored_twice(SEGMENTS[name], lab.expected(SEGMENTS[name])))


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_at_once(interleaver: Interleaver, first: str, second: str, tell: Tell) -> None:
    tell(interleaver.explored(pair(first, second), DRAWN))


@pytest.mark.nightly
@pytest.mark.parametrize(("first", "second"), FURTHER)
def test_two_more_at_once(interleaver: Interleaver, first: str, second: str, tell: Tell) -> None:
    tell(interleaver.explored(pair(first, second), DRAWN))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("first", "second"), [*PAIRS, *FURTHER])
def test_two_at_once_in_many_more_ways(
    interleaver: Interleaver, first: str, second: str, tell: Tell
) -> None:
    tell(interleaver.explored(pair(first, second), MANY))
    tell(interleaver.explored_deaths(pair(first, second)))
