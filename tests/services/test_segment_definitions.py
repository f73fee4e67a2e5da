"""Definitions of segments under concurrent writers, and ten thousand of them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.entity import new_id
from activation.domain.segment import SegmentStatus
from activation.domain.segment_record import (
    MAX_SEGMENTS,
    NewSegmentDraft,
    SegmentDefinition,
    SegmentRecord,
)
from activation.domain.segment_report import MembershipChange
from activation.errors import ActivationError, InvalidStateError, ValidationError
from activation.ports import Batch, Query
from activation.segments.rulebook import in_force

RULE = {"event_type": "orders", "operator": "GTE", "value": 2, "window_minutes": 30}


def rules(name: str, **fields: object) -> NewSegmentDraft:
    """An independent segment."""
    return NewSegmentDraft.model_validate(
        {"name": name, "type": "INDEPENDENT", "rules": [RULE], **fields}
    )


def derived(name: str, expression: str) -> SegmentDefinition:
    """A derived segment."""
    return SegmentDefinition.model_validate(
        {"name": name, "type": "DERIVED", "expression": expression}
    )


def outcome(act: partial[object]) -> str:
    """What came of a use case."""
    try:
        act()
    except ActivationError as error:
        return error.code
    return "done"


def all_of(app: App, caller: Caller) -> list[SegmentRecord]:
    """All records, as stored."""
    query = Query(caller.organization_id, "segments", limit=200)
    return [SegmentRecord.restored(one.data) for one in app.documents.query(query)]


def require_consistent(app: App, caller: Caller) -> None:
    """What is in force is what the records say, without a circle."""
    active = [one.definition() for one in all_of(app, caller) if one.is_active]
    assert len(in_force(active)) == len(active), "an active segment uses active ones"
    book = app.shards.books.current(caller.organization_id)
    assert {one.segment_id: one for one in book.segments} == {o.segment_id: o for o in active}


def test_writers_at_the_same_time_make_no_circle(app: App, ann: Caller) -> None:
    """Each of four segments wants to stand on the next one: three may, one is refused."""
    made = [app.segments.create(ann, rules(f"S{n}")).entity for n in range(4)]
    acts = [
        partial(app.segments.replace, ann, one.segment_id, derived(one.name, f"S{(n + 1) % 4}"))
        for n, one in enumerate(made)
    ]
    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(outcome, acts))
    assert found == ["VALIDATION_ERROR", "done", "done", "done"]
    require_consistent(app, ann)


def test_one_is_switched_off_or_another_one_comes_to_need_it(app: App, ann: Caller) -> None:
    for number in range(6):
        base = app.segments.create(ann, rules(f"Base {number}")).entity
        draft = NewSegmentDraft.model_validate(
            {**derived(f"On {number}", f'"{base.name}"').model_dump(), "status": "active"}
        )
        off = partial(app.segments.set_status, ann, base.segment_id, SegmentStatus.INACTIVE)
        with ThreadPoolExecutor(2) as pool:
            found = sorted(pool.map(outcome, [off, partial(app.segments.create, ann, draft)]))
        assert found == ["INVALID_STATE", "done"]
    require_consistent(app, ann)


def test_a_name_is_given_once(app: App, ann: Caller) -> None:
    acts = [partial(app.segments.create, ann, rules("Buyers")) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(outcome, acts)) == ["NAME_TAKEN"] * 3 + ["done"]
    require_consistent(app, ann)


def test_a_field_that_nobody_added_up_has_no_past(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    field = {**RULE, "attribute": "sum", "field": "total"}
    usual = app.segments.create(ann, rules("Usual", rules=[{**RULE, "attribute": "sum"}])).entity
    assert usual.counting_since is None
    first = app.segments.create(ann, rules("First", rules=[field])).entity
    assert first.counting_since == clock.now()
    clock.sleep(60)
    second = app.segments.create(ann, rules("Second", rules=[field])).entity
    assert second.counting_since == first.counting_since
    app.segments.delete(ann, first.segment_id)
    app.segments.set_status(ann, second.segment_id, SegmentStatus.INACTIVE)
    clock.sleep(60)
    again = app.segments.set_status(ann, second.segment_id, SegmentStatus.ACTIVE).entity
    assert again.counting_since == clock.now(), "nobody added it up meanwhile"
    above = derived("Above", "Second OR Usual")
    stored = app.segments.create(
        ann, NewSegmentDraft.model_validate({**above.model_dump(), "status": "active"})
    )
    assert stored.entity.counting_since == clock.now()


def test_a_change_of_others_is_no_change_to_who_names_a_revision(app: App, ann: Caller) -> None:
    """Only the segment's own revision counts, though all changes go through one document."""
    made = [app.segments.create(ann, rules(f"S{n}")) for n in range(6)]
    acts = [
        partial(
            app.segments.set_status,
            ann,
            one.entity.segment_id,
            SegmentStatus.INACTIVE,
            one.revision,
        )
        for one in made
    ]
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(outcome, acts)) == {"done"}
        assert set(pool.map(outcome, acts)) == {"PRECONDITION_FAILED"}


