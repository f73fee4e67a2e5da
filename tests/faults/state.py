"""What all stores say: as one value that can be compared, and whether it holds together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any

from activation.app import App
from activation.documents import Collection
from activation.domain.audience import Audience
from activation.domain.audit import AuditEntry
from activation.domain.identifier import key_digest
from activation.domain.job import Job
from activation.domain.manifest import Manifest, StoredPart
from activation.domain.member import MemberFilter
from activation.domain.member_import import HashRule, ImportStatus, MemberImport
from activation.domain.quota import QuotaLimit
from activation.domain.segment_shard import SHARDS
from activation.domain.suppression import SuppressionReference
from activation.domain.version import AudienceVersion
from activation.domain.webhook import WebhookDelivery
from activation.errors import ActivationError, StorageUnavailableError
from activation.ports import BlobKey, Query
from activation.services.follow_work import why_paused
from activation.services.quotas import GUARDS
from tests.faults.deliveries import (
    broken_deliveries,
    deliveries,
    lost_documents,
    named_by_deliveries,
)
from tests.faults.shards import broken_segments, named_by_segments, segments_seen
from tests.faults.world import ANN, LOOKS_AGAIN, MANY, unfinished
from tests.faults.world import all_of as _all

ORGANIZATION = ANN.organization_id
PAGE = 5

Members = frozenset[tuple[Any, ...]]
"""Each member: type, digest, attributes, score, consent, segments, expiry."""

HANDLED = (
    *("import_members", "run_job", "dispatch_distribution"),
    *("process_events", "follow_segments"),
)
"""Functions whose messages must not be buried."""

UPKEEP = (
    *("job:", "sweep:", "function:members:"),
    *("function:version:backup", "function:audience:derive", "function:audience:follow"),
    "function:platform:",
    *("function:distribution:match-results", "function:audience:match-rate"),
    "function:ledger:",
)
"""Actions that the system takes when it comes to them, or not at all."""

COLUMNS = (
    *("identifier_type", "digest", "attributes", "score", "consent", "segments", "expires_at"),
)


def view(app: App) -> dict[str, Any]:
    """Everything a client can learn that does not depend on when it happened."""
    return {
        "audiences": [_seen(app, audience) for audience in _audiences(app)],
        "imports": sorted(_import_seen(job) for job in _all(app, "imports", MemberImport)),
        "jobs": sorted(_job_seen(job) for job in _all(app, "jobs", Job)),
        "limits": sorted(_limit_seen(limit) for limit in _all(app, "quota_limits", QuotaLimit)),
        "events": Counter(
            (one.event_type, one.status.value)
            for one in _all(app, "webhook_deliveries", WebhookDelivery)
        ),
        "effects": Counter(
            entry.action
            for entry in _all(app, "audit", AuditEntry)
            if not entry.action.startswith(UPKEEP)
        ),
        "suppressed": _suppressed(app),
        **deliveries(app),
        **segments_seen(app),
    }


def _suppressed(app: App) -> tuple[Any, ...]:
    """Who of PEOPLE is on the organization's list, why, and what is counted of it."""
    from tests.faults.flows import PEOPLE, reference

    heads = app.suppressions.lists.heads(ORGANIZATION)

    def findings(address: str) -> tuple[str, ...]:
        if address not in _NAMED:
            named = SuppressionReference(**dict(reference(address)))
            _NAMED[address] = app.suppressions._one(named)
        found = [app.suppressions._findings(head, _NAMED[address]) for head in heads]
        return tuple(one.reason.value for several in found for one in several)

    status = app.suppressions.status(ANN)
    hashes = [hashlib.sha256(address.encode()).hexdigest() for address in PEOPLE]
    hits = app.suppressions.view(ORGANIZATION).hits({"email": hashes})
    reasons = [findings(address) for address in PEOPLE]
    if [number for number, found in enumerate(reasons) if found] != hits:
        raise BrokenError("I19 a check and a view of a suppression list differ")
    if status.size != len(hits) or sum(status.by_reason.values()) != status.size:
        raise BrokenError("I19 a suppression list is miscounted")
    return status.size, status.by_reason, reasons


