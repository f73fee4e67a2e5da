"""Derived audiences: exactly the members their rules choose, whatever happens to the source."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import (
    MAX_DEPTH,
    Audience,
    AudienceChanges,
    AudienceDraft,
    AudienceStatus,
)
from activation.domain.caller import Caller, Role
from activation.domain.identifier import IdentifierType
from activation.domain.job import Job, JobKind, JobStatus
from activation.domain.member import Member, MemberFilter, MemberInput
from activation.domain.member_change import MemberReference
from activation.domain.member_import import ImportDraft
from activation.domain.retention_run import RunDraft
from activation.errors import InvalidStateError, NotFoundError
from activation.ports import Query
from activation.services.derivations import HELD, SOURCE_ARCHIVED
from tests.conftest import caller_of

GERMAN = {"variable_id": "country", "operator": "EQ", "value": "DE"}
ADULT = {"variable_id": "age", "operator": "GTE", "value": 18}


def person(number: int, **attributes: Any) -> MemberInput:
    given = {"country": ("DE", "FR")[number % 2], "age": number % 60, **attributes}
    return MemberInput(
        identifier_type=IdentifierType.EMAIL,
        identifier_value=f"p{number}@example.com",
        attributes=given,
        segments=("odd",) if number % 2 else (),
    )


def reference(number: int) -> MemberReference:
    return MemberReference(
        identifier_type=IdentifierType.EMAIL, identifier_value=f"p{number}@example.com"
    )


def created(app: App, caller: Caller, name: str, **fields: Any) -> str:
    draft = AudienceDraft.model_validate({"name": name, "type": "first_party", **fields})
    return app.audiences.create(caller, draft).entity.audience_id


def derived(app: App, caller: Caller, source: str, *rules: Mapping[str, Any], name: str) -> str:
    origin = {"source_audience_id": source}
    return created(app, caller, name, derived_from=origin, rules=list(rules))


def queued(app: App) -> list[Job]:
    found = app.documents.query(Query("acme", "jobs", {"status": "queued"}, limit=200))
    return [Job.restored(document.data) for document in reversed(found)]


def work(app: App) -> list[Job]:
    """Run every queued job, and those that come of them; the derivations among them."""
    done = []
    while jobs := queued(app):
        for job in jobs:
            app.job_worker.run("acme", job.job_id, "trace")
            done.append(app.jobs.records.get("acme", job.job_id).entity)
    assert {job.status for job in done} <= {JobStatus.COMPLETED}
    return [job for job in done if job.kind is JobKind.DERIVE]


def audience(app: App, audience_id: str) -> Audience:
    return app.audiences.records.get("acme", audience_id).entity


def members(app: App, audience_id: str) -> list[Member]:
    found, after = list[Member](), None
    while True:
        page, after = app.members.page(caller_of(), audience_id, MemberFilter(), 1000, after)
        found += page
        if after is None:
            return found


def chosen(app: App, source: str) -> list[Member]:
    """What GERMAN and ADULT choose, written down a second time."""
    return [
        member
        for member in members(app, source)
        if member.attributes.get("country") == "DE" and member.attributes.get("age", 0) >= 18
    ]


def runs_left(app: App, audience_id: str) -> list[str]:
    found = app.member_blobs.list("acme", f"audience_id={audience_id}/runs/")
    return [info.key.path for info in found]


@pytest.fixture
def source(app: App, ann: Caller) -> str:
    made = created(app, ann, "Everybody")
    app.members.add(ann, made, [person(number) for number in range(200)])
    work(app)
    return made


@pytest.fixture
def adults(app: App, ann: Caller, source: str) -> str:
    """The German adults of the source, derived."""
    made = derived(app, ann, source, GERMAN, ADULT, name="German adults")
    work(app)
    return made


def test_a_new_one_gets_the_chosen_members_with_all_that_is_known(
    app: App, ann: Caller, source: str
) -> None:
    made = derived(app, ann, source, GERMAN, ADULT, name="German adults")
    assert (audience(app, made).status, audience(app, made).size) == (AudienceStatus.DRAFT, 0)
    [job] = work(app)
    assert members(app, made) == chosen(app, source)
    now = audience(app, made)
    assert now.status is AudienceStatus.ACTIVE
    assert job.result == {"added": now.size, "updated": 0, "removed": 0, "size": now.size}
    assert now.derived_from is not None
    assert now.derived_from.source_manifest_id == audience(app, source).manifest_id
    assert now.derived_from.derived_at == app.clock.now()
    assert audience(app, source).derived_count == 1


def test_it_follows_additions_updates_and_removals(
    app: App, ann: Caller, clock: MovableClock, source: str, adults: str
) -> None:
    clock.sleep(60)
    grown = [person(number) for number in range(190, 260)]
    grown += [person(20, age=3), person(21, country="DE"), person(22, city="Rome")]
    app.members.add(ann, source, grown)
    work(app)
    assert members(app, adults) == chosen(app, source)
    app.members.remove(ann, source, [reference(number) for number in range(30)])
    [job] = work(app)
    assert members(app, adults) == chosen(app, source)
    assert job.result["removed"] > 0
    assert runs_left(app, adults) == []


def test_a_large_source_that_changes_little_is_followed_by_deltas(
    app: App, ann: Caller, source: str
) -> None:
    everybody = [person(number) for number in range(200, 6_000)]
    for start in range(0, len(everybody), 1_000):
        app.members.add(ann, source, everybody[start : start + 1_000])
    made = derived(app, ann, source, {**ADULT, "operator": "GTE", "value": 0}, name="All")
    work(app)
    app.members.add(ann, source, [person(7_000), person(11, city="Rome")])
    app.members.remove(ann, source, [reference(12)])
    jobs = work(app)
    assert [job.result.get("size") for job in jobs] == [6_000, None]
    assert jobs[0].result == {"added": 1, "updated": 1, "removed": 1, "size": 6_000}
    manifest = app.members.manifests.get("acme", audience(app, made).manifest_id or "").entity
    assert len(manifest.deltas) == 1
    assert members(app, made) == members(app, source)


def test_packing_either_of_them_is_no_change(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    app.member_upkeep.compact(ann, source, level=9)
    app.member_upkeep.compact(ann, adults, level=9)
    assert work(app) == []
    app.members.add(ann, source, [person(1000)])
    work(app)
    assert members(app, adults) == chosen(app, source)


def test_nothing_old_stays_of_a_member_that_came_anew(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    app.members.remove(ann, source, [reference(20)])
    app.members.add(
        ann, source, [person(20).model_copy(update={"attributes": {"country": "DE", "age": 40}})]
    )
    work(app)
    assert members(app, adults) == chosen(app, source)


def test_a_change_that_touches_nobody_chosen_makes_no_version(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    before = audience(app, adults)
    app.members.add(ann, source, [person(1001)])
    [job] = work(app)
    after = audience(app, adults)
    assert (after.version, after.manifest_id) == (before.version, before.manifest_id)
    assert job.result == {"added": 0, "updated": 0, "removed": 0, "size": before.size}
    assert after.derived_from is not None
    assert after.derived_from.source_manifest_id == audience(app, source).manifest_id


def test_it_follows_its_own_rules(app: App, ann: Caller, source: str, adults: str) -> None:
    changes = AudienceChanges.model_validate({"rules": [GERMAN]})
    app.audiences.update(ann, adults, changes)
    assert len(work(app)) == 1
    expected = [m for m in members(app, source) if m.attributes["country"] == "DE"]
    assert members(app, adults) == expected
    app.audiences.update(ann, adults, AudienceChanges(description="only the words"))
    assert work(app) == []


def test_chains_follow_and_stay_short(app: App, ann: Caller, source: str) -> None:
    chain = [source]
    for depth in range(1, MAX_DEPTH + 1):
        chain.append(derived(app, ann, chain[-1], GERMAN, name=f"level {depth}"))
    with pytest.raises(InvalidStateError) as refused:
        derived(app, ann, chain[-1], GERMAN, name="too deep")
    assert refused.value.reason == "depth"
    work(app)
    app.members.add(ann, source, [person(1000), person(1001)])
    work(app)
    expected = [m for m in members(app, source) if m.attributes["country"] == "DE"]
    assert [members(app, one) for one in chain[1:]] == [expected] * MAX_DEPTH
    assert [audience(app, one).derived_count for one in chain] == [1] * MAX_DEPTH + [0]


def test_a_late_or_repeated_job_changes_nothing(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    app.members.add(ann, source, [person(1000)])
    app.members.add(ann, source, [person(1002)])
    jobs = queued(app)
    assert len(jobs) == 2
    work(app)
    before = audience(app, adults)
    results = [app.jobs.get(ann, job.job_id).entity.result for job in jobs]
    assert [result.get("added") for result in results] == [2, None]
    assert results[1] == {"skipped": "in_step"}
    assert before.size == len(chosen(app, source))


def test_its_members_cannot_be_changed_directly(app: App, ann: Caller, adults: str) -> None:
    attempts = (
        lambda: app.members.add(ann, adults, [person(1)]),
        lambda: app.members.remove(ann, adults, [reference(2)]),
        lambda: app.imports.create_direct(
            ann, adults, ImportDraft(), io.BytesIO(b"email\na@b.de\n")
        ),
        lambda: app.imports.create_upload(ann, adults, ImportDraft(), "text/csv"),
    )
    for attempt in attempts:
        with pytest.raises(InvalidStateError) as refused:
            attempt()
        assert refused.value.reason == "derived"


def test_a_source_is_not_deleted_while_it_feeds_others(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    with pytest.raises(InvalidStateError) as refused:
        app.audiences.delete(ann, source)
    assert refused.value.reason == "has_derived"
    assert adults not in refused.value.message
    app.audiences.delete(ann, adults)
    assert audience(app, source).derived_count == 0
    app.audiences.delete(ann, source)


def test_an_archived_source_leaves_the_members_as_they_are(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    before = members(app, adults)
    app.audiences.set_status(ann, source, "active")
    app.audiences.set_status(ann, source, "archived")
    work(app)
    assert audience(app, adults).status_reason == SOURCE_ARCHIVED
    assert members(app, adults) == before
    with pytest.raises(InvalidStateError):
        derived(app, ann, source, GERMAN, name="late")
    app.audiences.set_status(ann, source, "active")
    app.members.add(ann, source, [person(1000)])
    work(app)
    assert audience(app, adults).status_reason is None
    assert members(app, adults) == chosen(app, source)


def test_an_archived_one_catches_up_when_it_is_back(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    app.audiences.set_status(ann, adults, "archived")
    app.members.add(ann, source, [person(1000)])
    [job] = work(app)
    assert job.result == {"skipped": "archived"}
    app.audiences.set_status(ann, adults, "active")
    work(app)
    assert members(app, adults) == chosen(app, source)


def test_one_under_legal_hold_is_left_as_it_is(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    before = members(app, adults)
    app.retention.hold(ann, adults, "court case")
    app.members.remove(ann, source, [reference(number) for number in range(100)])
    work(app)
    assert members(app, adults) == before
    assert audience(app, adults).status_reason == HELD
    app.retention.lift(ann, adults)
    work(app)
    assert members(app, adults) == chosen(app, source)
    assert audience(app, adults).status_reason is None


def test_a_source_packed_into_its_archive_and_back(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    app.audiences.set_status(ann, source, "active")
    before = members(app, adults)
    app.archives.request_archive(ann, source)
    work(app)
    assert audience(app, source).manifest_id is None
    assert members(app, adults) == before
    app.archives.request_unarchive(ann, source)
    work(app)
    assert audience(app, adults).status_reason is None
    assert members(app, adults) == chosen(app, source) == before


def test_restoring_a_source_takes_the_derived_back(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    number = audience(app, source).version
    before = members(app, adults)
    app.members.remove(ann, source, [reference(n) for n in range(100)])
    work(app)
    assert len(members(app, adults)) < len(before)
    app.versions.restore(ann, source, number)
    work(app)
    assert members(app, adults) == before == chosen(app, source)


def test_restoring_a_derived_one_restores_its_rules_and_chooses_anew(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    number = audience(app, adults).version
    app.audiences.update(ann, adults, AudienceChanges.model_validate({"rules": []}))
    work(app)
    assert members(app, adults) == members(app, source)
    app.members.add(ann, source, [person(1000)])
    work(app)
    app.versions.restore(ann, adults, number)
    work(app)
    assert members(app, adults) == chosen(app, source)


def test_an_empty_source_empties_it(app: App, ann: Caller, source: str, adults: str) -> None:
    app.members.remove(ann, source, [reference(number) for number in range(200)])
    work(app)
    assert (members(app, adults), audience(app, adults).size) == ([], 0)


def test_one_derived_from_an_audience_without_members_waits(app: App, ann: Caller) -> None:
    empty = created(app, ann, "Later")
    made = derived(app, ann, empty, GERMAN, name="German")
    work(app)
    assert audience(app, made).size == 0
    app.members.add(ann, empty, [person(0), person(1)])
    work(app)
    assert [m.attributes["country"] for m in members(app, made)] == ["DE"]


def test_work_that_takes_long_is_handed_over(app: App, ann: Caller, source: str) -> None:
    made = derived(app, ann, source, GERMAN, ADULT, name="German adults")
    [job] = queued(app)
    hurried = dataclasses.replace(app.job_worker, work_seconds=-1)
    hurried.run("acme", job.job_id, "trace")
    paused = app.jobs.records.get("acme", job.job_id).entity
    assert (paused.status, paused.state["next"]) == (JobStatus.QUEUED, 8)
    assert members(app, made) == []
    hurried.run("acme", job.job_id, "trace")
    assert members(app, made) == chosen(app, source)
    assert audience(app, made).size == app.jobs.get(ann, job.job_id).entity.result["added"]


def test_work_on_what_is_no_longer_so_begins_anew(app: App, ann: Caller, source: str) -> None:
    made = derived(app, ann, source, GERMAN, name="Germans")
    [job] = queued(app)
    dataclasses.replace(app.job_worker, work_seconds=-1).run("acme", job.job_id, "trace")
    app.audiences.update(ann, made, AudienceChanges.model_validate({"rules": [GERMAN, ADULT]}))
    work(app)
    assert members(app, made) == chosen(app, source)
    assert runs_left(app, made) == []


def test_only_a_source_that_one_sees_can_be_named(
    app: App, ann: Caller, eve: Caller, source: str
) -> None:
    colleague = caller_of(user="bob", role=Role.EDITOR)
    for stranger in (eve, colleague):
        with pytest.raises(NotFoundError):
            derived(app, stranger, source, GERMAN, name="theirs")
    assert audience(app, source).derived_count == 0


def test_the_job_is_in_the_commit_of_the_change(
    app: App, ann: Caller, source: str, adults: str
) -> None:
    """A change and a new derived audience at the same time: one of them sees the other."""
    stored = app.audiences.find(ann, source)
    late = derived(app, ann, source, GERMAN, name="late")
    assert app.audiences.find(ann, source).revision != stored.revision
    work(app)
    app.members.add(ann, source, [person(1000)])
    assert {job.audience_id for job in queued(app)} == {late, adults}


def test_members_whose_time_is_over_are_not_chosen(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    """A source under legal hold keeps them; nobody else does, and nothing changes day by day."""
    source = created(app, ann, "Source")
    ends = clock.now() + timedelta(days=1)
    leaving = person(0).model_copy(update={"expires_at": ends})
    app.members.add(ann, source, [leaving, *map(person, range(1, 4))])
    one = derived(app, ann, source, name="All")
    work(app)
    assert audience(app, one).size == 4
    app.retention.hold(ann, source, "a case")
    versions = set()
    for _ in range(3):
        clock.set(clock.now() + timedelta(days=2))
        app.retention.start(ann, RunDraft())
        work(app)
        assert audience(app, one).size == 3
        versions.add(audience(app, one).version)
    assert len(versions) == 1
    app.members.add(ann, source, [person(9)])
    late = derived(app, ann, source, name="Late")
    work(app)
    assert (audience(app, source).size, audience(app, one).size) == (5, 4)
    assert audience(app, late).size == 4
