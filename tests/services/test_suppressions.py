"""Suppression lists as use cases: what was acknowledged is in force at once, for whom it should."""

from __future__ import annotations

import gzip
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.clock import SystemClock
from activation.app import App
from activation.documents import Collection
from activation.domain.audit import AuditEntry
from activation.domain.caller import Caller
from activation.domain.distribution import DistributionDraft, DistributionStatus, Plan, PlanDraft
from activation.domain.identifier import IdentifierType
from activation.domain.manifest import Place
from activation.domain.member import MemberInput
from activation.domain.member_import import ImportDraft
from activation.domain.platform import Platform, PlatformDraft
from activation.domain.suppression import (
    GLOBAL,
    SuppressionChange,
    SuppressionReason,
    SuppressionReference,
    SuppressionsDraft,
)
from activation.errors import StorageUnavailableError, ValidationError
from activation.ports import BlobKey, Query
from activation.services.suppression_lists import HEADS, KeptLists, SuppressionLists
from activation.settings import Settings
from tests.conftest import caller_of
from tests.services.support import add, audience_of
from tests.working import work

EMAIL = IdentifierType.EMAIL


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def draft(*addresses: str, **fields: Any) -> SuppressionsDraft:
    named = [{"identifier_type": "email", "identifier_value": one, **fields} for one in addresses]
    return SuppressionsDraft.model_validate({"suppressions": named})


def reference(address: str, **fields: Any) -> SuppressionReference:
    return SuppressionReference(identifier_type=EMAIL, identifier_value=address, **fields)


def suppress(app: App, caller: Caller, *addresses: str, **fields: Any) -> SuppressionChange:
    return app.suppressions.add(caller, draft(*addresses, **fields))


def is_hit(app: App, organization_id: str, address: str) -> bool:
    return app.suppressions.view(organization_id).hits({EMAIL: [sha256(address)]}) == [0]


def audit(app: App, organization_id: str = "acme") -> list[AuditEntry]:
    entries = Collection(app.documents, "audit", AuditEntry)
    page = entries.page(Query(organization_id, "audit", limit=200))
    return [one for one in page.items if one.target.startswith((HEADS, "jobs"))]


OPERATOR = caller_of(GLOBAL, "cli:operator")


def test_what_was_acknowledged_is_in_force(app: App, ann: Caller) -> None:
    before = app.suppressions.view("acme")
    assert (before.size, before.hits({EMAIL: [sha256("a@b.de")]})) == (0, [])
    told = suppress(app, ann, "A@b.de", "c@d.ef", "c@d.ef", "nobody")
    counts = (told.received, told.accepted, told.added, told.updated, told.duplicate, told.rejected)
    assert counts == (4, 2, 2, 0, 1, 1)
    assert [(one.position, one.reason) for one in told.rejects] == [(3, "invalid_email")]
    view = app.suppressions.view("acme")
    assert (view.size, view.hits({EMAIL: [sha256("a@b.de"), None, sha256("x@b.de")]})) == (2, [0])
    assert view.epoch != before.epoch
    assert app.suppressions.view("acme").epoch == view.epoch


def test_the_same_again_changes_nothing(app: App, ann: Caller) -> None:
    suppress(app, ann, "a@b.de")
    before, entries = app.suppressions.view("acme").epoch, len(audit(app))
    again = suppress(app, ann, "a@b.de", "A@B.de")
    assert (again.accepted, again.duplicate, again.size) == (0, 2, 1)
    assert app.suppressions.view("acme").epoch == before
    assert len(audit(app)) == entries


def test_the_stronger_reason_stays(app: App, ann: Caller) -> None:
    suppress(app, ann, "a@b.de", reason="list")
    app.clock.sleep(60)
    stronger = suppress(app, ann, "a@b.de", reason="erasure")
    assert (stronger.added, stronger.updated, stronger.size) == (0, 1, 1)
    weaker = suppress(app, ann, "a@b.de", reason="opt_out")
    assert weaker.duplicate == 1
    (finding,) = app.suppressions.check(ann, reference("a@b.de")).findings
    assert finding.reason is SuppressionReason.ERASURE
    assert finding.added_at == app.clock.now()
    assert app.suppressions.status(ann).by_reason == {"erasure": 1}


