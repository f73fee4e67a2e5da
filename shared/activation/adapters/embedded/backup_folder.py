"""A folder of backups: objects once, and of every backup its databases and its list of objects.

    store-backups.json             says what the folder is
    objects/{area}/{org}/{path}    objects, shared by all backups, as the plain files they are
    backups/{id}/                  manifest.json, documents.sqlite.zst, bus.sqlite.zst,
                                   objects.ndjson.zst, keys.sealed (where asked for)
    .writing/                      what is not finished; anything in it may go

A backup is there once its folder has been renamed into `backups`; what was killed before is not
listed and costs space until the next one. One process at a time makes or prunes backups.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from activation.adapters.embedded.disk import Disk, failures_named, locked, sync_tree, walk
from activation.domain.store_backup import StoreBackup
from activation.errors import InvalidStateError, NotFoundError, StorageUnavailableError

MARK, WRITING = "store-backups.json", ".writing"
MANIFEST = "manifest.json"
DOCUMENTS, BUS = "documents.sqlite", "bus.sqlite"
OBJECTS, KEYS = "objects.ndjson", "keys.sealed"
PACKED = ".zst"
PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a backup remembers it: where it was, what it holds, and what it cannot say of
    itself."""

    area: str
    name: str
    """Organization and path."""
    size: int
    sha256: str
    changed_ns: int
    about: str = ""
    """The note beside it, as JSON."""

    def line(self) -> list[Any]:
        """The form in the list of objects."""
        return [self.area, self.name, self.size, self.sha256, self.changed_ns, self.about]


@dataclass(frozen=True, slots=True)
class BackupFolder:
    """Reads and changes a folder of backups. Raises StorageUnavailableError when the disk fails or
    a file does not hold what was written, NotFoundError for a backup that is not there."""

    root: Path

    def require(self) -> BackupFolder:
        """The folder; NotFoundError when it holds no backups."""
        if not (self.root / MARK).is_file():
            raise NotFoundError(f"There are no backups in {self.root}.", reason="no_backups")
        return self

    def prepared(self) -> BackupFolder:
        """The folder, ready for backups; InvalidStateError when it holds something else."""
        with failures_named():
            self.disk.make_folder(self.root)
            strange = {path.name for path in self.root.iterdir()} - {MARK, WRITING}
            if not (self.root / MARK).exists():
                if strange:
                    raise InvalidStateError(
                        f"{self.root} holds something that is no backup.", reason="not_empty"
                    )
                self.root.chmod(0o700)
                self.disk.write(self.root / MARK, [orjson.dumps({"format": 1})])
            for name in ("backups", "objects"):
                self.disk.make_folder(self.root / name)
            self.disk.make_folder(self.writing)
        return self

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else makes or prunes backups here; waits for whoever does. What somebody who was
        killed has left goes first."""
        with locked(self.root):
            shutil.rmtree(self.writing, ignore_errors=True)
            with failures_named():
                self.disk.make_folder(self.writing)
            yield

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Nobody makes or prunes backups here meanwhile; the folder is only read."""
        with locked(self.root, shared=True):
            yield

    @property
    def disk(self) -> Disk:
        """Its file system."""
        return Disk(self.writing)

    @property
    def writing(self) -> Path:
        """Where unfinished files lie."""
        return self.root / WRITING

    def folder_of(self, backup_id: str) -> Path:
        """Where a backup lies."""
        return self.root / "backups" / backup_id

    def pooled(self, area: str, name: str) -> Path:
        """Where an object lies."""
        return self.root / "objects" / area / name

    # backups ------------------------------------------------------------------------------------

    def ids(self) -> list[str]:
        """The backups there are, newest first."""
        folder = self.root / "backups"
        if not folder.is_dir():
            return []
        return sorted((path.name for path in folder.iterdir()), reverse=True)

    def backups(self) -> list[StoreBackup]:
        """What they say of themselves, newest first; those that are damaged are left out."""
        found = []
        for one in self.ids():
            with suppress(StorageUnavailableError, NotFoundError):
                found.append(self.backup(one))
        return found

    def backup(self, backup_id: str | None = None) -> StoreBackup:
        """One of them, without an id the newest."""
        if backup_id is None:
            backup_id = next(iter(self.ids()), None)
        path = self.folder_of(backup_id or "none") / MANIFEST
        try:
            content = orjson.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError("There is no such backup.", reason="no_backup") from error
        except ValueError as error:
            raise damaged(MANIFEST) from error
        digest = content.pop("sha256", None)
        if digest != _digest_of(content):
            raise damaged(MANIFEST)
        return StoreBackup.model_validate(content)

    def publish(self, draft: Path, backup: StoreBackup) -> None:
        """List a backup whose files lie in `draft`, all at once."""
        content = backup.model_dump(mode="json")
        with failures_named():
            sealed = orjson.dumps({**content, "sha256": _digest_of(content)})
            self.disk.write(draft / MANIFEST, [sealed])
            sync_tree(draft)
            draft.rename(self.folder_of(backup.backup_id))
            self.disk.sync_folder(self.root / "backups")

    def forget(self, backup_id: str) -> None:
        """Take a backup off the list, then its files; its objects stay."""
        gone = self.writing / backup_id
        with failures_named():
            self.folder_of(backup_id).rename(gone)
            self.disk.sync_folder(self.root / "backups")
        shutil.rmtree(gone, ignore_errors=True)

    def objects(self, backup_id: str) -> Iterator[StoredObject]:
        """The objects of a backup."""
        from activation.adapters.embedded.packing import unpacked

        path = self.folder_of(backup_id) / (OBJECTS + PACKED)
        for line in unpacked(path):
            yield StoredObject(*orjson.loads(line))

    def sweep(self) -> tuple[int, int]:
        """Delete objects that no backup names; returns how many, and their bytes."""
        named = {(one.area, one.name) for id in self.ids() for one in self.objects(id)}  # noqa: A001
        count = octets = 0
        for area in sorted(path.name for path in (self.root / "objects").iterdir()):
            for name, entry in list(walk(self.root / "objects" / area, "")):
                if (area, name) not in named:
                    octets += entry.stat().st_size
                    count += 1
                    Path(entry.path).unlink()
        return count, octets


def damaged(name: str) -> StorageUnavailableError:
    """The error for a file of a backup that does not hold what was written."""
    return StorageUnavailableError(f"The backup is damaged: {name}.", reason="damaged_backup")


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pieces_of(path: Path) -> Iterable[bytes]:
    """A file in bounded pieces."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _digest_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
