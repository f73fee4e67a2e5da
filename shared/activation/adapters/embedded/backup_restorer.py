"""Putting a backup into an empty place: beside it first, and there at once when all is done.

The new folder is made as `.{name}.restoring`, so that one that was killed is simply made anew.
Between `prepare` and `finish` the store in it has to hear what happened since the backup.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from activation.adapters.embedded import key_bundle, snapshots
from activation.adapters.embedded.backup_folder import (
    BUS,
    DOCUMENTS,
    KEYS,
    PACKED,
    BackupFolder,
    StoredObject,
    damaged,
    pieces_of,
)
from activation.adapters.embedded.backup_maker import StoreFolders
from activation.adapters.embedded.blobs import ABOUT
from activation.adapters.embedded.disk import Disk, failures_named, walk
from activation.adapters.embedded.packing import unpack
from activation.domain.store_backup import StoreBackup
from activation.errors import InvalidStateError, NotFoundError

JOURNAL = "journal"
WRITING = ".writing"
Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, slots=True)
class BackupRestorer:
    """Restores into `target`; `journal` is where the journal of suppressions lies, None for in
    it. Raises InvalidStateError when something is there already."""

    folder: BackupFolder
    target: Path
    journal: Path | None = None
    progress: Progress = lambda _what, _done, _total: None

    @property
    def draft(self) -> Path:
        """Where the store is until it is finished."""
        return self.target.with_name(f".{self.target.name}.restoring")

    def require_empty(self) -> None:
        """Raise InvalidStateError unless there is room for a store."""
        if self.target.exists() and (not self.target.is_dir() or any(self.target.iterdir())):
            raise InvalidStateError(
                f"{self.target} is not empty; a backup is restored into an empty folder.",
                reason="not_empty",
            )

    def keys_of(
        self, backup: StoreBackup, folder: Path | None, passphrase: str | None
    ) -> Mapping[str, bytes]:
        """The keys that belong to a backup, from a folder that has them or from the backup.

        NotFoundError without any, InvalidStateError for those of another store.
        """
        if folder is not None:
            keys = key_bundle.found_keys(folder)
        elif passphrase is not None and backup.holds_keys:
            bundle = (self.folder.folder_of(backup.backup_id) / KEYS).read_bytes()
            keys = key_bundle.opened(bundle, passphrase)
        else:
            keys = {}
        if key_bundle.KEY_FILES[0] not in keys:
            raise NotFoundError(
                "The keys of the store are needed: those of a folder, or the passphrase of a "
                "backup that holds them.",
                reason="no_keys",
            )
        return keys

    def prepare(self, backup: StoreBackup, keys: Mapping[str, bytes]) -> Path:
        """Make the store beside its place; returns where. What a killed try left goes first."""
        with failures_named():
            shutil.rmtree(self.draft, ignore_errors=True)
            Disk(self.draft).make_folder(self.draft)
        key_bundle.put_keys(self.draft, keys)
        if key_bundle.fingerprint(self.draft) != backup.keys:
            raise InvalidStateError("These are the keys of another store.", reason="other_keys")
        for name in (DOCUMENTS, BUS):
            packed = self.folder.folder_of(backup.backup_id) / (name + PACKED)
            if packed.is_file():
                unpack(packed, self.draft / name)
        snapshots.skip_revisions(self.draft / DOCUMENTS)
        self._put_objects(backup)
        return self.draft

    def add_journal(self, other: Path) -> int:
        """Take over the entries of a journal that was saved from the lost store; returns how
        many were not known."""
        count = 0
        for name, entry in walk(other, ""):
            changed_ns = entry.stat().st_mtime_ns
            count += self._put(self._journal, name, Path(entry.path), changed_ns)
        return count

    def finish(self) -> None:
        """Let the store be there."""
        with failures_named():
            Disk(self.draft).sync_folder(self.draft)
            if self.target.is_dir():
                self.target.rmdir()
            self.draft.rename(self.target)
            Disk(self.target).sync_folder(self.target.parent)

    @property
    def _journal(self) -> Path:
        return self.journal or self.draft / JOURNAL

    def _put_objects(self, backup: StoreBackup) -> None:
        folders, done = StoreFolders(self.draft, self._journal), 0
        touched: set[Path] = set()
        for one in self.folder.objects(backup.backup_id):
            root = folders.area(one.area)
            source = self.folder.pooled(one.area, one.name)
            if self._put(root, one.name, source, one.changed_ns, one.sha256):
                touched.add((root / one.name).parent)
            self._put_about(root, one)
            done += one.size
            self.progress("objects", done, backup.total.bytes)
        for folder in touched:
            Disk(folder).sync_folder(folder)

    def _put(
        self, root: Path, name: str, source: Path, changed_ns: int, sha256: str | None = None
    ) -> bool:
        """Copy an object durably into an area; False when it is there already."""
        target, disk = root / name, Disk(root / WRITING)
        if target.exists():
            return False
        digest = hashlib.sha256()

        def pieces() -> Iterator[bytes]:
            for piece in pieces_of(source):
                digest.update(piece)
                yield piece

        with disk.temporary() as temporary:
            disk.write(temporary, pieces())
            if sha256 is not None and digest.hexdigest() != sha256:
                raise damaged(target.name)
            with failures_named():
                disk.make_folder(target.parent)
                os.utime(temporary, ns=(changed_ns, changed_ns))
                temporary.rename(target)
        return True

    def _put_about(self, root: Path, one: StoredObject) -> None:
        if one.about:
            path = root / ABOUT / one.name
            with failures_named():
                Disk(self.draft).make_folder(path.parent)
                Disk(self.draft).write(path, [one.about.encode()])