def test_a_removal_takes_every_form_and_nothing_else(app: App, ann: Caller) -> None:
    suppress(app, ann, "a.b@gmail.com", "ab@gmail.com", "c@d.ef")
    removed = app.suppressions.remove(ann, reference(sha256("a.b@gmail.com"), hash_rule="plain"))
    assert (removed.removed, removed.suppressed) == (True, False)
    assert app.suppressions.check(ann, reference("a.b@gmail.com")).suppressed, "as ab@gmail.com"
    removed = app.suppressions.remove(ann, reference("ab@gmail.com"))
    assert (removed.removed, removed.suppressed) == (True, False)
    assert not app.suppressions.check(ann, reference("a.b@gmail.com")).suppressed
    assert app.suppressions.status(ann).size == 1
    nothing = app.suppressions.remove(ann, reference("ab@gmail.com"))
    assert (nothing.removed, nothing.suppressed) == (False, False)
    suppress(app, ann, "ab@gmail.com")
    assert is_hit(app, "acme", "ab@gmail.com")


def test_another_organization_has_another_list(app: App, ann: Caller, eve: Caller) -> None:
    suppress(app, ann, "a@b.de")
    nothing = app.suppressions.status(eve)
    assert (nothing.size, nothing.global_size, nothing.updated_at) == (0, 0, None)
    assert not app.suppressions.check(eve, reference("a@b.de")).suppressed
    assert not is_hit(app, eve.organization_id, "a@b.de")
    assert not app.suppressions.remove(eve, reference("a@b.de")).removed
    suppress(app, eve, "a@b.de", reason="erasure")
    (finding,) = app.suppressions.check(ann, reference("a@b.de")).findings
    assert finding.reason is SuppressionReason.OPT_OUT


def test_the_list_of_the_installation_holds_for_all(app: App, ann: Caller, eve: Caller) -> None:
    suppress(app, OPERATOR, "a@b.de", reason="do_not_sell")
    for caller in (ann, eve):
        (finding,) = app.suppressions.check(caller, reference("a@b.de")).findings
        assert (finding.scope, finding.reason) == ("global", "do_not_sell")
        assert is_hit(app, caller.organization_id, "a@b.de")
        assert app.suppressions.status(caller).global_size == 1
        removal = app.suppressions.remove(caller, reference("a@b.de"))
        assert (removal.removed, removal.suppressed) == (False, True)
    suppress(app, ann, "a@b.de")
    both = app.suppressions.check(ann, reference("a@b.de")).findings
    assert [one.scope for one in both] == ["organization", "global"]
    assert app.suppressions.remove(OPERATOR, reference("a@b.de")).removed
    assert not is_hit(app, eve.organization_id, "a@b.de")


def test_changes_and_questions_are_in_the_audit_log(app: App, ann: Caller) -> None:
    suppress(app, ann, "a@b.de")
    app.suppressions.check(ann, reference("a@b.de"))
    app.suppressions.remove(ann, reference("a@b.de"))
    entries = {one.action: one for one in audit(app)}
    assert {action: one.details for action, one in entries.items()} == {
        "api:suppression:add": {"added": 1},
        "api:suppression:check": {"identifier_type": "email", "suppressed": True},
        "api:suppression:remove": {"removed": 1},
    }
    assert entries["api:suppression:add"].after_sha256
    assert not {"a@b.de", sha256("a@b.de")} & set(repr(entries).split("'"))


def test_what_cannot_be_read_is_not_asked_for(app: App, ann: Caller) -> None:
    for wrong in (reference("nobody"), reference("abc", hash_rule="plain")):
        with pytest.raises(ValidationError):
            app.suppressions.check(ann, wrong)
        with pytest.raises(ValidationError):
            app.suppressions.remove(ann, wrong)


# stores -------------------------------------------------------------------------------------------


def with_lists(app: App, **changes: Any) -> SuppressionLists:
    """Let the App keep lists in another way."""
    lists = replace(app.suppressions.lists, **changes)
    app.__dict__["suppressions"] = replace(app.suppressions, lists=lists)
    return lists


def objects(app: App, organization_id: str = "acme") -> list[str]:
    return [one.key.path for one in app.member_blobs.list(organization_id, "suppressions/")]


