"""The evaluation in its corners: sums, ids, future events, silence, state that stays small."""

from __future__ import annotations

import dataclasses
import random
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activation.domain.event import MAX_VALUE, Event, amount_in
from activation.domain.membership import Transition
from activation.domain.segment import Segment
from activation.errors import StorageUnavailableError, ValidationError
from activation.segments.block import EventBlock, amounts_of, block_of, empty_block
from activation.segments.codec import (
    Delta,
    delta_bytes,
    delta_of,
    pack,
    state_bytes,
    state_of,
    told_by,
    told_bytes,
    told_of,
    unpack,
)
from activation.segments.engine import Evaluation, evaluate
from activation.segments.minutes import Moment, micros_of, micros_of_tick
from activation.segments.rulebook import RuleBook, rule_book
from activation.segments.seen import KEPT_DAYS, Run, Seen, first_of_each
from activation.segments.state import ShardState, empty_state
from tests.examples import examples
from tests.segments.follower import followed
from tests.segments.worlds import NOON, Maker, segment

MINUTE = timedelta(minutes=1)


def event(number: int, minute: float = 0.0, user: str = "ann", **attributes: object) -> Event:
    """An order so many minutes after noon."""
    return Event.model_validate(
        {
            "user_id": user,
            "event_type": "orders",
            "timestamp": NOON + minute * MINUTE,
            "attributes": attributes,
            "event_id": f"e{number}",
        }
    )


def rule(operator: str, value: float, window: int, field: str | None = None) -> dict[str, object]:
    """A rule on orders; on a sum when it has a field."""
    kind = {"attribute": "count"} if field is None else {"attribute": "sum", "field": field}
    about = {"event_type": "orders", "operator": operator, "value": value}
    return {**about, **kind, "window_minutes": window}


class Shard:
    """A shard with a few segments."""

    def __init__(self, *segments: Segment) -> None:
        self.book: RuleBook = rule_book(segments, "1")
        self.state: ShardState = empty_state(self.book)

    def take(self, *events: Event, minute: float = 0.0, sweep: int = 100) -> list[Transition]:
        """Events at a moment; what changed."""
        return self.listed(self.step(*events, minute=minute, sweep=sweep))

    def step(self, *events: Event, minute: float = 0.0, sweep: int = 100) -> Evaluation:
        """Events at a moment."""
        block, refused = block_of(events, self.book.fields)
        assert not refused
        found = evaluate(self.state, block, self.book, micros_of(NOON + minute * MINUTE), sweep)
        self.state = found.state
        return found

    def listed(self, found: Evaluation) -> list[Transition]:
        """The changes of a step, one by one."""
        users, ids = found.state.users.names, self.book.segment_ids
        return found.transitions.listed(users, ids, found.state.number, found.state.micros)

    def inside(self, user: str = "ann") -> list[str]:
        """The segments of a user."""
        return self.state.segments_of(user, self.book)


# sums ---------------------------------------------------------------------------------------------


def test_ten_tenths_are_one_whatever_the_order() -> None:
    shard = Shard(segment("one", rules=[rule("EQ", 1, 60, "amount")]))
    for number in range(9):
        assert shard.take(event(number, amount=0.1)) == []
    assert [one.entered for one in shard.take(event(9, amount=0.1))] == [True]


def test_refunds_count_and_time_takes_them_back() -> None:
    shard = Shard(segment("spent", rules=[rule("GTE", 10, 5, "amount")]))
    shard.take(event(1, amount=12), event(2, minute=-2, amount=-5))
    assert shard.inside() == []
    shard.take(minute=3)
    assert shard.inside() == ["spent"]
    shard.take(minute=5)
    assert shard.inside() == []


def test_a_sum_that_leaves_64_bits_is_refused_and_the_rest_is_kept() -> None:
    shard = Shard(segment("rich", rules=[rule("GT", 10**12, 1440, "amount")]))
    most = [event(number, amount=MAX_VALUE) for number in range(8_998)]
    shard.step(*most)
    assert shard.inside() == ["rich"]
    found = shard.step(
        event(9_001, amount=MAX_VALUE),
        event(9_002, amount=MAX_VALUE),
        event(9_003, user="bob", amount=1),
        minute=1,
    )
    assert found.refused.tolist() == [False, True, False]
    assert found.counted.tolist() == [True, False, True]
    assert shard.inside() == ["rich"]


