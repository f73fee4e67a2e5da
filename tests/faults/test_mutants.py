"""The lab finds each wrong order; one that it did not find would show that the lab is blind."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Tell
from tests.faults.interleave import Interleaver, Pair
from tests.faults.lab import Lab
from tests.faults.mutants import MUTANTS, RACES

NIGHTLY = frozenset({"follow: followed before", "erase a user: journal of erasures afterwards"})
TRIED = [
    pytest.param(name, marks=pytest.mark.nightly) if name in NIGHTLY else name for name in MUTANTS
]


@pytest.mark.parametrize("name", TRIED)
def test_a_wrong_order_is_found(lab: Lab, name: str, note: Tell) -> None:
    mutant = MUTANTS[name]
    right = lab.expected(mutant.right)
    once = lab.once(mutant.flow, right)
    assert (once == []) is mutant.good_once, once
    report = lab.explored(mutant.flow, lab.recorded(mutant.flow, right))
    note(report)
    assert report.bad


@pytest.mark.parametrize("pair", RACES, ids=lambda pair: str(pair.name))
def test_a_race_is_found(lab: Lab, pair: Pair, note: Tell) -> None:
    report = Interleaver(lab).explored(pair, 90)
    note(report)
    assert report.bad
