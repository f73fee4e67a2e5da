"""The sweep: what nothing names goes when it is old enough; nothing else ever does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionStatus, Stage
from activation.domain.entity import new_id
from activation.domain.job import JobKind
from activation.domain.manifest import Manifest
from activation.domain.member import MemberFilter
from activation.domain.member_import import ImportStatus, MemberImport
from activation.domain.retention import AudienceRetentionPolicy
from activation.domain.retention_run import RetentionJob, RunDraft
from activation.errors import VersionExpiredError
from activation.ports import ABSENT, Batch, BlobKey, BlobStore, Key, Query, Write
from tests.services.support import add, audience_of, contents, drained, inputs, never


def sweep(app: App, caller: Caller) -> dict[str, Any]:
    return drained(app, app.jobs.start(caller, JobKind.SWEEP).entity).result


def later(clock: MovableClock, **time: float) -> None:
    clock.set(clock.now() + timedelta(**time))


def objects(area: BlobStore, organization: str = "acme") -> set[str]:
    return {one.key.path for one in area.list(organization)}


def everything(app: App) -> set[str]:
    """All stored parts and copies."""
    parts = app.documents.query(Query("acme", "member_parts", limit=1000))
    areas = (app.member_blobs, app.archive_blobs, app.backup_blobs, app.uploads)
    return {one.key.id for one in parts}.union(*map(objects, areas))


def manifests(app: App, audience: Audience) -> dict[str, Manifest]:
    equal = {"audience_id": audience.audience_id}
    found = app.documents.query(Query("acme", "manifests", equal, limit=1000))
    return {one.key.id: Manifest.restored(one.data) for one in found}


def named(app: App, audience: Audience) -> set[str]:
    return {part.path for one in manifests(app, audience).values() for part in one.parts}


def current(app: App, audience: Audience) -> Audience:
    return app.audiences.records.get("acme", audience.audience_id).entity


def with_history(app: App, caller: Caller, clock: MovableClock, steps: int = 4) -> Audience:
    """An audience whose members changed day by day."""
    audience = audience_of(app, caller)
    for step in range(steps):
        add(app, caller, audience.audience_id, inputs(30, start=30 * step))
        later(clock, days=1)
    return current(app, audience)


def test_a_fresh_store_loses_nothing(app: App, ann: Caller, clock: MovableClock) -> None:
    audience = with_history(app, ann, clock)
    before = everything(app)
    assert sweep(app, ann) == {}
    assert everything(app) == before
    assert len(contents(app, current(app, audience))) == 120


def test_members_of_old_versions_go_in_two_steps(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    audience = with_history(app, ann, clock)
    members = contents(app, audience)
    later(clock, days=88.5)  # the newest came less than 90 days ago: the one before it is kept
    before = everything(app)
    released = sweep(app, ann)
    assert set(released) == {"released"}
    assert everything(app) == before
    later(clock, hours=23)
    assert "manifests" not in sweep(app, ann)
    later(clock, days=10)
    sweep(app, ann)
    later(clock, days=2)
    sweep(app, ann)
    assert list(manifests(app, audience)) == [audience.manifest_id]
    assert everything(app) == named(app, audience)
    assert contents(app, current(app, audience)) == members
    assert current(app, audience).version == audience.version


def test_the_last_change_of_a_long_unchanged_audience_can_be_undone(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    """A version's time is counted from the day another one followed, not from its own."""
    audience = with_history(app, ann, clock)
    later(clock, days=200)
    add(app, ann, audience.audience_id, inputs(30, start=1000))
    later(clock, days=30)
    sweep(app, ann)
    later(clock, days=30)
    sweep(app, ann)
    app.versions.restore(ann, audience.audience_id, audience.version)
    assert len(contents(app, current(app, audience))) == 120


