"""Imports as use cases: resumed, cancelled, refused, and uploads that arrive by themselves."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from activation.app import App
from activation.domain.audience import Audience, AudienceDraft, AudienceStatus
from activation.domain.caller import Caller
from activation.domain.member_import import ImportDraft, ImportStatus, MemberImport
from activation.errors import (
    InvalidStateError,
    NotFoundError,
    StorageUnavailableError,
    UploadRefusedError,
)
from activation.ports import Batch, DocumentStore, Revision
from activation.services.imports import source_key

FILE = b"email\na@example.com\nb@example.com\nb@example.com\nnobody\n"


def new_audience(app: App, ann: Caller, name: str = "Buyers") -> str:
    draft = AudienceDraft.model_validate({"name": name, "type": "first_party"})
    return app.audiences.create(ann, draft).entity.audience_id


def queued(app: App, ann: Caller, audience_id: str, file: bytes = FILE, **options: Any) -> str:
    draft = ImportDraft.model_validate(options)
    return app.imports.create_direct(ann, audience_id, draft, io.BytesIO(file)).entity.import_id


def run(app: App, ann: Caller, audience_id: str, import_id: str) -> MemberImport:
    app.import_worker.run("acme", import_id, "t")
    return app.imports.get(ann, audience_id, import_id).entity


def audience(app: App, ann: Caller, audience_id: str) -> Audience:
    return app.audiences.get(ann, audience_id).entity


def test_an_import_fills_and_activates_a_draft(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    import_id = queued(app, ann, audience_id)
    assert audience(app, ann, audience_id).status is AudienceStatus.PROCESSING
    job = run(app, ann, audience_id, import_id)
    assert job.status is ImportStatus.COMPLETED
    counts = job.counts
    assert (counts.received, counts.accepted, counts.duplicate, counts.rejected) == (4, 2, 1, 1)
    filled = audience(app, ann, audience_id)
    assert (filled.size, filled.status) == (2, AudienceStatus.ACTIVE)
    assert filled.metadata.activated_at == app.clock.now()
    assert sum(part.size for part in filled.storage.partitions) == 2
    assert app.uploads.stat(source_key(job)) is None, "the uploaded file is not kept"


def test_the_storage_result_is_what_is_stored(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    job = run(app, ann, audience_id, queued(app, ann, audience_id))
    stored = app.audiences.get(ann, audience_id).entity.storage
    result = job.storage_result
    assert result is not None
    assert (result.storage_type, result.location) == (stored.type, stored.location)
    assert (result.segments, result.partitions) == (2, 2)
    assert result.records_stored == job.counts.accepted == 2
    assert result.compressed_size == sum(part.bytes for part in stored.partitions)
    assert result.duration_seconds == job.duration_seconds


def test_a_file_that_is_named_after_somebody_is_not_kept_by_that_name(
    app: App, ann: Caller
) -> None:
    audience_id = new_audience(app, ann)
    name = "export ann.lee@example.com +49 151 1234567.csv"
    job = run(app, ann, audience_id, queued(app, ann, audience_id, file_name=name))
    assert job.file_name == "export [contact data] [contact data].csv"
    told = app.versions.list(ann, audience_id)[1].items[0].description
    assert told == f"Import {job.file_name}"


def test_the_same_file_again_changes_no_size(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    run(app, ann, audience_id, queued(app, ann, audience_id))
    again = run(app, ann, audience_id, queued(app, ann, audience_id))
    assert (again.counts.added, again.counts.updated) == (0, 2)
    assert audience(app, ann, audience_id).size == 2


def test_a_second_delivery_of_the_message_does_nothing(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    import_id = queued(app, ann, audience_id)
    first = run(app, ann, audience_id, import_id)
    assert run(app, ann, audience_id, import_id) == first
    assert audience(app, ann, audience_id).version == 2


def test_a_silent_worker_is_replaced_after_its_lease(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    import_id = queued(app, ann, audience_id)
    assert app.import_worker._take("acme", import_id) is not None
    assert run(app, ann, audience_id, import_id).status is ImportStatus.PROCESSING
    app.clock.sleep(61)
    assert app.due.run()["imports"] == 1
    job = run(app, ann, audience_id, import_id)
    assert job.status is ImportStatus.COMPLETED
    assert job.storage_result is not None
    assert job.storage_result.duration_seconds == 61


def test_an_uploaded_file_is_found_even_when_nobody_tells(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    stored, target = app.imports.create_upload(ann, audience_id, ImportDraft(), "text/csv")
    import_id = stored.entity.import_id
    assert run(app, ann, audience_id, import_id).status is ImportStatus.AWAITING_UPLOAD
    app.uploads.put(source_key(stored.entity), FILE)
    assert httpx.URL(target.url).is_absolute_url == (app.settings.backend == "google")
    app.clock.sleep(601)
    assert app.due.run()["imports"] == 1
    assert run(app, ann, audience_id, import_id).status is ImportStatus.COMPLETED
    assert audience(app, ann, audience_id).status is AudienceStatus.ACTIVE


def test_a_file_that_never_comes_ends_the_import(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    stored, _ = app.imports.create_upload(ann, audience_id, ImportDraft(), "text/csv")
    app.clock.sleep(timedelta(hours=26).total_seconds())
    job = run(app, ann, audience_id, stored.entity.import_id)
    assert job.status is ImportStatus.FAILED
    assert job.error is not None
    assert job.error["reason"] == "upload_missing"
    assert audience(app, ann, audience_id).status is AudienceStatus.DRAFT


def test_a_cancelled_import_leaves_the_audience_as_it_was(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    import_id = queued(app, ann, audience_id)
    app.imports.cancel(ann, audience_id, import_id)
    assert run(app, ann, audience_id, import_id).status is ImportStatus.CANCELLED
    after = audience(app, ann, audience_id)
    assert (after.size, after.status) == (0, AudienceStatus.DRAFT)
    assert list(app.uploads.list("acme")) == [], "the file holds readable addresses"
    with pytest.raises(InvalidStateError):
        app.imports.cancel(ann, audience_id, import_id)


def test_too_many_rejects_stop_the_import_and_say_so(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    file = b"email\n" + b"nobody\n" * 3 + b"a@example.com\n"
    job = run(app, ann, audience_id, queued(app, ann, audience_id, file))
    assert job.status is ImportStatus.FAILED
    assert job.error is not None
    assert job.error["reason"] == "too_many_rejects"
    after = audience(app, ann, audience_id)
    assert (after.size, after.status) == (0, AudienceStatus.ERROR)
    assert after.status_reason
    lenient = queued(app, ann, audience_id, file, max_reject_ratio=0.9)
    assert run(app, ann, audience_id, lenient).status is ImportStatus.COMPLETED
    assert audience(app, ann, audience_id).status is AudienceStatus.ACTIVE


def test_what_cannot_be_an_import_is_refused_at_the_door(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    with pytest.raises(UploadRefusedError):
        queued(app, ann, audience_id, b"\xff\xfee\x00")
    assert app.imports.list(ann, audience_id).items == []
    assert list(app.uploads.list("acme")) == []
    assert audience(app, ann, audience_id).status is AudienceStatus.DRAFT


def test_archived_audiences_take_no_members(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    import_id = queued(app, ann, audience_id)
    app.imports.cancel(ann, audience_id, import_id)
    app.audiences.set_status(ann, audience_id, "archived")
    with pytest.raises(InvalidStateError):
        queued(app, ann, audience_id)


def test_two_imports_at_once_lose_nothing(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    first = queued(app, ann, audience_id, b"email\na@example.com\n")
    second = queued(app, ann, audience_id, b"email\nb@example.com\n")
    run(app, ann, audience_id, second)
    run(app, ann, audience_id, first)
    after = audience(app, ann, audience_id)
    assert (after.size, after.status) == (2, AudienceStatus.ACTIVE)


def test_an_import_fills_a_draft_though_another_one_was_cancelled(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    good, other = queued(app, ann, audience_id), queued(app, ann, audience_id)
    app.imports.cancel(ann, audience_id, other)
    run(app, ann, audience_id, good)
    filled = audience(app, ann, audience_id)
    assert (filled.status, filled.size) == (AudienceStatus.ACTIVE, 2)
    assert filled.metadata.activated_at is not None


def test_an_import_that_succeeds_leaves_no_error_of_another_one(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    good = queued(app, ann, audience_id)
    bad = queued(app, ann, audience_id, b"email\nnobody\nno one\n")
    assert run(app, ann, audience_id, bad).status is ImportStatus.FAILED
    assert audience(app, ann, audience_id).status is AudienceStatus.ERROR
    run(app, ann, audience_id, good)
    filled = audience(app, ann, audience_id)
    assert (filled.status, filled.status_reason, filled.size) == (AudienceStatus.ACTIVE, None, 2)


def test_imports_of_others_do_not_exist(app: App, ann: Caller, eve: Caller) -> None:
    audience_id = new_audience(app, ann)
    import_id = queued(app, ann, audience_id)
    other = new_audience(app, ann, "Others")
    with pytest.raises(NotFoundError):
        app.imports.get(eve, audience_id, import_id)
    with pytest.raises(NotFoundError):
        app.imports.get(ann, other, import_id)


@dataclass(frozen=True)
class LostAnswers:
    """A document store whose commits happen while their answers get lost."""

    store: DocumentStore

    def commit(self, batch: Batch) -> list[Revision]:
        self.store.commit(batch)
        raise StorageUnavailableError("No answer.")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def test_a_commit_with_a_lost_answer_keeps_its_file(app: App, ann: Caller) -> None:
    audience_id = new_audience(app, ann)
    lossy = replace(app.commits, documents=LostAnswers(app.documents))
    with pytest.raises(StorageUnavailableError):
        replace(app.imports, commits=lossy).create_direct(
            ann, audience_id, ImportDraft(), io.BytesIO(FILE)
        )
    (job,) = app.imports.list(ann, audience_id).items
    assert run(app, ann, audience_id, job.import_id).status is ImportStatus.COMPLETED
