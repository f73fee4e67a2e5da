"""Backups of a whole store: what one says of itself, how long it is kept, and what it must hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import Field

from activation.domain.audience import Audience
from activation.domain.distribution import FINAL, Distribution
from activation.domain.entity import Instant, Value
from activation.domain.event_archive import EventDay
from activation.domain.ledger import Ledger
from activation.domain.manifest import Manifest, Place
from activation.domain.suppression import SuppressionList
from activation.domain.version import AudienceVersion

FORMAT = 1
AREAS = ("members", "backup", "archive", "events", "journal")
"""Areas of objects that a backup holds. Uploads are left out, as they hold readable addresses."""
MAX_AGE = timedelta(days=30)
"""No backup is kept for longer: people who were erased have to leave backups, too."""


class BackupFile(Value):
    """A file of a backup."""

    name: str
    bytes: int
    sha256: str


class AreaTotal(Value):
    """What lies in one area."""

    objects: int = 0
    bytes: int = 0


class StoreBackup(Value):
    """One backup: the document store at one instant, and every object that it names."""

    format: int = FORMAT
    backup_id: str
    started_at: Instant
    taken_at: Instant
    """The state that a restore goes back to."""
    finished_at: Instant
    program: str
    """The release that made it."""
    files: tuple[BackupFile, ...]
    documents: dict[str, int]
    """Documents by collection."""
    organizations: tuple[str, ...] = ()
    areas: dict[str, AreaTotal] = Field(default_factory=dict)
    new_objects: int = 0
    new_bytes: int = 0
    """What this backup added to the folder, its own files included."""
    missing: int = 0
    """Objects that documents name and that the store itself did not have."""
    keys: str
    """What tells the keys of the store from others; says nothing of them."""
    holds_keys: bool = False
    """Whether the keys are in it, sealed by a passphrase."""

    @property
    def total(self) -> AreaTotal:
        """All objects."""
        return AreaTotal(
            objects=sum(area.objects for area in self.areas.values()),
            bytes=sum(area.bytes for area in self.areas.values()),
        )

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json", exclude={"organizations", "files"})


# how long they are kept -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeepRule:
    """Which backups stay: the last ones, and the newest of every hour and day for a while."""

    last: int = 12
    hours: int = 24
    days: int = 30
    max_age: timedelta = field(default=MAX_AGE)


def kept(taken: Mapping[str, datetime], rule: KeepRule, now: datetime) -> set[str]:
    """The ids of backups that stay. The newest stays however old it is."""
    newest_first = sorted(taken, key=lambda one: (taken[one], one), reverse=True)
    young = [one for one in newest_first if now - taken[one] <= rule.max_age]
    found = {*newest_first[:1], *young[: rule.last]}
    found |= _first_of_each(young, taken, "%Y-%m-%dT%H", rule.hours)
    return found | _first_of_each(young, taken, "%Y-%m-%d", rule.days)


def _first_of_each(
    names: Sequence[str], taken: Mapping[str, datetime], form: str, count: int
) -> set[str]:
    """The first of the names in each of the first `count` periods."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(taken[name].strftime(form), name)
    return set(list(found.values())[:count])


# what documents name ----------------------------------------------------------------------------

Named = Iterator[tuple[str, str]]
"""Area and path of objects."""


def named_objects(collection: str, data: Mapping[str, Any]) -> Named:
    """The objects that have to be there because a document names them."""
    if collection in _NAMING:
        yield from _NAMING[collection](data)


def _of_manifest(data: Mapping[str, Any]) -> Named:
    manifest = Manifest.restored(data)
    if manifest.released_at is None:
        yield from _objects(manifest.parts)


def _of_ledger(data: Mapping[str, Any]) -> Named:
    accepted = Ledger.restored(data).accepted
    yield from (("members", part.path) for part in (accepted.partitions if accepted else ()))


def _of_distribution(data: Mapping[str, Any]) -> Named:
    """Lists of one that has ended and is not settled yet; others begin anew after a restore."""
    job = Distribution.restored(data)
    if job.status in FINAL and not job.settled:
        yield from (("members", stage.path) for stage in job.stages if stage.path)
        yield from (
            ("members", part.path) for part in (job.roster.partitions if job.roster else ())
        )


def _of_version(data: Mapping[str, Any]) -> Named:
    backup = AudienceVersion.restored(data).backup
    if backup is not None:
        yield "backup", backup.location


def _of_audience(data: Mapping[str, Any]) -> Named:
    archive = Audience.restored(data).archive
    if archive is not None:
        yield "archive", archive.location


def _of_suppression_list(data: Mapping[str, Any]) -> Named:
    yield from _objects(SuppressionList.restored(data).parts)


def _of_event_day(data: Mapping[str, Any]) -> Named:
    yield from (("events", one.path) for one in EventDay.restored(data).objects)


def _objects(parts: Sequence[Any]) -> Named:
    yield from (("members", part.path) for part in parts if part.place is Place.OBJECT)


_NAMING = {
    "manifests": _of_manifest,
    "ledgers": _of_ledger,
    "distributions": _of_distribution,
    "versions": _of_version,
    "audiences": _of_audience,
    "suppression_lists": _of_suppression_list,
    "event_days": _of_event_day,
}
NAMING = tuple(_NAMING)
"""Collections whose documents name objects."""