def test_a_legal_hold_keeps_versions_and_backups(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    audience = with_history(app, ann, clock)
    app.backups.backup(ann, audience.audience_id, audience.version, never)
    app.retention.hold(ann, audience.audience_id, "case 7")
    before = everything(app)
    for _ in range(3):
        later(clock, days=400)
        sweep(app, ann)
    assert everything(app) == before
    page, _, _ = app.versions.page(ann, audience.audience_id, 2, MemberFilter())
    assert len(page) == 30


def test_a_released_version_cannot_be_restored(app: App, ann: Caller, clock: MovableClock) -> None:
    audience = with_history(app, ann, clock)
    later(clock, days=100)
    sweep(app, ann)
    with pytest.raises(VersionExpiredError):
        app.versions.restore(ann, audience.audience_id, 2)


def test_a_restored_version_is_not_swept(app: App, ann: Caller, clock: MovableClock) -> None:
    """A restore that comes first keeps the members it points at."""
    audience = with_history(app, ann, clock)
    app.versions.restore(ann, audience.audience_id, 2)
    for _ in range(5):
        later(clock, days=100)
        sweep(app, ann)
    assert len(contents(app, current(app, audience))) == 30


def test_a_change_that_crosses_the_sweep_stops_the_release(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    from activation.services.audience_sweep import AudienceSweep

    audience = with_history(app, ann, clock)
    later(clock, days=100)
    worker = app.sweep_worker
    stored = app.audiences.records.get("acme", audience.audience_id)
    sweeping = AudienceSweep(
        worker.commits,
        worker.areas,
        worker.kept_for,
        clock,
        ann,
        audience.audience_id,
        stored,
    )
    app.versions.restore(ann, audience.audience_id, 2)
    sweeping.run(never)
    assert not any(one.released_at for one in manifests(app, audience).values())


def test_members_that_were_compacted_without_a_version_stay(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    audience = with_history(app, ann, clock)
    app.member_upkeep.compact(ann, audience.audience_id, 19)
    compacted = current(app, audience)
    assert compacted.version == audience.version
    for _ in range(3):
        later(clock, days=100)
        sweep(app, ann)
    assert len(contents(app, current(app, audience))) == 120
    assert compacted.manifest_id in manifests(app, audience)


def test_orphans_go_when_they_are_old_enough(app: App, ann: Caller, clock: MovableClock) -> None:
    audience = with_history(app, ann, clock)
    before = everything(app)
    prefix = f"audience_id={audience.audience_id}"
    orphans = [
        (app.member_blobs, f"{prefix}/manifest_id=lost/partition=000/part-00.parquet"),
        (app.member_blobs, f"{prefix}/runs/aa.arrow"),
        (app.archive_blobs, f"{audience.audience_id}/v9-aa/data.tar.gz"),
        (app.backup_blobs, f"backups/{audience.audience_id}/v9/aa/members.ndjson.gz"),
        (app.uploads, "imports/unknown/source"),
        (app.member_blobs, "imports/unknown/run-000001-aa.arrow"),
        (app.member_blobs, "distributions/unknown/list-001.parquet"),
    ]
    for area, path in orphans:
        area.put(BlobKey("acme", path), b"x")
    lost = {"audience_id": audience.audience_id, "manifest_id": new_id(clock.now())}
    address = Key("acme", "member_parts", "lost")
    app.documents.commit(Batch([Write(address, {**lost, "content": ""}, ABSENT)]))
    later(clock, hours=23)
    sweep(app, ann)
    assert len(everything(app) - before) == 8
    later(clock, hours=2)
    assert sweep(app, ann) == {
        "objects": 2, "copies": 2, "uploads": 1, "scratch": 1, "lists": 1, "documents": 1,
    }  # fmt: skip
    assert everything(app) == before


def test_a_deleted_audience_is_gone_after_the_grace(
    app: App, ann: Caller, eve: Caller, clock: MovableClock
) -> None:
    audience = with_history(app, ann, clock)
    kept = audience_of(app, ann, "Other")
    add(app, ann, kept.audience_id, inputs(5))
    app.audiences.delete(ann, audience.audience_id)
    later(clock, hours=23)
    sweep(app, ann)
    assert len(manifests(app, audience)) == 4
    later(clock, hours=2)
    sweep(app, eve)
    assert len(manifests(app, audience)) == 4
    sweep(app, ann)
    sweep(app, ann)
    assert manifests(app, audience) == {}
    assert everything(app) == named(app, kept)
    assert app.documents.query(Query("acme", "deleted_audiences")) == []


def test_an_archive_and_a_backup_stay_as_long_as_they_are_named(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    audience = with_history(app, ann, clock)
    app.backups.backup(ann, audience.audience_id, audience.version, never)
    app.archives.archive(ann, audience.audience_id, never)
    copies = objects(app.archive_blobs) | objects(app.backup_blobs)
    for _ in range(4):
        later(clock, days=3)
        sweep(app, ann)
    assert everything(app) == copies
    app.archives.unarchive(ann, audience.audience_id, never)
    assert len(contents(app, current(app, audience))) == 120
    later(clock, hours=23)
    sweep(app, ann)
    assert copies <= everything(app)
    later(clock, hours=2)
    sweep(app, ann)
    assert objects(app.archive_blobs) == set()
    later(clock, days=366)
    for _ in range(2):
        sweep(app, ann)
        later(clock, days=2)
    assert objects(app.backup_blobs) == set()
    assert len(contents(app, current(app, audience))) == 120


def test_distributions_keep_what_they_send(app: App, ann: Caller, clock: MovableClock) -> None:
    audience = with_history(app, ann, clock)
    oldest = min(manifests(app, audience))
    path = "distributions/d1/list-001.parquet"
    app.member_blobs.put(BlobKey("acme", path), b"x")
    distribution = Distribution(
        organization_id="acme",
        created_at=clock.now(),
        updated_at=clock.now(),
        distribution_id="d1",
        user_id="ann",
        audience_id=audience.audience_id,
        platform_id="p",
        manifest_id=oldest,
        status=DistributionStatus.FAILED,
        stages=(Stage(operation="add", path=path),),
    )
    key = Key("acme", "distributions", "d1")
    app.documents.commit(Batch([Write(key, distribution.stored(), ABSENT)]))
    for _ in range(3):
        later(clock, days=100)
        sweep(app, ann)
    assert oldest in manifests(app, audience)
    assert path in objects(app.member_blobs)
    done = distribution.changed(status=DistributionStatus.COMPLETED)
    app.documents.commit(Batch([Write(key, done.stored())]))
    for _ in range(2):
        later(clock, days=2)
        sweep(app, ann)
    assert oldest not in manifests(app, audience)
    assert path not in objects(app.member_blobs)


@pytest.mark.parametrize("status", list(ImportStatus))
def test_imports_keep_what_they_need(
    status: ImportStatus, app: App, ann: Caller, clock: MovableClock
) -> None:
    record = MemberImport.model_validate(
        {
            "organization_id": "acme",
            "created_at": clock.now(),
            "updated_at": clock.now(),
            "import_id": "i1",
            "audience_id": "a1",
            "user_id": "ann",
            "status": status,
            "source": "imports/i1/source",
            "chunks": [
                {
                    "seq": 1,
                    "position": 1,
                    "row": 1,
                    "run": "imports/i1/run-1.arrow",
                    "rejects": "imports/i1/rejects-1.csv",
                    "size": 1,
                }
            ],
        }
    )
    app.documents.commit(Batch([Write(Key("acme", "imports", "i1"), record.stored(), ABSENT)]))
    app.uploads.put(BlobKey("acme", "imports/i1/source"), b"x")
    for name in ("run-1.arrow", "run-2.arrow", "rejects-1.csv"):
        app.member_blobs.put(BlobKey("acme", f"imports/i1/{name}"), b"x")
    later(clock, hours=25)
    sweep(app, ann)
    over = status in (ImportStatus.COMPLETED, ImportStatus.FAILED, ImportStatus.CANCELLED)
    running = set() if over else {"imports/i1/run-1.arrow", "imports/i1/source"}
    assert everything(app) == {"imports/i1/rejects-1.csv"} | running


def test_no_backup_brings_back_what_retention_deleted(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    """Nor when the audience was opened again before the sweep came."""
    audience = with_history(app, ann, clock)
    app.backups.backup(ann, audience.audience_id, 2, never)
    policy = AudienceRetentionPolicy(retention_days=1)
    app.retention.set_policy(ann, audience.audience_id, policy)
    later(clock, days=3)
    run_id = app.retention.start(ann, RunDraft(job=RetentionJob.DAILY)).entity.run_id
    drained(app, app.jobs.records.get("acme", run_id).entity)
    app.audiences.set_status(ann, audience.audience_id, "active")
    assert not app.versions.get(ann, audience.audience_id, 2)["has_backup"]
    with pytest.raises(VersionExpiredError):
        app.versions.restore(ann, audience.audience_id, 2)
    job = app.jobs.start(
        ann, JobKind.RESTORE, audience.audience_id, {"version": 2, "keep_name": False}
    )
    failed = drained(app, job.entity)
    assert failed.error is not None
    assert failed.error["code"] == "VERSION_EXPIRED"
    assert current(app, audience).size == 0
    later(clock, days=2)
    sweep(app, ann)
    later(clock, days=2)
    sweep(app, ann)
    assert objects(app.backup_blobs) == set()
