"""What a process keeps of shards stays within its memory, whatever users and tenants there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from activation.adapters.process_memory import memory_bytes
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.event import Event
from activation.domain.segment_record import NewSegmentDraft
from activation.domain.segment_shard import SHARDS, shard_of
from activation.segments.rulebook import rule_book
from activation.segments.state import Users, empty_state
from activation.services.kept_states import NAME_BYTES, Kept, KeptStates
from activation.services.rule_books import RuleBooks
from tests.conftest import START

DRAFT = {
    "type": "INDEPENDENT",
    "rules": [{"event_type": "orders", "operator": "GTE", "value": 1, "window_minutes": 60}],
}


def kept(mark: str, users: int) -> Kept:
    """A state with so many users."""
    names = [f"u{n}" for n in range(users)]
    empty = empty_state(rule_book([], "1"))
    return Kept(mark, replace(empty, users=Users(names, {name: n for n, name in enumerate(names)})))


def test_those_used_last_are_kept_as_far_as_they_fit() -> None:
    states = KeptStates(max_bytes=1_000 * NAME_BYTES)
    for shard in range(5):
        states.put(("acme", shard), kept(f"m{shard}", 400))
    there = [shard for shard in range(5) if states.get(("acme", shard)) is not None]
    assert there == [3, 4]
    states.put(("acme", 4), kept("smaller", 10))
    states.put(("acme", 5), kept("m5", 400))
    there = [shard for shard in range(6) if states.get(("acme", shard)) is not None]
    assert there == [3, 4, 5], "what was replaced takes no room any more"
    states.put(("acme", 6), kept("m6", 5_000))
    there = [shard for shard in range(7) if states.get(("acme", shard)) is not None]
    assert there == [6], "the last one is always kept"


def test_no_more_than_so_many_are_kept() -> None:
    states = KeptStates(max_states=2)
    for shard in range(3):
        states.put(("acme", shard), kept("m", 1))
    assert [states.get(("acme", shard)) is not None for shard in range(3)] == [False, True, True]
    assert states.get(("acme", 1)), "it is used"
    states.put(("acme", 3), kept("m", 1))
    assert [states.get(("acme", shard)) is not None for shard in range(4)] == [0, 1, 0, 1]


def test_versions_of_rules_are_kept_as_far_as_they_fit(app: App, ann: Caller) -> None:
    """Every change of a segment makes a version of them all."""
    books = RuleBooks(app.documents, app.shards.parcels, max_segments=10)
    for number in range(1, 7):
        draft = {**DRAFT, "name": f"S{number}"}
        app.segments.create(ann, NewSegmentDraft.model_validate(draft))
        assert len(books.current("acme").segments) == number
    before = [books.at("acme", str(version)) for version in (5, 6)]
    assert before[-1] is books.at("acme", "6"), "the last one is kept"
    assert before[0] is not books.at("acme", "5"), "two of so many are too many"
    assert books.at("acme", "2").segments == books.at("acme", "2").segments


def test_many_tenants_find_their_shards_in_memory(app: App) -> None:
    users = {shard_of(name): name for name in (f"u{n}" for n in range(1_000))}
    assert len(users) == SHARDS
    organizations = [f"org-{n}" for n in range(3)]
    for organization in organizations:
        for shard, user in users.items():
            event = {"user_id": user, "event_type": "clicks", "timestamp": START}
            app.shards.process(organization, shard, [Event.model_validate(event)])
    kept = app.shards.states.kept
    assert all(kept.get((one, shard)) for one in organizations for shard in range(SHARDS))


def test_who_may_keep_nothing_tells_the_same(app: App) -> None:
    forgetful = replace(app.shards, states=replace(app.shards.states, kept=KeptStates(max_bytes=0)))
    for user in ("u1", "u2", "u3"):
        event = {"user_id": user, "event_type": "clicks", "timestamp": START}
        assert forgetful.process("acme", shard_of(user), [Event.model_validate(event)]).counted == 1
        again = forgetful.process("acme", shard_of(user), [Event.model_validate(event)])
        assert (again.counted, again.duplicate) == (0, 1)


@pytest.mark.parametrize(("text", "limits"), [("1048576\n", True), ("max", False), ("", False)])
def test_a_container_may_have_less_than_the_machine(
    text: str, limits: bool, tmp_path: Path
) -> None:
    told = tmp_path / "memory.max"
    told.write_text(text)
    found = memory_bytes([tmp_path / "not there", told])
    assert (found == 1_048_576) == limits
    assert found >= 1_048_576
