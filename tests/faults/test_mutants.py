"""The lab finds each wrong order; one that it did not find would show that the lab is blind."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Tell
from tests.faults.interleave import Interleaver, Pair
from tests.faults.lab import Lab
from tests.faults.mutants import MUTANTS, UNGUARDED


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_order_is_found(lab: Lab, name: str, note: Tell) -> None:
    mutant = MUTANTS[name]
    right = lab.expected(mutant.right)
    once = lab.once(mutant.flow, right)
    assert (once == []) is mutant.good_once, once
    report = lab.explored(mutant.flow, lab.recorded(mutant.flow, right))
    note(report)
    assert report.bad


def test_numbers_without_a_guard_are_found(lab: Lab, note: Tell) -> None:
    wrong = Pair(UNGUARDED, UNGUARDED)
    report = Interleaver(lab).explored(wrong, 15)
    note(report)
    assert report.bad
