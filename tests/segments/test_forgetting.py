"""A state without a user is the state that never saw him, now and from then on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from activation.domain.event import Event
from activation.segments.block import block_of
from activation.segments.engine import evaluate
from activation.segments.forgetting import farewells, without_users
from activation.segments.minutes import MICROS, micros_of
from activation.segments.rulebook import RuleBook, rule_book
from activation.segments.seen import merged
from activation.segments.state import ShardState, Transitions, empty_state
from tests.examples import examples
from tests.segments.worlds import Maker, World

GONE = "u1"


def taken(
    state: ShardState, book: RuleBook, events: Sequence[Event], micros: int
) -> tuple[ShardState, Transitions]:
    """A step that looks at everybody who is due."""
    found = evaluate(state, block_of(events, book.fields)[0], book, micros, 100)
    return found.state, found.transitions


def content(state: ShardState) -> dict[str, Any]:
    """All that a state knows, whatever the pieces it lies in."""
    cells = [one.pruned_at(state.micros // MICROS, always=True) for one in state.cells]
    seen = merged(list(state.seen.runs)) if state.seen.runs else None
    triples = zip(seen.rows, seen.ids, seen.days, strict=True) if seen else ()
    return {
        "names": list(state.users.names),
        "rows": dict(state.users.rows or {}),
        "cells": [(one.keys.tolist(), one.numbers.tolist()) for one in cells],
        "ranks": state.ranks.tolist(),
        "due": state.due.tolist(),
        "seen": sorted(tuple(int(n) for n in one) for one in triples),
        "stays": [state.stays.of(row) for row in range(len(state.users))],
        "when": (state.version, state.number, state.micros, state.seen.day),
    }


def lives(world: World, book: RuleBook, at: int) -> tuple[ShardState, ShardState]:
    """The world until a moment, with and without GONE: the first one has forgotten him then."""
    told, silent = empty_state(book), empty_state(book)
    for number, arrival in enumerate(world.arrivals):
        if number == at:
            told = without_users(told, [GONE])
        others = [one for one in arrival.events if one.user_id != GONE]
        events = arrival.events if number < at else others
        micros = micros_of(arrival.at)
        told, changes = taken(told, book, events, micros)
        silent, expected = taken(silent, book, others, micros)
        if number >= at:
            assert changes.rows.tolist() == expected.rows.tolist()
            assert changes.entered.tolist() == expected.entered.tolist()
            assert changes.happened.tolist() == expected.happened.tolist()
    return without_users(told, [GONE]), silent


@settings(max_examples=examples(150))
@example(41898, 13)  # an exit long overdue, of somebody who was looked at with the one who is gone
@given(st.integers(0, 2**32), st.integers(0, 30))
def test_a_state_without_a_user_is_one_that_never_saw_him(seed: int, at: int) -> None:
    world = Maker(random.Random(seed)).world()
    book = rule_book(world.segments, "1")
    forgotten, innocent = lives(world, book, at)
    assert content(forgotten) == content(innocent)
    assert forgotten.digest() == innocent.digest()


@settings(max_examples=examples(60))
@given(st.integers(0, 2**32))
def test_who_comes_back_is_a_new_user(seed: int) -> None:
    world = Maker(random.Random(seed)).world()
    book = rule_book(world.segments, "1")
    forgotten, innocent = lives(world, book, len(world.arrivals))
    again = [one for arrival in world.arrivals for one in arrival.events if one.user_id == GONE]
    micros = forgotten.micros + MICROS
    results = [taken(state, book, again, micros) for state in (forgotten, innocent)]
    assert content(results[0][0]) == content(results[1][0])


@pytest.mark.parametrize("names", [(), ("nobody",)])
def test_forgetting_nobody_changes_nothing(names: Sequence[str]) -> None:
    book = rule_book(Maker(random.Random(1)).world().segments, "1")
    state = empty_state(book)
    assert without_users(state, names) is state


def test_each_open_stay_gets_its_farewell() -> None:
    world = Maker(random.Random(5)).world()
    book = rule_book(world.segments, "1")
    state, stays = empty_state(book), 0
    for arrival in world.arrivals:
        state, _ = taken(state, book, arrival.events, micros_of(arrival.at))
        for name in state.users.names:
            found = farewells(state, name, state.micros)
            inside = [book.segment_ids[n] for n in found.segments.tolist()]
            assert sorted(inside) == sorted(state.segments_of(name, book))
            assert not found.entered.any()
            assert np.all(found.happened >= state.micros)
            stays += len(inside)
    assert stays > 0
    assert len(farewells(state, "nobody", state.micros)) == 0