_NAMED: dict[str, Any] = {}
"""The people of the lab as members, which every world has in common."""


def unjournalled(app: App) -> list[str]:
    """Whether a store that has lost its list, and plays the journal back, has another one (I20).
    Ask once every client has his answer: an entry may be there before its change is."""
    from tests.faults.flows import PEOPLE

    hashes = [hashlib.sha256(address.encode()).hexdigest() for address in PEOPLE]
    hits = app.suppressions.view(ORGANIZATION).hits({"email": hashes})
    same = _played_back(app, hashes) == hits
    return [] if same else ["I20 the journal comes to another suppression list"]


def _played_back(app: App, hashes: list[str]) -> list[int]:
    """Who would be on the list. An entry whose writer died in the middle was never acknowledged."""
    from activation.members.suppression_change import played_back
    from activation.members.suppressions import ListInForce, SuppressionView
    from activation.services.playback import under

    lists, current = app.suppressions.lists, ListInForce()
    heads = [one.entity for one in lists.heads(ORGANIZATION)]
    keys = [lists.key_of(head) for head in heads if head.organization_id == ORGANIZATION]
    for name in dict(app.journal.organizations(datetime(2000, 1, 1, tzinfo=UTC))).get(
        ORGANIZATION, ()
    ):
        try:
            entry = app.journal.entry(name)
        except StorageUnavailableError:
            continue
        written_under = lists.opened_key(ORGANIZATION, entry.sealed)
        rows = under(keys[0], written_under, entry.rows, current)
        change = played_back(current, [rows], entry.epoch, 0)
        current = current.after(change.rows) if len(change.rows) else current
    return SuppressionView("", 1, tuple((key, current) for key in keys)).hits({"email": hashes})


def _seen(app: App, audience: Audience) -> dict[str, Any]:
    return {
        "name": audience.name,
        "rules": [rule.model_dump(exclude={"id"}) for rule in audience.rules],
        "status": audience.status.value,
        "size": audience.size,
        "version": audience.version,
        "members": current_members(app, audience),
        "versions": [(v.version, v.change_type.value, v.size) for v in versions_of(app, audience)],
        "archived": audience.archive and audience.archive.members,
        "storage": audience.storage.type.value,
    }


def _import_seen(job: MemberImport) -> tuple[Any, ...]:
    counts = job.counts
    return (
        job.status.value,
        *(counts.received, counts.accepted, counts.added, counts.updated),
        *(counts.duplicate, counts.rejected),
    )


def _job_seen(job: Job) -> tuple[str, ...]:
    return job.kind.value, job.status.value, str((job.error or {}).get("reason"))


def _limit_seen(limit: QuotaLimit) -> tuple[str, str, int]:
    return limit.kind.value, limit.user_id or "", limit.maximum


def current_members(app: App, audience: Audience) -> Members:
    """The members of an audience, or those in its archive."""
    if audience.archive is not None:
        from activation.members.archive import archived_members

        key = BlobKey(ORGANIZATION, audience.archive.location)
        return _rows(archived_members(app.archive_blobs, key, audience.archive.sha256))
    return members_of(app, audience.manifest_id)


def members_of(app: App, manifest_id: str | None) -> Members:
    """The members of a manifest; BrokenError when a part is not there as it says (I1).

    What lies in verified parts is parsed once only: the worlds of a lab share most of them.
    """
    if manifest_id is None:
        return frozenset()
    found = Collection(app.documents, "manifests", Manifest).get(ORGANIZATION, manifest_id)
    manifest = found.entity
    for part in manifest.parts:
        _require_whole(app, part)
    known = tuple(part.sha256 for part in manifest.parts)
    if known not in _PARSED:
        members = _rows(app.store.iter_batches(manifest))
        if _walked(app, manifest) != {member[:2] for member in members}:
            raise BrokenError("I2 pages and parts hold different members")
        _PARSED[known] = members
    return _PARSED[known]


_PARSED: dict[tuple[str, ...], Members] = {}


