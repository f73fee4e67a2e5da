"""Two flows at once on one audience end as one after the other would have."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Tell
from tests.faults.flows import FLOWS
from tests.faults.interleave import Interleaver, Pair
from tests.faults.lab import Lab

SCHEDULES = 60
"""Schedules of a pair that every run of the suite tries."""

AT_ONCE = (
    ("import", "import"),
    ("import", "remove"),
    ("import", "upsert"),
    ("import", "define"),
    ("import", "archive"),
    ("import", "restore"),
    ("cancel import", "import"),
    ("upsert", "upsert"),
    ("upsert by delta", "remove"),
    ("migrate up", "migrate by import"),
    ("migrate down", "upsert"),
    ("restore", "import"),
    ("restore", "upsert"),
    ("restore", "archive"),
    ("archive", "archive"),
    ("archive", "unarchive"),
    ("archive", "upsert"),
    ("unarchive", "archive"),
    ("unarchive", "restore"),
    ("unarchive", "upsert"),
    ("compact", "upsert"),
    ("compact", "remove"),
    ("compact", "import"),
    ("compact", "restore"),
    ("compact", "archive"),
    ("expire", "upsert"),
    ("expire", "import"),
    ("expire", "restore"),
    ("expire", "archive"),
    ("sweep", "restore"),
    ("sweep", "import"),
    ("sweep", "upsert"),
    ("sweep", "archive"),
    ("sweep of the released", "restore"),
    ("sweep of the released", "import"),
    ("retention", "upsert"),
    ("retention", "restore"),
    ("derive", "remove"),
    ("derive", "archive"),
    ("delete", "import"),
    ("delete", "upsert"),
)


@pytest.fixture(scope="session")
def interleaver(lab: Lab) -> Interleaver:
    """The lab's interleaver."""
    return Interleaver(lab)


@pytest.mark.parametrize(("first", "second"), AT_ONCE)
def test_two_at_once(interleaver: Interleaver, first: str, second: str, tell: Tell) -> None:
    tell(interleaver.explored(Pair(FLOWS[first], FLOWS[second]), SCHEDULES))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), AT_ONCE)
def test_two_at_once_in_every_way(
    interleaver: Interleaver, first: str, second: str, tell: Tell
) -> None:
    tell(interleaver.explored(Pair(FLOWS[first], FLOWS[second])))


@pytest.mark.parametrize(("first", "second"), AT_ONCE)
def test_one_dies_and_another_happens(
    interleaver: Interleaver, first: str, second: str, tell: Tell
) -> None:
    tell(interleaver.explored_deaths(Pair(FLOWS[first], FLOWS[second])))
