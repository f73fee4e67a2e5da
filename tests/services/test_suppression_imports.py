"""Files of identifiers to suppress: read once in effect, whatever happens on the way."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.entity import new_id
from activation.domain.identifier import IdentifierType
from activation.domain.job import Job, JobKind, JobStatus
from activation.domain.suppression import GLOBAL, SuppressionFileDraft
from activation.errors import StorageUnavailableError, UploadRefusedError, ValidationError
from activation.ports import Batch, Revision
from activation.services.suppression_imports import source_key
from tests.conftest import caller_of
from tests.services.support import drained

EMAIL, PHONE = IdentifierType.EMAIL, IdentifierType.PHONE
ROWS = 400


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def address(number: int) -> str:
    return f"p{number}@example.com"


def file_of(count: int, start: int = 0) -> bytes:
    return "\n".join(["email", *map(address, range(start, start + count)), ""]).encode()


def draft_of(app: App, **fields: Any) -> SuppressionFileDraft:
    given = {"upload_id": new_id(app.clock.now()), "reason": "opt_out", **fields}
    return SuppressionFileDraft.model_validate(given)


def queued(app: App, caller: Caller, content: bytes, **fields: Any) -> Job:
    draft = draft_of(app, **fields)
    return app.suppression_imports.start_direct(caller, draft, io.BytesIO(content)).entity


def imported(app: App, caller: Caller, content: bytes, **fields: Any) -> dict[str, Any]:
    job = drained(app, queued(app, caller, content, **fields))
    assert job.status is JobStatus.COMPLETED, job.error
    result = job.result
    told = result["accepted"] + result["duplicate"] + result["rejected"]
    assert result["received"] == told
    assert result["accepted"] == result["added"] + result["updated"]
    return result


def suppressed(app: App, addresses: Sequence[str]) -> list[int]:
    return app.suppressions.view("acme").hits({EMAIL: [sha256(one) for one in addresses]})


def test_a_key_that_comes_up_late_is_suppressed_too(app: App, ann: Caller) -> None:
    rows = [{"email": address(n)} for n in range(1_100)]
    rows += [{"email": address(2_000), "phone": "+4915112345678", "consent": "perhaps"}]
    result = imported(app, ann, "\n".join(map(json.dumps, rows)).encode())
    assert (result["received"], result["added"], result["rejected"]) == (1_102, 1_102, 0)
    phone = {IdentifierType.PHONE: [sha256("+4915112345678")]}
    assert app.suppressions.view("acme").hits(phone) == [0]


@contextmanager
def small_chunks(app: App, block_bytes: int = 1_000) -> Iterator[None]:
    """Files are read in pieces of so many bytes, each a commit."""
    limits = replace(app.suppression_imports.read_limits, block_bytes=block_bytes)
    app.__dict__["suppression_imports"] = replace(
        app.suppression_imports, read_limits=limits, chunk_identifiers=1
    )
    yield


def test_a_file_puts_everybody_in_it_on_the_list(app: App, ann: Caller) -> None:
    rows = [
        "email,Telefon,notes",
        "a@b.de,+49301234567,call me at c@d.ef",
        "A@B.de,,",
        "nobody,030 1234568,",
        ",,nothing",
    ]
    result = imported(app, ann, "\n".join([*rows, ""]).encode(), default_region="DE")
    counts = ("rows", "received", "added", "duplicate", "rejected")
    assert [result[name] for name in counts] == [4, 6, 3, 1, 2]
    assert result["rejected_by_reason"] == {"invalid_email": 1, "no_identifier": 1}
    assert result["rejects"] == [[4, "email", "invalid_email"], [5, "", "no_identifier"]]
    view = app.suppressions.view("acme")
    assert view.size == 3
    assert view.hits({EMAIL: [sha256("a@b.de"), sha256("c@d.ef")]}) == [0]
    assert view.hits({PHONE: [sha256("49301234567"), sha256("+49301234568")]}) == [0, 1]


@pytest.mark.parametrize("packed", [False, True])
def test_hashed_files_name_their_rule(app: App, ann: Caller, packed: bool) -> None:
    lines = [{"hash": sha256("annlee@gmail.com"), "id": 7}, {"hash": sha256("b@b.de").upper()}]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    columns = [{"column": "hash", "identifier_type": "email", "hash_rule": "google"}]
    with pytest.raises(UploadRefusedError):
        queued(app, ann, content)
    content = gzip.compress(content) if packed else content
    result = imported(app, ann, content, columns=columns, reason="erasure")
    assert (result["added"], result["rejected"]) == (2, 0)
    assert app.suppressions.status(ann).by_reason == {"erasure": 2}
    assert suppressed(app, ["annlee@gmail.com", "b@b.de"]) == [0, 1]
    assert list(app.uploads.list("acme")) == [], "the file is not kept"


def test_the_same_file_again_adds_nothing(app: App, ann: Caller) -> None:
    assert imported(app, ann, file_of(50))["added"] == 50
    again = imported(app, ann, file_of(60))
    assert (again["added"], again["duplicate"]) == (10, 50)
    epoch = app.suppressions.view("acme").epoch
    assert imported(app, ann, file_of(60))["duplicate"] == 60
    assert app.suppressions.view("acme").epoch == epoch


def test_a_second_delivery_does_nothing(app: App, ann: Caller) -> None:
    job = queued(app, ann, file_of(5))
    first = drained(app, job)
    epoch = app.suppressions.view("acme").epoch
    assert drained(app, job) == first
    assert app.suppressions.view("acme").epoch == epoch


class Dying:
    """A document store that stops answering at some commit; before it or after it took effect."""

    def __init__(self, documents: Any, commit: int, *, after: bool) -> None:
        self._documents = documents
        self._left = commit
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._documents, name)

    def commit(self, batch: Batch) -> list[Revision]:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._after):
            raise StorageUnavailableError("gone")
        revisions: list[Revision] = self._documents.commit(batch)
        if self._left == 0:
            raise StorageUnavailableError("gone")
        return revisions


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("commit", range(1, 10))
def test_a_killed_import_goes_on_where_it_was(
    app: App, ann: Caller, commit: int, after: bool
) -> None:
    with small_chunks(app):
        _go_on(app, ann, commit, after=after)


def _go_on(app: App, ann: Caller, commit: int, *, after: bool) -> None:
    job = queued(app, ann, file_of(ROWS))
    dying = App(app.settings, app.clock)
    for port in ("bus", "uploads", "member_blobs", "journal_blobs", "suppression_vault"):
        dying.__dict__[port] = getattr(app, port)
    dying.__dict__["documents"] = Dying(app.documents, commit, after=after)
    with small_chunks(dying), pytest.raises(StorageUnavailableError):
        dying.job_worker.run("acme", job.job_id, "t")
    seen = app.suppressions.status(ann).size
    assert len(suppressed(app, [address(n) for n in range(ROWS)])) == seen
    app.clock.sleep(timedelta(minutes=5).total_seconds())
    done = drained(app, job)
    assert done.status is JobStatus.COMPLETED
    counts = [done.result[name] for name in ("rows", "received", "added", "duplicate", "rejected")]
    assert counts == [ROWS, ROWS, ROWS, 0, 0]
    assert app.suppressions.status(ann).size == ROWS
    assert suppressed(app, [address(n) for n in range(ROWS)]) == [*range(ROWS)]


def test_somebody_else_may_change_the_list_meanwhile(app: App, ann: Caller) -> None:
    other = replace(app.suppressions)
    calls: list[int] = []

    class Meddling:
        def __getattr__(self, name: str) -> Any:
            return getattr(app.member_blobs, name)

        def put(self, *args: Any, **kwargs: Any) -> Any:
            if len(calls) < 3:
                calls.append(1)
                draft = {
                    "suppressions": [{"identifier_type": "email", "identifier_value": "x@y.z"}]
                }
                draft["suppressions"][0]["identifier_value"] = f"x{len(calls)}@y.z"
                other.add(ann, type_of_draft().model_validate(draft))
            return app.member_blobs.put(*args, **kwargs)

    lists = replace(app.suppressions.lists, blobs=Meddling(), max_document_bytes=0, kept=fresh())
    app.__dict__["suppressions"] = replace(app.suppressions, lists=lists)
    result = imported(app, ann, file_of(100))
    assert (result["added"], len(calls)) == (100, 3)
    assert app.suppressions.status(ann).size == 103


def fresh() -> Any:
    from activation.services.suppression_lists import KeptLists

    return KeptLists()


def type_of_draft() -> Any:
    from activation.domain.suppression import SuppressionsDraft

    return SuppressionsDraft


def test_a_long_import_hands_over(app: App, ann: Caller) -> None:
    with small_chunks(app):
        job = queued(app, ann, file_of(ROWS))
        worker = replace(app.job_worker, work_seconds=-1)
        worker.run("acme", job.job_id, "t")
        half = app.jobs.records.get("acme", job.job_id).entity
        assert half.status is JobStatus.QUEUED
        assert 0 < half.percentage < 100
        assert 0 < app.suppressions.status(ann).size < ROWS
        assert drained(app, job).result["added"] == ROWS


def test_what_was_read_of_a_broken_file_stays(app: App, ann: Caller) -> None:
    with small_chunks(app, 500_000):
        content = file_of(60_000) + b"x" * 70_000
        job = drained(app, queued(app, ann, content))
    assert job.status is JobStatus.FAILED
    assert (job.error or {})["reason"] == "line_too_long"
    assert 0 < app.suppressions.status(ann).size <= 60_000
    assert list(app.uploads.list("acme")) == []


def test_what_is_no_file_is_refused_at_once(app: App, ann: Caller) -> None:
    for content in (b"", b"a,b\n1,2\n", b"PAR1 no", b"ann@example.com\nbob@example.com\n"):
        with pytest.raises(UploadRefusedError):
            queued(app, ann, content)
    assert list(app.uploads.list("acme")) == []


# files that are put at an address -----------------------------------------------------------------


def test_an_uploaded_file_is_imported_when_it_is_asked_for(app: App, ann: Caller) -> None:
    upload_id, target = app.suppression_imports.upload_target(ann)
    assert target.method == "PUT"
    draft = draft_of(app, upload_id=upload_id)
    with pytest.raises(ValidationError):
        app.suppression_imports.start(ann, draft)
    app.uploads.put(source_key("acme", upload_id), file_of(3))
    job = app.suppression_imports.start(ann, draft).entity
    assert job.kind is JobKind.SUPPRESS
    done = drained(app, job)
    assert done.result["added"] == 3
    assert app.suppression_imports.start(ann, draft).entity == done


def test_nobody_imports_the_file_of_another_organization(
    app: App, ann: Caller, eve: Caller
) -> None:
    upload_id, _ = app.suppression_imports.upload_target(ann)
    app.uploads.put(source_key("acme", upload_id), file_of(3))
    with pytest.raises(ValidationError):
        app.suppression_imports.start(eve, draft_of(app, upload_id=upload_id))


def test_a_job_of_another_kind_is_no_upload(app: App, ann: Caller) -> None:
    other = app.jobs.start(ann, JobKind.SWEEP).entity
    with pytest.raises(ValidationError):
        app.suppression_imports.start(ann, draft_of(app, upload_id=other.job_id))


def test_files_that_nobody_asked_for_are_swept(app: App, ann: Caller) -> None:
    upload_id, _ = app.suppression_imports.upload_target(ann)
    app.uploads.put(source_key("acme", upload_id), file_of(3))
    waiting = queued(app, ann, file_of(4))
    app.clock.sleep(timedelta(hours=25).total_seconds())
    drained(app, app.jobs.start(ann, JobKind.SWEEP).entity)
    left = [info.key.path for info in app.uploads.list("acme")]
    assert left == [source_key("acme", waiting.params["upload_id"]).path]
    assert drained(app, waiting).result["added"] == 4


# the installation ---------------------------------------------------------------------------------


def test_the_list_of_the_installation_takes_files_without_a_job(app: App, ann: Caller) -> None:
    operator, shares = caller_of(GLOBAL, "cli:operator"), list[float]()
    result = app.suppression_imports.run_here(
        operator, draft_of(app, reason="do_not_sell"), io.BytesIO(file_of(5)), shares.append
    )
    assert (result["received"], result["added"], shares) == (5, 5, [1.0])
    assert suppressed(app, [address(4), address(5)]) == [0]
    assert app.suppressions.status(ann).global_size == 5
    assert app.suppressions.status(operator).by_reason == {"do_not_sell": 5}
