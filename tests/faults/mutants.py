"""The orders of steps that lose, invent or miscount members: kept, so that the lab must find them.

Each stands for a way in which such systems are often written; several are those of the service
that this one replaces (the Z rows of the inventory). `good_once` says whether it works as long as
nothing goes wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any

import orjson

from activation.app import App
from activation.documents import Stored
from activation.domain.audience import Audience, AudienceChanges
from activation.domain.caller import Caller, Claim
from activation.domain.entity import new_id
from activation.domain.job import Job
from activation.domain.manifest import Manifest
from activation.domain.segment_follow import SegmentFollow
from activation.errors import ConflictError
from activation.members.followed import Difference
from activation.members.store import MergeResult
from activation.ports import ABSENT, Batch, BlobInfo, BlobKey, BlobStore, Key, Query, Write
from activation.services.archives import nothing_more
from activation.services.erasure_journal import ERASURES, entry_context
from activation.services.follow_work import FollowWork
from activation.services.idempotency import completion
from activation.services.quotas import QuotaService
from activation.services.suppression_lists import SuppressionLists
from activation.services.user_erasures import UserErasures
from activation.services.version_records import version_of, version_write
from tests.faults import flows, segments
from tests.faults.flows import FLOWS
from tests.faults.interleave import Pair
from tests.faults.lab import Flow
from tests.faults.world import ANN, TRIES, Act, Answer, Scene

DONE: Answer = {"done": True}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A wrong way to do what `right` does."""

    flow: Flow
    right: Flow
    good_once: bool

    @property
    def name(self) -> str:
        return f"{self.right.name}: {self.flow.name}"


# steps ----------------------------------------------------------------------------------------


@contextmanager
def merged(app: App, scene: Scene) -> Iterator[tuple[Stored[Audience], MergeResult]]:
    """The new members merged with those of now, not committed."""
    stored = app.audiences.find(ANN, scene.audience_id)
    run = app.store.run_of(ANN.organization_id, scene.audience_id, _inputs())
    parent = manifest_of(app, stored.entity)
    yield stored, _merge(app, scene, parent, [run.path or ""])
    app.store.discard_runs(ANN.organization_id, [run.path or ""])


def _merge(
    app: App, scene: Scene, parent: Manifest | None, runs: Sequence[str], gone: Any = ()
) -> MergeResult:
    manifest_id = new_id(app.clock.now())
    return app.store.merge(ANN.organization_id, scene.audience_id, manifest_id, parent, runs, gone)


def _inputs() -> list[Any]:
    return [flows.member(address) for address in flows.FRESH]


def manifest_of(app: App, audience: Audience) -> Manifest | None:
    """The manifest of now."""
    if audience.manifest_id is None:
        return None
    return app.members.manifests.get(audience.organization_id, audience.manifest_id).entity


def put(
    app: App,
    caller: Caller,
    stored: Stored[Audience],
    result: MergeResult,
    *,
    size: int,
    action: str = "api:members:add",
    guarded: bool = True,
) -> Stored[Audience]:
    """Commit merged members and the audience that points at them, with this `size`."""
    before, now, manifest = stored.entity, app.clock.now(), result.manifest
    after = before.changed(
        size=size,
        manifest_id=manifest.manifest_id,
        version=before.version + 1,
        storage=app.members.storage_of(manifest),
        updated_at=now,
    )
    record = Key(manifest.organization_id, "manifests", manifest.manifest_id)
    told = after.changed(size=manifest.size)
    version = version_of(told, before, caller, "Members changed")
    whole = [
        stored.replaced_by(after) if guarded else Write(stored.key, after.stored()),
        Write(record, manifest.stored(), ABSENT),
        *result.writes,
        version_write(version) if guarded else replace(version_write(version), expected=None),
    ]
    revision = app.commits.commit(caller, action, whole, answer=DONE)
    return Stored(after, stored.key, revision)


def resized(app: App, stored: Stored[Audience], size: int) -> None:
    """A commit that changes nothing but the size."""
    app.documents.commit(Batch([stored.replaced_by(stored.entity.changed(size=size))]))


