"""The flows: what they find, and what is asked of them. A new one is a few lines in `FLOWS`."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from activation.app import App
from activation.documents import Stored
from activation.domain.audience import AudienceChanges, AudienceDraft
from activation.domain.caller import Caller
from activation.domain.entity import new_id
from activation.domain.event import read_event
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.job import JobKind
from activation.domain.member import MemberInput
from activation.domain.member_change import MemberReference
from activation.domain.member_import import ImportDraft, ImportStatus
from activation.domain.quota import QuotaDraft
from activation.domain.retention_run import RunDraft
from activation.domain.segment_record import NewSegmentDraft
from activation.domain.segment_shard import shard_of
from activation.domain.suppression import (
    SuppressionFileDraft,
    SuppressionReference,
    SuppressionsDraft,
)
from activation.domain.version import Restoration
from activation.errors import ActivationError, ConflictError, NotFoundError
from activation.members.suppression_rows import KEY_BYTES
from activation.ports import BlobKey, Message
from activation.services.imports import source_key
from tests.faults.lab import Flow
from tests.faults.ports import untaped
from tests.faults.world import (
    ANN,
    DATABASE_THRESHOLD,
    MAX_DELTAS,
    Answer,
    Refused,
    Scene,
    handle,
    settle,
)

FIRST_BYTES = range(40)
"""All people fall into three of the sixteen partitions: fewer objects, faster runs."""


def _people() -> Iterable[str]:
    for number in itertools.count():
        address = f"p{number}@example.com"
        if hashlib.sha256(address.encode()).digest()[0] in FIRST_BYTES:
            yield address


SHOPPING = 0
"""The shard of all shoppers: what they do is one step."""
_ids = (key_digest(address).hex() for address in _people())
SHOPPERS = tuple(itertools.islice((one for one in _ids if shard_of(one) == SHOPPING), 30))
"""Users by the hash of their address: an id is no contact data."""
PEOPLE = tuple(itertools.islice(_people(), 34))
HELD = PEOPLE[:5]
"""The members of the audience that flows find."""
FRESH = (PEOPLE[3], PEOPLE[8], PEOPLE[9])
"""What flows add: one is a member already."""


def member(address: str, **more: Any) -> MemberInput:
    """A member with an attribute."""
    fields = {"identifier_type": "email", "identifier_value": address, "attributes": {"n": 1}}
    return MemberInput.model_validate({**fields, **more})


def reference(address: str) -> MemberReference:
    """What names a member."""
    return MemberReference(identifier_type=IdentifierType.EMAIL, identifier_value=address)


def file_of(addresses: Iterable[str]) -> bytes:
    """A CSV file: one row comes twice, one is no address."""
    rows = list(addresses)
    return "\n".join(["email,city", *(f"{a},Oslo" for a in [*rows, rows[0], "nobody"])]).encode()


# what flows find ------------------------------------------------------------------------------


def new_audience(app: App, name: str = "Buyers", **more: Any) -> str:
    """An audience without members."""
    draft = AudienceDraft.model_validate({"name": name, "type": "first_party", **more})
    return app.audiences.create(ANN, draft).entity.audience_id


def filled(app: App, people: Iterable[str] = HELD) -> Scene:
    """An active audience with members, and a second version of them."""
    audience_id = new_audience(app)
    addresses = list(people)
    app.members.add(ANN, audience_id, [member(a) for a in addresses[:-1]])
    app.audiences.set_status(ANN, audience_id, "active")
    app.members.add(ANN, audience_id, [member(addresses[-1])])
    return Scene(audience_id, {})


def empty(app: App) -> Scene:
    """A draft."""
    return Scene(new_audience(app), {})


def nearly_full(app: App) -> Scene:
    """One member below the next tier."""
    return filled(app, PEOPLE[: DATABASE_THRESHOLD - 1])


def just_over(app: App) -> Scene:
    """The fewest members of the second tier."""
    return filled(app, PEOPLE[:DATABASE_THRESHOLD])


def importing(app: App) -> Scene:
    """An audience whose import waits for its file."""
    scene = filled(app)
    job, _ = app.imports.create_upload(ANN, scene.audience_id, ImportDraft(), "text/csv")
    return Scene(scene.audience_id, {"import_id": job.entity.import_id})


def filled_objects(app: App) -> Scene:
    """An audience large enough for objects to hold its members."""
    return filled(app, PEOPLE[: DATABASE_THRESHOLD + 3])


def layered(app: App) -> Scene:
    """An audience with as many deltas as it may have."""
    scene = filled(app, PEOPLE[:26])
    for address in PEOPLE[28 : 28 + MAX_DELTAS]:
        app.members.add(ANN, scene.audience_id, [member(address)])
    return scene


def expiring(app: App) -> Scene:
    """An audience of which two members have expired by the time of the flow."""
    scene = filled(app)
    soon = app.clock.now() + timedelta(seconds=60)
    inputs = [member(a, expires_at=soon.isoformat()) for a in PEOPLE[4:7]]
    app.members.add(ANN, scene.audience_id, inputs)
    return scene


def littered(app: App) -> Scene:
    """An audience with members of versions that nobody may ask for any more, and files that
    nobody ever named."""
    scene = filled_objects(app)
    folder = f"audience_id={scene.audience_id}"
    for path in (f"{folder}/runs/left.arrow", f"{folder}/part-left.parquet"):
        app.member_blobs.put(BlobKey(ANN.organization_id, path), b"left")
    app.uploads.put(BlobKey(ANN.organization_id, "imports/none/source"), b"left")
    app.clock.sleep(days(app.settings.version_days + 1))
    app.members.add(ANN, scene.audience_id, [member(PEOPLE[30])])
    app.clock.sleep(days(2))
    return scene


def released_parts(app: App) -> Scene:
    """The same after a first sweep: what it let go may be deleted by now."""
    scene = littered(app)
    app.jobs.start(ANN, JobKind.SWEEP)
    settle(app)
    app.clock.sleep(days(2))
    return scene


def idle(app: App) -> Scene:
    """An audience that nobody has used for more than a year."""
    scene = filled(app)
    app.clock.sleep(days(366))
    return scene


def idle_and_expiring(app: App) -> Scene:
    """The same with members that have expired: retention removes them first."""
    scene = expiring(app)
    app.clock.sleep(days(366))
    return scene


def followed(app: App) -> Scene:
    """An audience and another one that is derived from it."""
    scene = filled(app)
    rule = {"variable_id": "n", "operator": "EQ", "value": 1}
    origin = {"source_audience_id": scene.audience_id}
    new_audience(app, "Derived", derived_from=origin, rules=[rule])
    return scene


def nearly_used_up(app: App) -> Scene:
    """The operator and the organization may have one more audience."""
    scene = filled(app)
    app.operator_accounts.seen(ANN)
    for user_id in (ANN.user_id, None):
        app.quotas.set(ANN, user_id, limits_of(2))
    return scene


def limits_of(audiences: int | None) -> QuotaDraft:
    """A quota of audiences only."""
    return QuotaDraft(max_audiences=audiences, max_distributions_per_month=None)


def partly_suppressed(app: App) -> Scene:
    """An audience, and a suppression list with as many parts as it may have."""
    scene = filled(app)
    for addresses in (PEOPLE[2:8], PEOPLE[12:13], PEOPLE[13:14]):
        app.suppressions.add(ANN, suppressed(addresses))
    return scene


def suppressed(addresses: Iterable[str], reason: str = "opt_out") -> SuppressionsDraft:
    """What puts addresses on a suppression list."""
    given = [
        {"identifier_type": "email", "identifier_value": a, "reason": reason} for a in addresses
    ]
    return SuppressionsDraft.model_validate({"suppressions": given})


def days(count: float) -> float:
    """Days in seconds."""
    return timedelta(days=count).total_seconds()


def archived(app: App) -> Scene:
    """An audience in the archive."""
    scene = filled(app)
    app.archives.archive(ANN, scene.audience_id, nothing_to_keep)
    return scene


def changed_since(app: App) -> Scene:
    """An audience whose definition and members were others in version 2."""
    scene = filled(app)
    app.members.remove(ANN, scene.audience_id, [reference(HELD[0])])
    changes = AudienceChanges.model_validate({"name": "Renamed"})
    app.audiences.update(ANN, scene.audience_id, changes)
    return scene


def released(app: App) -> Scene:
    """An audience that was in the archive: its older versions have no members but in a backup."""
    scene = filled(app)
    settle(app)
    app.archives.archive(ANN, scene.audience_id, nothing_to_keep)
    app.archives.unarchive(ANN, scene.audience_id, nothing_to_keep)
    return scene


def window_shoppers(app: App) -> Scene:
    """An audience with members, and a segment that has users: who has seldom ordered."""
    scene = filled(app)
    rule = {"event_type": "orders", "operator": "LT", "value": 3, "window_minutes": 1440}
    draft = {"name": "Seldom", "type": "INDEPENDENT", "rules": [rule]}
    made = app.segments.create(ANN, NewSegmentDraft.model_validate(draft)).entity
    ordered(app, SHOPPERS[:6], "first")
    return Scene(scene.audience_id, {"segment_id": made.segment_id})


def following(app: App) -> Scene:
    """The same, when the audience follows the segment."""
    scene = window_shoppers(app)
    settle(app)
    follow_segment(app, ANN, scene)
    return scene


def following_by_delta(app: App) -> Scene:
    """The same with so many users that a small change is a delta."""
    scene = window_shoppers(app)
    ordered(app, SHOPPERS[6:26], "many")
    settle(app)
    follow_segment(app, ANN, scene)
    return scene


def ordered(app: App, users: Iterable[str], name: str, times: int = 1) -> None:
    """Each of these users, who are all of one shard, orders."""
    now = app.clock.now()
    rows = [
        {"user_id": user, "event_type": "orders", "event_id": f"{name}-{user}-{time}"}
        for user in users
        for time in range(times)
    ]
    events = [read_event(row, now) for row in rows]
    app.shards.process(ANN.organization_id, SHOPPING, events)


# what is asked --------------------------------------------------------------------------------


def direct_import(app: App, caller: Caller, scene: Scene) -> Answer:
    draft = ImportDraft.model_validate({"file_name": "new.csv"})
    stream = io.BytesIO(file_of(FRESH))
    return app.imports.create_direct(caller, scene.audience_id, draft, stream).entity.public()


def awaited_import(app: App, caller: Caller, scene: Scene) -> Answer:
    job, _ = app.imports.create_upload(caller, scene.audience_id, ImportDraft(), "text/csv")
    return job.entity.public()


def send_file(app: App, scene: Scene, answer: Answer) -> None:
    """The client puts the file at its address, once, and the store tells the worker of it.

    The store takes a file whole or not at all (its contract), so this put cannot be torn.
    """
    job = app.imports.records.get(ANN.organization_id, answer["import_id"]).entity
    if job.status is not ImportStatus.AWAITING_UPLOAD:
        return
    key = source_key(job)
    with suppress(ConflictError):
        untaped(app.uploads).put(key, file_of(FRESH))
    data = {"kind": "storage#object", "name": str(key)}
    handle(app, Message("member-imports", "", job.import_id, data, trace_id="t"))


def cancel_import(app: App, caller: Caller, scene: Scene) -> Answer:
    job = app.imports.cancel(caller, scene.audience_id, scene.ids["import_id"])
    return job.entity.public()


def upsert(app: App, caller: Caller, scene: Scene) -> Answer:
    return app.members.add(caller, scene.audience_id, [member(a) for a in FRESH]).public()


def remove(app: App, caller: Caller, scene: Scene) -> Answer:
    gone = [reference(a) for a in (*HELD[:2], PEOPLE[20])]
    return app.members.remove(caller, scene.audience_id, gone).public()


def define(app: App, caller: Caller, scene: Scene) -> Answer:
    rule = {"variable_id": "age", "operator": "GT", "value": 30}
    changes = AudienceChanges.model_validate({"name": "Renamed", "rules": [rule]})
    return app.audiences.update(caller, scene.audience_id, changes).entity.public()


def create(app: App, caller: Caller, scene: Scene) -> Answer:
    draft = AudienceDraft.model_validate({"name": "Second", "type": "first_party"})
    return app.audiences.create(caller, draft).entity.public()


def create_another(app: App, caller: Caller, scene: Scene) -> Answer:
    draft = AudienceDraft.model_validate({"name": "Third", "type": "first_party"})
    return app.audiences.create(caller, draft).entity.public()


def limit(app: App, caller: Caller, scene: Scene) -> Answer:
    """No more audiences than there are."""
    return {"max": app.quotas.set(caller, None, limits_of(1)).max_audiences}


def lift_limit(app: App, caller: Caller, scene: Scene) -> Answer:
    return {"max": app.quotas.set(caller, None, limits_of(None)).max_audiences}


def delete(app: App, caller: Caller, scene: Scene) -> Answer:
    with suppress(NotFoundError):
        app.audiences.delete(caller, scene.audience_id)
    return {}


def follow_segment(app: App, caller: Caller, scene: Scene) -> Answer:
    bound = {"segment_id": scene.ids["segment_id"], "identifier": "email", "hash_rule": "google"}
    changes = AudienceChanges.model_validate({"segment": bound})
    return app.audiences.update(caller, scene.audience_id, changes).entity.public()


def come_and_go(app: App, caller: Caller, scene: Scene) -> Answer:
    """Three users come into the segment, and two leave it, in one step."""
    del caller, scene
    ordered(app, (*SHOPPERS[:2], *SHOPPERS[26:29]), "flow", 2)
    return {}


def expire(app: App, caller: Caller, scene: Scene) -> Answer:
    app.member_upkeep.expire(caller, scene.audience_id)
    return {}


def compact(app: App, caller: Caller, scene: Scene) -> Answer:
    return app.jobs.start(caller, JobKind.COMPACT, scene.audience_id).entity.public()


def sweep(app: App, caller: Caller, scene: Scene) -> Answer:
    del scene
    return app.jobs.start(caller, JobKind.SWEEP).entity.public()


def retain(app: App, caller: Caller, scene: Scene) -> Answer:
    del scene
    return app.retention.start(caller, RunDraft()).entity.public()


def retain_by_the_clock(app: App, caller: Caller, scene: Scene) -> Answer:
    """Every slot that has come: each is run once, however often the clock is asked."""
    del caller, scene
    app.retention.start_due("tick")
    return {}


def archive(app: App, caller: Caller, scene: Scene) -> Answer:
    return app.archives.request_archive(caller, scene.audience_id).entity.public()


def unarchive(app: App, caller: Caller, scene: Scene) -> Answer:
    return app.archives.request_unarchive(caller, scene.audience_id).entity.public()


def restore(app: App, caller: Caller, scene: Scene) -> Answer:
    """Back to version 4, which has another name and one more member."""
    found = app.versions.restore(caller, scene.audience_id, 4)
    assert isinstance(found, Restoration)
    return found.public()


def restore_from_backup(app: App, caller: Caller, scene: Scene) -> Answer:
    """Back to version 2, the only one with a backup."""
    found = app.versions.restore(caller, scene.audience_id, 2)
    assert isinstance(found, Stored)
    return found.entity.public()


def opt_out(app: App, caller: Caller, scene: Scene) -> Answer:
    """Some are on the list already; one of those for a weaker reason."""
    del scene
    told = [*suppressed(FRESH).suppressions, *suppressed(HELD[:1], "erasure").suppressions]
    return app.suppressions.add(caller, SuppressionsDraft(suppressions=tuple(told))).public()


def opt_out_by_file(app: App, caller: Caller, scene: Scene) -> Answer:
    del scene
    asked = {"upload_id": new_id(app.clock.now()), "reason": "list"}
    draft = SuppressionFileDraft.model_validate(asked)
    stream = io.BytesIO(file_of(PEOPLE[5:11]))
    return app.suppression_imports.start_direct(caller, draft, stream).entity.public()


def opt_in(app: App, caller: Caller, scene: Scene) -> Answer:
    del scene
    named = SuppressionReference(identifier_type=IdentifierType.EMAIL, identifier_value=PEOPLE[3])
    return app.suppressions.remove(caller, named).public()


def rekey(app: App, caller: Caller, scene: Scene) -> Answer:
    """Another key on the suppression list, unless it has one already."""
    del caller, scene
    lists = app.suppressions.lists
    heads = [one.entity for one in lists.heads(ANN.organization_id)]
    if [one for one in heads if len(lists.key_of(one)) > KEY_BYTES]:
        return {}
    app.key_rotation.rekey_suppressions(ANN.organization_id)
    return {}


def by_the_system(app: App, scene: Scene, _key: str, act: Callable[..., Answer]) -> Answer:
    """Work without a key: it is simply done again."""
    try:
        return act(app, ANN, scene)
    except ActivationError as error:
        if error.retryable:
            raise
        raise Refused(error.code) from error


def nothing_to_keep() -> None:
    """Nothing has to be kept alive."""


FLOWS: Mapping[str, Flow] = {
    flow.name: flow
    for flow in (
        Flow("create", filled, create),
        Flow("create the last", nearly_used_up, create),
        Flow("create another", nearly_used_up, create_another),
        Flow("limit", filled, limit, asks=by_the_system),
        Flow("lift the limit", nearly_used_up, lift_limit, asks=by_the_system),
        Flow("import", filled, direct_import),
        Flow("first import", empty, direct_import),
        Flow("awaited import", filled, awaited_import, send_file),
        Flow("cancel import", importing, cancel_import),
        Flow("upsert", filled, upsert),
        Flow("upsert of objects", filled_objects, upsert),
        Flow("upsert by delta", layered, upsert),
        Flow("remove", filled, remove),
        Flow("remove by delta", layered, remove),
        Flow("define", filled, define),
        Flow("migrate up", nearly_full, upsert),
        Flow("migrate down", just_over, remove),
        Flow("migrate by import", nearly_full, direct_import),
        Flow("restore", changed_since, restore),
        Flow("restore from backup", released, restore_from_backup),
        Flow("archive", filled, archive),
        Flow("unarchive", archived, unarchive),
        Flow("expire", expiring, expire, asks=by_the_system),
        Flow("compact", layered, compact),
        Flow("sweep", littered, sweep),
        Flow("sweep of the released", released_parts, sweep),
        Flow("retention", idle, retain),
        Flow("retention and expiry", idle_and_expiring, retain),
        Flow("retention by the clock", idle, retain_by_the_clock, asks=by_the_system),
        Flow("derive", followed, upsert),
        Flow("follow a segment", window_shoppers, follow_segment, ages=True),
        Flow("follow", following, come_and_go, asks=by_the_system, ages=True),
        Flow("follow by delta", following_by_delta, come_and_go, asks=by_the_system, ages=True),
        Flow("delete", filled_objects, delete, asks=by_the_system),
        Flow("suppress", partly_suppressed, opt_out),
        Flow("first suppress", filled, opt_out),
        Flow("suppress a file", partly_suppressed, opt_out_by_file),
        Flow("unsuppress", partly_suppressed, opt_in),
        Flow("rekey suppressions", partly_suppressed, rekey, asks=by_the_system),
    )
}
