"""Erasing a user: nothing that is stored names him afterwards, and nothing of before comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller, service_caller
from activation.domain.entity import timestamp
from activation.domain.event import read_event
from activation.domain.job import Job, JobStatus
from activation.domain.membership import Transition
from activation.domain.segment import Aggregate, Comparison
from activation.domain.segment_record import NewSegmentDraft
from activation.domain.segment_shard import shard_of
from activation.domain.user_erasure import is_pseudonym
from activation.errors import BadRequestError, ConflictError, NotFoundError, ValidationError
from activation.ports import Batch, Message, Query
from activation.services.event_archive import Span
from activation.services.event_messages import USER_EVENTS
from activation.services.kept_states import KeptStates
from activation.services.segment_shards import TRANSITIONS, ShardWorker
from tests.services.support import drained
from tests.services.unpacked import holds

MINUTE = timedelta(minutes=1)
BOB = "bob-the-user-to-be-forgotten"
SHARD = shard_of(BOB)
OTHERS = [name for name in (f"user-{n}" for n in range(2_000)) if shard_of(name) == SHARD][:6]
"""Users of his shard."""


@pytest.fixture
def segment_id(app: App, ann: Caller) -> str:
    """Who has ordered twice in half an hour."""
    rule = {
        "event_type": "orders",
        "attribute": Aggregate.COUNT,
        "operator": Comparison.GTE,
        "value": 2,
        "window_minutes": 30,
    }
    draft = NewSegmentDraft.model_validate(
        {"name": "Buyers", "type": "INDEPENDENT", "rules": [rule]}
    )
    return app.segments.create(ann, draft).entity.segment_id


@dataclass
class Probe:
    """A run of a job that nothing is kept of."""

    caller: Caller
    job: Job

    def keep(self) -> None:
        """Nothing to keep alive."""


def row(user: str, number: int, at: datetime) -> dict[str, Any]:
    """An order."""
    return {
        "user_id": user,
        "event_type": "orders",
        "timestamp": timestamp(at),
        "event_id": f"{user[:3]}{number}",
    }


def come(
    app: App, users: Sequence[str], number: int = 1, received_at: datetime | None = None
) -> None:
    """An order of each user, now, evaluated at once."""
    now = app.clock.now()
    events = [read_event(row(user, number, received_at or now), now) for user in users]
    app.shards.process("acme", SHARD, events, [received_at or now] * len(events))


def erased(app: App, caller: Caller, user_id: str = BOB) -> Job:
    """Have a user erased, to the end."""
    return drained(app, app.user_erasures.request(caller, user_id).entity)


def known(app: App, user_id: str = BOB) -> bool:
    """Whether anything that is stored names a user."""
    return holds(app, user_id)


def another(app: App) -> ShardWorker:
    """A worker with a memory of its own."""
    states = app.shards.states
    return replace(app.shards, states=replace(states, kept=KeptStates()))


def told(app: App) -> list[Transition]:
    """All that is told of the shard, oldest first."""
    found = app.documents.query(Query("acme", TRANSITIONS, {"shard": SHARD}, limit=1_000))
    numbers = sorted(int(one.key.id.split("-")[1]) for one in found)
    return [one for number in numbers for one in app.shards.told("acme", SHARD, number)]


def inside(app: App, segment_id: str) -> set[str]:
    """Who is in the segment, in his shard."""
    opened = app.shards.states.open("acme", SHARD)
    return set(opened.state.members_of(segment_id, opened.book))


@pytest.mark.parametrize("inline_bytes", [10, 500_000])
@pytest.mark.parametrize("archived", [True, False])
def test_nothing_that_is_stored_names_him(
    app: App, ann: Caller, segment_id: str, inline_bytes: int, archived: bool
) -> None:
    object.__setattr__(app.shards.parcels, "inline_bytes", inline_bytes)
    for number in range(4):
        come(app, [BOB, *OTHERS], number)
        app.clock.sleep(60)
    if archived:
        assert app.event_archiver.run("acme", [SHARD], now=True)
        come(app, [BOB], 5)
    before = {one.user_id: one for one in told(app)}
    assert known(app)
    job = erased(app, ann)
    assert job.status is JobStatus.COMPLETED
    assert not known(app)
    receipts = job.result["stores"]
    assert receipts["memberships"] == {"exits": 1}
    assert receipts["history"] == {"changes": 1}
    assert receipts["events"]["records"] == (2 if archived else 4)
    assert (receipts["objects"]["objects"] > 0) is (inline_bytes == 10)
    assert inside(app, segment_id) == set(OTHERS)
    now = {one.user_id: one for one in told(app) if not is_pseudonym(one.user_id)}
    assert now == {name: one for name, one in before.items() if name != BOB}
    with pytest.raises(NotFoundError):
        app.memberships.of_user(ann, BOB)


def test_others_hear_that_he_left_under_a_pseudonym_they_can_make(
    app: App, ann: Caller, segment_id: str
) -> None:
    come(app, [BOB, *OTHERS], 1)
    come(app, [BOB, *OTHERS], 2)
    erased(app, ann)
    left = [one for one in told(app) if not one.entered]
    assert [(one.user_id, one.segment_id) for one in left] == [
        (app.erasure_marks.pseudonym("acme", BOB), segment_id)
    ]
    assert app.erasure_marks.pseudonym("evil-corp", BOB) != left[0].user_id
    messages = [one for one in told(app) if one.seq == left[0].seq]
    assert messages == left


def test_events_of_before_are_not_counted_and_later_ones_are_a_new_user(
    app: App, ann: Caller, segment_id: str
) -> None:
    start = app.clock.now()
    come(app, [BOB, *OTHERS], 1)
    come(app, [BOB], 2)
    app.clock.sleep(60)
    erased(app, ann)
    app.clock.sleep(60)
    late = [read_event(row(BOB, n, start), app.clock.now()) for n in (1, 2, 3)]
    waited = [read_event(row(BOB, 4, app.clock.now()), app.clock.now())]
    for events, received_at in ((late, app.clock.now()), (late, start), (waited, start)):
        done = app.shards.process("acme", SHARD, events, [received_at] * len(events))
        assert (done.counted, done.duplicate, done.erased) == (0, 0, len(events))
    assert not known(app)
    come(app, [BOB, *OTHERS], 5)
    assert inside(app, segment_id) == set(OTHERS)
    come(app, [BOB], 6)
    assert inside(app, segment_id) == {BOB, *OTHERS}
    again = [one for one in told(app) if one.user_id == BOB]
    assert [one.entered for one in again] == [True]


def test_somebody_whom_nobody_saw_yet_is_erased_before_he_comes(
    app: App, ann: Caller, segment_id: str
) -> None:
    del segment_id
    waiting = [read_event(row(BOB, 1, app.clock.now()), app.clock.now())]
    app.clock.sleep(60)
    job = erased(app, ann)
    assert job.result["stores"]["memberships"] == {"exits": 0}
    assert app.shards.process("acme", SHARD, waiting, [waiting[0].timestamp]).erased == 1
    come(app, OTHERS)
    assert app.shards.process("acme", SHARD, waiting, [waiting[0].timestamp]).erased == 1


def test_events_after_the_erasure_stay_in_the_archive(app: App, ann: Caller) -> None:
    """He comes back while the erasure is still under way."""
    come(app, [BOB, *OTHERS], 1)
    job = app.user_erasures.request(ann, BOB).entity
    stores = app.user_erasures.stores()
    run = Probe(service_caller("run_job", "acme", "t"), job)
    digest = job.params["erasure_id"]
    stores[0][1](run, digest, BOB)  # type: ignore[arg-type]
    app.clock.sleep(60)
    come(app, [BOB], 2)
    assert app.event_archiver.run("acme", [SHARD], now=True)
    assert drained(app, job).status is JobStatus.COMPLETED
    tables = app.event_archive.events("acme", Span(app.clock.now() - timedelta(days=1)), BOB)
    assert [row["event_id"] for table in tables for row in table.to_pylist()] == ["bob2"]


def test_a_second_request_is_the_same_job_until_it_is_done(app: App, ann: Caller) -> None:
    come(app, [BOB])
    first = app.user_erasures.request(ann, BOB).entity
    assert app.user_erasures.request(ann, BOB).entity.job_id == first.job_id
    assert drained(app, first).status is JobStatus.COMPLETED
    app.clock.sleep(60)
    come(app, [BOB], 2)
    assert known(app)
    second = erased(app, ann)
    assert second.job_id != first.job_id
    assert not known(app)


def test_a_worker_that_remembers_the_shard_does_not_bring_him_back(
    app: App, ann: Caller, segment_id: str
) -> None:
    come(app, [BOB, *OTHERS], 1)
    other = another(app)
    other.states.open("acme", SHARD)
    erased(app, ann)
    now = app.clock.now()
    events = [read_event(row(name, 2, now), now) for name in (BOB, *OTHERS)]
    done = other.process("acme", SHARD, events, [now] * len(events))
    assert (done.counted, done.erased) == (len(OTHERS), 1)
    assert not known(app)
    opened = other.states.open("acme", SHARD)
    assert set(opened.state.members_of(segment_id, opened.book)) == set(OTHERS)


def test_a_step_that_was_being_taken_loses_against_the_erasure(
    app: App, ann: Caller, segment_id: str
) -> None:
    del segment_id
    come(app, [BOB, *OTHERS], 1)
    opened = app.shards.states.open("acme", SHARD)
    erased(app, ann)
    writes = app.shards.states.whole(opened, replace(opened.state, number=2))
    with pytest.raises(ConflictError):
        app.documents.commit(Batch(writes))
    assert not known(app)


def test_other_shards_and_organizations_keep_theirs(app: App, ann: Caller, eve: Caller) -> None:
    now = app.clock.now()
    for organization in ("acme", "evil-corp"):
        events = [read_event(row(BOB, 1, now), now)]
        app.shards.process(organization, SHARD, events, [now])
    erased(app, ann)
    assert app.memberships.of_user(eve, BOB).user_id == BOB
    again = [read_event(row(BOB, 2, now), now)]
    assert app.shards.process("evil-corp", SHARD, again, [now]).counted == 1


def test_objects_of_workers_who_died_go_too(app: App, ann: Caller) -> None:
    object.__setattr__(app.shards.parcels, "inline_bytes", 10)
    come(app, [BOB, *OTHERS], 1)
    opened = app.shards.states.open("acme", SHARD)
    app.shards.states.whole(opened, opened.state)
    assert known(app)
    erased(app, ann)
    assert not known(app)
    assert app.shards.states.open("acme", SHARD).state.users.names == OTHERS


def test_what_could_not_be_counted_of_him_is_not_kept_for_another_try(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    old = clock.now() - timedelta(days=2)
    rows = [row(name, 1, old) for name in (BOB, OTHERS[0])]
    message = Message(USER_EVENTS, "acme", "m1", {"events": rows})
    app.organizations.ensure("acme")
    with pytest.raises(BadRequestError):
        app.event_worker.run(message)
    data = {"refused": "timestamp: too_late", "received_at": clock.now().isoformat()}
    aside = Message(USER_EVENTS, "acme", "m2", {**data, "events": rows[:1]})
    with pytest.raises(BadRequestError):
        app.event_worker.run(aside)
    clock.sleep(60)
    erased(app, ann)
    app.event_worker.run(aside)
    shard = {"shard": SHARD, "received_at": data["received_at"], "events": rows}
    app.event_worker.run(Message(USER_EVENTS, "acme", "m3", shard))
    asides: list[Message] = []
    app.bus.deliver_due(lambda _name, one, _attempt: asides.append(one))  # type: ignore[attr-defined]
    kept = [one.data["events"] for one in asides if "refused" in one.data]
    assert kept == [rows[1:]]


def test_nobody_may_be_called_like_somebody_who_was_erased(app: App) -> None:
    name = app.erasure_marks.pseudonym("acme", BOB)
    with pytest.raises(ValidationError):
        read_event(row(name, 1, app.clock.now()), app.clock.now())
    free = read_event(row("erased:not", 1, app.clock.now()), app.clock.now())
    assert free.user_id == "erased:not"


def test_his_name_is_in_no_record_of_the_erasure(app: App, ann: Caller) -> None:
    come(app, [BOB])
    job = app.user_erasures.request(ann, BOB).entity
    public = orjson.dumps(job.public()) + repr(job).encode()
    assert BOB.encode() not in public
    entries = app.documents.query(Query("acme", "audit", limit=100))
    assert any(one.data["action"] == "api:user:erase" for one in entries)
    assert all(BOB not in repr(one.data) for one in entries)


def test_a_shard_of_many_steps_is_rewritten_by_pages(
    app: App, ann: Caller, segment_id: str, clock: MovableClock
) -> None:
    del segment_id
    for number in range(130):
        come(app, [BOB], 2 * number)
        come(app, [BOB], 2 * number + 1)
        clock.sleep(31 * 60)
        app.shards.sweep_shard("acme", SHARD)
    changes = len(told(app))
    assert changes > 200
    job = erased(app, ann)
    assert job.result["stores"]["history"] == {"changes": changes}
    assert told(app) == []
    assert app.documents.count(Query("acme", TRANSITIONS)) == 0
