"""What is stored of members is told as it is, part by part."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from activation.app import App
from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.job import JobKind, JobStatus
from activation.domain.manifest import Place, StorageTier, TierLimits
from activation.domain.member_change import MemberReference
from activation.domain.storage import ClassTotal, PartKind, StorageInfo, StorageType
from activation.errors import InvalidStateError, NotFoundError
from activation.ports import BlobKey
from tests.services.support import add, audience_of, drained, inputs, never


@pytest.fixture
def full(app: App, ann: Caller) -> Audience:
    """An audience of 300 members: few enough to lie in documents."""
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, inputs(300))
    app.audiences.set_status(ann, audience.audience_id, "active")
    return app.audiences.find(ann, audience.audience_id).entity


def info_of(app: App, caller: Caller, audience: Audience) -> StorageInfo:
    return app.storages.info(caller, audience.audience_id)


def test_parts_are_numbered_without_gaps_and_add_up(app: App, ann: Caller, full: Audience) -> None:
    info = info_of(app, ann, full)
    assert [part.number for part in info.parts] == list(range(1, 17))
    assert {part.total for part in info.parts} == {16}
    assert sum(part.size for part in info.parts) == info.size == full.size == 300
    assert sum(part.bytes for part in info.parts) == info.bytes == full.storage.bytes
    assert {part.kind for part in info.parts} == {PartKind.PARTITION}
    assert [part.partition for part in info.parts] == list(range(16))
    shown = app.audiences.get(ann, full.audience_id).entity.storage
    assert [(p.number, p.total, p.size, p.checksum) for p in shown.partitions] == [
        (p.number, p.total, p.size, p.checksum) for p in info.parts
    ]


def test_few_members_have_numbers_without_gaps_too(app: App, ann: Caller) -> None:
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, inputs(3))
    shown = app.audiences.get(ann, audience.audience_id).entity.storage.partitions
    assert [part.number for part in shown] == list(range(1, len(shown) + 1))
    assert {part.total for part in shown} == {len(shown)}
    assert sum(part.size for part in shown) == 3


def test_the_tier_and_how_it_is_kept_are_told(app: App, ann: Caller, full: Audience) -> None:
    info = info_of(app, ann, full)
    assert (info.tier, info.storage_type) == ("database", StorageType.INLINE)
    assert (info.partition_count, info.deltas, info.compression) == (16, 0, "zstd")
    assert info.location == f"audience_id={full.audience_id}"
    assert info.missing == 0
    on_google = app.settings.backend == "google"
    assert (info.encryption is not None) is on_google


@pytest.mark.parametrize(
    ("limits", "tier", "kind", "place"),
    [
        (TierLimits(301, 400), StorageTier.DATABASE, StorageType.INLINE, Place.DOCUMENT),
        (TierLimits(300, 400), StorageTier.SEGMENTED, StorageType.SEGMENTED, Place.OBJECT),
        (TierLimits(100, 300), StorageTier.EXTERNAL, StorageType.EXTERNAL, Place.OBJECT),
    ],
)
def test_every_tier_is_told(
    app: App, ann: Caller, limits: TierLimits, tier: StorageTier, kind: StorageType, place: Place
) -> None:
    app.__dict__["store"] = replace(app.store, limits=limits)
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, inputs(300))
    info = info_of(app, ann, audience)
    assert (info.tier, info.storage_type, info.missing) == (tier, kind, 0)
    assert {part.place for part in info.parts} == {place}
    name = "DOCUMENT" if place is Place.DOCUMENT else "STANDARD"
    assert info.storage_classes == {name: ClassTotal(parts=16, bytes=info.bytes)}
    for part in info.parts:
        if place is Place.OBJECT:
            content = app.member_blobs.get(BlobKey("acme", part.location))
            assert hashlib.sha256(content).hexdigest() == part.checksum
            assert len(content) == part.bytes
            assert (part.key_reference is None) is (app.settings.backend == "embedded")


def test_small_changes_are_told_until_they_are_folded(app: App, ann: Caller) -> None:
    app.__dict__["store"] = replace(app.store, limits=TierLimits(database=0), delta_from=1)
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, inputs(300))
    add(app, ann, audience.audience_id, inputs(5, start=300))
    [first, second] = inputs(2)
    gone = [
        MemberReference(identifier_type=one.identifier_type, identifier_value=one.identifier_value)
        for one in (first, second)
    ]
    app.members.remove(ann, audience.audience_id, gone)
    info = info_of(app, ann, audience)
    assert (info.size, info.deltas) == (303, 2)
    assert [part.number for part in info.parts] == list(range(1, 19))
    assert {part.total for part in info.parts} == {18}
    deltas = [part for part in info.parts if part.kind is PartKind.DELTA]
    assert [(part.size, part.removals, part.partition) for part in deltas] == [
        (5, 0, None),
        (2, 2, None),
    ]
    assert info.storage_classes["STANDARD"].parts == 18
    assert app.audiences.get(ann, audience.audience_id).entity.storage.deltas == 2
    job = drained(app, app.storages.request_compaction(ann, audience.audience_id).entity)
    assert job.status is JobStatus.COMPLETED
    folded = info_of(app, ann, audience)
    assert (folded.size, folded.deltas) == (303, 0)
    assert sum(part.size for part in folded.parts) == 303


def test_a_part_that_is_gone_is_told(app: App, ann: Caller) -> None:
    app.__dict__["store"] = replace(app.store, limits=TierLimits(database=0))
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, inputs(300))
    lost = info_of(app, ann, audience).parts[3]
    app.member_blobs.delete(BlobKey("acme", lost.location))
    info = info_of(app, ann, audience)
    assert (info.missing, info.parts[3].storage_class) == (1, None)
    assert info.storage_classes["STANDARD"].parts == 15


def test_the_class_of_every_object_is_told(app: App, ann: Caller) -> None:
    app.__dict__["store"] = replace(app.store, limits=TierLimits(database=0))
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, inputs(300))
    moved = info_of(app, ann, audience).parts[:4]
    for part in moved:
        app.member_blobs.set_class(BlobKey("acme", part.location), "NEARLINE")
    classes = info_of(app, ann, audience).storage_classes
    assert {name: total.parts for name, total in classes.items()} == {
        "NEARLINE": 4,
        "STANDARD": 12,
    }
    assert classes["NEARLINE"].bytes == sum(part.bytes for part in moved)


def test_backups_and_archives_are_told(app: App, ann: Caller, full: Audience) -> None:
    backup = app.backups.backup(ann, full.audience_id, full.version, never)
    told = info_of(app, ann, full).backups
    assert [(one.version, one.location) for one in told] == [(full.version, backup.location)]
    archived = app.archives.archive(ann, full.audience_id, never)
    info = info_of(app, ann, full)
    assert info.archive == archived.archive
    assert (info.size, info.bytes, info.parts) == (0, 0, ())
    with pytest.raises(InvalidStateError, match="unarchive"):
        app.storages.request_compaction(ann, full.audience_id)


def test_an_audience_without_members_stores_nothing(app: App, ann: Caller) -> None:
    audience = audience_of(app, ann)
    info = info_of(app, ann, audience)
    assert (info.size, info.bytes, info.parts, info.manifest_id) == (0, 0, (), None)


def test_compaction_is_a_job(app: App, ann: Caller, full: Audience) -> None:
    job = app.storages.request_compaction(ann, full.audience_id).entity
    assert (job.kind, job.audience_id) == (JobKind.COMPACT, full.audience_id)


def test_others_find_nothing(app: App, eve: Caller, full: Audience) -> None:
    with pytest.raises(NotFoundError):
        app.storages.info(eve, full.audience_id)
    with pytest.raises(NotFoundError):
        app.storages.request_compaction(eve, full.audience_id)
