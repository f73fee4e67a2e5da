"""Making a backup while the store works: objects, then the databases, then objects again.

Every object that the copied documents name is in the backup, although nothing is stopped: one that
was there before the first look is copied then, and stays in the backup whatever the sweep deletes
later; a younger one is found by the second look, as the sweep touches nothing that is younger than
a day. Afterwards the names in the documents are compared with what was copied, and where one is
missing, all is done again (docs/adr/0014-backups-of-a-live-store.md).
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import orjson

from activation.adapters.embedded import key_bundle, snapshots
from activation.adapters.embedded.backup_folder import (
    BUS,
    DOCUMENTS,
    KEYS,
    OBJECTS,
    PACKED,
    BackupFolder,
    StoredObject,
    digest_of_file,
    pieces_of,
)
from activation.adapters.embedded.blobs import ABOUT
from activation.adapters.embedded.disk import MISSING, failures_named, walk
from activation.adapters.embedded.packing import pack, pack_lines
from activation.domain.entity import new_id
from activation.domain.store_backup import (
    AREAS,
    NAMING,
    AreaTotal,
    BackupFile,
    StoreBackup,
    named_objects,
)
from activation.errors import InvalidStateError, NotFoundError, StorageUnavailableError
from activation.ports import Clock

LOOKS = 3
COPIERS = 4
SCRATCH = "scratch/"
"""What work sets aside below an organization; nobody needs it afterwards."""

Progress = Callable[[str, float, float], None]
"""What is done now, and how much of how much."""


@dataclass(frozen=True, slots=True)
class StoreFolders:
    """Where a store keeps what."""

    data: Path
    journal: Path

    def area(self, name: str) -> Path:
        """The folder of an area of objects."""
        return self.journal if name == "journal" else self.data / name


@dataclass(frozen=True, slots=True)
class BackupMaker:
    """Makes backups of one store. Raises NotFoundError when there is none, InvalidStateError for a
    folder of another store's, and what `BackupFolder` raises."""

    store: StoreFolders
    folder: BackupFolder
    clock: Clock
    program: str
    progress: Progress = lambda _what, _done, _total: None

    def make(self, passphrase: str | None = None) -> StoreBackup:
        """Make one; with a passphrase the keys of the store are in it, sealed."""
        if not (self.store.data / DOCUMENTS).is_file():
            raise NotFoundError(f"There is no store in {self.store.data}.", reason="no_store")
        key_bundle.fingerprint(self.store.data)  # makes the keys of a store that used none yet
        keys = key_bundle.found_keys(self.store.data)
        sealed = key_bundle.sealed(keys, passphrase) if passphrase is not None else None
        folder = self.folder.prepared()
        with folder.alone():
            self._require_same_store()
            made = _Making(self, self._known())
            return made.done(sealed)

    def _require_same_store(self) -> None:
        """Raise InvalidStateError when the folder holds backups of another store."""
        newest = self.folder.backups()[:1]
        if newest and newest[0].keys != key_bundle.fingerprint(self.store.data):
            raise InvalidStateError(
                f"{self.folder.root} holds backups of another store.", reason="other_store"
            )

    def _known(self) -> dict[tuple[str, str], StoredObject]:
        """What the newest readable backup says of the objects in the folder."""
        for backup_id in self.folder.ids():
            with suppress(StorageUnavailableError):
                return {(one.area, one.name): one for one in self.folder.objects(backup_id)}
        return {}