def test_an_event_with_an_absurd_amount_is_left_out_whole() -> None:
    book = rule_book([segment("s", rules=[rule("GTE", 1, 5, "amount")])], "1")
    block, refused = block_of(
        [event(1, amount=1), event(2, amount=MAX_VALUE * 2), event(3)], book.fields
    )
    assert (len(block), refused) == (2, [1])


def test_thresholds_too_far_apart_for_64_bits_still_tell() -> None:
    rules = [(f"s{n}", value, 60 + n) for n, value in enumerate((-(10**12), 10**12, 1, 2, 3, 4, 5))]
    shard = Shard(
        *(
            segment(name, rules=[rule("GTE", value, window, "amount")])
            for name, value, window in rules
        )
    )
    assert [plan.measures[0].flat for plan in shard.book.plans if plan.measures] == [None]
    shard.take(event(1, amount=3))
    assert shard.inside() == ["s0", "s2", "s3", "s4"]


# silence and time ---------------------------------------------------------------------------------


def test_users_without_events_are_in_nothing_and_known_ones_may_be_in_by_silence() -> None:
    shard = Shard(segment("lapsed", rules=[rule("LT", 1, 5)]))
    assert shard.state.members_of("lapsed", shard.book) == []
    shard.take(event(1))
    assert shard.inside() == []
    assert [one.entered for one in shard.take(minute=5)] == [True]
    assert shard.inside() == ["lapsed"]
    assert shard.inside("nobody") == []


def test_time_alone_can_let_in_and_out_again() -> None:
    shard = Shard(segment("one", rules=[rule("EQ", 1, 5)]))
    shard.take(event(1), event(2, minute=-2))
    assert shard.inside() == []
    shard.take(minute=3)
    assert shard.inside() == ["one"]
    shard.take(minute=5)
    assert shard.inside() == []


def test_an_event_ahead_counts_from_its_minute_on() -> None:
    shard = Shard(segment("one", rules=[rule("GTE", 1, 5)]))
    assert shard.take(event(1, minute=3.5)) == []
    assert shard.take(minute=3) == []
    assert shard.state.next_due() == 2 * (micros_of(NOON) // 60_000_000 + 4) - 1
    assert [one.entered for one in shard.take(minute=3.2)] == [True]


def test_a_clock_that_goes_back_undoes_nothing() -> None:
    shard = Shard(segment("one", rules=[rule("GTE", 1, 5)]))
    shard.take(event(1))
    shard.take(minute=5)
    assert shard.inside() == []
    assert shard.take(minute=1) == []
    assert Moment(shard.state.micros).floor == micros_of(NOON + 5 * MINUTE) // 60_000_000


def test_a_late_event_changes_what_is_and_not_what_was() -> None:
    shard = Shard(
        segment("short", rules=[rule("GTE", 2, 5)]), segment("day", rules=[rule("GTE", 2, 1440)])
    )
    shard.take(event(1))
    told = shard.take(event(2, minute=1), minute=30)
    assert [(one.segment_id, one.happened_at) for one in told] == [("day", NOON + MINUTE)]


def test_derived_segments_do_not_flicker() -> None:
    shard = Shard(
        segment("a", rules=[rule("EQ", 1, 5)]),
        segment("b", rules=[rule("EQ", 2, 5)]),
        segment("some", expression="a OR b"),
        segment("none", expression="NOT (a OR b)"),
    )
    assert {one.segment_id for one in shard.take(event(1))} == {"a", "some"}
    told = shard.take(event(2, minute=1), minute=1)
    assert {(one.segment_id, one.entered) for one in told} == {("a", False), ("b", True)}


def test_only_the_rules_of_the_events_type_are_looked_at() -> None:
    clicks = {"event_type": "clicks", "operator": "GTE", "value": 1, "window_minutes": 5}
    shard = Shard(segment("clickers", rules=[clicks]), segment("one", rules=[rule("GTE", 1, 5)]))
    shard.take(event(1))
    kinds = [bool(len(cells)) for cells in shard.state.cells]
    assert kinds == [False, False, True, False]
    assert (shard.state.due[:, 0] == 2**31 - 1).all()


# ids ----------------------------------------------------------------------------------------------


@settings(max_examples=examples(60))
@given(st.integers(0, 2**32))
def test_nobody_is_looked_at_in_vain(seed: int) -> None:
    """At the very tick at which somebody is due, and not before, one of his ranks changes."""
    world = Maker(random.Random(seed)).world()
    book = rule_book(world.segments, "1")
    state, nothing = empty_state(book), empty_block(book.fields)
    for arrival in world.arrivals:
        block = block_of(arrival.events, book.fields)[0]
        while state.next_due() <= Moment(micros_of(arrival.at)).tick:
            (row,) = state.due_rows(state.next_due(), 1)
            after = evaluate(state, nothing, book, micros_of_tick(state.next_due()), 1).state
            assert (after.ranks[row] != state.ranks[row]).any()
            state = after
        state = evaluate(state, block, book, micros_of(arrival.at)).state


def test_two_users_may_use_the_same_id() -> None:
    shard = Shard(segment("one", rules=[rule("GTE", 1, 5)]))
    found = shard.step(event(1), event(1, user="bob"), event(1))
    assert found.duplicate.tolist() == [False, False, True]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=30), st.integers(1, 5))