def filled(app: App, caller: Caller, count: int) -> None:
    """So many segments, made in bulk."""
    now = app.clock.now()
    made = [
        SegmentRecord.model_validate(
            {
                "organization_id": caller.organization_id,
                "created_at": now,
                "updated_at": now,
                "segment_id": new_id(now),
                "name": f"S{n}",
                "type": "INDEPENDENT",
                "user_id": caller.user_id,
                "activated_at": now,
                "rules": [{**RULE, "value": n % 50 + 1, "window_minutes": n % 1440 + 1}],
            }
        )
        for n in range(count)
    ]
    for at in range(0, count, 500):
        part = made[at : at + 500]
        writes = [app.segments.records.created(one.segment_id, one) for one in part]
        app.documents.commit(Batch(writes))
    force = app.segments.rules.read(caller.organization_id)
    changed = app.segments.rules.changed(force, now, [one.definition() for one in made])
    app.documents.commit(Batch(changed.writes))


def looked(app: App, caller: Caller) -> tuple[float, list[dict[str, Any]], int]:
    """How many seconds a page and the count take, and what they show."""
    began = time.perf_counter()
    page = app.segments.list(caller, {"status": "active"}, 200)
    total = app.segments.count(caller, {"status": "active"})
    shown = [one.public() for one in page.items]
    return time.perf_counter() - began, shown, total


@pytest.mark.embedded("how fast an emulator lists says nothing")
def test_ten_thousand_segments(app: App, ann: Caller) -> None:
    """The limit holds; a page of the list costs what the page costs."""
    filled(app, ann, MAX_SEGMENTS - 1)
    app.segments.create(ann, rules("The last one"))
    with pytest.raises(InvalidStateError, match="at most 10,000"):
        app.segments.create(ann, rules("One more"))
    looks = [looked(app, ann) for _ in range(5)]
    (_, shown, total), seconds = looks[0], min(seconds for seconds, *_ in looks)
    print(f"a page of 200 of {total:,} in {seconds * 1000:.0f} ms")
    assert (len(shown), total) == (200, MAX_SEGMENTS)
    assert shown[0]["name"] == "The last one"
    assert seconds < 0.5
    book = app.shards.books.current(ann.organization_id)
    assert len(book.segments) == MAX_SEGMENTS


def test_what_was_told_before_is_told_in_pages(app: App, ann: Caller, clock: MovableClock) -> None:
    """History and statistics over many steps; a user's page is full of his changes only."""
    buyers = app.segments.create(ann, rules("Buyers")).entity
    for number in range(6):
        for user in ("ann", "bob"):
            events = [
                {"user_id": user, "event_type": "orders", "event_id": f"{user}{number}{n}"}
                for n in range(2)
            ]
            app.events.accept(ann, events)
        delivered(app)
        clock.sleep(31 * 60)
        app.due.run()
        delivered(app)
    found: list[MembershipChange] = []
    after: str | None = None
    while True:
        page = app.memberships.history(ann, "ann", 5, after)
        found += page.data
        after = page.next_cursor
        if after is None:
            break
    assert [one.entered for one in found] == [False, True] * 6
    assert sorted({one.seq for one in found}, reverse=True) == [one.seq for one in found]
    statistics = app.memberships.statistics(ann, buyers.segment_id)
    assert (statistics.members, statistics.last_day.entered, statistics.last_day.exited) == (
        *(0, 12),
        12,
    )
    assert statistics.last_hour.exited == 4
    assert statistics.last_hour.since == clock.now() - timedelta(hours=1)


def delivered(app: App) -> None:
    """Have everything evaluated that waits."""
    while app.bus.deliver_due(  # type: ignore[attr-defined]
        lambda _subscription, message, _attempt: app.event_worker.run(message),
        only=("process_events",),
    ):
        pass


def test_an_expression_of_nothing_is_refused(app: App, ann: Caller) -> None:
    draft = NewSegmentDraft.model_validate(
        {**derived("x", '"no / id" OR y').model_dump(), "status": "active"}
    )
    with pytest.raises(ValidationError, match="does not exist"):
        app.segments.create(ann, draft)
