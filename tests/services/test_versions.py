"""Versions: looked at, read as of then, and restored with their members."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.documents import Stored
from activation.domain.audience import Audience, AudienceChanges, AudienceStatus
from activation.domain.caller import Caller, service_caller
from activation.domain.identifier import IdentifierType
from activation.domain.job import Job, JobKind, JobStatus
from activation.domain.member import MemberFilter, MemberInput
from activation.domain.member_import import ImportDraft
from activation.domain.version import AudienceVersion, ChangeType, MembersRestored, Restoration
from activation.errors import (
    InvalidStateError,
    NameTakenError,
    NotFoundError,
    PreconditionFailedError,
    StorageUnavailableError,
    VersionExpiredError,
)
from activation.ports import Batch, BlobKey, Query
from activation.services.jobs import JobRun
from activation.services.leases import Lease
from activation.services.version_records import find_version
from tests.services.support import (
    add,
    audience_of,
    contents,
    drained,
    inputs,
    never,
    renamed,
    set_fields,
)

ALL = MemberFilter()


def changed(app: App, caller: Caller, audience_id: str, **fields: Any) -> Audience:
    changes = AudienceChanges.model_validate(fields)
    return app.audiences.update(caller, audience_id, changes).entity


def current(app: App, caller: Caller, audience_id: str) -> Audience:
    return app.audiences.find(caller, audience_id).entity


def version_of(app: App, audience: Audience, number: int) -> AudienceVersion:
    return find_version(app.documents, audience, number).entity


def digests(app: App, caller: Caller, audience_id: str, number: int) -> set[str]:
    found, after, _ = app.versions.page(caller, audience_id, number, ALL, 1000)
    assert after is None
    return {member.digest for member in found}


def backups_of(app: App, caller: Caller, audience_id: str) -> list[Job]:
    return [job for job in app.jobs.list(caller, audience_id).items if job.kind is JobKind.BACKUP]


@pytest.fixture
def audience(app: App, ann: Caller) -> Audience:
    """Version 2 with 40 members, 3 with rules, 4 with 60 members, 5 renamed."""
    made = audience_of(app, ann)
    add(app, ann, made.audience_id, inputs(40))
    rule = {"variable_id": "age", "operator": "GT", "value": 30}
    changed(app, ann, made.audience_id, rules=[rule], metadata={"tags": ["spring"]})
    add(app, ann, made.audience_id, inputs(20, start=40))
    return renamed(app, ann, made.audience_id, "Loyal, 2026")


# looking ----------------------------------------------------------------------------------------


def test_history_tells_who_did_what(app: App, ann: Caller, audience: Audience) -> None:
    _, page = app.versions.list(ann, audience.audience_id)
    told = [(v.version, v.size, v.changed_by, v.members and v.members.added) for v in page.items]
    assert told == [
        (5, 60, "ann", None),
        (4, 60, "ann", 20),
        (3, 40, "ann", None),
        (2, 40, "ann", 40),
        (1, 0, "ann", None),
    ]


def test_one_version_has_what_was_before(app: App, ann: Caller, audience: Audience) -> None:
    shown = app.versions.get(ann, audience.audience_id, 5)
    assert (shown["before"]["name"], shown["snapshot"]["name"]) == ("Loyal", "Loyal, 2026")
    assert shown["has_members"] is True
    assert app.versions.get(ann, audience.audience_id, 1)["before"] is None
    for number in (0, 6, 10**30):
        with pytest.raises(NotFoundError):
            app.versions.get(ann, audience.audience_id, number)


def test_samples_say_nothing_of_who(app: App, ann: Caller) -> None:
    made = audience_of(app, ann)
    people = [
        MemberInput(
            identifier_type=IdentifierType.CUSTOMER_ID,
            identifier_value=f"customer-{number}",
            attributes={"surname": "Sommer"},
            segments=("vip",),
        )
        for number in range(150)
    ]
    add(app, ann, made.audience_id, [*people, *inputs(50)])
    app.versions.snapshot(ann, made.audience_id, "before the sale")
    shown = app.versions.get(ann, made.audience_id, 3)
    assert len(shown["samples"]) == 100
    known = contents(app, current(app, ann, made.audience_id))
    secrets = {"Sommer", *known, *(row["value"] for row in known.values() if row["value"])}
    records = app.documents.query(Query("acme", "versions", limit=50))
    texts = [orjson.dumps(shown).decode(), *(orjson.dumps(r.data).decode() for r in records)]
    assert [text for text in texts for secret in secrets if secret in text] == []
    assert {sample["attributes"] == ["surname"] for sample in shown["samples"]} == {True, False}
    assert len({sample["pseudonym"] for sample in shown["samples"]}) == 100
    assert shown["samples"] == app.versions.get(ann, made.audience_id, 3)["samples"]


def test_a_version_is_found_by_time(app: App, ann: Caller, clock: MovableClock) -> None:
    start = clock.now()
    made = audience_of(app, ann)
    for number in range(2, 12):
        clock.sleep(3600)
        changed(app, ann, made.audience_id, description=f"{number}")
    for hours in range(13):
        at = start + timedelta(hours=hours, minutes=59)
        found = app.versions.in_force(ann, made.audience_id, at)
        assert found.version == min(hours + 1, 11)
    assert app.versions.in_force(ann, made.audience_id, start).version == 1
    with pytest.raises(NotFoundError):
        app.versions.in_force(ann, made.audience_id, start - timedelta(seconds=1))


def test_members_as_of_a_version(app: App, ann: Caller, audience: Audience) -> None:
    now = set(contents(app, audience))
    assert digests(app, ann, audience.audience_id, 1) == set()
    assert len(digests(app, ann, audience.audience_id, 2)) == 40
    assert digests(app, ann, audience.audience_id, 3) < now
    assert digests(app, ann, audience.audience_id, 5) == now


def test_foreign_versions_are_unknown(app: App, eve: Caller, audience: Audience) -> None:
    asks = (
        lambda: app.versions.list(eve, audience.audience_id),
        lambda: app.versions.get(eve, audience.audience_id, 1),
        lambda: app.versions.in_force(eve, audience.audience_id, app.clock.now()),
        lambda: app.versions.page(eve, audience.audience_id, 1, ALL),
        lambda: app.versions.snapshot(eve, audience.audience_id, "mine"),
        lambda: app.versions.restore(eve, audience.audience_id, 1),
    )
    for ask in asks:
        with pytest.raises(NotFoundError):
            ask()


# restoring --------------------------------------------------------------------------------------


def test_a_restore_brings_definition_and_members_back(
    app: App, ann: Caller, audience: Audience
) -> None:
    then = version_of(app, audience, 2)
    members = digests(app, ann, audience.audience_id, 2)
    restored = app.versions.restore(ann, audience.audience_id, 2)
    assert restored == Restoration(
        audience_id=audience.audience_id,
        restored_version=2,
        restore_point=6,
        version=7,
        definition=True,
        members=MembersRestored.RESTORED,
        size=40,
    )
    now = current(app, ann, audience.audience_id)
    assert (now.name, now.rules, now.size, now.metadata.tags) == ("Loyal", (), 40, ())
    assert now.manifest_id == then.manifest_id
    assert set(contents(app, now)) == members
    point, made = (version_of(app, now, number) for number in (6, 7))
    assert (point.description, made.description) == (
        "Before restore of version 2",
        "Restored version 2",
    )
    assert point.snapshot == version_of(app, now, 5).snapshot
    assert point.manifest_id == audience.manifest_id
    assert made.snapshot == then.snapshot
    assert version_of(app, now, 2) == then


def test_a_restore_can_be_undone(app: App, ann: Caller, audience: Audience) -> None:
    before = contents(app, audience)
    first = app.versions.restore(ann, audience.audience_id, 1)
    assert isinstance(first, Restoration)
    assert current(app, ann, audience.audience_id).size == 0
    app.versions.restore(ann, audience.audience_id, first.restore_point)
    now = current(app, ann, audience.audience_id)
    assert contents(app, now) == before
    assert (now.name, now.rules) == (audience.name, audience.rules)


def test_what_the_system_notes_is_not_turned_back(app: App, ann: Caller) -> None:
    made = audience_of(app, ann)
    add(app, ann, made.audience_id, inputs(3))
    app.audiences.set_status(ann, made.audience_id, "active")
    app.versions.restore(ann, made.audience_id, 1)
    now = current(app, ann, made.audience_id)
    assert now.status is AudienceStatus.ACTIVE
    assert now.metadata.activated_at is not None
    assert now.metadata.created_by == "ann"


def test_the_definition_alone(app: App, ann: Caller, audience: Audience) -> None:
    restored = app.versions.restore(ann, audience.audience_id, 2, definition_only=True)
    assert isinstance(restored, Restoration)
    assert (restored.members, restored.size) == (MembersRestored.NONE, 60)
    now = current(app, ann, audience.audience_id)
    assert (now.name, now.size, now.manifest_id) == ("Loyal", 60, audience.manifest_id)


def test_segments_have_the_sizes_of_the_members_there_are(app: App, ann: Caller) -> None:
    made = audience_of(app, ann)
    two = [{"segment_id": "vip"}, {"segment_id": "new"}]
    changed(app, ann, made.audience_id, segments=two)
    before = current(app, ann, made.audience_id)
    sized = [one.model_copy(update={"size": 7}) for one in before.segments[:1]]
    set_fields(app, before, segments=tuple(sized))
    app.versions.restore(ann, made.audience_id, 2, definition_only=True)
    now = current(app, ann, made.audience_id)
    assert [(one.segment_id, one.size) for one in now.segments] == [("vip", 7), ("new", 0)]


def test_labels_that_members_carry_stay_listed(app: App, ann: Caller) -> None:
    made = audience_of(app, ann)
    vip, gold = (
        MemberInput(
            identifier_type=IdentifierType.EMAIL,
            identifier_value=f"{label}@x.de",
            segments=(label,),
        )
        for label in ("vip", "gold")
    )
    before = add(app, ann, made.audience_id, [vip])
    add(app, ann, made.audience_id, [gold])
    app.versions.restore(ann, made.audience_id, before.version, definition_only=True)
    now = current(app, ann, made.audience_id)
    assert {one.segment_id: one.size for one in now.segments} == {"vip": 1, "gold": 1}


def test_a_name_that_is_taken(app: App, ann: Caller, audience: Audience) -> None:
    audience_of(app, ann, "Loyal")
    with pytest.raises(NameTakenError):
        app.versions.restore(ann, audience.audience_id, 2)
    assert current(app, ann, audience.audience_id) == audience
    app.versions.restore(ann, audience.audience_id, 2, keep_name=True)
    now = current(app, ann, audience.audience_id)
    assert (now.name, now.size) == ("Loyal, 2026", 40)


def test_a_restored_name_is_held_and_the_other_free(
    app: App, ann: Caller, audience: Audience
) -> None:
    app.versions.restore(ann, audience.audience_id, 2)
    audience_of(app, ann, "Loyal, 2026")
    with pytest.raises(NameTakenError):
        audience_of(app, ann, "Loyal")


def test_unknown_versions_and_old_revisions(app: App, ann: Caller, audience: Audience) -> None:
    with pytest.raises(NotFoundError):
        app.versions.restore(ann, audience.audience_id, 999)
    with pytest.raises(PreconditionFailedError):
        app.versions.restore(ann, audience.audience_id, 2, expected="stale")
    assert current(app, ann, audience.audience_id) == audience


def test_an_archived_audience_is_unarchived_first(
    app: App, ann: Caller, audience: Audience
) -> None:
    app.audiences.set_status(ann, audience.audience_id, "active")
    app.audiences.set_status(ann, audience.audience_id, "archived")
    with pytest.raises(InvalidStateError, match="unarchive"):
        app.versions.restore(ann, audience.audience_id, 2)


def test_an_import_that_runs_goes_on_upon_the_restored_members(
    app: App, ann: Caller, audience: Audience
) -> None:
    content = b"email\nnew@example.com\nnewer@example.com\n"
    draft = ImportDraft(file_name="a.csv")
    job = app.imports.create_direct(ann, audience.audience_id, draft, io.BytesIO(content))
    app.versions.restore(ann, audience.audience_id, 2)
    app.import_worker.run("acme", job.entity.import_id, "trace")
    now = current(app, ann, audience.audience_id)
    assert (now.size, now.name) == (42, "Loyal")
    assert [version_of(app, now, n).size for n in (5, 6, 7, 8)] == [60, 60, 40, 42]


def released(app: App, audience: Audience) -> None:
    """Let go of the members of all versions but the current one."""
    set_fields(app, audience, members_kept_from=audience.version)


def test_released_members_are_gone(app: App, ann: Caller, audience: Audience) -> None:
    released(app, audience)
    before = current(app, ann, audience.audience_id)
    with pytest.raises(VersionExpiredError):
        app.versions.restore(ann, audience.audience_id, 3)
    with pytest.raises(VersionExpiredError):
        app.versions.page(ann, audience.audience_id, 3, ALL)
    assert current(app, ann, audience.audience_id) == before
    shown = app.versions.get(ann, audience.audience_id, 3)
    assert (shown["has_members"], shown["has_backup"], shown["samples"]) == (False, False, [])
    app.versions.restore(ann, audience.audience_id, 3, definition_only=True)
    assert current(app, ann, audience.audience_id).name == "Loyal"


def test_members_that_the_sweep_has_released_are_gone(
    app: App, ann: Caller, clock: MovableClock, audience: Audience
) -> None:
    old = version_of(app, audience, 2)
    assert old.manifest_id is not None
    manifest = app.members.manifests.get("acme", old.manifest_id)
    mark = manifest.replaced_by(manifest.entity.changed(released_at=clock.now()))
    app.documents.commit(Batch([mark]))
    _, page = app.versions.list(ann, audience.audience_id)
    shown = app.versions.shown(audience, page.items)
    assert [(v["version"], v["has_members"]) for v in shown] == [
        (5, True),
        (4, True),
        (3, False),
        (2, False),
        (1, True),
    ]
    assert app.versions.get(ann, audience.audience_id, 3)["has_members"] is False
    with pytest.raises(VersionExpiredError):
        app.versions.restore(ann, audience.audience_id, 3)


def test_two_restores_at_once_are_one_after_the_other(
    app: App, ann: Caller, audience: Audience
) -> None:
    stored = app.audiences.find(ann, audience.audience_id)
    app.versions.restore(ann, audience.audience_id, 2, expected=stored.revision)
    with pytest.raises(PreconditionFailedError):
        app.versions.restore(ann, audience.audience_id, 3, expected=stored.revision)
    assert current(app, ann, audience.audience_id).version == 7


# backups ----------------------------------------------------------------------------------------


def test_major_changes_are_backed_up(app: App, ann: Caller, audience: Audience) -> None:
    jobs = backups_of(app, ann, audience.audience_id)
    assert sorted(job.params["version"] for job in jobs) == [2, 3]
    kinds = [version_of(app, audience, n).change_type for n in (2, 3)]
    assert kinds == [ChangeType.MAJOR_UPDATE, ChangeType.RULES_CHANGED]
    for job in jobs:
        done = drained(app, job)
        assert (done.status, done.result["members"]) == (JobStatus.COMPLETED, 40)
        version = version_of(app, audience, int(job.params["version"]))
        assert version.backup is not None
        assert version.backup.location.startswith(
            f"backups/{audience.audience_id}/v{version.version}/"
        )
        assert version.backup.location.endswith("/members.ndjson.gz")
        info = app.backup_blobs.stat(BlobKey("acme", version.backup.location))
        assert info is not None
        assert info.storage_class == "ARCHIVE"
        assert info.size_bytes == version.backup.bytes
        assert len(version.samples) == 40
        assert app.versions.get(ann, audience.audience_id, version.version)["has_backup"]


def test_a_second_backup_does_nothing(app: App, ann: Caller, audience: Audience) -> None:
    first = app.backups.backup(ann, audience.audience_id, 2, never)
    assert app.backups.backup(ann, audience.audience_id, 2, never) == first
    assert len(list(app.backup_blobs.list("acme"))) == 1


def test_a_backup_that_comes_too_late(app: App, ann: Caller, audience: Audience) -> None:
    released(app, audience)
    for job in backups_of(app, ann, audience.audience_id):
        done = drained(app, job)
        assert done.result == {"backed_up": False, "reason": "released"}


def test_has_backup_is_true_of_the_object_that_was_written(
    app: App, ann: Caller, audience: Audience
) -> None:
    backup = app.backups.backup(ann, audience.audience_id, 2, never)
    version = version_of(app, audience, 2)
    assert app.backups.exists(version)
    assert app.backups.is_intact(version)
    key = BlobKey("acme", backup.location)
    data = app.backup_blobs.get(key)
    app.backup_blobs.delete(key)
    assert not app.backups.exists(version)
    assert not app.backups.is_intact(version)
    app.backup_blobs.put(key, data[:-1] + bytes([data[-1] ^ 1]))
    assert app.versions.get(ann, audience.audience_id, 2)["has_backup"]
    assert not app.versions.get(ann, audience.audience_id, 2, verify=True)["has_backup"]


def restore_job(app: App, caller: Caller, audience_id: str, number: int) -> Job:
    started = app.versions.restore(caller, audience_id, number)
    assert isinstance(started, Stored)
    assert started.entity.kind is JobKind.RESTORE
    return started.entity


def test_released_members_come_back_from_their_backup(
    app: App, ann: Caller, audience: Audience
) -> None:
    members = digests(app, ann, audience.audience_id, 2)
    app.backups.backup(ann, audience.audience_id, 2, never)
    released(app, audience)
    done = drained(app, restore_job(app, ann, audience.audience_id, 2))
    now = current(app, ann, audience.audience_id)
    assert (
        done.result
        == Restoration(
            audience_id=audience.audience_id,
            restored_version=2,
            restore_point=6,
            version=7,
            definition=True,
            members=MembersRestored.FROM_BACKUP,
            size=40,
        ).public()
    )
    assert (now.version, now.name, now.rules) == (7, "Loyal", ())
    assert set(contents(app, now)) == members
    point, made = (version_of(app, now, number) for number in (6, 7))
    assert (point.size, point.manifest_id) == (60, audience.manifest_id)
    assert (made.snapshot, made.changed_by) == (version_of(app, now, 2).snapshot, "ann")
    assert made.members is None, "what differs was not counted"
    assert list(app.member_blobs.list("acme", f"audience_id={audience.audience_id}/runs")) == []


def test_members_that_come_during_a_restore_are_in_its_restore_point(
    app: App, ann: Caller, clock: MovableClock, audience: Audience
) -> None:
    members = digests(app, ann, audience.audience_id, 2)
    app.backups.backup(ann, audience.audience_id, 2, never)
    released(app, audience)
    job = app.jobs.records.get("acme", restore_job(app, ann, audience.audience_id, 2).job_id)
    caller = service_caller("run_job", "acme", "test-trace")
    run = Interrupted(caller, clock, 1e9, Lease(app.documents, clock, 60, job))
    run.meanwhile = lambda: add(app, ann, audience.audience_id, inputs(3, start=90))
    app.versions.run_restore(run)
    now = current(app, ann, audience.audience_id)
    assert set(contents(app, now)) == members
    assert [version_of(app, now, number).size for number in (6, 7, 8)] == [63, 63, 40]


class Interrupted(JobRun):
    """A run during whose first partition something else happens."""

    meanwhile: Callable[[], object]
    beats = 0

    def keep(self) -> None:
        self.beats += 1
        if self.beats == 2:
            self.meanwhile()
        super().keep()


def test_a_damaged_backup_changes_nothing(app: App, ann: Caller, audience: Audience) -> None:
    backup = app.backups.backup(ann, audience.audience_id, 2, never)
    released(app, audience)
    before = current(app, ann, audience.audience_id)
    job = restore_job(app, ann, audience.audience_id, 2)
    key = BlobKey("acme", backup.location)
    data = app.backup_blobs.get(key)
    app.backup_blobs.delete(key)
    app.backup_blobs.put(key, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StorageUnavailableError):
        drained(app, job)
    assert current(app, ann, audience.audience_id) == before


def test_a_name_that_is_taken_by_the_time_of_the_job(
    app: App, ann: Caller, audience: Audience
) -> None:
    app.backups.backup(ann, audience.audience_id, 2, never)
    released(app, audience)
    job = restore_job(app, ann, audience.audience_id, 2)
    audience_of(app, ann, "Loyal")
    failed = drained(app, job)
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    assert failed.error["code"] == NameTakenError.code


def test_an_archive_releases_older_versions_but_not_their_backups(
    app: App, ann: Caller, audience: Audience
) -> None:
    app.backups.backup(ann, audience.audience_id, 2, never)
    app.archives.archive(ann, audience.audience_id, never)
    app.archives.unarchive(ann, audience.audience_id, never)
    with pytest.raises(VersionExpiredError):
        app.versions.restore(ann, audience.audience_id, 4)
    done = drained(app, restore_job(app, ann, audience.audience_id, 2))
    assert done.result["size"] == 40


def test_the_same_members_are_backed_up_once(app: App, ann: Caller, audience: Audience) -> None:
    backup = app.backups.backup(ann, audience.audience_id, 2, never)
    known = {job.job_id for job in backups_of(app, ann, audience.audience_id)}
    app.versions.restore(ann, audience.audience_id, 2)
    now = current(app, ann, audience.audience_id)
    assert version_of(app, now, 7).backup == backup
    assert {job.job_id for job in backups_of(app, ann, audience.audience_id)} == known


def test_of_two_backups_at_once_one_stays(app: App, ann: Caller, audience: Audience) -> None:
    calls = []

    def keep() -> None:
        calls.append(1)
        if len(calls) == 1:
            app.backups.backup(ann, audience.audience_id, 2, never)

    backup = app.backups.backup(ann, audience.audience_id, 2, keep)
    assert version_of(app, audience, 2).backup == backup
    assert len(list(app.backup_blobs.list("acme"))) == 1
