"""The sweep of one audience: deletes what no committed record names.

Two steps, so that it never crosses a flow that is under way. *Release*: a commit guarded by the
audience's revision marks the manifests that no kept version, no distribution and no pointer names;
a restore names the manifest's revision in its own commit, so one of the two fails. *Delete*: GRACE
later, what only released manifests name goes, then their documents. An object that was never
named is deleted when it is older than GRACE, which is longer than any flow takes between writing
an object and committing its name. Objects are listed before the records that name them are read.
For a deleted audience its tombstone is the release.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from activation.documents import Stored
from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionStatus
from activation.domain.manifest import Manifest, Place
from activation.domain.version import AudienceVersion
from activation.errors import ConflictError
from activation.ports import (
    Batch,
    BlobKey,
    BlobStore,
    Clock,
    Document,
    DocumentStore,
    Key,
    Query,
    Write,
)
from activation.services.commits import Commits

GRACE = timedelta(hours=24)
PAGE = 100
PARTS_PAGE = 10
"""Documents with members are large."""
USING_MEMBERS = (
    DistributionStatus.SCHEDULED,
    DistributionStatus.PROCESSING,
    DistributionStatus.FAILED,
)
"""Distributions that still need their members; a failed one may be retried."""


@dataclass(frozen=True, slots=True)
class Areas:
    """The stores of objects."""

    members: BlobStore
    uploads: BlobStore
    archive: BlobStore
    backup: BlobStore


@dataclass(frozen=True, slots=True)
class KeptFor:
    """How long versions keep their members once another one followed, and backups at all."""

    versions: timedelta = timedelta(days=90)
    backups: timedelta = timedelta(days=365)


@dataclass(slots=True)
class AudienceSweep:
    """One round; `stored` is None for an audience that was deleted, at `deleted_at`."""

    commits: Commits
    areas: Areas
    kept_for: KeptFor
    clock: Clock
    caller: Caller
    audience_id: str
    stored: Stored[Audience] | None
    deleted_at: datetime | None = None
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def documents(self) -> DocumentStore:
        return self.commits.documents

    @property
    def before(self) -> datetime:
        """What is younger than this is not touched."""
        return self.clock.now() - GRACE

    @property
    def held(self) -> bool:
        """Whether a legal hold keeps every version and backup there is."""
        return self.stored is not None and self.stored.entity.legal_hold is not None

    def run(self, keep: Callable[[], None]) -> bool:
        """One round; False when nothing is left that a later round would have to look at."""
        objects, parts = self._old_objects(), self._old_parts()
        manifests, kept = list(self._manifests()), self._kept()
        keep()
        named, doomed = self._sorted_out(manifests, kept)
        self._delete_unnamed(objects, parts, named)
        keep()
        for manifest in doomed:
            self._delete_document(manifest)
        self._sweep_copies()
        if self.stored is not None and not self.held:
            self._release(self.stored, manifests, kept)
        return bool(parts or manifests) or self._has_objects()

    # what there is ----------------------------------------------------------------------------

    def _old_objects(self) -> list[str]:
        listed = self.areas.members.list(self._organization, f"audience_id={self.audience_id}/")
        return [one.key.path for one in listed if one.created_at <= self.before]

    def _old_parts(self) -> list[str]:
        """Ids of documents that hold members, by the age of the manifest they were made for."""
        found = self._documents("member_parts", PARTS_PAGE)
        return [one.key.id for one in found if made_at(one.data["manifest_id"]) <= self.before]

    def _manifests(self) -> Iterator[Stored[Manifest]]:
        for one in self._documents("manifests", PAGE):
            yield Stored(Manifest.restored(one.data), one.key, one.revision)

    def _documents(self, collection: str, limit: int) -> Iterator[Document]:
        equal = {"audience_id": self.audience_id}
        query = Query(self._organization, collection, equal, limit=limit)
        while found := self.documents.query(query):
            yield from found
            query = replace(query, after=found[-1].key.id)

    def _has_objects(self) -> bool:
        """Whether any object is left, young ones too."""
        return any(
            next(iter(area.list(self._organization, prefix)), None) is not None
            for area, prefix in (
                (self.areas.members, f"audience_id={self.audience_id}/"),
                (self.areas.archive, f"{self.audience_id}/"),
                (self.areas.backup, f"backups/{self.audience_id}/"),
            )
        )

    # deleting ---------------------------------------------------------------------------------

    def _sorted_out(
        self, manifests: Sequence[Stored[Manifest]], kept: set[str | None]
    ) -> tuple[set[tuple[Place, str]], list[Stored[Manifest]]]:
        """The parts that must stay, and the manifests that go."""
        named: set[tuple[Place, str]] = set()
        doomed = []
        for manifest in manifests:
            released = manifest.entity.released_at
            if released is None and manifest.entity.manifest_id not in kept:
                released = self.deleted_at
            if released is not None and released <= self.before and not self.held:
                doomed.append(manifest)
            else:
                named |= {(part.place, part.path) for part in manifest.entity.parts}
        return named, doomed

    def _delete_unnamed(
        self, objects: Sequence[str], parts: Sequence[str], named: set[tuple[Place, str]]
    ) -> None:
        for path in objects:
            if (Place.OBJECT, path) not in named:
                self.counts["objects"] += self.areas.members.delete(self._key(path))
        for id in parts:  # noqa: A001 — ids of documents
            if (Place.DOCUMENT, id) not in named:
                self.documents.commit(Batch([Write(self._address("member_parts", id), None)]))
                self.counts["documents"] += 1

    def _delete_document(self, manifest: Stored[Manifest]) -> None:
        """The manifest's own document, after what it named; it stays when that was just used."""
        try:
            self.documents.commit(Batch([manifest.deleted()]))
        except ConflictError:
            return
        self.counts["manifests"] += 1

    def _sweep_copies(self) -> None:
        """Archives and backups that nothing names."""
        archive = self.stored.entity.archive if self.stored else None
        idle = self.stored is None or self.stored.entity.updated_at <= self.before
        if idle:
            kept = {archive.location} if archive else set()
            self._sweep_area(self.areas.archive, f"{self.audience_id}/", kept)
        names = set()
        ended = []
        for version in self._versions():
            if version.entity.backup is None:
                continue
            if self.stored is not None:
                names.add(version.entity.backup.location)
            if self._backup_is_over(version.entity):
                ended.append(version)
        self._sweep_area(self.areas.backup, f"backups/{self.audience_id}/", names)
        for version in ended:
            self._forget_backup(version)

    def _sweep_area(self, area: BlobStore, prefix: str, kept: set[str]) -> None:
        for one in list(area.list(self._organization, prefix)):
            if one.created_at <= self.before and one.key.path not in kept:
                self.counts["copies"] += area.delete(one.key)

    def _backup_is_over(self, version: AudienceVersion) -> bool:
        assert version.backup is not None
        if self.stored is None or self.held:
            return not self.held
        audience = self.stored.entity
        deleted = version.version < audience.backups_kept_from
        return deleted or version.backup.created_at <= self.clock.now() - self.kept_for.backups

    def _forget_backup(self, version: Stored[AudienceVersion]) -> None:
        """Take a backup out of its version; the object goes with the next sweep."""
        try:
            self.documents.commit(Batch([version.replaced_by(version.entity.changed(backup=None))]))
        except ConflictError:
            return
        self.counts["backups"] += 1

    # releasing --------------------------------------------------------------------------------

    def _release(
        self,
        stored: Stored[Audience],
        manifests: Sequence[Stored[Manifest]],
        kept: set[str | None],
    ) -> None:
        """Mark what nothing names, guarded by the audience as it was read before."""
        free = [
            one
            for one in manifests
            if one.entity.released_at is None
            and one.entity.manifest_id not in kept
            and one.entity.created_at <= self.before
        ]
        now = self.clock.now()
        for start in range(0, len(free), PAGE):
            group = free[start : start + PAGE]
            marks = [one.replaced_by(one.entity.changed(released_at=now)) for one in group]
            try:
                revision = self.commits.commit(
                    self.caller,
                    "sweep:release",
                    [stored.replaced_by(stored.entity), *marks],
                    details={"manifests": len(marks)},
                )
            except ConflictError:
                return  # the audience has changed; the next sweep looks at it again
            stored = Stored(stored.entity, stored.key, revision)
            self.counts["released"] += len(marks)

    def _kept(self) -> set[str | None]:
        """The manifests that somebody may still ask for."""
        kept: set[str | None] = {
            one.manifest_id for one in self._distributions() if one.status in USING_MEMBERS
        }
        if self.stored is None:
            return kept
        audience, oldest = self.stored.entity, self.clock.now() - self.kept_for.versions
        kept.add(audience.manifest_id)
        followed_at: datetime | None = None
        for version in self._versions():  # newest first
            one = version.entity
            recent = followed_at is None or followed_at > oldest
            if one.version >= audience.members_kept_from and recent:
                kept.add(one.manifest_id)
            followed_at = one.created_at
        return kept

    def _distributions(self) -> Iterator[Distribution]:
        for one in self._documents("distributions", PAGE):
            yield Distribution.restored(one.data)

    def _versions(self) -> Iterator[Stored[AudienceVersion]]:
        for one in self._documents("versions", PAGE):
            yield Stored(AudienceVersion.restored(one.data), one.key, one.revision)

    @property
    def _organization(self) -> str:
        return self.caller.organization_id

    def _key(self, path: str) -> BlobKey:
        return BlobKey(self._organization, path)

    def _address(self, collection: str, id: str) -> Key:  # noqa: A002
        return Key(self._organization, collection, id)


def made_at(id: str) -> datetime:  # noqa: A002
    """When an id of `new_id` was made."""
    return datetime.fromtimestamp((uuid.UUID(id).int >> 80) / 1000, UTC)
