"""Every flow, dying at every store call, ends as if nothing had happened."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Tell
from tests.faults.flows import FLOWS
from tests.faults.lab import Lab

VARIANTS = frozenset(
    {
        *("first import", "migrate by import", "upsert of objects", "retention"),
        *("first suppress", "follow a segment", "follow by delta"),
    }
)
"""Flows that go ways which others go as well: for the nightly run."""

WIDE = frozenset({"follow a segment", "follow by delta"})
"""Flows that read every shard of an organization, each of them the same way."""

TRIED = [
    pytest.param(name, marks=pytest.mark.nightly) if name in VARIANTS else name for name in FLOWS
]


@pytest.mark.parametrize("name", TRIED)
def test_a_crash_anywhere_changes_nothing(lab: Lab, name: str, tell: Tell) -> None:
    tell(lab.explored(FLOWS[name], lab.expected(FLOWS[name])))


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in FLOWS if name not in WIDE])
def test_also_at_every_read(lab: Lab, name: str, tell: Tell) -> None:
    tell(lab.explored(FLOWS[name], lab.expected(FLOWS[name]), reads=True))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FLOWS)
def test_a_second_crash_during_recovery_changes_nothing(lab: Lab, name: str, tell: Tell) -> None:
    tell(lab.explored_twice(FLOWS[name], lab.expected(FLOWS[name])))