def test_seen_knows_exactly_what_came(pairs: list[tuple[int, int]], size: int) -> None:
    """Few ids and rows, so that different users have the same bits."""
    seen, known = Seen().at(3), set[tuple[int, int]]()
    for first in range(0, len(pairs), size):
        some = pairs[first : first + size]
        rows = np.array([row for row, _ in some], np.int32)
        ids = np.array([number for _, number in some], np.uint64)
        fresh = first_of_each(rows, ids)
        assert fresh.tolist() == [pair not in some[:n] for n, pair in enumerate(some)]
        assert seen.known(rows, ids).tolist() == [pair in known for pair in some]
        new = fresh & ~seen.known(rows, ids)
        seen = seen.joined(rows[new], ids[new])
        known.update(some)
        assert len(seen) == len(known)
        assert len(seen.runs) <= 1 + len(known).bit_length()


def test_ids_go_after_31_days() -> None:
    days = np.array([0, 1, KEPT_DAYS], np.uint16)
    run = Run(np.arange(3, dtype=np.uint64), np.zeros(3, np.int32), days)
    assert [len(Seen((run,), 0).at(day)) for day in (0, 31, 32, 33, 70)] == [3, 3, 2, 1, 0]


# the state ----------------------------------------------------------------------------------------


def test_state_stays_bounded_and_what_no_window_reaches_goes() -> None:
    shard = Shard(segment("day", rules=[rule("GTE", 1, 1440)]))
    for minute in range(0, 9_000, 3):
        shard.take(event(minute, minute=minute), minute=minute)
    assert len(shard.state.cells[2]) <= 2 * 1440 + 1024
    assert len(state_of(state_bytes(shard.state)).cells[2]) == 480


def test_a_step_does_not_touch_the_state_it_came_from() -> None:
    shard = Shard(segment("one", rules=[rule("GTE", 2, 5)]))
    shard.take(event(1))
    before, digest = shard.state, shard.state.digest()
    shard.take(event(2), event(3, user="bob"))
    shard.take(minute=5)
    assert before.digest() == digest
    assert shard.state.digest() != digest


@settings(max_examples=examples(40))
@given(st.integers(0, 2**32))
def test_the_same_log_gives_the_same_state_stored_or_not(seed: int) -> None:
    world = Maker(random.Random(seed)).world()
    live = followed(world)
    again = state_of(state_bytes(live.state))
    assert again.digest() == live.state.digest()
    assert state_bytes(again) == state_bytes(live.state)
    assert dataclasses.asdict(again)["seen"]["day"] == live.state.seen.day


def test_the_order_of_arrival_leaves_no_trace() -> None:
    events = [event(n, minute=-n, user=f"u{n % 3}", amount=n) for n in range(12)]
    rules = [rule("GTE", 3, 30), rule("LT", 40, 9, "amount")]
    digests = set()
    for seed in range(5):
        random.Random(seed).shuffle(events)
        shard = Shard(segment("s", rules=rules))
        for one in events:
            shard.take(one)
        digests.add(shard.state.digest())
    assert len(digests) == 1


