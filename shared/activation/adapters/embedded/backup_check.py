"""Checking a backup: every byte is what was written, and every object that it names is there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from activation.adapters.embedded import snapshots
from activation.adapters.embedded.backup_folder import (
    DOCUMENTS,
    PACKED,
    BackupFolder,
    damaged,
    digest_of_file,
)
from activation.adapters.embedded.disk import MISSING, failures_named
from activation.adapters.embedded.packing import unpack
from activation.domain.store_backup import NAMING, StoreBackup, named_objects

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, slots=True)
class BackupCheck:
    """Raises StorageUnavailableError, naming the first file that is not as it should be."""

    folder: BackupFolder
    progress: Progress = lambda _what, _done, _total: None

    def run(self, backup: StoreBackup) -> StoreBackup:
        """Check files, objects, database and names of a backup; returns it."""
        place = self.folder.folder_of(backup.backup_id)
        for file in backup.files:
            _require(place / file.name, file.bytes, file.sha256)
        names = self._objects(backup)
        with tempfile.TemporaryDirectory() as aside:
            copy = Path(aside) / DOCUMENTS
            unpack(place / (DOCUMENTS + PACKED), copy)
            snapshots.checked(copy)
            self._contents(backup, copy, names)
        return backup

    def _objects(self, backup: StoreBackup) -> set[tuple[str, str]]:
        names: set[tuple[str, str]] = set()
        done, total = 0, backup.total
        for one in self.folder.objects(backup.backup_id):
            _require(self.folder.pooled(one.area, one.name), one.size, one.sha256)
            names.add((one.area, one.name))
            done += one.size
            self.progress("objects", done, total.bytes)
        if (len(names), done) != (total.objects, total.bytes):
            raise damaged("objects")
        return names

    def _contents(self, backup: StoreBackup, copy: Path, names: set[tuple[str, str]]) -> None:
        """The documents are as many as there were, and no more objects are missing than were."""
        if snapshots.counted(copy) != (backup.documents, backup.organizations):
            raise damaged(DOCUMENTS)
        missing = sum(
            (area, f"{organization_id}/{path}") not in names
            for organization_id, collection, data in snapshots.documents_of(copy, NAMING)
            for area, path in named_objects(collection, data)
        )
        if missing != backup.missing:
            raise damaged("objects that documents name")


def _require(path: Path, size: int, sha256: str) -> None:
    with failures_named():
        try:
            same = path.stat().st_size == size and digest_of_file(path) == sha256
        except MISSING:
            same = False
    if not same:
        raise damaged(path.name)
