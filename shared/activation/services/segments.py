"""Segments: define, list, replace, switch on and off, delete; who uses them, what they were."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from activation.documents import Collection, Page, Stored
from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.entity import new_id
from activation.domain.personal_data import refuse_personal_data
from activation.domain.segment import SegmentStatus, SegmentType
from activation.domain.segment_expression import (
    dependency_order,
    parsed,
    references,
    require_known,
    written,
)
from activation.domain.segment_record import (
    MAX_SEGMENTS,
    NewSegmentDraft,
    SegmentDefinition,
    SegmentRecord,
    SegmentUse,
    SegmentUses,
    SegmentVersion,
    renamed,
)
from activation.errors import ConflictError, InvalidStateError, NameTakenError, ValidationError
from activation.ports import ABSENT, Clock, DocumentStore, Key, Message, Query, Revision, Write
from activation.services.access import get_visible, require_current, retry_conflicts, visible_to
from activation.services.commits import Commits
from activation.services.event_messages import rules_message
from activation.services.organizations import OrganizationService
from activation.services.records import Records, require_owner
from activation.services.segment_bindings import followers
from activation.services.segment_rules import Force, SegmentRules, fields_of
from activation.services.segment_updates import update_message

VERSIONS, NAMES = "segment_versions", "segment_names"
PAGE = 200
NAMED_USERS = 5
"""How many users of a segment a refusal names."""


@dataclass(frozen=True, slots=True)
class SegmentService(Records[SegmentRecord]):
    """Use cases of segments. Raises NotFoundError for ids the caller may not see.

    An active segment only uses active ones: so nobody leaves a segment because another one was
    switched off. Every change goes through `SegmentRules`, one after the other. A caller who names
    a revision is tried again too: only a change of the segment itself is a change to him.
    """

    documents: DocumentStore
    commits: Commits
    rules: SegmentRules
    clock: Clock

    @property
    def records(self) -> Collection[SegmentRecord]:
        """The segments' records."""
        return Collection(self.documents, "segments", SegmentRecord)

    @property
    def past(self) -> Collection[SegmentVersion]:
        """The definitions that segments have and had."""
        return Collection(self.documents, VERSIONS, SegmentVersion)

    def create(self, caller: Caller, draft: NewSegmentDraft) -> Stored[SegmentRecord]:
        """Define a segment; NameTakenError when the organization has one of this name."""
        _refuse_personal_data(draft)
        OrganizationService(self.documents, self.clock).ensure(caller.organization_id)
        return retry_conflicts(partial(self._create, caller, draft))

    def get(self, caller: Caller, segment_id: str) -> Stored[SegmentRecord]:
        """The segment."""
        stored = get_visible(self.records, caller, segment_id)
        return replace(stored, entity=self._as_of_now(stored.entity))

    def list(
        self,
        caller: Caller,
        equal: Mapping[str, str],
        limit: int = 50,
        after: str | None = None,
        since: str | None = None,
    ) -> Page[SegmentRecord]:
        """Segments that the caller may see, newest first."""
        page = Records.list(self, caller, equal, limit, after, since)
        return replace(page, items=[self._as_of_now(one) for one in page.items])

    def replace(
        self,
        caller: Caller,
        segment_id: str,
        draft: SegmentDefinition,
        expected: Revision | None = None,
    ) -> Stored[SegmentRecord]:
        """Put another definition in the place of this one; its version grows when it decides
        otherwise."""
        _refuse_personal_data(draft)
        return retry_conflicts(partial(self._replace, caller, segment_id, draft, expected))

    def set_status(
        self,
        caller: Caller,
        segment_id: str,
        status: SegmentStatus,
        expected: Revision | None = None,
    ) -> Stored[SegmentRecord]:
        """Switch a segment on or off; InvalidStateError when it is that already, when it needs an
        inactive one, or when an active one needs it."""
        return retry_conflicts(partial(self._set_status, caller, segment_id, status, expected))

    def delete(self, caller: Caller, segment_id: str, expected: Revision | None = None) -> None:
        """Remove a segment, its definitions stay as history; InvalidStateError naming those that
        use it."""
        retry_conflicts(partial(self._delete, caller, segment_id, expected))

    def used_by(self, caller: Caller, segment_id: str) -> SegmentUses:
        """Who needs the segment."""
        self.get(caller, segment_id)
        users = self._users(caller.organization_id, segment_id)
        audiences = self._audiences(caller.organization_id, segment_id)
        everybody: list[SegmentRecord | Audience] = [*users, *audiences]
        seen = [one for one in everybody if _is_seen(caller, one)]
        data = tuple(_use_of(one) for one in seen)
        return SegmentUses(data=data, hidden=len(users) + len(audiences) - len(seen))

    def versions(
        self, caller: Caller, segment_id: str, limit: int = 50, after: str | None = None
    ) -> tuple[Page[SegmentVersion], int]:
        """A page of the definitions, newest first, and how many there are."""
        self.get(caller, segment_id)
        query = Query(
            caller.organization_id, VERSIONS, {"segment_id": segment_id}, after=after, limit=limit
        )
        return self.past.page(query), self.documents.count(query)

    def version(self, caller: Caller, segment_id: str, number: int) -> SegmentVersion:
        """One definition."""
        self.get(caller, segment_id)
        return self.past.get(caller.organization_id, version_id(segment_id, number)).entity

    def named(self, caller: Caller, segment_ids: Sequence[str]) -> dict[str, SegmentRecord]:
        """Those of these segments that the caller may see, by id."""
        keys = [self.records.key(caller.organization_id, one) for one in segment_ids]
        there = [one for one in self.documents.get_many(keys) if one is not None] if keys else []
        found = [SegmentRecord.restored(one.data) for one in there]
        return {
            one.segment_id: one
            for one in found
            if caller.sees_all or caller.user_id in visible_to(one)
        }

    def below(self, segment: SegmentRecord) -> Sequence[SegmentRecord]:
        """All segments that one stands on, whoever sees them."""
        return list(self._below(segment).values())

    # one attempt each -------------------------------------------------------------------------

    def _create(self, caller: Caller, draft: NewSegmentDraft) -> Stored[SegmentRecord]:
        force, now = self.rules.read(caller.organization_id), self.clock.now()
        if self.documents.count(Query(caller.organization_id, self.records.name)) >= MAX_SEGMENTS:
            raise InvalidStateError(
                f"An organization has at most {MAX_SEGMENTS:,} segments.", reason="too_many"
            )
        active = draft.status is SegmentStatus.ACTIVE
        segment = SegmentRecord(
            organization_id=caller.organization_id,
            created_at=now,
            updated_at=now,
            segment_id=new_id(now),
            user_id=caller.user_id,
            status=draft.status,
            activated_at=now if active else None,
            **self._resolved(caller, draft.fields()),
        )
        self._require_sound(caller, force, segment)
        writes = [_name_taken_by(segment), self._version(caller, segment)]
        return self._commit(caller, "api:segment:create", None, segment, force, writes)

    def _replace(
        self,
        caller: Caller,
        segment_id: str,
        draft: SegmentDefinition,
        expected: Revision | None,
    ) -> Stored[SegmentRecord]:
        force = self.rules.read(caller.organization_id)
        stored = self._current(caller, segment_id, expected)
        before, fields = stored.entity, self._resolved(caller, draft.fields())
        after = before.changed(**fields, updated_at=self.clock.now())
        writes = _name_writes(before, after)
        if after.decides() != before.decides():
            after = after.changed(version=before.version + 1)
            writes.append(self._version(caller, after))
        self._require_sound(caller, force, after)
        return self._commit(caller, "api:segment:replace", stored, after, force, writes)

    def _set_status(
        self,
        caller: Caller,
        segment_id: str,
        status: SegmentStatus,
        expected: Revision | None,
    ) -> Stored[SegmentRecord]:
        force = self.rules.read(caller.organization_id)
        stored = self._current(caller, segment_id, expected)
        before, now = stored.entity, self.clock.now()
        if before.status is status:
            raise InvalidStateError(
                f"The segment is {status} already.", field="status", reason=f"{status} already"
            )
        active = status is SegmentStatus.ACTIVE
        after = before.changed(
            status=status, updated_at=now, activated_at=now if active else before.activated_at
        )
        if active:
            self._require_sound(caller, force, after)
        else:
            users = self._users(caller.organization_id, segment_id)
            audiences = self._audiences(caller.organization_id, segment_id)
            self._require_unused(caller, [one for one in users if one.is_active], audiences)
        return self._commit(caller, "api:segment:set-status", stored, after, force, [])

    def _delete(self, caller: Caller, segment_id: str, expected: Revision | None) -> None:
        force = self.rules.read(caller.organization_id)
        stored = self._current(caller, segment_id, expected)
        require_owner(caller, stored.entity.user_id)
        users = self._users(caller.organization_id, segment_id)
        audiences = self._audiences(caller.organization_id, segment_id)
        self._require_unused(caller, users, audiences)
        writes = [stored.deleted(), Write(_name_key(stored.entity), None)]
        told = update_message(caller, stored.entity, None, self.clock)
        if not stored.entity.is_active:
            writes.append(self.rules.touched(force))
            self.commits.commit(
                caller, "api:segment:delete", writes, before=stored.entity, messages=[told]
            )
            return
        changed = self.rules.changed(force, self.clock.now(), gone=segment_id)
        self.commits.commit(
            caller,
            "api:segment:delete",
            [*writes, *changed.writes],
            before=stored.entity,
            messages=[rules_message(caller, changed.after.version, self.clock), told],
        )
        self.rules.remember(changed.after)

    def _commit(
        self,
        caller: Caller,
        action: str,
        stored: Stored[SegmentRecord] | None,
        after: SegmentRecord,
        force: Force,
        writes: Sequence[Write],
    ) -> Stored[SegmentRecord]:
        """Commit a segment with what it means for the rules in force."""
        before, now = (stored.entity if stored else None), self.clock.now()
        decides = before is None or (before.decides(), before.status) != (
            after.decides(),
            after.status,
        )
        was = before is not None and before.is_active
        messages: list[Message] = [update_message(caller, before, after, self.clock)]
        changed = None
        if decides and (was or after.is_active):
            put = [after.definition()] if after.is_active else []
            changed = self.rules.changed(force, now, put, after.segment_id)
            messages.append(rules_message(caller, changed.after.version, self.clock))
            after = after.changed(counting_since=self._counting_since(after, changed.since))
            rules: Sequence[Write] = changed.writes
        else:
            rules = [self.rules.touched(force)]
        first = (
            stored.replaced_by(after) if stored else self.records.created(after.segment_id, after)
        )
        try:
            revision = self.commits.commit(
                caller,
                action,
                [first, *writes, *rules],
                before=before,
                after=after,
                messages=messages,
                answer=after.public(),
            )
        except ConflictError:
            self._require_name_free(after)
            raise
        if changed is not None:
            self.rules.remember(changed.after)
        return Stored(after, first.key, revision)

    # checks -----------------------------------------------------------------------------------

    def _current(
        self, caller: Caller, segment_id: str, expected: Revision | None
    ) -> Stored[SegmentRecord]:
        stored = self.get(caller, segment_id)
        require_current(stored, expected)
        return stored

    def _resolved(self, caller: Caller, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields with an expression of ids: a segment may be named by its name too."""
        if fields["expression"] is None:
            return fields
        tree = parsed(fields["expression"])
        names = sorted(set(references(tree)))
        possible = [one for one in names if _possible(self.records, caller.organization_id, one)]
        by_name = self._by_name(caller, [n for n in names if n not in self.named(caller, possible)])
        return {**fields, "expression": written(renamed(tree, by_name))}

    def _by_name(self, caller: Caller, names: Sequence[str]) -> dict[str, str]:
        """The ids of the segments of these names that the caller may see."""
        keys = [Key(caller.organization_id, NAMES, _digest(name)) for name in names]
        found = self.documents.get_many(keys) if keys else []
        ids = {
            name: str(one.data["segment_id"])
            for name, one in zip(names, found, strict=True)
            if one is not None
        }
        seen = self.named(caller, sorted(ids.values()))
        return {name: one for name, one in ids.items() if one in seen}

    def _require_sound(self, caller: Caller, force: Force, segment: SegmentRecord) -> None:
        """Raise unless all that the segment uses exists, is no circle, and counts if it does."""
        if segment.type is not SegmentType.DERIVED or segment.expression is None:
            return
        used = self._below(segment)
        direct = segment.depends_on
        seen = {one for one in direct if one in used and self._may_use(caller, used[one], segment)}
        require_known(parsed(segment.expression), frozenset(seen | {segment.segment_id}))
        dependency_order(
            {segment.segment_id: direct, **{key: one.depends_on for key, one in used.items()}}
        )
        idle = sorted(one for one in direct if one not in force.active)
        if segment.is_active and idle:
            names = ", ".join(repr(used[one].name) for one in idle[:NAMED_USERS])
            raise InvalidStateError(
                f"An active segment needs active ones; not active: {names}.",
                field="expression",
                reason="inactive_segment",
            )

    def _may_use(self, caller: Caller, one: SegmentRecord, by: SegmentRecord) -> bool:
        """Whether a segment may be named: what the caller sees, and what was named before."""
        if caller.sees_all or caller.user_id in visible_to(one):
            return True
        earlier = self.records.find(by.organization_id, by.segment_id)
        return earlier is not None and one.segment_id in earlier.entity.depends_on

    def _below(self, segment: SegmentRecord) -> dict[str, SegmentRecord]:
        """All segments that one stands on, without itself, level by level."""
        found: dict[str, SegmentRecord] = {}
        wanted = segment.depends_on - {segment.segment_id}
        while wanted:
            keys = [_possible(self.records, segment.organization_id, one) for one in sorted(wanted)]
            there = self.documents.get_many([key for key in keys if key is not None])
            level = [SegmentRecord.restored(one.data) for one in there if one is not None]
            found.update({one.segment_id: one for one in level})
            below = {one for record in level for one in record.depends_on}
            wanted = frozenset(below - found.keys() - {segment.segment_id})
        return found

    def _users(self, organization_id: str, segment_id: str) -> Sequence[SegmentRecord]:
        """The segments whose expression names this one."""
        found: list[SegmentRecord] = []
        after: str | None = None
        while True:
            query = Query(
                organization_id, self.records.name, {"uses": segment_id}, after=after, limit=PAGE
            )
            page = self.records.page(query)
            found += page.items
            if page.next_after is None:
                return found
            after = page.next_after

    def _audiences(self, organization_id: str, segment_id: str) -> Sequence[Audience]:
        """The audiences that follow this segment."""
        return followers(self.documents, organization_id, segment_id)

    def _require_unused(
        self, caller: Caller, users: Sequence[SegmentRecord], audiences: Sequence[Audience]
    ) -> None:
        for kind, found in (("segments", users), ("audiences", audiences)):
            if found:
                told = _named(caller, found)
                raise InvalidStateError(
                    f"The segment is used by {kind}: {told}.", field="segment_id", reason="in_use"
                )

    def _require_name_free(self, segment: SegmentRecord) -> None:
        holder = self.documents.get(_name_key(segment))
        if holder is not None and holder.data["segment_id"] != segment.segment_id:
            raise NameTakenError(
                "The organization has a segment of this name already.", field="name", reason="taken"
            )

    def _counting_since(self, segment: SegmentRecord, since: Mapping[str, str]) -> datetime | None:
        """The latest beginning of all sums that decide on the segment and have no past yet."""
        if not segment.is_active or not since:
            return None
        names = fields_of(segment).union(*map(fields_of, self.below(segment)))
        return max((datetime.fromisoformat(since[n]) for n in names if n in since), default=None)

    def _as_of_now(self, segment: SegmentRecord) -> SegmentRecord:
        """The segment; its sums may have got their past since it was stored."""
        if segment.counting_since is None:
            return segment
        since = self.rules.since(segment.organization_id)
        return segment.changed(counting_since=self._counting_since(segment, since))

    def _version(self, caller: Caller, segment: SegmentRecord) -> Write:
        version = SegmentVersion(
            organization_id=segment.organization_id,
            created_at=segment.updated_at,
            updated_at=segment.updated_at,
            segment_id=segment.segment_id,
            version=segment.version,
            name=segment.name,
            type=segment.type,
            rules=segment.rules,
            expression=segment.expression,
            changed_by=caller.user_id,
        )
        return self.past.created(version_id(segment.segment_id, segment.version), version)


def _refuse_personal_data(draft: SegmentDefinition) -> None:
    """Names and notes hold none, nor do the fields of rules: events have them masked."""
    rules = [{"field": rule.field} for rule in draft.rules]
    fields = {"name": draft.name, "description": draft.description, "rules": rules}
    refuse_personal_data(fields)


def _is_seen(caller: Caller, user: SegmentRecord | Audience) -> bool:
    return caller.sees_all or caller.user_id in visible_to(user)


def _use_of(user: SegmentRecord | Audience) -> SegmentUse:
    if isinstance(user, Audience):
        return SegmentUse(kind="audience", id=user.audience_id, name=user.name)
    return SegmentUse(kind="segment", id=user.segment_id, name=user.name)


def _named(caller: Caller, users: Sequence[SegmentRecord | Audience]) -> str:
    """Some of the names that the caller may know, and how many there are beside."""
    names = [repr(one.name) for one in users if _is_seen(caller, one)][:NAMED_USERS]
    more = len(users) - len(names)
    rest = [f"{more} more" if names else f"{more} that you may not see"] if more else []
    return ", ".join([*names, *rest])


def version_id(segment_id: str, number: int) -> str:
    """The id of a definition's record; sorts by number."""
    return f"{segment_id}:{number:010d}"


def _possible(
    records: Collection[SegmentRecord], organization_id: str, segment_id: str
) -> Key | None:
    """The address of a segment; None for what can be no id: it is the name of nothing."""
    try:
        return records.key(organization_id, segment_id)
    except ValidationError:
        return None


def _name_writes(before: SegmentRecord, after: SegmentRecord) -> list[Write]:
    if after.name == before.name:
        return []
    return [Write(_name_key(before), None), _name_taken_by(after)]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _name_key(segment: SegmentRecord) -> Key:
    """A document per name makes names unique under any race."""
    return Key(segment.organization_id, NAMES, _digest(segment.name))


def _name_taken_by(segment: SegmentRecord) -> Write:
    return Write(_name_key(segment), {"segment_id": segment.segment_id}, expected=ABSENT)
