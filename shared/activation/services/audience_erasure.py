"""Erasing a user from audiences: those that follow segments, or did, and those derived from them.

He leaves the members, and what still holds him is let go of: every version and backup up to the
last one with him, so that nobody can restore them and the sweep deletes them. He is looked for by
every rule by which users ever became members of the audience, part by part; what several versions
share is read once. What a legal hold keeps, and what lies in an archive, is told of: that takes a
person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from activation.documents import Collection
from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionStatus
from activation.domain.manifest import Manifest, StoredPart
from activation.domain.segment_follow import FollowedAs, SegmentFollow
from activation.domain.user_erasure import UserErasure
from activation.domain.version import AudienceVersion
from activation.errors import ConflictError, InvalidStateError, NotFoundError
from activation.ports import Batch, BlobKey, BlobStore, Clock, Query, Write
from activation.services.access import retry_conflicts
from activation.services.audience_sweep import USING_MEMBERS
from activation.services.backups import key_of
from activation.services.follow_sends import to_be_sent
from activation.services.jobs import JobRun
from activation.services.leases import is_held
from activation.services.member_upkeep import MemberUpkeep
from activation.services.segment_bindings import followed_as
from activation.services.segment_followers import FOLLOWS, mark_write
from activation.services.shard_erasure import ERASURES
from activation.services.version_records import version_id, version_records

if TYPE_CHECKING:
    from activation.members.store import MemberStore, MergeResult

PAGE = 100
NOTHING: Mapping[str, Sequence[str]] = MappingProxyType(
    {"held": (), "archives": (), "distributions": ()}
)


@dataclass(frozen=True, slots=True)
class Areas:
    """Where copies of members lie."""

    backups: BlobStore
    archives: BlobStore


@dataclass(frozen=True, slots=True)
class Walk:
    """How far the versions of an audience were looked at, the latest first: the last ones that
    have him, stored and in a backup (0: none yet), and the id behind which it goes on."""

    version: int = 0
    backup: int = 0
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Where an audience holds somebody."""

    members: bool
    """As a member, or in a change that the members are made of."""
    version: int
    """The last version with him whose members are stored; 0 for none."""
    backup: int
    """The last version with him that has a backup; 0 for none."""
    archive: bool
    distributions: tuple[str, ...]
    """Distributions that have yet to send a version with him, or may be retried."""


