"""Audiences: define, list, change, share, archive, delete; every change makes a version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from activation.documents import Collection, Stored
from activation.domain.audience import (
    OPERATOR_MAY_SET,
    Audience,
    AudienceChanges,
    AudienceDraft,
    AudienceMetadata,
    AudienceRule,
    AudienceSegment,
    AudienceStatus,
    Derivation,
    MetadataDraft,
    Partition,
    RuleDraft,
    SegmentDraft,
    SharingDraft,
    VariableDetail,
)
from activation.domain.caller import Caller
from activation.domain.entity import new_id, timestamp
from activation.domain.manifest import Manifest
from activation.domain.member import MAX_LISTED_SEGMENTS
from activation.domain.operators import checked_operator
from activation.domain.personal_data import refuse_personal_data
from activation.domain.quota import QuotaKind
from activation.domain.segment_follow import SegmentBinding, SegmentBindingDraft
from activation.errors import (
    ConflictError,
    InvalidStateError,
    NameTakenError,
    ValidationError,
)
from activation.ports import ABSENT, Clock, DocumentStore, Key, Revision, Write
from activation.services.access import get_visible, require_current, retry_conflicts
from activation.services.commits import Commits
from activation.services.lineage import (
    counted,
    released,
    require_no_followers,
    require_source,
)
from activation.services.organizations import OrganizationService
from activation.services.quotas import QuotaService
from activation.services.records import Records, require_owner
from activation.services.segment_bindings import bound, followed_as, require_bindable
from activation.services.version_records import recorded, version_of, version_write


@dataclass(frozen=True, slots=True)
class AudienceService(Records[Audience]):
    """Use cases of audiences. Raises NotFoundError for ids the caller may not see."""

    documents: DocumentStore
    commits: Commits
    clock: Clock
    quotas: QuotaService

    @property
    def records(self) -> Collection[Audience]:
        """The audiences' records."""
        return Collection(self.documents, "audiences", Audience)

    @property
    def manifests(self) -> Collection[Manifest]:
        """The manifests of all audiences."""
        return Collection(self.documents, "manifests", Manifest)

    def create(self, caller: Caller, draft: AudienceDraft) -> Stored[Audience]:
        """Define a new audience; NameTakenError when the organization has one of this name,
        QuotaExceededError when the caller or the organization may have no more.

        One that is derived from another gets its members from there, by a job.
        """
        refuse_personal_data(draft.model_dump(mode="json", exclude={"segments"}))
        OrganizationService(self.documents, self.clock).ensure(caller.organization_id)
        return retry_conflicts(partial(self._create, caller, draft))

    def find(self, caller: Caller, audience_id: str) -> Stored[Audience]:
        """The record as stored, for use cases that change it."""
        return get_visible(self.records, caller, audience_id)

    def get(self, caller: Caller, audience_id: str) -> Stored[Audience]:
        """The audience with the list of its partitions."""
        return self.with_partitions(self.find(caller, audience_id))

    def manifest_of(self, audience: Audience) -> Manifest | None:
        """The current manifest of an audience; None when it has no stored members."""
        if audience.manifest_id is None:
            return None
        return self.manifests.get(audience.organization_id, audience.manifest_id).entity

    def readable_manifest(self, audience: Audience, field: str) -> Manifest | None:
        """`manifest_of`, for reads to which no members would be a wrong answer while they lie in
        an archive: InvalidStateError then, naming `field`."""
        manifest = self.manifest_of(audience)
        if manifest is None and audience.archive is not None:
            raise InvalidStateError(
                f"The members of {audience.name!r} lie in its archive; unarchive it first.",
                field=field,
                reason="archived",
            )
        return manifest

    def with_partitions(self, stored: Stored[Audience]) -> Stored[Audience]:
        """The record with the list of its partitions."""
        audience, manifest = stored.entity, self.manifest_of(stored.entity)
        if manifest is None:
            return stored
        storage = audience.storage.model_copy(
            update={"partitions": _partitions(manifest), "deltas": len(manifest.deltas)}
        )
        shown = audience.model_copy(update={"storage": storage})
        return Stored(shown, stored.key, stored.revision)

    def update(
        self,
        caller: Caller,
        audience_id: str,
        changes: AudienceChanges,
        expected: Revision | None = None,
    ) -> Stored[Audience]:
        """Change the fields sent and make a version of it."""
        refuse_personal_data(changes.model_dump(mode="json", exclude={"segments"}))
        return retry_conflicts(
            partial(self._update, caller, audience_id, changes, expected), expected=expected
        )

    def set_status(
        self, caller: Caller, audience_id: str, status: str, expected: Revision | None = None
    ) -> Stored[Audience]:
        """Move the audience to another status; InvalidStateError when that is no legal move."""
        wanted = _operator_status(status)
        return retry_conflicts(
            partial(self._set_status, caller, audience_id, wanted, expected), expected=expected
        )

    def share(
        self,
        caller: Caller,
        audience_id: str,
        draft: SharingDraft,
        expected: Revision | None = None,
    ) -> Stored[Audience]:
        """Set who else of the organization may see and use the audience; owner or admin only."""
        return retry_conflicts(
            partial(self._share, caller, audience_id, draft, expected), expected=expected
        )

    def delete(self, caller: Caller, audience_id: str, expected: Revision | None = None) -> None:
        """Remove the audience; its versions stay as history, its objects go to the sweep that
        finds its tombstone. InvalidStateError under legal hold."""
        retry_conflicts(partial(self._delete, caller, audience_id, expected), expected=expected)

    # one attempt each -------------------------------------------------------------------------

    def _create(self, caller: Caller, draft: AudienceDraft) -> Stored[Audience]:
        now = self.clock.now()
        fields = _fields_of(draft)
        in_use: list[Write] = []
        if draft.segment is not None:
            binding, write = bound(self.documents, caller, draft.segment, self.clock)
            fields |= {"segment": binding, "followed_as": (binding.followed_as,)}
            in_use.append(write)
        metadata = AudienceMetadata(created_by=caller.user_id, **fields.pop("metadata", {}))
        audience = Audience(
            organization_id=caller.organization_id,
            audience_id=new_id(now),
            user_id=caller.user_id,
            created_at=now,
            updated_at=now,
            last_activity_at=now,
            metadata=metadata,
            **fields,
        )
        version = version_of(audience, None, caller, "Initial creation")
        writes = [
            self.records.created(audience.audience_id, audience),
            _name_taken_by(audience),
            version_write(version),
            *in_use,
        ]
        if draft.derived_from is not None:
            source = self.find(caller, draft.derived_from.source_audience_id)
            require_source(self.records, source.entity)
            writes.append(counted(source, 1))
        try:
            revision = self.quotas.within(
                QuotaKind.AUDIENCES,
                audience,
                lambda counted: self.commits.commit(
                    caller,
                    "api:audience:create",
                    [*writes, *counted],
                    after=audience,
                    answer=audience.public(),
                ),
            )
        except ConflictError:
            self.require_name_free(audience)
            raise
        return Stored(audience, writes[0].key, revision)

    def _update(
        self,
        caller: Caller,
        audience_id: str,
        changes: AudienceChanges,
        expected: Revision | None,
    ) -> Stored[Audience]:
        stored = self.find(caller, audience_id)
        require_current(stored, expected)
        before = stored.entity
        fields = _fields_of(changes, before)
        if "segments" in fields and len(before.segments) >= MAX_LISTED_SEGMENTS:
            fields["segments"] = self._sized(before, fields["segments"])
        if "metadata" in fields:
            fields["metadata"] = before.metadata.model_copy(update=fields["metadata"])
        if fields.get("name", before.name) is None or fields.get("name") == before.name:
            fields.pop("name", None)
        in_use: list[Write] = []
        if "segment" in changes.model_fields_set:
            binding, in_use = self._bound(caller, before, changes.segment)
            fields |= {"segment": binding, "followed_as": followed_as(before, binding)}
        return self._versioned(
            caller, stored, fields, "api:audience:update", "Definition changed", in_use
        )

    def _sized(
        self, before: Audience, segments: tuple[AudienceSegment, ...]
    ) -> tuple[AudienceSegment, ...]:
        """`segments` with their sizes; labels beyond those that are listed have one too."""
        manifest = self.manifest_of(before)
        if manifest is None:
            return segments
        return tuple(one.model_copy(update=manifest.size_of(one.segment_id)) for one in segments)

    def _bound(
        self, caller: Caller, before: Audience, draft: SegmentBindingDraft | None
    ) -> tuple[SegmentBinding | None, list[Write]]:
        """What the audience follows from now on; the same again is no change."""
        if draft is None:
            return None, []
        if before.segment is not None and before.segment.says() == tuple(dict(draft).values()):
            return before.segment, []
        require_bindable(before)
        binding, in_use = bound(self.documents, caller, draft, self.clock)
        return binding, [in_use]

    def _set_status(
        self,
        caller: Caller,
        audience_id: str,
        wanted: AudienceStatus,
        expected: Revision | None,
    ) -> Stored[Audience]:
        stored = self.find(caller, audience_id)
        require_current(stored, expected)
        before = stored.entity
        if before.status is AudienceStatus.PROCESSING:
            raise InvalidStateError(
                "An import is running; wait for its end or cancel it.", field="status"
            )
        if before.archive is not None and wanted is not before.status:
            raise InvalidStateError(
                "The members lie in the archive; unarchive the audience to bring them back.",
                field="status",
                reason="archived",
            )
        fields: dict[str, Any] = {"status": before.moved_to(wanted), "status_reason": None}
        if before.status is AudienceStatus.ARCHIVED:
            fields |= {"archived_as": None, "members_deleted_at": None}
        if wanted is AudienceStatus.ARCHIVED:
            fields["resting_status"] = before.status
        return self._versioned(
            caller,
            stored,
            {**fields, "metadata": dated(before, wanted, self.clock)},
            "api:audience:set-status",
            f"Status {before.status} to {wanted}",
        )

    def _share(
        self, caller: Caller, audience_id: str, draft: SharingDraft, expected: Revision | None
    ) -> Stored[Audience]:
        stored = self.find(caller, audience_id)
        require_current(stored, expected)
        require_owner(caller, stored.entity.user_id)
        shared = tuple(sorted(set(draft.shared_with) - {stored.entity.user_id}))
        return self._versioned(
            caller, stored, {"shared_with": shared}, "api:audience:share", "Sharing changed"
        )

    def _delete(self, caller: Caller, audience_id: str, expected: Revision | None) -> None:
        stored = self.find(caller, audience_id)
        require_current(stored, expected)
        if stored.entity.status is AudienceStatus.PROCESSING:
            raise InvalidStateError("An import is running; cancel it first.", field="status")
        require_owner(caller, stored.entity.user_id)
        if stored.entity.legal_hold is not None:
            raise InvalidStateError("The audience is under legal hold.", reason="legal_hold")
        require_no_followers(stored.entity)
        tombstone = Key(caller.organization_id, "deleted_audiences", audience_id)
        writes = [
            stored.deleted(),
            Write(_name_key(stored.entity), None),
            Write(tombstone, {"deleted_at": timestamp(self.clock.now())}, ABSENT),
            *released(self.records, stored.entity),
        ]
        self.commits.commit(caller, "api:audience:delete", writes, before=stored.entity)

    def _versioned(
        self,
        caller: Caller,
        stored: Stored[Audience],
        fields: Mapping[str, Any],
        action: str,
        description: str,
        extra: Sequence[Write] = (),
    ) -> Stored[Audience]:
        """Commit a changed audience with its version; renaming moves the name's reservation."""
        before, now = stored.entity, self.clock.now()
        after = before.changed(
            **fields, version=before.version + 1, updated_at=now, last_activity_at=now
        )
        version = version_of(after, before, caller, description)
        kept, messages = recorded(version, caller, self.clock)
        writes = [stored.replaced_by(after), *kept, *extra, *name_writes(before, after)]
        try:
            revision = self.commits.commit(
                caller,
                action,
                writes,
                before=before,
                after=after,
                messages=messages,
                answer=after.public(),
            )
        except ConflictError:
            if after.name != before.name:
                self.require_name_free(after)
            raise
        return Stored(after, stored.key, revision)

    def require_name_free(self, audience: Audience) -> None:
        """Raise NameTakenError when another audience holds this one's name."""
        holder = self.documents.get(_name_key(audience))
        if holder is not None and holder.data["audience_id"] != audience.audience_id:
            raise NameTakenError(
                "The organization has an audience of this name already.",
                field="name",
                reason="taken",
            )


