"""Two flows at once on one audience end as one after the other would have."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Tell
from tests.faults.flows import FLOWS
from tests.faults.interleave import Interleaver, Pair
from tests.faults.lab import Lab

DRAWN, SCHEDULES, MANY = 24, 60, 500
"""Schedules of a pair in the usual run, the nightly and the exhaustive one."""
TWICE = 20

PAIRS = (
    ("import", "import"),
    ("import", "remove"),
    ("import", "archive"),
    ("import", "restore"),
    ("upsert by delta", "remove"),
    ("migrate up", "migrate by import"),
    ("restore", "archive"),
    ("archive", "unarchive"),
    ("compact", "upsert"),
    ("compact", "restore"),
    ("expire", "upsert"),
    ("sweep", "restore"),
    ("sweep", "import"),
    ("create the last", "create another"),
    ("create", "limit"),
    ("suppress", "unsuppress"),
    ("suppress a file", "suppress"),
    ("rekey suppressions", "suppress"),
)
"""What every run of the suite tries."""

FURTHER = (
    ("first suppress", "first suppress"),
    ("suppress a file", "suppress a file"),
    ("suppress a file", "unsuppress"),
    ("rekey suppressions", "unsuppress"),
    ("rekey suppressions", "suppress a file"),
    ("suppress a file", "sweep"),
    ("import", "upsert"),
    ("import", "define"),
    ("cancel import", "import"),
    ("upsert", "upsert"),
    ("migrate down", "upsert"),
    ("restore", "upsert"),
    ("archive", "archive"),
    ("archive", "upsert"),
    ("unarchive", "archive"),
    ("unarchive", "restore"),
    ("unarchive", "upsert"),
    ("compact", "remove"),
    ("compact", "import"),
    ("compact", "archive"),
    ("expire", "import"),
    ("expire", "restore"),
    ("expire", "archive"),
    ("sweep", "upsert"),
    ("sweep", "archive"),
    ("sweep of the released", "restore"),
    ("sweep of the released", "import"),
    ("retention", "upsert"),
    ("retention", "restore"),
    ("retention", "import"),
    ("retention by the clock", "retention by the clock"),
    ("retention by the clock", "import"),
    ("derive", "remove"),
    ("derive", "archive"),
    ("delete", "import"),
    ("delete", "upsert"),
    ("unarchive", "import"),
    ("unarchive", "compact"),
    ("unarchive", "expire"),
    ("unarchive", "unarchive"),
    ("migrate up", "compact"),
    ("migrate up", "restore"),
    ("migrate up", "archive"),
    ("migrate up", "expire"),
    ("migrate down", "migrate up"),
    ("unarchive", "migrate up"),
    ("compact", "compact"),
    ("expire", "compact"),
    ("expire", "expire"),
    ("restore", "restore"),
    ("create the last", "create the last"),
    ("create the last", "lift the limit"),
    ("create the last", "limit"),
    ("create the last", "delete"),
    ("limit", "limit"),
)
"""What the nightly run tries as well."""

FOLLOWING = (
    ("follow", "follow"),
    ("follow", "compact"),
    ("follow", "restore"),
    ("follow", "archive"),
    ("follow by delta", "restore"),
    ("follow a segment", "upsert"),
    ("follow a segment", "import"),
)
"""Dynamic audiences: only the exhaustive run tries these; a run of theirs reads every shard."""

TRIED = [*PAIRS, *(pytest.param(*names, marks=pytest.mark.nightly) for names in FURTHER)]


@pytest.fixture(scope="session")
def interleaver(lab: Lab) -> Interleaver:
    """The lab's interleaver."""
    return Interleaver(lab)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_at_once(interleaver: Interleaver, first: str, second: str, tell: Tell) -> None:
    tell(interleaver.explored(Pair(FLOWS[first], FLOWS[second]), DRAWN))


@pytest.mark.nightly
@pytest.mark.parametrize(("first", "second"), [*PAIRS, *FURTHER])
def test_two_at_once_in_more_ways(
    interleaver: Interleaver, first: str, second: str, tell: Tell
) -> None:
    tell(interleaver.explored(Pair(FLOWS[first], FLOWS[second]), SCHEDULES))


@pytest.mark.parametrize(
    "name", ["upsert", "import", "restore", "archive", "create", "create the last"]
)
def test_one_request_sent_twice_acts_once(interleaver: Interleaver, name: str, tell: Tell) -> None:
    tell(interleaver.explored(Pair(FLOWS[name], FLOWS[name], same_key=True), TWICE))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_at_once_in_many_more_ways(
    interleaver: Interleaver, first: str, second: str, tell: Tell
) -> None:
    tell(interleaver.explored(Pair(FLOWS[first], FLOWS[second]), MANY))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("first", "second"), FOLLOWING)
def test_an_audience_follows_while_others_work(
    interleaver: Interleaver, first: str, second: str, tell: Tell
) -> None:
    pair = Pair(FLOWS[first], FLOWS[second])
    tell(interleaver.explored(pair, SCHEDULES))
    tell(interleaver.explored_deaths(pair))


@pytest.mark.parametrize(("first", "second"), TRIED)
def test_one_dies_and_another_happens(
    interleaver: Interleaver, first: str, second: str, tell: Tell
) -> None:
    tell(interleaver.explored_deaths(Pair(FLOWS[first], FLOWS[second])))


@pytest.mark.nightly
@pytest.mark.parametrize(("first", "second"), [*PAIRS, *FURTHER])
def test_the_other_dies_and_the_one_happens(
    interleaver: Interleaver, first: str, second: str, tell: Tell
) -> None:
    found = FLOWS[first].prepare
    tell(interleaver.explored_deaths(Pair(FLOWS[second], FLOWS[first], found)))