def test_small_changes_are_folded_and_old_objects_go(app: App, ann: Caller) -> None:
    lists = with_lists(app, max_parts=4, max_document_bytes=0)
    addresses = [f"p{number}@example.com" for number in range(30)]
    for address in addresses[:20]:
        suppress(app, ann, address)
    parts = lists.heads("acme")[0].entity.parts
    assert len(parts) <= 4
    assert {part.place for part in parts} == {Place.OBJECT}
    assert len(objects(app)) > 10, "a reader may still want them"
    app.member_blobs.put(BlobKey("acme", "suppressions/part-lost.bin"), b"lost")
    app.clock.sleep(timedelta(hours=25).total_seconds())
    for address in addresses[20:]:
        suppress(app, ann, address)
    assert "suppressions/part-lost.bin" not in objects(app)
    assert len(objects(app)) > 20, "a database that is set back names them again"
    app.clock.sleep(timedelta(days=9).total_seconds())
    lists.tidy("acme")
    named = {part.path for part in lists.heads("acme")[0].entity.parts}
    assert named <= set(objects(app))
    assert len(objects(app)) <= 12
    assert lists.tidy("acme") == 0
    hashes = [sha256(one) for one in addresses]
    assert app.suppressions.view("acme").hits({EMAIL: hashes}) == list(range(30))
    assert app.suppressions.status(ann).size == 30


class Overtaken:
    """A document store on which another process makes changes between two of our reads."""

    def __init__(self, documents: Any, change: Callable[[], None]) -> None:
        self._documents = documents
        self._change = change
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._documents, name)

    def get_many(self, keys: Any) -> Any:
        found = self._documents.get_many(keys)
        self.looks += 1
        if self.looks == 1:
            self._change()
        return found


def test_a_reader_looks_again_when_the_parts_were_folded_away(app: App, ann: Caller) -> None:
    with_lists(app, max_parts=2)
    suppress(app, ann, "p0@b.de")
    lists = app.suppressions.lists

    def change() -> None:
        for number in range(1, 6):
            suppress(app, ann, f"p{number}@b.de")

    documents = Overtaken(app.documents, change)
    reading = replace(app.suppressions, lists=replace(lists, documents=documents, kept=KeptLists()))
    view = reading.view("acme")
    assert documents.looks > 1
    assert view.hits({EMAIL: [sha256(f"p{number}@b.de") for number in range(6)]}) == [*range(6)]


def test_no_list_that_cannot_be_read_counts_as_empty(app: App, ann: Caller) -> None:
    with_lists(app, max_document_bytes=0)
    suppress(app, ann, "a@b.de")
    with_lists(app, kept=KeptLists())
    for path in objects(app):
        app.member_blobs.delete(BlobKey("acme", path))
    with pytest.raises(StorageUnavailableError):
        app.suppressions.view("acme")
    with pytest.raises(StorageUnavailableError):
        suppress(app, ann, "c@d.ef")
    with pytest.raises(StorageUnavailableError):
        app.suppressions.check(ann, reference("a@b.de"))


@pytest.mark.embedded("throws the key away")
def test_without_its_key_a_list_is_closed(app: App, ann: Caller, tmp_path: Path) -> None:
    suppress(app, ann, "a@b.de")
    with_lists(app, kept=KeptLists())
    (tmp_path / "data/keys.json").unlink()
    with pytest.raises(StorageUnavailableError):
        app.suppressions.view("acme")


@pytest.mark.embedded("reads every byte on the disk")
def test_nothing_stored_says_who_is_suppressed(app: App, ann: Caller, tmp_path: Path) -> None:
    with_lists(app, max_document_bytes=0)
    suppress(app, ann, "canary.person@gmail.com")
    suppress(app, OPERATOR, "canary.person@gmail.com")
    with_lists(app, max_document_bytes=10**6)
    suppress(app, ann, "canary.person@gmail.com", reason="erasure")
    traces = [
        form
        for text in ("canary.person@gmail.com", "canaryperson@gmail.com")
        for form in (text.encode(), sha256(text).encode(), bytes.fromhex(sha256(text)))
    ]
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix == ".bin"]
    for file in files:
        content = file.read_bytes()
        assert not [trace for trace in traces if trace in content], file


def test_keys_differ_and_open_for_their_organization_only(app: App, ann: Caller) -> None:
    suppress(app, ann, "a@b.de")
    suppress(app, OPERATOR, "a@b.de")
    own, shared = app.suppressions.lists.heads("acme")
    assert app.suppressions.lists.key_of(own.entity) != app.suppressions.lists.key_of(shared.entity)
    moved = own.entity.changed(organization_id=GLOBAL)
    with_lists(app, kept=KeptLists())
    with pytest.raises(StorageUnavailableError):
        app.suppressions.lists.key_of(moved)