@dataclass(slots=True)
class _Making:
    """One backup under way."""

    maker: BackupMaker
    known: Mapping[tuple[str, str], StoredObject]
    found: dict[tuple[str, str], StoredObject] = field(default_factory=dict)
    new: Counter[str] = field(default_factory=Counter)

    def done(self, sealed: bytes | None) -> StoreBackup:
        started = self.maker.clock.now()
        backup_id = f"{started:%Y%m%dT%H%M%SZ}-{new_id(started)[-6:]}"
        draft = self.maker.folder.writing / backup_id
        for look in range(LOOKS):
            shutil.rmtree(draft, ignore_errors=True)
            with failures_named():
                self.maker.folder.disk.make_folder(draft)
            self._copy_objects()
            taken_at = self.maker.clock.now()
            self._copy_databases(draft)
            self._copy_objects()
            missing = self._missing(draft)
            if not missing or look == LOOKS - 1:
                break
        else:
            raise AssertionError("unreachable")
        return self._published(draft, backup_id, (started, taken_at), len(missing), sealed)

    # objects ------------------------------------------------------------------------------------

    def _copy_objects(self) -> None:
        """Copy every object that is not in the folder yet."""
        wanted = [one for one in self._listed() if one[:2] not in self.found]
        total, done = sum(size for *_, size in wanted), 0
        with ThreadPoolExecutor(COPIERS) as copiers:
            for copied in copiers.map(lambda one: self._copied(*one), wanted):
                if copied is not None:
                    self.found[copied.area, copied.name] = copied
                    done += copied.size
                self.maker.progress("objects", done, total)
        for folder in {self.maker.folder.pooled(*one[:2]).parent for one in wanted}:
            if folder.is_dir():
                self.maker.folder.disk.sync_folder(folder)

    def _listed(self) -> Iterator[tuple[str, str, int]]:
        for area in AREAS:
            for name, entry in walk(self.maker.store.area(area), ""):
                if name.partition("/")[2].startswith(SCRATCH):
                    continue
                with suppress(FileNotFoundError):
                    yield area, name, entry.stat().st_size

    def _copied(self, area: str, name: str, size: int) -> StoredObject | None:
        """An object in the folder of backups; None when it has gone meanwhile."""
        source, target = self.maker.store.area(area) / name, self.maker.folder.pooled(area, name)
        known = self.known.get((area, name))
        try:
            status = source.stat()
            about = self._about(area, name)
            if target.is_file() and target.stat().st_size == size:
                digest = known.sha256 if known else digest_of_file(target)
                return StoredObject(area, name, size, digest, status.st_mtime_ns, about)
            digest = self._put(source, target)
        except MISSING:
            return None
        self.new["objects"] += 1
        self.new["bytes"] += size
        return StoredObject(area, name, size, digest, status.st_mtime_ns, about)

    def _about(self, area: str, name: str) -> str:
        try:
            return (self.maker.store.area(area) / ABOUT / name).read_text()
        except MISSING:
            return ""

    def _put(self, source: Path, target: Path) -> str:
        digest, disk = hashlib.sha256(), self.maker.folder.disk

        def pieces() -> Iterator[bytes]:
            for piece in pieces_of(source):
                digest.update(piece)
                yield piece

        with disk.temporary() as temporary:
            disk.write(temporary, pieces())
            with failures_named():
                disk.make_folder(target.parent)
                temporary.rename(target)
        return digest.hexdigest()

    # databases ----------------------------------------------------------------------------------

    def _copy_databases(self, draft: Path) -> None:
        """The documents first: what the bus holds may be younger, and then names nothing."""
        for name in (DOCUMENTS, BUS):
            source, copy = self.maker.store.data / name, draft / name
            if not source.is_file():
                continue

            def shown(left: int, total: int, name: str = name) -> None:
                self.maker.progress(name.partition(".")[0], total - left, total)

            snapshots.copied(source, copy, shown)
            pack(copy, draft / (name + PACKED))

    def _missing(self, draft: Path) -> list[tuple[str, str]]:
        """Objects that the copied documents name and that were not copied."""
        return [
            (area, f"{organization_id}/{path}")
            for organization_id, collection, data in snapshots.documents_of(
                draft / DOCUMENTS, NAMING
            )
            for area, path in named_objects(collection, data)
            if (area, f"{organization_id}/{path}") not in self.found
        ]

    # the end ------------------------------------------------------------------------------------

    def _published(
        self,
        draft: Path,
        backup_id: str,
        instants: tuple[datetime, datetime],
        missing: int,
        sealed: bytes | None,
    ) -> StoreBackup:
        documents, organizations = snapshots.counted(draft / DOCUMENTS)
        for name in (DOCUMENTS, BUS):
            (draft / name).unlink(missing_ok=True)
        ordered = sorted(self.found.values(), key=lambda one: (one.area, one.name))
        pack_lines((orjson.dumps(one.line()) for one in ordered), draft / (OBJECTS + PACKED))
        if sealed is not None:
            self.maker.folder.disk.write(draft / KEYS, [sealed])
        files = tuple(
            BackupFile(name=path.name, bytes=path.stat().st_size, sha256=digest_of_file(path))
            for path in sorted(draft.iterdir())
        )
        backup = StoreBackup(
            backup_id=backup_id,
            started_at=instants[0],
            taken_at=instants[1],
            finished_at=self.maker.clock.now(),
            program=self.maker.program,
            files=files,
            documents=documents,
            organizations=organizations,
            areas=_totals(ordered),
            new_objects=self.new["objects"],
            new_bytes=self.new["bytes"] + sum(file.bytes for file in files),
            missing=missing,
            keys=key_bundle.fingerprint(self.maker.store.data),
            holds_keys=sealed is not None,
        )
        self.maker.folder.publish(draft, backup)
        return backup


def _totals(objects: list[StoredObject]) -> dict[str, AreaTotal]:
    counts: Counter[str] = Counter(one.area for one in objects)
    octets: Counter[str] = Counter()
    for one in objects:
        octets[one.area] += one.size
    return {area: AreaTotal(objects=counts[area], bytes=octets[area]) for area in sorted(counts)}
