"""One run of an audience that follows a segment: by the steps since the last one, or as a whole."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

from activation.documents import Collection, Stored
from activation.domain.audience import Audience, AudienceStatus
from activation.domain.caller import Caller
from activation.domain.manifest import Manifest
from activation.domain.member import RejectReason
from activation.domain.segment_follow import SegmentBinding, SegmentFollow
from activation.domain.segment_shard import SHARDS
from activation.errors import ConflictError
from activation.members.archive import write_runs
from activation.members.followed import (
    Compared,
    Difference,
    OutOfStepError,
    compared,
    no_members,
    ranges_for,
    stepped,
)
from activation.members.rows import Encoded
from activation.members.runs import Runs, write_run
from activation.members.store import MergeResult
from activation.members.user_ids import UserIds
from activation.ports import BlobKey, Clock, Write
from activation.services.audiences import dated
from activation.services.follow_sends import to_be_sent
from activation.services.kept_states import KeptStates
from activation.services.leases import Lease
from activation.services.members import MemberService
from activation.services.restore_mark import marked
from activation.services.segment_shards import ShardWorker
from activation.services.segment_steps import SegmentSteps
from activation.services.shard_states import OpenShard
from activation.services.suppressions import epoch_of

ACTION = "function:audience:follow"
COMPARE_EVERY = timedelta(days=1)
"""All members are compared this often: what nobody told us of, or an identifier that may be a
member again, does not stay wrong. It is also the longest chain of steps that is relied upon."""
MOST_CHANGED = 100_000
"""Members that differ and are changed one by one; when more do, all members are written anew."""


class LeaseLostError(Exception):
    """Another worker is at it, or the audience follows something else by now."""


@dataclass(slots=True)
class FollowWork:
    """The work under one lease, on the audience as it was last read."""

    members: MemberService
    shards: ShardWorker
    clock: Clock
    interval: timedelta
    caller: Caller
    lease: Lease[SegmentFollow]
    most_changed: int = MOST_CHANGED
    stored: Stored[Audience] = field(init=False)
    merged: MergeResult | None = field(default=None, init=False)

    # what is at hand ------------------------------------------------------------------------------

    @property
    def audience(self) -> Audience:
        """The audience as it was read."""
        return self.stored.entity

    @property
    def binding(self) -> SegmentBinding:
        """What it follows; LeaseLostError when that is no longer what the work is about."""
        binding = self.audience.segment
        if binding is None or binding.binding_id != self.follow.binding_id:
            raise LeaseLostError
        return binding

    @property
    def follow(self) -> SegmentFollow:
        """How far it was followed, as last committed."""
        return self.lease.job

    @property
    def held(self) -> Manifest | None:
        """The members held."""
        return self.members.audiences.manifest_of(self.audience)

    def keep(self, *_: object) -> None:
        """Keep the lease alive."""
        try:
            self.lease = self.lease.kept()
        except ConflictError as error:
            raise LeaseLostError from error

    def released(self, **fields: Any) -> None:
        """End the run without a change of members."""
        try:
            self.lease = self.lease.committed(**{**fields, "lease_until": None})
        except ConflictError as error:
            raise LeaseLostError from error

    # by steps -------------------------------------------------------------------------------------

    def may_step(self) -> bool:
        """Whether the steps since the last run are all that can have changed the members."""
        follow, now = self.follow, self.clock.now()
        suppressed = follow.rejected.get(RejectReason.SUPPRESSED, 0)
        return (
            len(follow.steps) == SHARDS
            and self.audience.manifest_id is not None
            and self.binding.manifest_id == self.audience.manifest_id
            and follow.compared_at is not None
            and now - follow.compared_at < COMPARE_EVERY
            and follow.era == self._era()
            and (not suppressed or follow.suppressions == self._suppressions())
        )

    def step(self) -> Difference:
        """Apply what the shards told since. Raises OutOfStepError when it does not fit."""
        documents, parcels = self.members.documents, self.shards.parcels
        steps = SegmentSteps(documents, parcels, max_users=2 * self.most_changed)
        binding, suppressions, now = self.binding, self._suppressions(), self.clock.now()
        until = steps.heads(self.audience.organization_id)
        moved = steps.moved(
            self.audience.organization_id, binding.segment_id, self.follow.steps, until
        )
        came, went = self._encoded(moved.came), UserIds(binding).encoded(moved.went, now)
        found = stepped(self.members.store, self.held, came.members, went.members)
        rejected = Counter(self.follow.rejected)
        rejected.update(_reasons(came))
        rejected.subtract(_reasons(went))
        after = self._followed(
            steps=until,
            users=self.follow.users + len(moved.came) - len(moved.went),
            shared=self.follow.shared + found.shared,
            rejected=rejected,
            suppressions=suppressions,
        )
        self._require_sum(after, self.audience.size + found.changes.added - found.changes.removed)
        self._changed(found, after)
        return found

    # as a whole -----------------------------------------------------------------------------------

    def compare(self) -> Difference:
        """Compare all members with all users of the segment."""
        organization_id, audience_id = self._address
        blobs, told = self.members.store.blobs, _Told()
        suppressions = self._suppressions()
        runs = write_runs(blobs, organization_id, audience_id, self._users(told), self.keep)
        whole: list[str] | None = None
        try:
            with Runs(blobs, [BlobKey(organization_id, path) for path in runs]) as wanted:
                ranges = ranges_for(self.held, wanted.rows())
                found = self._differing(wanted, ranges) if self.held else None
                if found is None:
                    found, whole = self._all(wanted, ranges)
            after = self._followed(
                steps=tuple(told.steps),
                users=told.users,
                shared=found.shared,
                rejected=told.rejected,
                suppressions=suppressions,
                compared_at=self.clock.now(),
                era=self._era(),
            )
            self._changed(found, after, whole)
        finally:
            self.members.store.discard_runs(organization_id, [*runs, *(whole or ())])
        return found

    def _users(self, told: _Told) -> Iterator[Any]:
        """The members that the users of the segment are, shard by shard."""
        for shard in range(SHARDS):
            self.keep()
            opened = self._opened(shard)
            names = opened.state.members_of(self.binding.segment_id, opened.book)
            encoded = self._encoded(names)
            told.steps.append(opened.state.number)
            told.users += len(names)
            told.rejected.update(_reasons(encoded))
            yield encoded.members

    def _opened(self, shard: int) -> OpenShard:
        """A shard, which is not kept in memory afterwards."""
        states = replace(self.shards.states, kept=KeptStates(max_states=1))
        return states.read(self.audience.organization_id, shard)

    def _differing(self, wanted: Runs, ranges: list[range]) -> Difference | None:
        """How the members held differ from those wanted; None when very many do."""
        found = Difference()
        for part in compared(self.members.store, wanted, self.held, ranges, found.changes):
            self.keep()
            found.rows.append(part.fresh)
            found.removals.append(part.gone)
            found.shared += part.shared
            if found.size > self.most_changed:
                return None
        return found

    def _all(self, wanted: Runs, ranges: list[range]) -> tuple[Difference, list[str]]:
        """All members wanted as runs, and how many of them are new or others."""
        found = Difference()

        def members(parts: Iterator[Compared]) -> Iterator[Any]:
            for part in parts:
                found.shared += part.shared
                yield part.members

        store = self.members.store
        parts = compared(store, wanted, self.held, ranges, found.changes)
        return found, write_runs(store.blobs, *self._address, members(parts), self.keep)

    # the commit -----------------------------------------------------------------------------------

    def _changed(
        self, found: Difference, after: SegmentFollow, whole: list[str] | None = None
    ) -> None:
        """Commit what is different, together with how far it goes. `whole` are runs of all
        members, None when the difference is to be applied to those held."""
        if not found.changes and self.held is not None:
            self._unchanged(after)
            return
        runs = whole if whole is not None else self._run_of(found)
        merge = partial(self._merge, found, runs, whole is not None)
        try:
            self.members.switch(
                self.caller,
                self.audience.audience_id,
                ACTION,
                "Members followed the segment",
                merge,
                lambda _audience, _result: [*self._noted(after), *self._to_be_sent()],
                status=self._fields,
                upkeep=True,
                require=self._require_unchanged,
            )
        except (ConflictError, LeaseLostError):
            self._discard()
            raise
        finally:
            if whole is None:
                self.members.store.discard_runs(self.audience.organization_id, runs)

    def _noted(self, after: SegmentFollow) -> list[Write]:
        """What says how far the audience was followed; only the holder of the lease can."""
        return [self.lease.stored.replaced_by(after)]

    def _to_be_sent(self) -> list[Write]:
        return to_be_sent(self.members.documents, self.audience, self.clock.now())

    def _unchanged(self, after: SegmentFollow) -> None:
        """The members are those of the segment: only that is noted."""
        if self.binding.manifest_id == self.audience.manifest_id:
            self.released(**dict(after))
            return
        self._require_unchanged(self.members.audiences.records.get(*self._address).entity)
        audience = self.audience.changed(segment=self._at(self.audience.manifest_id))
        self.members.commits.commit(
            self.caller,
            ACTION,
            [self.stored.replaced_by(audience), *self._noted(after)],
            before=self.audience,
            after=audience,
        )

    def _run_of(self, found: Difference) -> list[str]:
        import pyarrow as pa

        rows = pa.concat_tables([no_members(), *found.rows]).combine_chunks()
        if not rows.num_rows:
            return []
        organization_id, audience_id = self._address
        path = f"audience_id={audience_id}/runs/{secrets.token_hex(8)}.arrow"
        write_run(self.members.store.blobs, BlobKey(organization_id, path), rows)
        return [path]

    def _merge(
        self,
        found: Difference,
        runs: list[str],
        replaces: bool,
        parent: Manifest | None,
        manifest_id: str,
    ) -> MergeResult:
        result = self.members.store.merge(
            *self._address,
            manifest_id,
            None if replaces else parent,
            runs,
            () if replaces else found.keys(),
            on_partition=self.keep,
        )
        changes = found.changes
        self.merged = replace(
            result,
            added=changes.added,
            updated=changes.updated,
            duplicate=0,
            removed=changes.removed,
            manifest=result.manifest.changed(parent_id=self.audience.manifest_id),
            rebase=None,
        )
        return self.merged

    def _fields(self, before: Audience) -> Mapping[str, Any]:
        """What the members came of; the first ones make a draft active."""
        assert self.merged is not None
        fields: dict[str, Any] = {"segment": self._at(self.merged.manifest.manifest_id)}
        if before.status is AudienceStatus.DRAFT:
            fields["status"] = AudienceStatus.ACTIVE
            fields["metadata"] = dated(before, AudienceStatus.ACTIVE, self.clock)
        return fields

    def _at(self, manifest_id: str | None) -> SegmentBinding:
        return self.binding.model_copy(update={"manifest_id": manifest_id})

    def _require_unchanged(self, now: Audience) -> None:
        """Other members, or another state, start the run anew; another worker ends it."""
        found = Collection(self.members.documents, self.lease.stored.key.collection, SegmentFollow)
        follow = found.find(*self._address)
        if follow is None or follow.revision != self.lease.stored.revision:
            raise LeaseLostError
        if (now.segment, now.manifest_id) != (self.binding, self.audience.manifest_id):
            raise ConflictError("The audience was changed meanwhile.")
        if why_paused(now) is not None:
            raise ConflictError("The audience was archived or held meanwhile.")

    def _discard(self) -> None:
        """Drop the parts of a manifest that was not committed."""
        members = self.members
        if self.merged is not None:
            manifest = self.merged.manifest
            if members.manifests.find(manifest.organization_id, manifest.manifest_id) is None:
                members.store.discard(self.merged)

    # parts ----------------------------------------------------------------------------------------

    @property
    def _address(self) -> tuple[str, str]:
        return self.audience.organization_id, self.audience.audience_id

    def _encoded(self, names: list[str]) -> Encoded:
        """The members that users are, without those who were erased."""
        refused = self.members.suppressions.refused(self.audience.organization_id)
        return UserIds(self.binding).encoded(names, self.clock.now(), refused)

    def _followed(self, rejected: Counter[str], **fields: Any) -> SegmentFollow:
        """The record after the run. Raises OutOfStepError for counts below zero."""
        if min(rejected.values(), default=0) < 0 or fields["users"] < 0 or fields["shared"] < 0:
            raise OutOfStepError
        now = self.clock.now()
        compared_at = fields.get("compared_at", self.follow.compared_at) or now
        return self.follow.changed(
            **fields,
            rejected={reason: count for reason, count in sorted(rejected.items()) if count},
            in_step_at=now,
            next_at=now + self.interval,
            look_at=compared_at + COMPARE_EVERY,
            paused=None,
            error=None,
            lease_until=None,
            updated_at=now,
        )

    def _require_sum(self, after: SegmentFollow, size: int) -> None:
        """Every user is a member, shares one, or is rejected."""
        if after.users != size + after.shared + sum(after.rejected.values()):
            raise OutOfStepError

    def _era(self) -> str:
        found = marked(self.members.documents)
        return "" if found is None else str(found["era"])

    def _suppressions(self) -> str:
        lists = self.members.suppressions.lists
        return epoch_of(lists.heads(self.audience.organization_id))


@dataclass(slots=True)
class _Told:
    """What the shards say of a segment."""

    steps: list[int] = field(default_factory=list)
    users: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


def why_paused(audience: Audience) -> str | None:
    """Why an audience does not follow its segment, if it does not."""
    if audience.status is AudienceStatus.ARCHIVED:
        return "archived"
    return None if audience.legal_hold is None else "legal_hold"


def _reasons(encoded: Encoded) -> dict[str, int]:
    return dict(encoded.counts.rejected_by_reason)