@dataclass(frozen=True, slots=True)
class AudienceEraser:
    """Goes through the audiences of an organization, sources first. May be done again."""

    upkeep: MemberUpkeep
    areas: Areas
    clock: Clock

    @property
    def records(self) -> Collection[UserErasure]:
        """The records of erasures."""
        return Collection(self.upkeep.members.documents, ERASURES, UserErasure)

    def erase(self, run: JobRun, digest: str, user_id: str) -> Mapping[str, Any]:
        """Take a user out: `members` that left, by audience (0 where only earlier versions had
        him); audiences that a legal hold keeps as they are (`held`), those whose `archives` have
        him, and `distributions` that would still send a version with him."""
        told: dict[str, Any] = run.job.state.get("audiences") or dict(NOTHING)
        after: str = run.job.state.get("after_audience", "")
        for audience_id, rules in self._concerned(run.caller.organization_id):
            if audience_id <= after:
                continue
            found = self._erased(run, digest, audience_id, rules, user_id)
            told = {name: [*told[name], *found.get(name, ())] for name in NOTHING}
            done = {"audiences": told, "after_audience": audience_id, "walk": None}
            run.save({**run.job.state, **done})
            run.pause()
        erasure = self.records.get(run.caller.organization_id, digest).entity
        return {"members": erasure.members, **told}

    def _erased(
        self,
        run: JobRun,
        digest: str,
        audience_id: str,
        rules: frozenset[FollowedAs],
        user_id: str,
    ) -> Mapping[str, Sequence[str]]:
        """Look at one audience, and take him out; returns what takes a person."""
        from activation.members.user_ids import keys_of_user

        keys = keys_of_user(rules, user_id, self.clock.now())
        address = run.caller.organization_id, audience_id
        retry_conflicts(partial(self._followed_anew, *address))
        stored = self.upkeep.members.audiences.records.find(*address)
        if stored is None or not keys.num_rows:
            return {}
        walk = run.job.state.get("walk") or {}
        start = Walk(**walk["at"]) if walk.get("audience_id") == audience_id else Walk()

        def reached(at: Walk) -> None:
            here = {"audience_id": audience_id, "at": asdict(at)}
            run.save({**run.job.state, "walk": here})
            run.pause()

        held = Search(self, stored.entity, keys, run.keep, start, reached).held()
        found = {"distributions": held.distributions, "held": [], "archives": []}
        if held.archive:
            found["archives"] = [audience_id]
        try:
            moved = self._let_go(run.caller, digest, stored.entity, held, keys)
            found["distributions"] = [one for one in held.distributions if one not in moved]
        except InvalidStateError as error:
            if error.reason != "legal_hold":
                raise ConflictError("The audience was changed meanwhile.") from error
            found["held"] = [audience_id]
        return found

    # which audiences ------------------------------------------------------------------------------

    def _concerned(self, organization_id: str) -> Iterator[tuple[str, frozenset[FollowedAs]]]:
        """Audiences in which users of segments may be, oldest first, with the rules by which they
        became members there or in a source."""
        all_rules: dict[str, frozenset[FollowedAs]] = {}
        for audience in reversed(list(self._audiences(organization_id))):
            source = audience.derived_from and audience.derived_from.source_audience_id
            inherited = all_rules.get(source, frozenset()) if source else frozenset()
            rules = inherited | frozenset(followed_as(audience, None))
            if rules:
                all_rules[audience.audience_id] = rules
                yield audience.audience_id, rules

    def _audiences(self, organization_id: str) -> Iterator[Audience]:
        records, after = self.upkeep.members.audiences.records, None
        while True:
            page = records.page(Query(organization_id, "audiences", after=after, limit=PAGE))
            yield from page.items
            after = page.next_after
            if after is None:
                return

    # taking out -----------------------------------------------------------------------------------

    def _followed_anew(self, organization_id: str, audience_id: str) -> None:
        """Have a worker who follows the segment just now begin anew: he may have looked at the
        shard before it forgot the user."""
        documents = self.upkeep.members.documents
        found = Collection(documents, FOLLOWS, SegmentFollow).find(organization_id, audience_id)
        if found is None or not is_held(found.entity.lease_until, self.clock):
            return
        mark = mark_write(organization_id, audience_id, self.clock.now())
        free = found.replaced_by(found.entity.changed(lease_until=None))
        documents.commit(Batch([free, mark]))

    def _let_go(
        self, caller: Caller, digest: str, audience: Audience, held: Held, keys: Any
    ) -> Mapping[str, Write]:
        """Returns the distributions that send the members without him instead. InvalidStateError
        under legal hold. How many members left is noted in the same commit."""
        from activation.members.deltas import located

        moved: dict[str, Write] = {}
        if not held.members and not held.version and not held.backup:
            return moved
        if audience.legal_hold is not None:
            raise InvalidStateError("The audience is under legal hold.", reason="legal_hold")
        in_force = held.members or max(held.version, held.backup) >= audience.version
        if not in_force or audience.manifest_id is None:
            retry_conflicts(partial(self._forgotten, caller, digest, audience.audience_id, held))
            return moved
        now, documents = self.clock.now(), self.upkeep.members.documents

        def noted(after: Audience, result: MergeResult) -> Sequence[Write]:
            sends = to_be_sent(documents, after, now) if result.removed else []
            moved.clear()
            moved.update(self._moved(held.distributions, after, result.manifest.parent_id))
            return [*sends, *moved.values(), self._noted(after, digest, result.removed)]

        self.upkeep.erase(
            caller, audience.audience_id, lambda members: located(keys, members)[1], noted
        )
        return moved

    def _moved(
        self, names: Sequence[str], after: Audience, before: str | None
    ) -> Mapping[str, Write]:
        """Those of the distributions that have not begun and were to send the members of before:
        they send the same members without him."""
        records = Collection(self.upkeep.members.documents, "distributions", Distribution)
        found = [records.get(after.organization_id, name) for name in names]
        version = {"manifest_id": after.manifest_id, "audience_version": after.version}
        return {
            one.entity.distribution_id: one.replaced_by(one.entity.changed(**version))
            for one in found
            if one.entity.status is DistributionStatus.SCHEDULED
            and one.entity.roster is None
            and one.entity.manifest_id == before
        }

    def _forgotten(self, caller: Caller, digest: str, audience_id: str, held: Held) -> None:
        """Let go of versions and backups of before; the members are without him."""
        members = self.upkeep.members
        stored = members.audiences.records.get(caller.organization_id, audience_id)
        before = stored.entity
        after = before.changed(
            members_kept_from=max(before.members_kept_from, held.version + 1),
            backups_kept_from=max(before.backups_kept_from, held.backup + 1),
            updated_at=self.clock.now(),
        )
        members.commits.commit(
            caller,
            "function:members:forget",
            [stored.replaced_by(after), self._noted(after, digest, 0)],
            before=before,
            after=after,
        )

    def _noted(self, audience: Audience, digest: str, removed: int) -> Write:
        stored = self.records.get(audience.organization_id, digest)
        known = stored.entity.members
        count = known.get(audience.audience_id, 0) + removed
        return stored.replaced_by(
            stored.entity.changed(members={**known, audience.audience_id: count})
        )


