"""An erased user stays erased when the store goes back: nobody has to ask again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.job import JobKind, JobStatus
from activation.errors import StorageUnavailableError
from activation.ports import Batch, BlobKey, DocumentStore, Query, Revision
from activation.services.erasure_journal import ERASURES, ErasureJournal
from activation.services.erasure_marks import ErasureMarks
from activation.services.jobs import JobRun
from activation.services.suppression_journal import KEPT_FOR
from tests.services.rewinding import Then, go_back, state_of
from tests.services.support import drained
from tests.services.test_user_erasures import (
    BOB,
    OTHERS,
    come,
    erased,
    inside,
    known,
    segment_id,
)

__all__ = ["segment_id"]


def went_back(app: App, then: Then) -> None:
    """The store is as it was, a minute later."""
    go_back(app, then)
    app.clock.sleep(60)


def counts(app: App, then: Then) -> tuple[int, int]:
    """What a recovery says of users: erased again, and still waiting."""
    recovery = app.recovery.run(then.at)
    return recovery.users_erased, recovery.erasures_waiting


def entries(app: App) -> list[BlobKey]:
    """What is in the journal."""
    return [one.key for one in app.journal_blobs.list(ERASURES)]


def test_a_restore_does_not_bring_him_back(app: App, ann: Caller, segment_id: str) -> None:
    for number in (1, 2):
        come(app, [BOB, *OTHERS], number)
    then = state_of(app)
    app.clock.sleep(600)
    erased(app, ann)
    pseudonym = app.erasure_marks.pseudonym("acme", BOB)
    went_back(app, then)
    assert known(app)
    assert counts(app, then) == (1, 0)
    assert not known(app)
    assert inside(app, segment_id) == set(OTHERS)
    fresh = ErasureMarks(app.documents, app.suppression_vault, app.clock)
    assert fresh.pseudonym("acme", BOB) == pseudonym


def test_a_shard_whose_objects_are_gone_is_made_again_first(app: App, ann: Caller) -> None:
    """Buckets do not go back with a database."""
    object.__setattr__(app.shards.parcels, "inline_bytes", 10)
    come(app, [BOB, *OTHERS], 1)
    then = state_of(app)
    app.clock.sleep(600)
    erased(app, ann)
    erased(app, ann, OTHERS[0])
    went_back(app, then)
    recovery = app.recovery.run(then.at)
    assert (recovery.shards_rebuilt, recovery.users_erased) == (1, 2)
    assert not known(app)
    assert not known(app, OTHERS[0])


def test_what_the_restored_store_knows_is_not_done_again(
    app: App, ann: Caller, segment_id: str
) -> None:
    """He has come back as a new user since."""
    come(app, [BOB, *OTHERS], 1)
    erased(app, ann)
    app.clock.sleep(60)
    come(app, [BOB, *OTHERS], 2)
    then = state_of(app)
    app.clock.sleep(60)
    come(app, [BOB], 3)
    went_back(app, then)
    assert counts(app, then) == (0, 0)
    come(app, [BOB], 3)
    assert BOB in inside(app, segment_id)


def test_an_erasure_that_was_under_way_goes_on(app: App, ann: Caller) -> None:
    come(app, [BOB, *OTHERS], 1)
    job = app.user_erasures.request(ann, BOB).entity
    then = state_of(app)
    drained(app, job)
    went_back(app, then)
    assert counts(app, then) == (1, 0)
    assert app.jobs.records.get("acme", job.job_id).entity.status is JobStatus.COMPLETED
    assert not known(app)


def test_told_again_nothing_is_done_twice(app: App, ann: Caller, clock: MovableClock) -> None:
    come(app, [BOB, *OTHERS], 1)
    then = state_of(app)
    erased(app, ann)
    clock.sleep(60)
    come(app, [BOB], 2)
    erased(app, ann)
    went_back(app, then)
    assert counts(app, then) == (1, 0)
    assert counts(app, then) == (0, 0)
    assert not known(app)
    go_back(app, then)
    assert counts(app, then) == (1, 0)
    assert not known(app)


def test_a_request_is_in_the_journal_before_anybody_is_answered(app: App, ann: Caller) -> None:
    """The process dies between journal and commit: nobody was answered, and he is erased again by
    a restore at most."""
    come(app, [BOB, *OTHERS], 1)
    app.organizations.ensure("acme")
    app.erasure_marks.sealed("acme")
    then = state_of(app)
    dying = replace(app.user_erasures, commits=replace(app.commits, documents=Dead(app.documents)))
    with pytest.raises(Died):
        dying.request(ann, BOB)
    assert len(entries(app)) == 1
    assert known(app)
    went_back(app, then)
    assert counts(app, then) == (1, 0)
    assert not known(app)


def test_without_the_journal_nobody_is_answered(app: App, ann: Caller) -> None:
    come(app, [BOB], 1)
    journal = ErasureJournal(Broken(), app.suppression_vault, app.clock)  # type: ignore[arg-type]
    with pytest.raises(StorageUnavailableError):
        replace(app.user_erasures, journal=journal).request(ann, BOB)
    assert app.documents.query(Query("acme", "user_erasures")) == []
    assert app.documents.query(Query("acme", "jobs")) == []


def test_the_journal_tells_nobody_whom_it_is_about(app: App, ann: Caller) -> None:
    app.user_erasures.request(ann, BOB)
    app.user_erasures.request(ann, BOB)
    (key,) = entries(app)
    content = app.journal_blobs.get(key)
    digest = app.erasure_marks.digest("acme", BOB)
    assert BOB.encode() not in content
    assert digest.encode() not in content + str(key).encode()
    entry = app.erasure_journal.entry(key)
    assert (entry.user_id, entry.organization_id) == (BOB, "acme")
    assert BOB not in repr(entry)
    elsewhere = BlobKey(ERASURES, key.path.replace("acme", "evil-corp"))
    app.journal_blobs.put(elsewhere, content)
    with pytest.raises(StorageUnavailableError) as caught:
        app.erasure_journal.entry(elsewhere)
    assert caught.value.reason == "key"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"user": "x", "key": "y"}', b"[]"])
def test_a_damaged_entry_stops_a_recovery(app: App, ann: Caller, content: bytes) -> None:
    then = state_of(app)
    app.user_erasures.request(ann, BOB)
    (key,) = entries(app)
    app.journal_blobs.delete(key)
    app.journal_blobs.put(key, content)
    went_back(app, then)
    with pytest.raises(StorageUnavailableError):
        app.recovery.run(then.at)


def test_an_entry_goes_when_no_backup_can_be_older(
    app: App, ann: Caller, eve: Caller, clock: MovableClock
) -> None:
    for caller in (ann, eve):
        app.user_erasures.request(caller, BOB)
    clock.sleep((KEPT_FOR + timedelta(minutes=1)).total_seconds())
    app.user_erasures.request(ann, OTHERS[0])
    swept = drained(app, app.jobs.start(ann, JobKind.SWEEP).entity)
    assert swept.result["erasures"] == 1
    assert len(entries(app)) == 2
    assert app.erasure_journal.tidy() == 1
    assert [one.path.split("/")[0] for one in entries(app)] == ["acme"]


def test_an_erasure_that_cannot_be_done_now_is_told_of(app: App, ann: Caller) -> None:
    """Another process has the job in work: the restore goes on, and says that it waits."""
    then = state_of(app)
    app.user_erasures.request(ann, BOB)
    went_back(app, then)
    playback = app.recovery.erasures
    slow = replace(playback.worker, jobs=app.jobs, handlers={JobKind.ERASE_USER: lambda: unable})
    recovery = replace(app.recovery, erasures=replace(playback, worker=slow)).run(then.at)
    assert (recovery.users_erased, recovery.erasures_waiting) == (0, 1)
    assert counts(app, then) == (1, 0)


def unable(run: JobRun) -> None:
    """A store does not answer."""
    raise StorageUnavailableError("No.")


class Died(BaseException):
    """The process is dead."""


class Dead:
    """Documents that can be read; the process dies at the first commit."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    def __getattr__(self, name: str) -> Any:
        return getattr(self._documents, name)

    def commit(self, batch: Batch) -> list[Revision]:
        """Not reached by anybody who lives."""
        raise Died


class Broken:
    """A journal's area that does not answer."""

    def put(self, *_: object, **__: object) -> None:
        """Fails."""
        raise StorageUnavailableError("No.")