def _require_whole(app: App, part: StoredPart) -> None:
    try:
        content = app.store.parts.content(ORGANIZATION, part)
    except ActivationError as error:
        raise BrokenError("I1 a part is not there as its manifest says") from error
    if (len(content), hashlib.sha256(content).hexdigest()) != (part.bytes, part.sha256):
        raise BrokenError("I1 a part is not what its manifest says")


def _rows(tables: Iterator[Any]) -> Members:
    found: list[tuple[Any, ...]] = []
    for table in tables:
        columns = [table.column(name).to_pylist() for name in COLUMNS]
        found += zip(*[[_plain(value) for value in column] for column in columns], strict=True)
    if len(found) != len({row[:2] for row in found}):
        raise BrokenError("I2 a member is there twice")
    return frozenset(found)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class BrokenError(Exception):
    """An invariant does not hold."""


# invariants -----------------------------------------------------------------------------------


def broken(app: App, before: Mapping[str, Mapping[int, Members]]) -> list[str]:
    """What does not hold, at any moment: between a crash and the recovery too.

    `before` are the members of each version that was there before the flow.
    """
    found: list[str] = []
    for audience in _audiences(app):
        try:
            found += _audience_broken(app, audience, before.get(audience.audience_id, {}))
        except (ActivationError, BrokenError) as error:
            found.append(f"I1 members cannot be read: {error}")
    for job in _all(app, "imports", MemberImport):
        counts = job.counts
        told = counts.accepted + counts.duplicate + counts.rejected
        if job.status is ImportStatus.COMPLETED and counts.received != told:
            found.append("I7 received is not accepted + duplicate + rejected")
    guards = app.documents.count(Query(ORGANIZATION, "quota_guards"))
    if guards != GUARDS * len(_all(app, "quota_limits", QuotaLimit)):
        found.append("I15 a limit is not guarded, or what is guarded has none")
    return [*found, *broken_deliveries(app), *broken_segments(app)]


def _audience_broken(app: App, audience: Audience, before: Mapping[int, Members]) -> list[str]:
    found: list[str] = []
    members = current_members(app, audience)
    size = audience.archive.members if audience.archive else audience.size
    if size != len(members):
        found.append(f"I2 size {size}, members {len(members)}")
    return [*found, *_versions_broken(app, audience, before)]


def _versions_broken(app: App, audience: Audience, before: Mapping[int, Members]) -> list[str]:
    found: list[str] = []
    versions = versions_of(app, audience)
    if [v.version for v in versions] != [*range(1, audience.version + 1)]:
        found.append("I4 version numbers have gaps or repeats")
    for version, followed_at in _with_followers(versions):
        if version.backup is not None and not app.backups.is_intact(version):
            found.append("I20 a backup is not what its version says")
        if not _is_kept(app, audience, version, followed_at):
            continue
        members = members_of(app, version.manifest_id)
        if version.manifest_id is not None and version.size != len(members):
            found.append("I4 a version has another size than members")
        if before.get(version.version, members) != members:
            found.append("I4 a version has changed")
    return found


def _is_kept(
    app: App, audience: Audience, version: AudienceVersion, followed_at: datetime | None
) -> bool:
    """Whether the members of a version must still be there."""
    oldest = app.clock.now() - timedelta(days=app.settings.version_days)
    recent = followed_at is None or followed_at > oldest
    return recent and version.version >= audience.members_kept_from


def _walked(app: App, manifest: Manifest) -> set[tuple[int, bytes]]:
    """The members as a client finds them, page by page."""
    from activation.members.layout import TYPES

    found: list[tuple[int, bytes]] = []
    after: str | None = None
    while True:
        page, after = app.store.page(manifest, MemberFilter(), after, PAGE)
        found += [(TYPES.index(m.identifier_type), bytes.fromhex(m.digest)) for m in page]
        if after is None:
            break
    if len(found) != len(set(found)):
        raise BrokenError("I2 a member is on two pages")
    return set(found)