@dataclass(slots=True)
class Search:
    """Where one audience holds one of some keys. `reached` hears how far it is, and may raise."""

    eraser: AudienceEraser
    audience: Audience
    keys: Any
    keep: Callable[[], None]
    start: Walk = field(default_factory=Walk)
    reached: Callable[[Walk], None] = lambda _: None
    _parts: dict[str, bool] = field(default_factory=dict)

    def held(self) -> Held:
        """Look through all that is kept."""
        audience, archive = self.audience, self.audience.archive
        walk = self._walked()
        return Held(
            members=self._has(audience.manifest_id),
            version=walk.version if walk.version >= audience.members_kept_from else 0,
            backup=walk.backup if walk.backup >= audience.backups_kept_from else 0,
            archive=archive is not None and self._is_archived(archive.location, archive.sha256),
            distributions=tuple(
                one.distribution_id
                for one in self._distributions()
                if one.status in USING_MEMBERS and self._has(one.manifest_id)
            ),
        )

    def _walked(self) -> Walk:
        """The last versions that have him; whatever is older is let go of with them."""
        walk = self.start
        while page := self._versions(walk.after):
            for one in page:
                walk = replace(walk, after=version_id(one.audience_id, one.version))
                if not walk.version and one.version >= self.audience.members_kept_from:
                    walk = replace(walk, version=one.version * self._has(one.manifest_id))
                if not walk.backup and self._has_backup(one):
                    walk = replace(walk, backup=one.version * self._is_in_backup(one))
                    self.reached(walk)
            if len(page) < PAGE or (walk.version and walk.backup):
                return walk
            self.reached(walk)
        return walk

    @property
    def _store(self) -> MemberStore:
        return self.eraser.upkeep.members.store

    def _has(self, manifest_id: str | None) -> bool:
        """Whether a manifest names him whose members somebody may still ask for."""
        if manifest_id is None:
            return False
        manifests = self.eraser.upkeep.members.manifests
        found = manifests.find(self.audience.organization_id, manifest_id)
        return found is not None and found.entity.released_at is None and self._is_in(found.entity)

    def _is_in(self, manifest: Manifest) -> bool:
        return any(self._is_in_part(part) for part in manifest.parts)

    def _is_in_part(self, part: StoredPart) -> bool:
        from activation.members.lookup import names_any

        if part.path not in self._parts:
            self.keep()
            organization_id = self.audience.organization_id
            self._parts[part.path] = names_any(self._store.parts, organization_id, part, self.keys)
        return self._parts[part.path]

    def _has_backup(self, version: AudienceVersion) -> bool:
        return version.backup is not None and version.version >= self.audience.backups_kept_from

    def _is_in_backup(self, version: AudienceVersion) -> bool:
        from activation.members.archive import backed_up_members

        assert version.backup is not None
        key, blobs = key_of(version, version.backup), self.eraser.areas.backups
        try:
            return self._names_any(backed_up_members(blobs, key, version.backup.sha256))
        except NotFoundError:
            return False  # it is gone already

    def _is_archived(self, location: str, sha256: str) -> bool:
        from activation.members.archive import archived_members

        key = BlobKey(self.audience.organization_id, location)
        return self._names_any(archived_members(self.eraser.areas.archives, key, sha256))

    def _names_any(self, tables: Iterator[Any]) -> bool:
        from activation.members.deltas import located

        for table in tables:
            self.keep()
            if located(self.keys, table)[1].any():
                return True
        return False

    def _versions(self, after: str | None) -> Sequence[AudienceVersion]:
        equal = {"audience_id": self.audience.audience_id}
        query = Query(self.audience.organization_id, "versions", equal, after=after, limit=PAGE)
        return version_records(self.eraser.upkeep.members.documents).page(query).items

    def _distributions(self) -> Iterator[Distribution]:
        documents, after = self.eraser.upkeep.members.documents, None
        records = Collection(documents, "distributions", Distribution)
        equal = {"audience_id": self.audience.audience_id}
        while True:
            query = Query(self.audience.organization_id, records.name, equal, None, after, PAGE)
            page = records.page(query)
            yield from page.items
            after = page.next_after
            if after is None:
                return