class CountedDocuments:
    """A document store that counts what is read."""

    def __init__(self, documents: Any) -> None:
        self._documents = documents
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        if name in ("get", "get_many", "query"):
            self.reads += 1
        return getattr(self._documents, name)


def test_a_view_of_an_unchanged_list_costs_one_look(app: App, ann: Caller) -> None:
    counted = CountedDocuments(app.documents)
    with_lists(app, documents=counted, blobs=None)
    for number in range(5):
        suppress(app, ann, f"p{number}@example.com")
    app.suppressions.view("acme")
    counted.reads = 0
    assert app.suppressions.view("acme").size == 5
    assert counted.reads == 1


# several at once ----------------------------------------------------------------------------------

THREADS, EACH = 8, 12


def at_once(tasks: list[Callable[[], None]]) -> None:
    """Run tasks in threads that start together."""
    barrier = threading.Barrier(len(tasks))

    def started(task: Callable[[], None]) -> None:
        barrier.wait()
        task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        for done in [pool.submit(started, task) for task in tasks]:
            done.result()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[App]]:
    """Two processes on the same stores."""
    settings = Settings(data_folder=str(tmp_path / "shared"))
    apps = [App(settings, SystemClock()) for _ in range(2)]
    for app in apps:
        with_lists(app, max_parts=4)
    yield apps
    for app in apps:
        app.close()


def test_changes_at_once_lose_nothing(processes: list[App], ann: Caller) -> None:
    def adds(number: int) -> Callable[[], None]:
        def task() -> None:
            for step in range(EACH):
                told = suppress(processes[number % 2], ann, f"p{number}-{step}@b.de", "all@b.de")
                assert told.rejected == 0
                assert is_hit(processes[(number + 1) % 2], "acme", f"p{number}-{step}@b.de")

        return task

    at_once([adds(number) for number in range(THREADS)])
    everybody = [f"p{n}-{step}@b.de" for n in range(THREADS) for step in range(EACH)]
    for app in processes:
        view = app.suppressions.view("acme")
        assert view.size == THREADS * EACH + 1
        hashes = [sha256(one) for one in (*everybody, "all@b.de")]
        assert view.hits({EMAIL: hashes}) == list(range(len(hashes)))
    head = processes[0].suppressions.lists.heads("acme")[0].entity
    assert head.epoch == len(audit_of(processes[0]))
    assert head.by_reason == {"opt_out": THREADS * EACH + 1}


def audit_of(app: App) -> list[AuditEntry]:
    page = Collection(app.documents, "audit", AuditEntry).page(Query("acme", "audit", limit=1000))
    return list(page.items)


def test_adding_and_removing_at_once_leave_the_count_exact(
    processes: list[App], ann: Caller
) -> None:
    suppress(processes[0], ann, *(f"p{number}@b.de" for number in range(20)))

    def adds() -> None:
        for number in range(20, 40):
            suppress(processes[0], ann, f"p{number}@b.de")

    def removes() -> None:
        for number in range(20):
            assert processes[1].suppressions.remove(ann, reference(f"p{number}@b.de")).removed

    at_once([adds, removes])
    view = processes[1].suppressions.view("acme")
    hashes = [sha256(f"p{number}@b.de") for number in range(40)]
    assert view.hits({EMAIL: hashes}) == list(range(20, 40))
    assert view.size == processes[0].suppressions.status(ann).size == 20


# sending and taking in ----------------------------------------------------------------------------


def members(*addresses: str, **fields: Any) -> list[MemberInput]:
    return [
        MemberInput(identifier_type=EMAIL, identifier_value=address, **fields)
        for address in addresses
    ]


@pytest.fixture
def drop(app: App, ann: Caller) -> Platform:
    """A platform that writes files."""
    draft = {
        "platform_type": "file_drop",
        "name": "Drop",
        "credentials": {},
        "settings": {"config": {"folder": "drop"}},
    }
    return app.platforms.create(ann, PlatformDraft.model_validate(draft)).entity


def planned(app: App, ann: Caller, audience_id: str, platform: Platform) -> Plan:
    asked = PlanDraft(audience_id=audience_id, platform_id=platform.platform_id)
    return app.distributions.plan(ann, asked)