def dated(audience: Audience, status: AudienceStatus, clock: Clock) -> AudienceMetadata:
    """The metadata with the times that a change to `status` sets."""
    update: dict[str, Any] = {}
    if status is AudienceStatus.ACTIVE and audience.metadata.activated_at is None:
        update["activated_at"] = clock.now()
    update["archived_at"] = clock.now() if status is AudienceStatus.ARCHIVED else None
    return audience.metadata.model_copy(update=update)


def _operator_status(status: str) -> AudienceStatus:
    if status not in OPERATOR_MAY_SET:
        choices = ", ".join(sorted(OPERATOR_MAY_SET))
        raise ValidationError(
            f"status must be one of {choices}.", field="status", reason="not_settable"
        )
    return AudienceStatus(status)


def _fields_of(changes: AudienceChanges, before: Audience | None = None) -> dict[str, Any]:
    """The entity's fields from what the caller sent."""
    fields = changes.sent()
    fields.pop("segment", None)
    if (rules := fields.get("rules")) is not None:
        fields["rules"] = rules_of(rules)
    if (segments := fields.get("segments")) is not None:
        fields["segments"] = _segments(segments, before)
    if (details := fields.get("variable_details")) is not None:
        fields["variable_details"] = tuple(VariableDetail(**dict(d)) for d in details)
    if (derived := fields.get("derived_from")) is not None:
        fields["derived_from"] = Derivation(source_audience_id=derived.source_audience_id)
    metadata: MetadataDraft | None = fields.get("metadata")
    if metadata is not None:
        fields["metadata"] = metadata.sent()
    keep_null = {"subtype", "original_query"}
    return {name: v for name, v in fields.items() if v is not None or name in keep_null}


