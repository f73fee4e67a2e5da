"""Derived audiences: their members are those of a source that their rules choose.

A commit that changes a source's members queues a job for each audience derived from it, and so
does one that puts a derived audience out of step by itself. The job compares what the record says
of the last derivation with how things are, so that it may run late, twice, or never in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from activation.documents import Collection, Stored
from activation.domain.audience import (
    Audience,
    AudienceRule,
    AudienceStatus,
    Derivation,
)
from activation.domain.identifier import IdentifierType
from activation.domain.manifest import Manifest
from activation.errors import ConflictError
from activation.ports import Clock
from activation.services.access import retry_conflicts
from activation.services.audiences import dated
from activation.services.jobs import JobRun
from activation.services.members import MemberService

if TYPE_CHECKING:
    from activation.members.derive import Changes
    from activation.members.store import MergeResult

ACTION = "function:audience:derive"
RANGES_AT_ONCE = 8
SOURCE_ARCHIVED = "The source is archived; the members are those it had before."
HELD = "The audience is under legal hold; its members do not follow the source."


@dataclass(frozen=True, slots=True)
class DerivationService:
    """Brings derived audiences in step with their sources: the handler of JobKind.DERIVE."""

    members: MemberService
    clock: Clock

    @property
    def records(self) -> Collection[Audience]:
        """The audiences' records."""
        return self.members.audiences.records

    def run(self, run: JobRun) -> Mapping[str, Any] | None:
        """Choose the members anew, unless the audience is in step; result: the changes."""
        return retry_conflicts(partial(self._attempt, run))

    def _attempt(self, run: JobRun) -> Mapping[str, Any] | None:
        stored = self.records.find(run.job.organization_id, run.job.audience_id or "")
        if stored is None or stored.entity.derived_from is None:
            return {"skipped": "deleted"}
        audience = stored.entity
        if audience.status is AudienceStatus.ARCHIVED:
            return {"skipped": "archived"}
        if audience.legal_hold is not None:
            return self._noted(run, stored, HELD, {"skipped": "legal_hold"})
        source = self.records.get(
            audience.organization_id, stored.entity.derived_from.source_audience_id
        ).entity
        if source.status is AudienceStatus.ARCHIVED:
            return self._noted(run, stored, SOURCE_ARCHIVED, {"skipped": "source_archived"})
        if in_step(audience, source):
            return self._noted(run, stored, None, {"skipped": "in_step"})
        return self._derived(run, stored, source)

    def _noted(
        self, run: JobRun, stored: Stored[Audience], reason: str | None, result: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Say why an audience does not follow, or no longer say it."""
        before = stored.entity
        shown = _noted_as(before, reason)
        if shown == before.status_reason:
            return result
        after = before.changed(status_reason=shown, updated_at=self.clock.now())
        self._commit(run, stored, after, result)
        return None

    def _derived(
        self, run: JobRun, stored: Stored[Audience], source: Audience
    ) -> Mapping[str, Any] | None:
        work = _Work(self, run, stored, source, self.members.audiences.manifest_of(source))
        work.choose()
        try:
            if work.changes or stored.entity.manifest_id is None:
                work.switch()
            else:
                after = stored.entity.changed(**work.stamp(stored.entity.manifest_id))
                self._commit(run, stored, after, work.result())
        finally:
            work.clean_up()
        return None

    def _commit(
        self, run: JobRun, stored: Stored[Audience], after: Audience, result: Mapping[str, Any]
    ) -> None:
        self.members.commits.commit(
            run.caller,
            ACTION,
            [stored.replaced_by(after), *run.completion(result)],
            before=stored.entity,
            after=after,
        )


@dataclass(slots=True)
class _Work:
    """One derivation: runs of the chosen members, and the switch to them."""

    service: DerivationService
    run: JobRun
    stored: Stored[Audience]
    source: Audience
    source_manifest: Manifest | None
    changes: Changes = field(init=False)
    runs: list[str] = field(default_factory=list)
    removals: list[tuple[IdentifierType, bytes]] | None = None
    """Members to take out before the runs; None when the runs are all members there are."""
    merged: MergeResult | None = None

    def choose(self) -> None:
        """Store the chosen members as runs, and compare them with those held."""
        from activation.members.derive import Changes, rechosen

        source, held = (
            self.source_manifest,
            self.service.members.audiences.manifest_of(self.stored.entity),
        )
        self.changes = Changes()
        changed = None if source is None or held is None else self._changed(source)
        if source is None or held is None or changed is None:
            self._choose_all(held)
            return
        self.removals = []
        store, rules = self.service.members.store, self.stored.entity.rules
        self._write(rechosen(store, source, rules, held, changed, self.changes, self.removals))

    def _choose_all(self, held: Manifest | None) -> None:
        """Range by range; what is done when the time is over is left to the next worker."""
        from activation.members.derive import chosen, ranges_of

        store, rules = self.service.members.store, self.stored.entity.rules
        ranges = ranges_of(self.source_manifest, held)
        first = self._resumed()
        for start in range(first, len(ranges), RANGES_AT_ONCE):
            if start > first and self.run.clock.monotonic() > self.run.deadline:
                self.run.save(self._state(start), 90 * start / len(ranges))
                self.run.pause()
            some = ranges[start : start + RANGES_AT_ONCE]
            self._write(chosen(store, self.source_manifest, rules, held, self.changes, some))

    def _write(self, tables: Iterator[Any]) -> None:
        from activation.members.archive import write_runs

        def watched() -> Iterator[Any]:
            for table in tables:
                self.run.keep()
                yield table

        audience, store = self.stored.entity, self.service.members.store
        ids = (audience.organization_id, audience.audience_id)
        self.runs += write_runs(store.blobs, *ids, watched(), self.run.keep)

    def _state(self, reached: int) -> dict[str, Any]:
        return {"of": self._basis, "next": reached, "runs": self.runs, **asdict(self.changes)}

    @property
    def _basis(self) -> list[str | None]:
        """What the work is about; none of another basis can be gone on with."""
        audience = self.stored.entity
        return [self.source.manifest_id, audience.manifest_id, digest_of(audience.rules)]

    def _resumed(self) -> int:
        """The range to go on with, after what an earlier call of this job has done."""
        from activation.members.derive import Changes

        state = dict(self.run.job.state)
        if state.get("of") != self._basis:
            organization_id = self.stored.entity.organization_id
            self.service.members.store.discard_runs(organization_id, state.get("runs", ()))
            return 0
        self.runs = list(state["runs"])
        self.changes = Changes(**{one.name: state[one.name] for one in fields(Changes)})
        return int(state["next"])

    def _changed(self, source: Manifest) -> Manifest | None:
        """What may differ from the last derivation, when that is little."""
        from activation.members.derive import differing

        audience = self.stored.entity
        last = audience.derived_from
        if last is None or last.source_manifest_id is None or not followed_last(audience):
            return None
        before = self.service.members.manifests.find(
            audience.organization_id, last.source_manifest_id
        )
        return None if before is None else differing(before.entity, source)

    def switch(self) -> None:
        """Put the chosen members in the place of those held, in one commit with the job's end."""
        audience = self.stored.entity
        try:
            self.service.members.switch(
                self.run.caller,
                audience.audience_id,
                ACTION,
                "Members chosen from the source",
                self._merge,
                lambda _audience, _result: self.run.completion(self.result()),
                status=self._fields,
                upkeep=True,
                require=self._require_unchanged,
            )
        except ConflictError:
            self._discard()
            raise

    def stamp(self, manifest_id: str) -> dict[str, Any]:
        """The fields that say what the members were chosen from."""
        now, audience = self.service.clock.now(), self.stored.entity
        derivation = Derivation(
            source_audience_id=self.source.audience_id,
            source_manifest_id=self.source.manifest_id,
            manifest_id=manifest_id,
            rules_sha256=digest_of(audience.rules),
            derived_at=now,
        )
        return {
            "derived_from": derivation,
            "status_reason": _noted_as(audience, None),
            "updated_at": now,
        }

    def result(self) -> dict[str, Any]:
        """What the job tells."""
        found = self.changes
        return {
            "added": found.added,
            "updated": found.updated,
            "removed": found.removed,
            "size": found.size,
        }

    def clean_up(self) -> None:
        """Drop the runs."""
        store = self.service.members.store
        store.discard_runs(self.stored.entity.organization_id, self.runs)

    def _merge(self, parent: Manifest | None, manifest_id: str) -> MergeResult:
        """A manifest of the chosen members; what was said of them before is not kept."""
        audience = self.stored.entity
        result = self.service.members.store.merge(
            audience.organization_id,
            audience.audience_id,
            manifest_id,
            None if self.removals is None else parent,
            self.runs,
            self.removals or (),
            on_partition=self.run.on_partition,
        )
        found = self.changes
        self.merged = replace(
            result,
            added=found.added,
            updated=found.updated,
            duplicate=0,
            removed=found.removed,
            manifest=result.manifest.changed(parent_id=audience.manifest_id),
            rebase=None,
        )
        return self.merged

    def _require_unchanged(self, now: Audience) -> None:
        """Another derivation, other rules or other members start the work anew."""
        audience = self.stored.entity
        mine = (audience.derived_from, audience.rules, audience.manifest_id)
        if (now.derived_from, now.rules, now.manifest_id) != mine:
            raise ConflictError("The audience was changed meanwhile.")
        if now.status is AudienceStatus.ARCHIVED or now.legal_hold is not None:
            raise ConflictError("The audience was archived or held meanwhile.")

    def _fields(self, before: Audience) -> Mapping[str, Any]:
        """The stamp; the first members make a draft active."""
        assert self.merged is not None
        stamped = self.stamp(self.merged.manifest.manifest_id)
        if before.status is AudienceStatus.DRAFT:
            stamped["status"] = AudienceStatus.ACTIVE
            stamped["metadata"] = dated(before, AudienceStatus.ACTIVE, self.service.clock)
        return stamped

    def _discard(self) -> None:
        """Drop the parts of a manifest that was not committed."""
        members = self.service.members
        if self.merged is not None:
            manifest = self.merged.manifest
            if members.manifests.find(manifest.organization_id, manifest.manifest_id) is None:
                members.store.discard(self.merged)


def _noted_as(audience: Audience, reason: str | None) -> str | None:
    """The status reason that says why the audience does not follow; None takes only ours back."""
    shown = audience.status_reason
    return reason if reason or shown in (SOURCE_ARCHIVED, HELD) else shown


def in_step(audience: Audience, source: Audience) -> bool:
    """Whether a derived audience holds what its rules choose from the source as it is."""
    last = audience.derived_from
    same_source = last is not None and last.source_manifest_id == source.manifest_id
    return same_source and followed_last(audience)


def followed_last(audience: Audience) -> bool:
    """Whether neither its members nor its rules were changed since the last derivation."""
    last = audience.derived_from
    return (
        last is not None
        and last.derived_at is not None
        and last.manifest_id == audience.manifest_id
        and last.rules_sha256 == digest_of(audience.rules)
    )


def digest_of(rules: Sequence[AudienceRule]) -> str:
    """A digest of rules, to notice that they changed."""
    shown = [rule.model_dump(mode="json") for rule in rules]
    return hashlib.sha256(orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)).hexdigest()