@pytest.mark.embedded("a platform that writes files")
def test_the_plan_and_the_run_leave_suppressed_people_out(
    app: App, ann: Caller, drop: Platform, tmp_path: Path
) -> None:
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, members(*(f"p{number}@b.de" for number in range(10))))
    app.audiences.set_status(ann, audience.audience_id, "active")
    assert planned(app, ann, audience.audience_id, drop).withheld == {}
    suppress(app, ann, "p1@b.de", "p2@b.de")
    suppress(app, OPERATOR, "p3@b.de")
    plan = planned(app, ann, audience.audience_id, drop)
    assert (plan.members, plan.withheld, plan.identifiers) == (10, {"suppressed": 3}, 7)
    request = DistributionDraft(audience_id=audience.audience_id, platform_id=drop.platform_id)
    job = app.distributions.create(ann, request).entity
    suppress(app, ann, "p4@b.de")
    work(app, job.distribution_id)
    done = app.distributions.get(ann, job.distribution_id).entity
    assert (done.status, done.progress.sent) == (DistributionStatus.COMPLETED, 6)
    assert done.plan is not None
    assert done.plan.withheld == {"suppressed": 4}
    files = list((tmp_path / "data/drops").rglob("*.gz"))
    assert files
    written = "".join(gzip.decompress(path.read_bytes()).decode() for path in files)
    for number in range(10):
        assert (sha256(f"p{number}@b.de") in written) is (number not in (1, 2, 3, 4))


def test_a_platform_may_require_consent(app: App, ann: Caller) -> None:
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, members("a@b.de", "b@b.de"))
    add(app, ann, audience.audience_id, members("c@b.de", consent="granted"))
    app.audiences.set_status(ann, audience.audience_id, "active")
    draft = {
        "platform_type": "webhook",
        "name": "Hook",
        "credentials": {"signing_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
        "settings": {"config": {"url": "http://127.0.0.1:9/hook"}, "require_consent": True},
    }
    platform = app.platforms.create(ann, PlatformDraft.model_validate(draft)).entity
    assert platform.settings.require_consent
    plan = planned(app, ann, audience.audience_id, platform)
    assert (plan.identifiers, plan.withheld) == (1, {"consent_missing": 2})


def test_erased_people_are_not_taken_in_again(app: App, ann: Caller) -> None:
    audience_id = audience_of(app, ann).audience_id
    suppress(app, ann, "gone.person@gmail.com", reason="erasure")
    suppress(app, OPERATOR, "deleted@b.de", reason="erasure")
    suppress(app, ann, "out@b.de", reason="opt_out")
    spelled = ("GonePerson+x@gmail.com", "deleted@b.de", "out@b.de", "new@b.de")
    change = app.members.add(ann, audience_id, members(*spelled))
    assert [(one.position, one.reason) for one in change.rejects] == [
        (0, "suppressed"),
        (1, "suppressed"),
    ]
    assert (change.received, change.added, change.rejected, change.size) == (4, 2, 2, 2)
    hashed = members(sha256("goneperson@gmail.com"), hash_rule="google")
    assert app.members.add(ann, audience_id, hashed).rejected == 1


def test_a_file_does_not_bring_erased_people_back(app: App, ann: Caller) -> None:
    audience_id = audience_of(app, ann).audience_id
    suppress(app, ann, "gone@b.de", reason="erasure")
    rows = b"email,phone\ngone@b.de,+49301234567\nnew@b.de,\ngone@b.de,\n"
    given = ImportDraft.model_validate({"max_reject_ratio": 1})
    stored = app.imports.create_direct(ann, audience_id, given, io.BytesIO(rows))
    app.import_worker.run("acme", stored.entity.import_id, "t")
    job = app.imports.get(ann, audience_id, stored.entity.import_id).entity
    counts = job.counts
    assert (counts.received, counts.accepted, counts.rejected) == (4, 2, 2)
    assert counts.rejected_by_reason == {"suppressed": 2}
    lines = b"".join(app.imports.rejects(ann, audience_id, job.import_id)).decode().splitlines()
    assert lines == ["row,column,reason", "2,email,suppressed", "4,email,suppressed"]


def test_what_is_erased_while_a_file_is_read_is_refused_from_then_on(app: App, ann: Caller) -> None:
    refused = app.suppressions.refused("acme")
    run = app.store.run_of("acme", "x", members("a@b.de"), refused=refused)
    assert run.counts.rejected == 0
    suppress(app, ann, "a@b.de", reason="erasure")
    run = app.store.run_of("acme", "x", members("a@b.de"), refused=refused)
    assert run.rejects == ((0, "suppressed"),)
