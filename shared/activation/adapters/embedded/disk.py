"""Files that are there whole or not at all, also after a crash."""

from __future__ import annotations

import fcntl
import io
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from activation.errors import StorageUnavailableError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@dataclass(frozen=True, slots=True)
class Disk:
    """One file system: `writing` is the folder of unfinished files, `sync` makes things durable.

    Files are made with mode 0600. Methods raise OSError; `failures_named` translates it.
    """

    writing: Path
    sync: Callable[[int], None] = os.fsync

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """A new empty file, gone afterwards under this name."""
        with failures_named():
            self.make_folder(self.writing)
            path = self.writing / f".{secrets.token_hex(16)}"
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def write(self, path: Path, pieces: Iterable[bytes], changed: datetime | None = None) -> None:
        """Fill a file and make it durable; what the source raises goes through as it is.

        `changed` is what the file shall tell as its time of change; None leaves it to the system.
        """
        with path.open("wb", buffering=0) as file:
            for piece in pieces:
                with failures_named():
                    _write_all(file, piece)
            with failures_named():
                if changed is not None:
                    nanoseconds = (changed - EPOCH) // timedelta(microseconds=1) * 1000
                    os.utime(file.fileno(), ns=(nanoseconds, nanoseconds))
                self.sync(file.fileno())

    def make_folder(self, folder: Path) -> None:
        """Make a folder with its parents, each durable in the one above."""
        if folder.is_dir():
            return
        self.make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(0o700)
        self.sync_folder(folder.parent)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        with opened(folder) as descriptor:
            self.sync(descriptor)


def changed_at(status: os.stat_result) -> datetime:
    """When a file was last changed, to the microsecond."""
    return EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    """A descriptor of a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """One at a time, over all threads and processes; the lock ends with its holder. `shared`: as
    many as want to, while nobody has it alone."""
    with opened(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def failures_named() -> Iterator[None]:
    """A full, failing or forbidden disk is a store that does not answer."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailableError("The disk refuses.", reason=_reason(error)) from error


def walk(folder: Path, prefix: str, within: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files below a folder with their relative paths, in order of the whole path.

    Only folders that can hold a path starting with `prefix` are entered; hidden names are
    skipped. A folder sorts as its name with a slash, as it does inside a path.
    """
    try:
        entries = list(os.scandir(folder / within))
    except MISSING:
        return
    named = {entry.name + "/" * entry.is_dir(): entry for entry in entries}
    for name, entry in sorted(named.items()):
        path = within + name
        if name.startswith("."):
            continue
        if name.endswith("/") and path.startswith(prefix[: len(path)]):
            yield from walk(folder, prefix, path)
        elif not name.endswith("/") and path.startswith(prefix):
            yield path, entry


def _write_all(file: io.FileIO, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else "disk").lower().replace(" ", "_")


def sync_tree(folder: Path) -> None:
    """Make all files right below a folder, and their names, durable."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    with opened(folder) as descriptor:
        os.fsync(descriptor)
