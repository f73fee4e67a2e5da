"""At every minute, membership is what counting everything anew says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.segments.follower import followed
from tests.segments.worlds import Maker


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_any_world_agrees_with_a_recount(seed: int) -> None:
    followed(Maker(random.Random(seed)).world())


@pytest.mark.slow
@settings(max_examples=2_000)
@given(st.integers(0, 2**32))
def test_two_thousand_worlds_agree_with_a_recount(seed: int) -> None:
    followed(Maker(random.Random(seed)).world())