def test_a_delta_and_what_was_told_are_read_as_they_were() -> None:
    shard = Shard(segment("one", rules=[rule("GTE", 1, 5)]))
    found = shard.step(event(1, amount=2.5), event(2, user="Zoë 🛒"), event(1))
    block = block_of([event(1, amount=2.5), event(2, user="Zoë 🛒")], shard.book.fields)[0]
    delta = delta_of(delta_bytes(Delta(1, found.state.micros, 7, block)), shard.book)
    assert (delta.number, delta.micros, delta.sweep) == (1, found.state.micros, 7)
    assert _columns(delta.block) == _columns(block)
    users, ids = found.state.users.names, shard.book.segment_ids
    told = told_of(told_bytes(told_by(found.transitions, users, ids, 1, found.state.micros)))
    assert told.transitions.listed(told.users, told.segment_ids, 1, told.micros) == shard.listed(
        found
    )


def test_a_step_of_another_evaluation_is_not_taken_again() -> None:
    shard = Shard(segment("one", rules=[rule("GTE", 1, 5)]))
    header, columns = unpack(delta_bytes(Delta(1, 0, 0, empty_block(shard.book.fields))))
    with pytest.raises(StorageUnavailableError):
        delta_of(pack({**header, "evaluation": 0}, columns), shard.book)


NUMBERS = st.one_of(
    st.integers(-(10**11), 10**11),
    st.integers(-(10**3), 10**3),
    st.floats(-(10.0**10), 10.0**10),
    st.floats(-100, 100),
    st.decimals(-1000, 1000, places=8).map(float),
    st.sampled_from([None, True, "19.99", "x", 10**400, 0.0000005, 1.0000005, [1], {"b": 2.5}]),
)


@given(st.lists(st.one_of(st.floats(-100, 100), NUMBERS), max_size=8), st.booleans())
def test_numbers_of_many_events_are_what_each_says(values: list[Any], nested: bool) -> None:
    rows = [{"a": one} if not nested else {"a": {"b": one}} for one in values]
    name = "a.b" if nested else "a"
    found, refused = amounts_of(rows, name)
    for n, row in enumerate(rows):
        try:
            assert found[n] == (amount_in(row, name) or 0)
            assert n not in refused
        except ValidationError:
            assert n in refused


def test_events_that_cannot_be_added_up_leave_with_their_users() -> None:
    fields = Shard(segment("one", rules=[rule("GTE", 1, 5, "amount")])).book.fields
    events = [
        event(1, user="big", amount=1e12),
        event(2, amount=1),
        event(3, user="big2", amount=-1e12),
    ]
    block, refused = block_of(events, fields)
    assert refused == [0, 2]
    assert _columns(block) == _columns(block_of([events[1]], fields)[0])


def _columns(block: EventBlock) -> list[object]:
    arrays = (block.user, block.ids, block.types, block.micros, block.amounts)
    return [list(block.users), *(array.tolist() for array in arrays)]


def test_every_damaged_byte_is_noticed() -> None:
    shard = Shard(segment("one", rules=[rule("GTE", 1, 5)]))
    shard.take(event(1))
    stored = state_bytes(shard.state)
    for at in range(len(stored)):
        damaged = bytearray(stored)
        damaged[at] ^= 1
        with pytest.raises(StorageUnavailableError):
            state_of(bytes(damaged))
    with pytest.raises(StorageUnavailableError):
        state_of(stored[:-1])


def test_rules_of_another_version_are_not_mixed() -> None:
    shard = Shard(segment("one", rules=[rule("GTE", 1, 5)]))
    other = rule_book(shard.book.segments, "2")
    with pytest.raises(ValueError, match="other rules"):
        evaluate(shard.state, empty_block(other.fields), other, 0)


# the rule book ------------------------------------------------------------------------------------


def test_rules_share_what_they_look_at() -> None:
    same = [segment(f"s{n}", rules=[rule("GTE", n % 7, 60)]) for n in range(500)]
    book = rule_book(same, "1")
    assert (book.numbers, len(book.circuit.number)) == (1, 7)


def test_a_segment_falls_with_what_it_stands_on() -> None:
    off = segment("a", rules=[rule("GTE", 1, 5)], status="inactive")
    book = rule_book(
        [off, segment("b", expression="NOT a"), segment("c", expression="b OR d")], "1"
    )
    assert book.segments == ()
    with pytest.raises(ValidationError):
        rule_book([segment("a", expression="b"), segment("b", expression="a")], "1")


def test_ticks_are_moments() -> None:
    for micros in (0, 1, 59_999_999, 60_000_000, 60_000_001):
        tick = Moment(micros).tick
        assert Moment(micros_of_tick(tick)).tick == tick
        assert micros_of_tick(tick) <= micros
