"""At every minute, membership is what counting everything anew says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.segments.follower import followed
from tests.segments.purchases import (
    made_up,
    purchases,
    segments_of_purchases,
    told_by_recount,
    told_by_shard,
)
from tests.segments.worlds import Maker


@settings(max_examples=examples(150))
@given(st.integers(0, 2**32))
def test_any_world_agrees_with_a_recount(seed: int) -> None:
    followed(Maker(random.Random(seed)).world())


@pytest.mark.slow
@settings(max_examples=examples(2_000))
@given(st.integers(0, 2**32))
def test_two_thousand_worlds_agree_with_a_recount(seed: int) -> None:
    followed(Maker(random.Random(seed)).world())


def test_purchases_agree_with_a_recount_and_every_rule_bites() -> None:
    events, segments = purchases(made_up(12, 90)), segments_of_purchases()
    told = told_by_shard(segments, events)
    assert told == told_by_recount(segments, events)
    for one in segments:
        moves = {entered for *_, segment_id, entered in told if segment_id == one.segment_id}
        assert moves == {True, False}, one.segment_id
