"""Retention of segments: what is over goes, and what anybody still needs stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.entity import timestamp
from activation.domain.event import read_event
from activation.domain.event_receipt import EventRefusal
from activation.domain.job import JobKind
from activation.domain.retention_run import RetentionJob, RetentionReport, RunDraft
from activation.domain.segment_record import NewSegmentDraft, SegmentDefinition
from activation.domain.segment_shard import SHARDS, shard_of
from activation.errors import BadRequestError, ValidationError
from activation.ports import ABSENT, Batch, Key, Message, Query, Write
from activation.segments.minutes import MICROS, instant_of, micros_of
from activation.services.audience_sweep import GRACE
from activation.services.event_messages import USER_EVENTS
from activation.services.kept_states import KeptStates
from activation.services.parcels import object_of
from activation.services.rule_books import RULES
from activation.services.segment_retention import REFUSALS_KEPT
from activation.services.segment_shards import TRANSITIONS
from tests.services.support import drained

DAY = timedelta(days=1)
ANN, SHARD = "ann", shard_of("ann")


def definition(operator: str = "GTE", value: float = 1, window: int = 1440) -> dict[str, Any]:
    """Who has ordered so often."""
    rule = {"event_type": "orders", "operator": operator, "value": value}
    rules = [{**rule, "window_minutes": window}]
    return {"name": "Buyers", "type": "INDEPENDENT", "rules": rules}


@pytest.fixture
def segment_id(app: App, ann: Caller) -> str:
    """Who has ordered in a day."""
    draft = NewSegmentDraft.model_validate(definition())
    return app.segments.create(ann, draft).entity.segment_id


def order(app: App, user: str, number: int) -> None:
    """An order of now, evaluated at once; whoever is due is looked at."""
    now = app.clock.now()
    row = {"user_id": user, "event_type": "orders", "timestamp": timestamp(now)}
    event = read_event({**row, "event_id": f"{user}{number}"}, now)
    while app.shards.sweep_shard("acme", shard_of(user)):
        pass
    app.shards.process("acme", shard_of(user), [event])


def days(clock: MovableClock, count: float) -> None:
    """Let days go by."""
    clock.set(clock.now() + count * DAY)


def round_of(app: App, caller: Caller, *, dry_run: bool = False) -> RetentionReport:
    """A daily run, to its end."""
    draft = RunDraft(job=RetentionJob.DAILY, dry_run=dry_run)
    started = app.retention.start(caller, draft).entity
    drained(app, app.jobs.records.get(caller.organization_id, started.run_id).entity)
    return app.retention.get(caller, started.run_id).entity.report


def day_of(instant: datetime) -> int:
    """The day, counted from 1970."""
    return micros_of(instant) // (1440 * MICROS)


def told_at(app: App) -> Sequence[int]:
    """The days on which the kept steps were told, oldest first."""
    return sorted(
        day_of(instant_of(told.micros))
        for shard in range(SHARDS)
        for _, told in app.told_steps.newest_first("acme", shard)
    )


# what was told ------------------------------------------------------------------------------------


def test_what_was_told_over_a_year_ago_goes_and_open_stays_do_not(
    app: App, ann: Caller, clock: MovableClock, segment_id: str
) -> None:
    order(app, "ann", 1)
    for user in ("bob", "eve"):
        order(app, user, 1)
    forever = NewSegmentDraft.model_validate({**definition("LTE", 99), "name": "Seen"})
    seen = app.segments.create(ann, forever).entity.segment_id
    for user in ("ann", "bob", "eve"):
        app.shards.adopt("acme", shard_of(user))
    entered_at = {one.user_id: one.entered_at for one in app.memberships.members(ann, seen).data}
    days(clock, 2)
    order(app, "ann", 2)
    before = len(told_at(app))
    days(clock, 364)
    assert round_of(app, ann, dry_run=True).steps_deleted == 6
    assert len(told_at(app)) == before
    report = round_of(app, ann)
    assert report.steps_deleted == 6
    assert len(told_at(app)) == before - 6 > 0
    assert round_of(app, ann).steps_deleted == 0
    still = {one.user_id: one.entered_at for one in app.memberships.members(ann, seen).data}
    assert still == entered_at
    order(app, "ann", 3)
    assert ANN in {one.user_id for one in app.memberships.members(ann, segment_id).data}
    app.told_steps.require_kept("acme", clock.now() - 365 * DAY)
    with pytest.raises(ValidationError):
        app.told_steps.require_kept("acme", clock.now() - 366 * DAY)


def test_each_round_takes_what_was_told_before_its_year(
    app: App, ann: Caller, clock: MovableClock, segment_id: str
) -> None:
    del segment_id
    for number in range(8):
        order(app, "ann", number)
        order(app, "bob", number)
        days(clock, 10)
    every = told_at(app)
    days(clock, 280)
    for _ in range(9):
        days(clock, 10)
        round_of(app, ann)
        oldest = day_of(clock.now() - 365 * DAY)
        assert told_at(app) == [day for day in every if day >= oldest]
    assert told_at(app) == []


def test_the_first_step_since_an_instant_is_found_by_halving(
    app: App, clock: MovableClock, segment_id: str
) -> None:
    del segment_id
    moments = []
    for number in range(40):
        order(app, "ann", number)
        moments.append(clock.now())
        days(clock, 2)
    steps = [(told.seq, told.micros) for _, told in app.told_steps.newest_first("acme", SHARD)]
    assert len(steps) > 40
    for instant in (*moments, moments[0] - DAY, moments[-1] + 9 * DAY):
        for wanted in (instant, instant - timedelta(microseconds=1)):
            first = app.told_steps.first_since("acme", SHARD, wanted)
            assert {seq for seq, _ in steps if seq < first} == {
                seq for seq, micros in steps if micros < micros_of(wanted)
            }


def test_a_run_deletes_so_many_steps_and_the_next_goes_on(
    app: App, ann: Caller, clock: MovableClock, segment_id: str
) -> None:
    del segment_id
    for number in range(5):
        order(app, "ann", number)
        days(clock, 2)
    total = len(told_at(app))
    days(clock, 400)
    small = replace(app.segment_retention, max_deleted=3)
    worker = replace(app.retention_worker, segments=small)
    app.__dict__["retention_worker"] = worker
    assert [round_of(app, ann).steps_deleted for _ in range(3)] == [3, 3, total - 6]
    assert told_at(app) == []


def test_large_steps_go_with_their_objects(
    app: App, ann: Caller, clock: MovableClock, segment_id: str
) -> None:
    del segment_id
    object.__setattr__(app.shards.parcels, "inline_bytes", 10)
    order(app, "ann", 1)
    days(clock, 2)
    order(app, "ann", 2)
    objects = [
        one
        for one in app.member_blobs.list("acme")
        if one.key.path.startswith(f"segments/{TRANSITIONS}")
    ]
    assert len(objects) == len(told_at(app)) == 3
    days(clock, 364)
    assert round_of(app, ann).steps_deleted == 1
    left = [one.key for one in app.member_blobs.list("acme")]
    assert objects[0].key not in left
    assert objects[1].key in left
    assert objects[2].key in left


# rules --------------------------------------------------------------------------------------------


def versions(app: App) -> list[int]:
    """The versions of the rules that are there."""
    found = app.documents.query(Query("acme", RULES, limit=200))
    return sorted(int(one.key.id[2:]) for one in found if one.key.id.startswith("v-"))


def test_rules_that_nobody_needs_go_a_day_later(
    app: App, ann: Caller, clock: MovableClock, segment_id: str
) -> None:
    order(app, "ann", 1)
    for value in (2, 3, 4):
        changed = SegmentDefinition.model_validate(definition(value=value))
        app.segments.replace(ann, segment_id, changed)
    assert versions(app) == [1, 2, 3, 4]
    assert round_of(app, ann).rules_deleted == 0
    days(clock, 1)
    assert round_of(app, ann).rules_deleted == 0, "a shard is at the first one"
    assert versions(app) == [1, 2, 3, 4]
    order(app, "ann", 2)
    assert round_of(app, ann, dry_run=True).rules_deleted == 3
    assert versions(app) == [1, 2, 3, 4]
    assert round_of(app, ann).rules_deleted == 3
    assert versions(app) == [4]
    app.shards.books._books.clear()
    order(app, "ann", 3)
    order(app, "bob", 1)
    assert app.memberships.statistics(ann, segment_id).members == 0


def test_rules_of_today_stay_though_every_shard_has_left_them(
    app: App, ann: Caller, clock: MovableClock, segment_id: str
) -> None:
    order(app, "ann", 1)
    round_of(app, ann)
    days(clock, 1)
    changed = SegmentDefinition.model_validate(definition(value=2))
    app.segments.replace(ann, segment_id, changed)
    order(app, "ann", 2)
    assert round_of(app, ann).rules_deleted == 0
    assert versions(app) == [1, 2]
    days(clock, 1)
    round_of(app, ann)
    assert versions(app) == [2]


# refusals -----------------------------------------------------------------------------------------


def refusals(app: App) -> set[str]:
    """Messages that are said to be refused."""
    return {one.key.id for one in app.documents.query(Query("acme", "event_refusals"))}


@pytest.mark.embedded("on Pub/Sub dead letters go by themselves")
def test_a_refusal_goes_when_its_dead_letter_is_gone(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    app.organizations.ensure("acme")
    waiting = Message(USER_EVENTS, "acme", "waiting", {"user_id": 7})
    app.bus.publish([waiting])

    def handle(_name: str, message: Message, _attempt: int) -> None:
        app.event_worker.run(message)

    while not app.bus.dead_letters("process_events"):
        app.bus.deliver_due(handle)  # type: ignore[attr-defined]
        clock.sleep(120)
    with pytest.raises(BadRequestError):
        app.event_worker.run(replace(waiting, id="dropped"))
    assert refusals(app) == {"waiting", "dropped"}
    clock.sleep(REFUSALS_KEPT.total_seconds() - 60)
    assert round_of(app, ann).refusals_deleted == 0
    clock.sleep(120)
    assert round_of(app, ann).refusals_deleted == 1
    assert refusals(app) == {"waiting"}
    record = app.documents.get(Key("acme", "event_refusals", "waiting"))
    assert record is not None
    assert EventRefusal.restored(record.data).events == 1


# objects ------------------------------------------------------------------------------------------


def test_the_sweep_takes_objects_of_workers_who_died(
    app: App, ann: Caller, clock: MovableClock, segment_id: str
) -> None:
    del segment_id
    object.__setattr__(app.shards.parcels, "inline_bytes", 10)
    for number in range(3):
        order(app, "ann", number)
    key = Key("acme", "segment_deltas", f"{SHARD:05}-000000000099")
    [lost] = object_of(app.shards.parcels.packed(key, b"x" * 20))
    named = {one.key.path for one in app.member_blobs.list("acme")} - {lost}
    days(clock, GRACE.total_seconds() / 86_400 - 0.01)
    assert "segments" not in drained(app, app.jobs.start(ann, JobKind.SWEEP).entity).result
    days(clock, 0.02)
    swept = drained(app, app.jobs.start(ann, JobKind.SWEEP).entity).result
    assert swept["segments"] == 1
    assert {one.key.path for one in app.member_blobs.list("acme")} == named
    fresh = replace(app.shards.states, kept=KeptStates())
    assert fresh.open("acme", SHARD).state.users.names == ["ann"]


def test_the_notes_of_retention_do_not_go_back(app: App, ann: Caller, segment_id: str) -> None:
    del segment_id
    later = timestamp(app.clock.now() + 900 * DAY)
    write = Write(Key("acme", "segment_history", "kept"), {"kept_from": later}, ABSENT)
    app.documents.commit(Batch([write]))
    order(app, "ann", 1)
    app.clock.set(app.clock.now() + 400 * DAY)  # type: ignore[attr-defined]
    round_of(app, ann)
    kept_from = app.told_steps.kept_from("acme")
    assert kept_from is not None
    assert timestamp(kept_from) == later