def unsettled(app: App) -> list[str]:
    """What is stuck, though all deliveries were made (I16), or buried."""
    found = [f"I16 stuck: {what}" for what in unfinished(app) if what != LOOKS_AGAIN]
    for function in HANDLED:
        found += [f"I16 dead letter: {d.reason}" for d in app.bus.dead_letters(function)]
    return [*found, *out_of_step(app)]


def out_of_step(app: App) -> list[str]:
    """Audiences that do not hold exactly the users of the segment they follow (I21)."""
    found: list[str] = []
    for audience in _audiences(app):
        if audience.segment is None or why_paused(audience) is not None:
            continue
        users = _users_of(app, audience.segment.segment_id)
        raw = audience.segment.hash_rule is HashRule.RAW
        wanted = {key_digest(user) if raw else bytes.fromhex(user) for user in users}
        if {member[1] for member in current_members(app, audience)} != wanted:
            found.append("I21 an audience is not in step with its segment")
        follow = app.follow_worker.records.get(ORGANIZATION, audience.audience_id).entity
        if follow.users != audience.size + follow.shared + sum(follow.rejected.values()):
            found.append("I21 users of a segment are not members + shared + rejected")
        if follow.users != len(users):
            found.append("I21 users of a segment are miscounted")
    return found


def _users_of(app: App, segment_id: str) -> list[str]:
    opened = [app.shards.states.open(ORGANIZATION, shard) for shard in range(SHARDS)]
    return [user for one in opened for user in one.state.members_of(segment_id, one.book)]


# what is stored -------------------------------------------------------------------------------


def orphans(app: App) -> list[str]:
    """Stored objects and documents with members that no record names (I17)."""
    named = {part.path for manifest in _all(app, "manifests", Manifest) for part in manifest.parts}
    named |= named_by_deliveries(app) | named_by_segments(app)
    named |= {str(one.details.get("location")) for one in _all(app, "audit", AuditEntry)}
    for audience in _audiences(app):
        named |= {audience.archive.location} if audience.archive else set()
        named |= {v.backup.location for v in versions_of(app, audience) if v.backup}
    for job in _all(app, "imports", MemberImport):
        named |= {chunk.rejects for chunk in job.chunks if chunk.rejects}
    for head in app.suppressions.lists.heads(ORGANIZATION):
        named |= {part.path for part in head.entity.parts}
        named |= {part.path for part in head.entity.folded}
    stored = [
        (collection, document.key.id)
        for collection in ("member_parts", "suppression_parts")
        for document in app.documents.query(Query(ORGANIZATION, collection, limit=MANY))
    ]
    areas = {
        "uploads": app.uploads,
        "members": app.member_blobs,
        "backup": app.backup_blobs,
        "archive": app.archive_blobs,
    }
    for area, blobs in areas.items():
        stored += [(area, info.key.path) for info in blobs.list(ORGANIZATION)]
    unnamed = [f"I17 {area}: {path}" for area, path in stored if path not in named]
    return [*unnamed, *lost_documents(app)]


def members_by_version(app: App) -> dict[str, dict[int, Members]]:
    """For each audience the members of each version that is kept."""
    return {
        audience.audience_id: {
            version.version: members_of(app, version.manifest_id)
            for version, followed_at in _with_followers(versions_of(app, audience))
            if _is_kept(app, audience, version, followed_at)
        }
        for audience in _audiences(app)
    }


def _with_followers(
    versions: Sequence[AudienceVersion],
) -> Iterator[tuple[AudienceVersion, datetime | None]]:
    """Each version with the time that the next one was made, None for the last."""
    yield from zip_longest(versions, [version.created_at for version in versions[1:]])


def versions_of(app: App, audience: Audience) -> list[AudienceVersion]:
    """All versions of an audience, oldest first."""
    equal = {"audience_id": audience.audience_id}
    query = Query(ORGANIZATION, "versions", equal, limit=MANY)
    page = Collection(app.documents, "versions", AudienceVersion).page(query)
    return sorted(page.items, key=lambda version: version.version)


def _audiences(app: App) -> list[Audience]:
    return sorted(_all(app, "audiences", Audience), key=lambda audience: audience.name)
