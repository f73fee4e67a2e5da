"""What is stored of members is told as it is, part by part."""

from __future__ import annotations

import hashlib

import pytest

from activation.app import App
from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.job import JobKind
from activation.domain.manifest import Place
from activation.domain.storage import ClassTotal, PartKind, StorageInfo, StorageType
from activation.errors import InvalidStateError, NotFoundError
from activation.ports import BlobKey
from tests.services.support import add, audience_of, inputs, never


@pytest.fixture
def full(app: App, ann: Caller) -> Audience:
    """An audience of 300 members whose parts are objects."""
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


def test_checksums_and_classes_are_those_of_the_stored_bytes(
    app: App, ann: Caller, full: Audience
) -> None:
    on_google = app.settings.backend == "google"
    info = info_of(app, ann, full)
    for part in info.parts:
        if part.place is Place.OBJECT:
            content = app.member_blobs.get(BlobKey("acme", part.location))
            assert hashlib.sha256(content).hexdigest() == part.checksum
            assert len(content) == part.bytes
            assert part.storage_class == "STANDARD"
            assert (part.key_reference is not None) is on_google
    expected = "DOCUMENT" if info.parts[0].place is Place.DOCUMENT else "STANDARD"
    assert info.storage_classes == {expected: ClassTotal(parts=16, bytes=info.bytes)}


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
