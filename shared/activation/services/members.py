"""Members: add, remove, read; every change is a new manifest, switched in one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from activation.documents import Collection, Stored
from activation.domain.audience import (
    Audience,
    AudienceSegment,
    AudienceStatus,
    AudienceStorage,
    Encryption,
)
from activation.domain.caller import Caller
from activation.domain.entity import new_id
from activation.domain.manifest import Manifest
from activation.domain.member import MAX_LISTED_SEGMENTS, Member, MemberFilter, MemberInput
from activation.domain.member_change import MemberChange, MemberReference, MemberReject
from activation.domain.version import MemberCounts
from activation.errors import (
    ConflictError,
    InvalidStateError,
    NotFoundError,
    StorageUnavailableError,
)
from activation.ports import ABSENT, Clock, DocumentStore, Key, Message, Write
from activation.services.access import MAX_ATTEMPTS
from activation.services.audiences import AudienceService
from activation.services.commits import Commits
from activation.services.suppressions import SuppressionService
from activation.services.version_records import recorded, version_of

if TYPE_CHECKING:
    from activation.members.store import MemberStore, MergeResult

T = TypeVar("T")

Merge = Callable[["Manifest | None", str], "MergeResult"]
"""From the parent manifest and the new one's id to the merged members."""

Extra = Callable[[Audience, "MergeResult"], Sequence[Write]]
"""More writes for the commit that switches the manifest."""


