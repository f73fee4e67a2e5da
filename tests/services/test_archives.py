"""Archives: written, verified, and only then relied on; and the way back."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable

import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import Audience, AudienceStatus
from activation.domain.caller import Caller
from activation.domain.identifier import Consent, IdentifierType
from activation.domain.job import Job, JobKind, JobStatus
from activation.domain.member import MemberInput
from activation.domain.retention import LegalHold
from activation.errors import (
    InvalidStateError,
    NotFoundError,
    StorageUnavailableError,
    VersionExpiredError,
)
from activation.ports import BlobKey
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


@pytest.fixture
def full(app: App, ann: Caller) -> Audience:
    """An audience whose members use every column."""
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, rich())
    app.audiences.set_status(ann, audience.audience_id, "active")
    return app.audiences.find(ann, audience.audience_id).entity


def rich() -> list[MemberInput]:
    return [
        MemberInput(
            identifier_type=IdentifierType.EMAIL,
            identifier_value=f"Ann.{number}@googlemail.com",
            attributes={"city": 'Köln "Süd"', "n": number},
            score=number / 7,
            consent=Consent.GRANTED if number % 2 else None,
            segments=("vip", "a|b") if number % 3 else (),
        )
        for number in range(50)
    ] + inputs(50, kind=IdentifierType.CUSTOMER_ID)


def packed(app: App, audience: Audience) -> bytes:
    assert audience.archive is not None
    key = BlobKey(audience.organization_id, audience.archive.location)
    return app.archive_blobs.get(key)


def test_an_archive_holds_what_the_documents_promise(app: App, ann: Caller, full: Audience) -> None:
    before = contents(app, full)
    archived = app.archives.archive(ann, full.audience_id, never)
    assert archived.archive is not None
    data = packed(app, archived)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        files = {entry.name: archive.extractfile(entry) for entry in archive}
        texts = {name: file.read() for name, file in files.items() if file is not None}
    assert set(texts) == {"members/batch-0001.ndjson", "metadata.json"}
    metadata = orjson.loads(texts["metadata.json"])
    lines = texts["members/batch-0001.ndjson"]
    assert metadata["members"] == 100 == len(lines.splitlines())
    assert metadata["batches"] == [
        {
            "name": "members/batch-0001.ndjson",
            "members": 100,
            "sha256": hashlib.sha256(lines).hexdigest(),
        }
    ]
    assert metadata["audience"]["name"] == full.name
    assert metadata["manifest"]["manifest_id"] == full.manifest_id
    assert [version["version"] for version in metadata["versions"]] == [3, 2, 1]
    assert {orjson.loads(line)["digest"] for line in lines.splitlines()} == set(before)
    location = archived.archive.location
    assert location.startswith(f"{full.audience_id}/")
    assert location.endswith("/data.tar.gz")
    info = app.archive_blobs.stat(BlobKey("acme", location))
    assert info is not None
    assert info.storage_class == "COLDLINE"
    assert archived.archive.sha256 == hashlib.sha256(data).hexdigest()
    assert (archived.archive.bytes, archived.archive.members) == (len(data), 100)
    assert data[8] == 2, "gzip notes that it compressed as well as it can"


def test_an_archived_audience_lets_its_members_go(app: App, ann: Caller, full: Audience) -> None:
    archived = app.archives.archive(ann, full.audience_id, never)
    assert archived == app.audiences.find(ann, full.audience_id).entity
    assert (archived.status, archived.size, archived.manifest_id) == ("archived", 0, None)
    assert archived.metadata.archived_at == app.clock.now()
    assert archived.version == full.version + 1 == archived.members_kept_from
    assert archived.storage.bytes == 0
    with pytest.raises(InvalidStateError):
        add(app, ann, full.audience_id, inputs(1))


def test_everything_comes_back(app: App, ann: Caller, full: Audience) -> None:
    before = contents(app, full)
    app.archives.archive(ann, full.audience_id, never)
    back = app.archives.unarchive(ann, full.audience_id, never)
    assert back == app.audiences.find(ann, full.audience_id).entity
    assert contents(app, back) == before
    assert (back.size, back.status, back.archive) == (100, AudienceStatus.ACTIVE, None)
    assert back.metadata.archived_at is None
    old = app.members.manifests.get("acme", full.manifest_id or "").entity
    new = app.members.manifests.get("acme", back.manifest_id or "").entity
    assert (new.by_type, new.by_segment) == (old.by_type, old.by_segment)
    assert new.linked == old.linked
    assert list(app.member_blobs.list("acme", f"audience_id={full.audience_id}/runs")) == []


def test_a_paused_audience_comes_back_paused(app: App, ann: Caller, full: Audience) -> None:
    app.audiences.set_status(ann, full.audience_id, "paused")
    app.archives.archive(ann, full.audience_id, never)
    assert app.archives.unarchive(ann, full.audience_id, never).status is AudienceStatus.PAUSED


def test_a_second_archive_does_nothing(app: App, ann: Caller, full: Audience) -> None:
    first = app.archives.archive(ann, full.audience_id, never)
    assert app.archives.archive(ann, full.audience_id, never) == first
    assert len(list(app.archive_blobs.list("acme"))) == 1


def test_an_empty_audience_has_an_archive_too(app: App, ann: Caller) -> None:
    audience = audience_of(app, ann)
    archived = app.archives.archive(ann, audience.audience_id, never)
    assert archived.archive is not None
    assert archived.archive.members == 0
    back = app.archives.unarchive(ann, audience.audience_id, never)
    assert (back.size, contents(app, back)) == (0, {})


def test_a_status_set_by_hand_keeps_the_members(app: App, ann: Caller, full: Audience) -> None:
    app.audiences.set_status(ann, full.audience_id, "paused")
    app.audiences.set_status(ann, full.audience_id, "archived")
    shelved = app.audiences.find(ann, full.audience_id).entity
    assert shelved.size == 100
    back = app.archives.unarchive(ann, full.audience_id, never)
    assert (back.size, back.status) == (100, AudienceStatus.PAUSED)
    assert back.manifest_id == full.manifest_id
    app.audiences.set_status(ann, full.audience_id, "archived")
    archived = app.archives.archive(ann, full.audience_id, never)
    assert archived.archive is not None
    assert archived.archive.members == 100


def test_the_way_out_of_the_archive_is_unarchive(app: App, ann: Caller, full: Audience) -> None:
    app.archives.archive(ann, full.audience_id, never)
    with pytest.raises(InvalidStateError, match="unarchive"):
        app.audiences.set_status(ann, full.audience_id, "active")


def test_what_cannot_be_archived(app: App, ann: Caller, eve: Caller, full: Audience) -> None:
    hold = LegalHold(reason="court", placed_by="ann", placed_at=app.clock.now())
    set_fields(app, full, legal_hold=hold)
    with pytest.raises(InvalidStateError, match="legal hold"):
        app.archives.archive(ann, full.audience_id, never)
    set_fields(app, full, legal_hold=None, status=AudienceStatus.PROCESSING)
    with pytest.raises(InvalidStateError, match="import is running"):
        app.archives.request_archive(ann, full.audience_id)
    with pytest.raises(NotFoundError):
        app.archives.archive(eve, full.audience_id, never)
    assert list(app.archive_blobs.list("acme")) == []


def test_only_archived_audiences_come_back(app: App, ann: Caller, full: Audience) -> None:
    with pytest.raises(InvalidStateError, match="not archived"):
        app.archives.request_unarchive(ann, full.audience_id)
    app.archives.archive(ann, full.audience_id, never)
    set_fields(app, full, archive=None, members_deleted_at=app.clock.now())
    with pytest.raises(VersionExpiredError):
        app.archives.request_unarchive(ann, full.audience_id)


def test_members_that_change_meanwhile_are_in_the_archive(
    app: App, ann: Caller, full: Audience
) -> None:
    late = inputs(3, kind=IdentifierType.MAID)
    calls = []

    def keep() -> None:
        calls.append(1)
        if len(calls) == 1:
            add(app, ann, full.audience_id, late)

    archived = app.archives.archive(ann, full.audience_id, keep)
    assert archived.archive is not None
    assert archived.archive.members == 103
    assert len(list(app.archive_blobs.list("acme"))) == 1
    assert app.archives.unarchive(ann, full.audience_id, never).size == 103


def test_a_renamed_audience_is_archived_under_its_new_name(
    app: App, ann: Caller, full: Audience
) -> None:
    calls = []

    def keep() -> None:
        calls.append(1)
        if len(calls) == 1:
            renamed(app, ann, full.audience_id, "Newer")

    archived = app.archives.archive(ann, full.audience_id, keep)
    with tarfile.open(fileobj=io.BytesIO(packed(app, archived)), mode="r:gz") as archive:
        file = archive.extractfile("metadata.json")
        assert file is not None
        assert orjson.loads(file.read())["audience"]["name"] == "Newer" == archived.name


def swapped(app: App, audience: Audience, data: bytes) -> None:
    """Put other bytes in the place of an archive."""
    assert audience.archive is not None
    key = BlobKey("acme", audience.archive.location)
    app.archive_blobs.delete(key)
    app.archive_blobs.put(key, data)


def less_one_member(data: bytes) -> bytes:
    text = gzip.decompress(data)
    lines = text.split(b"\n")
    return gzip.compress(b"\n".join(lines[1:]))


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "torn": lambda data: data[:-30],
    "altered": lambda data: data[: len(data) // 2] + b"\0" + data[len(data) // 2 + 1 :],
    "longer": lambda data: data + b"more",
    "empty": lambda _data: b"",
    "foreign": lambda _data: gzip.compress(b"nothing of the kind"),
    "less": less_one_member,
}


@pytest.mark.parametrize("spoil", list(SPOILS.values()), ids=list(SPOILS))
def test_a_damaged_archive_changes_nothing(
    app: App, ann: Caller, full: Audience, spoil: Callable[[bytes], bytes]
) -> None:
    archived = app.archives.archive(ann, full.audience_id, never)
    swapped(app, archived, spoil(packed(app, archived)))
    with pytest.raises(StorageUnavailableError):
        app.archives.unarchive(ann, full.audience_id, never)
    assert app.audiences.find(ann, full.audience_id).entity == archived
    assert list(app.member_blobs.list("acme", f"audience_id={full.audience_id}/runs")) == []


def test_a_lost_archive_changes_nothing(app: App, ann: Caller, full: Audience) -> None:
    archived = app.archives.archive(ann, full.audience_id, never)
    assert archived.archive is not None
    app.archive_blobs.delete(BlobKey("acme", archived.archive.location))
    with pytest.raises(StorageUnavailableError):
        app.archives.unarchive(ann, full.audience_id, never)
    assert app.audiences.find(ann, full.audience_id).entity == archived


def test_as_jobs(app: App, ann: Caller, clock: MovableClock, full: Audience) -> None:
    started = app.archives.request_archive(ann, full.audience_id).entity
    assert started.kind is JobKind.ARCHIVE
    done = drained(app, started)
    assert (done.status, done.result["members"]) == (JobStatus.COMPLETED, 100)
    again = drained(app, app.archives.request_archive(ann, full.audience_id).entity)
    assert again.result == done.result
    clock.sleep(60)
    back = drained(app, app.archives.request_unarchive(ann, full.audience_id).entity)
    assert (back.status, back.result) == (
        JobStatus.COMPLETED,
        {"members": 100, "audience_status": "active"},
    )
    _, versions = app.versions.list(ann, full.audience_id)
    assert {version.changed_by for version in versions.items} == {"ann"}


def test_a_job_that_comes_too_late_fails(app: App, ann: Caller, full: Audience) -> None:
    app.archives.archive(ann, full.audience_id, never)
    first = app.archives.request_unarchive(ann, full.audience_id).entity
    second = app.archives.request_unarchive(ann, full.audience_id).entity
    assert drained(app, first).status is JobStatus.COMPLETED
    late: Job = drained(app, second)
    assert late.status is JobStatus.FAILED
    assert late.error is not None
    assert late.error["reason"] == "not_archived"