def rules_of(drafts: Sequence[RuleDraft]) -> tuple[AudienceRule, ...]:
    """The rules that a caller wants, in their order; ValidationError for one without sense."""
    return tuple(_rule(order, draft) for order, draft in enumerate(drafts))


def _rule(order: int, draft: RuleDraft) -> AudienceRule:
    code = checked_operator(
        draft.variable_id, draft.operator, draft.value, draft.value_type, f"rules[{order}]"
    )
    fields = {**dict(draft), "operator": code.value}
    return AudienceRule(id=f"rule-{order}", order=order, **fields)


def _segments(
    drafts: tuple[SegmentDraft, ...], before: Audience | None
) -> tuple[AudienceSegment, ...]:
    """The parts that a caller declares; labels that members carry stay listed without a name."""
    ids = [draft.segment_id for draft in drafts]
    if len(set(ids)) != len(ids):
        raise ValidationError(
            "segments must have different segment_id.", field="segments", reason="duplicate"
        )
    known = before.segments if before else ()
    sizes = {one.segment_id: one.model_dump(include={"size", "size_percentage"}) for one in known}
    declared = [AudienceSegment(**dict(one), **sizes.pop(one.segment_id, {})) for one in drafts]
    carried = [
        AudienceSegment(segment_id=name, **size) for name, size in sizes.items() if size["size"]
    ]
    return tuple([*declared, *carried][:MAX_LISTED_SEGMENTS])


def _partitions(manifest: Manifest) -> tuple[Partition, ...]:
    return tuple(
        Partition(
            number=number,
            total=len(manifest.partitions),
            size=part.rows,
            bytes=part.bytes,
            place=part.place,
            location=part.path,
            checksum=part.sha256,
            created_at=part.created_at or manifest.created_at,
        )
        for number, part in enumerate(manifest.partitions, start=1)
    )


def name_writes(before: Audience, after: Audience) -> list[Write]:
    """What moves the reservation of a name along with it."""
    if after.name == before.name:
        return []
    return [Write(_name_key(before), None), _name_taken_by(after)]


def _name_key(audience: Audience) -> Key:
    """A document per name makes names unique under any race."""
    digest = hashlib.sha256(audience.name.encode()).hexdigest()
    return Key(audience.organization_id, "audience_names", digest)


def _name_taken_by(audience: Audience) -> Write:
    return Write(_name_key(audience), {"audience_id": audience.audience_id}, expected=ABSENT)