# wrong orders ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Late:
    """Puts partitions when told to, and not before."""

    inner: BlobStore
    waiting: list[tuple[BlobKey, bytes]]

    def put(self, key: BlobKey, data: bytes | IO[bytes], **options: Any) -> BlobInfo | None:
        if "/runs/" in key.path:
            return self.inner.put(key, data, **options)
        self.waiting.append((key, data if isinstance(data, bytes) else bytes(data.read())))
        return None

    def put_all(self) -> None:
        for key, content in self.waiting:
            self.inner.put(key, content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def record_before_object(app: App, caller: Caller, scene: Scene) -> Answer:
    """The manifest is committed, then its objects are written."""
    late: Any = _Late(app.member_blobs, [])
    app.__dict__["store"] = replace(app.store, blobs=late)
    app.__dict__.pop("members", None)
    answer = app.members.add(caller, scene.audience_id, _inputs())
    late.put_all()
    return answer.public()


def size_afterwards(app: App, caller: Caller, scene: Scene) -> Answer:
    """Members first, then `size += len(members)` in a commit of its own (Z-01)."""
    with merged(app, scene) as (stored, result):
        kept = put(app, replace(caller, claim=None), stored, result, size=stored.entity.size)
        resized(app, kept, stored.entity.size + len(flows.FRESH))
    return DONE


def size_by_adding(app: App, caller: Caller, scene: Scene) -> Answer:
    """One commit, but the size grows by what came and not by what was new (Z-01)."""
    with merged(app, scene) as (stored, result):
        size = stored.entity.size + len(flows.FRESH)
        put(app, caller, stored, result, size=size)
    return DONE


def old_rows_left_behind(app: App, caller: Caller, scene: Scene) -> Answer:
    """Over the threshold the new members go to the new place, the old ones stay (Z-02)."""
    stored = app.audiences.find(ANN, scene.audience_id)
    run = app.store.run_of(ANN.organization_id, scene.audience_id, _inputs())
    result = _merge(app, scene, None, [run.path or ""])
    app.store.discard_runs(ANN.organization_id, [run.path or ""])
    size = stored.entity.size + result.manifest.size - 1
    put(app, caller, stored, result, size=size)
    return DONE


def members_then_size(app: App, caller: Caller, scene: Scene) -> Answer:
    """Members go in one commit, the size follows in another (A-126)."""
    stored = app.audiences.find(ANN, scene.audience_id)
    gone = sorted({(r.identifier_type, r.digest()) for r in map(flows.reference, flows.HELD[:2])})
    result = _merge(app, scene, manifest_of(app, stored.entity), (), gone)
    kept = put(
        app,
        caller,
        stored,
        result,
        size=stored.entity.size,
        action="api:members:remove",
    )
    resized(app, kept, result.manifest.size)
    return DONE


def delete_before_status(app: App, caller: Caller, scene: Scene) -> Answer:
    """The archive is written, the originals are deleted, then the audience says so (Z-36)."""
    stored = app.audiences.find(ANN, scene.audience_id)
    if stored.entity.archive is not None:
        return {}
    archive = app.archives._packed(stored.entity, flows.nothing_to_keep)
    manifest = manifest_of(app, stored.entity)
    for part in manifest.parts if manifest else ():
        app.member_blobs.delete(BlobKey(ANN.organization_id, part.path))
    app.archives._archived(caller, stored, archive, None, nothing_more)
    return {}


def right_archive(app: App, caller: Caller, scene: Scene) -> Answer:
    """The right order, without a job."""
    app.archives.archive(caller, scene.audience_id, flows.nothing_to_keep)
    return {}


def definition_only(app: App, caller: Caller, scene: Scene) -> Answer:
    """A restore that brings back the name and says nothing of the members (Z-19)."""
    changes = AudienceChanges.model_validate({"name": "Buyers"})
    return app.audiences.update(caller, scene.audience_id, changes).entity.public()


def unguarded(app: App, caller: Caller, scene: Scene) -> Answer:
    """The version number is the highest plus one, and nobody looks whether it is taken (Z-21)."""
    with merged(app, scene) as (stored, result):
        put(app, caller, stored, result, size=result.manifest.size, guarded=False)
    return DONE


def hasty_sweep(app: App, caller: Caller, scene: Scene) -> Answer:
    """Deletes what no manifest names now, without asking how old it is."""
    del caller
    folder = f"audience_id={scene.audience_id}/"
    stored = list(app.member_blobs.list(ANN.organization_id, folder))
    query = Query(ANN.organization_id, "manifests", {"audience_id": scene.audience_id})
    manifests = [Manifest.restored(found.data) for found in app.documents.query(query)]
    named = {part.path for manifest in manifests for part in manifest.parts}
    for info in stored:
        if info.key.path not in named:
            app.member_blobs.delete(info.key)
    return DONE


class _OnlyCounted(QuotaService):
    """Counts before it creates, and does not look whether another one has, too (K-35)."""

    __slots__ = ()

    def _passes(self, *asked: Any) -> list[Write]:
        super()._passes(*asked)
        return []


def only_counted(act: Act) -> Act:
    """The creation `act` under such a quota."""

    def create(app: App, caller: Caller, scene: Scene) -> Answer:
        careless = _OnlyCounted(app.commits, app.operator_accounts, app.clock)
        app.__dict__["audiences"] = replace(app.audiences, quotas=careless)
        return act(app, caller, scene)

    return create


# wrong requests -------------------------------------------------------------------------------


def without_key(app: App, scene: Scene, _key: str, act: Act) -> Answer:
    """The client asks again, and nobody knows that he did."""
    for _ in range(TRIES):
        try:
            act(app, ANN, scene)
        except ConflictError:
            continue
        else:
            return DONE
    raise AssertionError("unreachable")


def key_before_work(app: App, scene: Scene, key: str, act: Act) -> Answer:
    """The key counts as done before the work is."""
    claim = app.idempotency.claim(ANN, "flow", key, "body")
    if isinstance(claim, Claim):
        app.documents.commit(Batch([completion(ANN, claim, DONE, app.clock.now())]))
        act(app, ANN, scene)
    return DONE


class NotedAfterwards(SuppressionLists):
    """Lists whose journal is written once the change is committed."""

    __slots__ = ()

    def _commit(self, head: Any, made: Any, commit: Any) -> Any:
        after = SuppressionLists._commit(replace(self, journal=None), head, made, commit)
        assert self.journal is not None
        self.journal.note(head.organization_id, after.epoch, head.sealed, made.rows)
        return after


def noted_afterwards(app: App, caller: Caller, scene: Scene) -> Answer:
    lists = app.suppressions.lists
    fields = {one.name: getattr(lists, one.name) for one in dataclasses.fields(lists)}
    app.__dict__["suppressions"] = replace(app.suppressions, lists=NotedAfterwards(**fields))
    return flows.opt_out(app, caller, scene)


class AskedAfterwards(UserErasures):
    """Erasures whose journal is written once the request is committed."""

    __slots__ = ()

    def _request(self, caller: Caller, user_id: str, digest: str) -> Stored[Job]:
        organization_id = caller.organization_id
        found = self.records.find(organization_id, digest)
        if found is not None and found.entity.user_id is not None:
            return self.jobs.records.get(organization_id, found.entity.job_id)
        entry_id = new_id(self.clock.now())
        stored = self._committed(caller, user_id, digest, entry_id)
        sealed = self.journal.vault.seal(user_id.encode(), entry_context(organization_id, entry_id))
        content = orjson.dumps({"user": sealed, "key": self.marks.sealed(organization_id)})
        self.journal.blobs.put(BlobKey(ERASURES, f"{organization_id}/{entry_id}"), content)
        return stored


def asked_afterwards(app: App, caller: Caller, scene: Scene) -> Answer:
    erasures = app.user_erasures
    fields = {one.name: getattr(erasures, one.name) for one in dataclasses.fields(erasures)}
    app.__dict__["user_erasures"] = AskedAfterwards(**fields)
    return segments.erase(app, caller, scene)


ERASE = segments.SEGMENTS["erase a user"]
ARCHIVE = Flow("archive at once", flows.filled_objects, right_archive, asks=flows.by_the_system)
FOLLOW = FLOWS["follow"]
ADD = FLOWS["upsert of objects"]
REMOVE = replace(FLOWS["remove"], prepare=flows.filled_objects)


class BlindWork(FollowWork):
    """Follows without looking whether the counts add up: that would heal what is wrong here."""

    def _require_sum(self, after: SegmentFollow, size: int) -> None:
        del after, size


class FollowedBefore(BlindWork):
    """How far first; then the members, in a commit of their own."""

    def _noted(self, after: SegmentFollow) -> list[Write]:
        del after
        return []

    def _changed(
        self, found: Difference, after: SegmentFollow, whole: list[str] | None = None
    ) -> None:
        self.released(**dict(after))
        super()._changed(found, after, whole)


def following_by(work: type[FollowWork]) -> Callable[[App], None]:
    """Makes each process follow segments in this way."""

    def refit(app: App) -> None:
        app.__dict__["follow_worker"] = replace(app.follow_worker, work=work)

    return refit


MUTANTS: Mapping[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        Mutant(replace(ADD, name="record before object", act=record_before_object), ADD, True),
        Mutant(replace(ADD, name="size afterwards", act=size_afterwards), ADD, False),
        Mutant(replace(ADD, name="size by adding", act=size_by_adding), ADD, False),
        Mutant(replace(ADD, name="no key", asks=without_key), ADD, True),
        Mutant(replace(ADD, name="key before work", asks=key_before_work), ADD, True),
        Mutant(replace(REMOVE, name="members, then size", act=members_then_size), REMOVE, True),
        Mutant(
            replace(ARCHIVE, name="delete before status", act=delete_before_status), ARCHIVE, True
        ),
        Mutant(
            replace(FLOWS["migrate up"], name="old rows left behind", act=old_rows_left_behind),
            FLOWS["migrate up"],
            False,
        ),
        Mutant(
            replace(FLOWS["restore"], name="definition only", act=definition_only),
            FLOWS["restore"],
            False,
        ),
        Mutant(
            replace(FLOWS["suppress"], name="journal afterwards", act=noted_afterwards),
            FLOWS["suppress"],
            True,
        ),
        Mutant(
            replace(ERASE, name="journal of erasures afterwards", act=asked_afterwards),
            ERASE,
            True,
        ),
        Mutant(
            replace(FOLLOW, name="followed before", refit=following_by(FollowedBefore)),
            FOLLOW,
            True,
        ),
    )
}

UNGUARDED = replace(ADD, name="unguarded", act=unguarded)
HASTY = Flow("hasty sweep", flows.filled_objects, hasty_sweep, asks=flows.by_the_system)
LAST, ANOTHER = (
    Flow(f"{name}, only counted", flows.nearly_used_up, only_counted(act))
    for name, act in (("create the last", flows.create), ("another", flows.create_another))
)

RACES = (
    Pair(UNGUARDED, UNGUARDED),
    Pair(HASTY, ADD),
    Pair(LAST, ANOTHER),
)
"""Good in any single run: only two at once show what is wrong."""