@dataclass(frozen=True, slots=True)
class MemberService:
    """Use cases of members. Raises NotFoundError for audiences the caller may not see."""

    documents: DocumentStore
    commits: Commits
    audiences: AudienceService
    store: MemberStore
    clock: Clock
    encryption: Encryption | None
    suppressions: SuppressionService

    @property
    def manifests(self) -> Collection[Manifest]:
        """The manifests of all audiences."""
        return Collection(self.documents, "manifests", Manifest)

    def add(self, caller: Caller, audience_id: str, inputs: Sequence[MemberInput]) -> MemberChange:
        """Add or update a small set; rejected ones are reported by position and reason. People
        who were erased are among those."""
        self.audiences.find(caller, audience_id).entity.require_own_members()
        refused = self.suppressions.refused(caller.organization_id)
        run = self.store.run_of(caller.organization_id, audience_id, inputs, refused=refused)

        def merge(parent: Manifest | None, manifest_id: str) -> MergeResult:
            runs = [run.path] if run.path else []
            return self.store.merge(caller.organization_id, audience_id, manifest_id, parent, runs)

        def change(audience: Audience, result: MergeResult) -> MemberChange:
            return MemberChange(
                received=run.counts.received,
                accepted=result.added + result.updated,
                added=result.added,
                updated=result.updated,
                duplicate=run.counts.duplicate + result.duplicate,
                rejected=run.counts.rejected,
                rejects=tuple(MemberReject(position=p, reason=r) for p, r in run.rejects),
                size=audience.size,
            )

        try:
            return self._small_change(caller, audience_id, "api:members:add", merge, change)
        finally:
            self.store.discard_runs(caller.organization_id, [run.path] if run.path else [])

    def remove(
        self, caller: Caller, audience_id: str, references: Sequence[MemberReference]
    ) -> MemberChange:
        """Remove members; unknown ones are counted, not an error."""
        self.audiences.find(caller, audience_id).entity.require_own_members()
        removals = sorted({(ref.identifier_type, ref.digest()) for ref in references})

        def merge(parent: Manifest | None, manifest_id: str) -> MergeResult:
            return self.store.merge(
                caller.organization_id, audience_id, manifest_id, parent, (), removals
            )

        def change(audience: Audience, result: MergeResult) -> MemberChange:
            return MemberChange(
                received=len(references),
                removed=result.removed,
                unknown=len(removals) - result.removed,
                duplicate=len(references) - len(removals),
                size=audience.size,
            )

        return self._small_change(caller, audience_id, "api:members:remove", merge, change)

    def page(
        self,
        caller: Caller,
        audience_id: str,
        member_filter: MemberFilter,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[Sequence[Member], str | None]:
        """A page of members in the order of their digests, and the cursor of the next one."""
        stored = self.audiences.find(caller, audience_id)
        return self.page_of(stored, member_filter, limit, after)

    def page_of(
        self,
        stored: Stored[Audience],
        member_filter: MemberFilter,
        limit: int,
        after: str | None,
    ) -> tuple[Sequence[Member], str | None]:
        """`page` for a record that was read already."""
        found = self._read(stored, lambda m: self.store.page(m, member_filter, after, limit))
        return found or ([], None)

    def find(self, caller: Caller, audience_id: str, reference: MemberReference) -> Member:
        """One member, by identifier; NotFoundError when the audience does not hold it."""
        stored = self.audiences.find(caller, audience_id)
        kind, digest = reference.identifier_type, reference.digest()
        member = self._read(stored, lambda manifest: self.store.find(manifest, kind, digest))
        if not member:
            raise NotFoundError("The audience does not hold this identifier.", reason="no_member")
        return member

    def switch(
        self,
        caller: Caller,
        audience_id: str,
        action: str,
        description: str,
        merge: Merge,
        extra: Extra,
        *,
        status: Callable[[Audience], Mapping[str, Any]] = lambda _: {},
        answer: Callable[[Audience, MergeResult], Mapping[str, Any]] | None = None,
        upkeep: bool = False,
        require: Callable[[Audience], None] | None = None,
        finish: Callable[[Audience, MergeResult], Audience] = lambda audience, _: audience,
    ) -> tuple[Audience, MergeResult]:
        """Merge, then switch the audience to the new manifest in one commit.

        When another writer was faster, the merge is put on top of his manifest where it can be
        (`MergeResult.rebase`), else done again, and the objects of the lost one are removed; a
        crash leaves objects without a manifest, never the reverse.
        `status` gives further fields of the audience; `extra` further writes. `upkeep` is the
        system's own work: it counts as no activity, and makes no version when the members stay
        as they are (nothing added, updated or removed). `require` raises when the audience as it
        is now does not allow the change; by default archived ones do not. `finish` has the last
        word on the audience that is committed.
        """
        result: MergeResult | None = None
        merged_on: str | None = None
        for attempt in range(MAX_ATTEMPTS):
            stored = self.audiences.find(caller, audience_id)
            (require or _require_writable)(stored.entity)
            if result is None or merged_on != stored.entity.manifest_id:
                try:
                    result = self._merged(stored, result, merge)
                except StorageUnavailableError:
                    # What was read may have gone because the audience moved on meanwhile.
                    if attempt == MAX_ATTEMPTS - 1 or not self._moved_on(stored):
                        raise
                    result = None
                    continue
                merged_on = stored.entity.manifest_id
            audience = finish(self._switched(stored.entity, result, status, upkeep=upkeep), result)
            try:
                self._commit(caller, action, description, stored, audience, result, extra, answer)
            except ConflictError:
                if attempt == MAX_ATTEMPTS - 1:
                    self._discard(result)
                    raise
            else:
                return audience, result
        raise AssertionError("unreachable")

    def _read(self, stored: Stored[Audience], read: Callable[[Manifest], T]) -> T | None:
        """What `read` finds in the members of an audience; None when it never had any."""
        manifest = self.audiences.manifest_of(stored.entity)
        if manifest is None:
            return None
        try:
            return read(manifest)
        except StorageUnavailableError:
            # The sweep may have taken a part that the audience no longer has.
            if not self._moved_on(stored):
                raise
            return self._read(self.audiences.records.get(*_address(stored)), read)

    def _moved_on(self, stored: Stored[Audience]) -> bool:
        """Whether the audience has other members than when it was read."""
        current = self.audiences.records.find(*_address(stored))
        return current is not None and current.entity.manifest_id != stored.entity.manifest_id

    def _merged(
        self, stored: Stored[Audience], lost: MergeResult | None, merge: Merge
    ) -> MergeResult:
        """A merge for the audience as it is now, made of the one that came too late if it can."""
        parent = self.audiences.manifest_of(stored.entity)
        if lost is not None:
            if parent is not None and lost.rebase is not None:
                rebased = lost.rebase(lost, parent)
                if rebased is not None:
                    return rebased
            self.store.discard(lost)
        return merge(parent, new_id(self.clock.now()))

    def _small_change(
        self,
        caller: Caller,
        audience_id: str,
        action: str,
        merge: Merge,
        change: Callable[[Audience, MergeResult], MemberChange],
    ) -> MemberChange:
        audience, result = self.switch(
            caller,
            audience_id,
            action,
            "Members changed",
            merge,
            lambda _audience, _result: (),
            answer=lambda a, r: change(a, r).public(),
        )
        return change(audience, result)

    def _commit(
        self,
        caller: Caller,
        action: str,
        description: str,
        stored: Stored[Audience],
        audience: Audience,
        result: MergeResult,
        extra: Extra,
        answer: Callable[[Audience, MergeResult], Mapping[str, Any]] | None,
    ) -> None:
        manifest = result.manifest
        manifest_key = Key(audience.organization_id, "manifests", manifest.manifest_id)
        writes = [
            stored.replaced_by(audience),
            Write(manifest_key, manifest.stored(), ABSENT),
            *result.writes,
            *extra(audience, result),
        ]
        messages: Sequence[Message] = ()
        if audience.version > stored.entity.version:
            counts = _counts(stored.entity, result)
            version = version_of(audience, stored.entity, caller, description, counts)
            kept, messages = recorded(version, caller, self.clock)
            writes += kept
        details = {"added": result.added, "updated": result.updated, "removed": result.removed}
        self.commits.commit(
            caller,
            action,
            writes,
            before=stored.entity,
            after=audience,
            messages=messages,
            answer=answer(audience, result) if answer else None,
            details=details,
        )

    def _switched(
        self,
        before: Audience,
        result: MergeResult,
        status: Callable[[Audience], Mapping[str, Any]],
        *,
        upkeep: bool,
    ) -> Audience:
        manifest, now = result.manifest, self.clock.now()
        same = upkeep and not (result.added or result.updated or result.removed)
        fields = {
            "size": manifest.size,
            "manifest_id": manifest.manifest_id,
            "storage": self.storage_of(manifest),
            "version": before.version if same else before.version + 1,
            "segments": segments_of(before, manifest),
            "updated_at": now,
            "last_activity_at": before.last_activity_at if upkeep else now,
        }
        if same and before.derived_from and before.derived_from.manifest_id == before.manifest_id:
            derived = before.derived_from.model_copy(update={"manifest_id": manifest.manifest_id})
            fields["derived_from"] = derived
        if same and before.segment and before.segment.manifest_id == before.manifest_id:
            bound = before.segment.model_copy(update={"manifest_id": manifest.manifest_id})
            fields["segment"] = bound
        return before.changed(**{**fields, **status(before)})

    def storage_of(self, manifest: Manifest) -> AudienceStorage:
        """How the members of a manifest are kept."""
        return AudienceStorage(
            type=manifest.tier,
            location=f"audience_id={manifest.audience_id}",
            compression=manifest.compression,
            encryption=self.encryption,
            bytes=manifest.bytes,
        )

    def _discard(self, result: MergeResult | None) -> None:
        if result is not None:
            self.store.discard(result)


def segments_of(audience: Audience, manifest: Manifest) -> tuple[AudienceSegment, ...]:
    """The labelled parts of an audience, with their sizes among the members of a manifest.

    Labels that were not declared follow, without a name, the largest first, up to the most parts
    that an audience lists. Where there are more, those without a name that nobody carries any
    more are let go.
    """
    declared = {segment.segment_id for segment in audience.segments}
    sizes = {label: size for label, size in manifest.by_segment.items() if label not in declared}
    listed = [
        segment.model_copy(update=manifest.size_of(segment.segment_id))
        for segment in audience.segments
    ]
    listed += [
        AudienceSegment(segment_id=label, **manifest.size_of(label))
        for label, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    ]
    if len(listed) > MAX_LISTED_SEGMENTS:
        listed = [one for one in listed if one.size or one.name or one.characteristics]
    return tuple(listed[:MAX_LISTED_SEGMENTS])


def _address(stored: Stored[Audience]) -> tuple[str, str]:
    return stored.entity.organization_id, stored.entity.audience_id


def _counts(before: Audience, result: MergeResult) -> MemberCounts | None:
    """What the merge counted; None when it did not start from the audience's members (a restore
    from a backup replaces them all)."""
    if before.size + result.added - result.removed != result.manifest.size:
        return None
    return MemberCounts(added=result.added, updated=result.updated, removed=result.removed)


def _require_writable(audience: Audience) -> None:
    if audience.status is AudienceStatus.ARCHIVED:
        raise InvalidStateError(
            "The audience is archived; its members cannot change.",
            field="status",
            reason="archived",
        )
    audience.require_own_members()
