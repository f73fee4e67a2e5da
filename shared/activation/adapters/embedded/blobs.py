"""Objects of the embedded back-end: plain files at `root/organization/path`.

An object is one file that any program may read in place. It appears by linking a finished, synced
temporary to its name, which the file system refuses when the name is taken. What a file cannot
say of itself (content type, storage class, metadata) lies at the same path under `root/.about`,
put there before the object appears; an object without such a note has the defaults. The file's
time of change is the object's time of creation.

The lock of a folder is held while an object or its note is put in place, so that a note always
belongs to the object that won the name. Names that start with a dot are ours: no key can hold one.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import IO

from activation.adapters.embedded.disk import (
    MISSING,
    Disk,
    changed_at,
    failures_named,
    locked,
    walk,
)
from activation.adapters.embedded.upload_tokens import UploadGrant, refused
from activation.adapters.object_rules import (
    missing,
    require_composable,
    require_storage_class,
    taken,
    within_limit,
)
from activation.domain.identifier import require_safe_id
from activation.errors import StorageUnavailableError
from activation.ports import BlobInfo, BlobKey, Clock, UploadTarget

PIECE_BYTES = 1024 * 1024
ABOUT, WRITING = ".about", ".writing"
TAKEN = (FileExistsError, NotADirectoryError)


@dataclass(frozen=True, slots=True)
class Note:
    """What a file cannot say of itself."""

    content_type: str = "application/octet-stream"
    storage_class: str = "STANDARD"
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileBlobs:
    """Port BlobStore on a folder; the folder's name is the area's name.

    `signing_key` signs upload addresses; without one they are good for this instance only.
    `base_url` is where clients reach the API; None makes upload addresses relative to it. `sync`
    makes a file or folder durable. When the disk is full or fails, StorageUnavailableError is
    raised and nothing is stored. A name that other objects have as their folder counts as taken.
    """

    root: Path
    clock: Clock
    _: KW_ONLY
    signing_key: bytes = field(default_factory=partial(os.urandom, 32), repr=False)
    base_url: str | None = None
    sync: Callable[[int], None] = field(default=os.fsync, repr=False)

    def put(
        self,
        key: BlobKey,
        data: bytes | IO[bytes],
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        storage_class: str = "STANDARD",
        max_bytes: int | None = None,
    ) -> BlobInfo:
        """Store an object durably; a stream is read in bounded pieces."""
        note = Note(content_type, require_storage_class(storage_class), dict(metadata or {}))
        stream = io.BytesIO(data) if isinstance(data, bytes) else data
        return self._created(key, within_limit(_pieces(stream), max_bytes), note)

    def open(self, key: BlobKey) -> IO[bytes]:
        """A seekable reader: the file itself."""
        with failures_named():
            try:
                return self._path(key).open("rb")
            except MISSING as error:
                raise missing() from error

    def get(self, key: BlobKey, start: int = 0, end: int | None = None) -> bytes:
        """The bytes [start, end)."""
        with self.open(key) as file, failures_named():
            file.seek(start)
            return file.read(-1 if end is None else max(0, end - start))

    def stat(self, key: BlobKey) -> BlobInfo | None:
        """Return what is known of the object, or None."""
        with failures_named():
            try:
                status = self._path(key).stat()
            except MISSING:
                return None
            return self._info(key, status) if stat.S_ISREG(status.st_mode) else None

    def list(self, organization_id: str, prefix: str = "") -> Iterator[BlobInfo]:
        """Objects of one organization in name order."""
        folder = self.root / require_safe_id("organization_id", organization_id)
        for path, entry in walk(folder, prefix):
            with failures_named(), suppress(FileNotFoundError):
                yield self._info(BlobKey(organization_id, path), entry.stat())

    def compose(self, sources: Sequence[BlobKey], target: BlobKey) -> BlobInfo:
        """Join up to 32 objects into a new one, which gets the content type of the first."""
        require_composable(sources)
        with ExitStack() as stack:
            files = [stack.enter_context(self.open(source)) for source in sources]
            note = Note(self._note(sources[0]).content_type)
            return self._created(target, itertools.chain(*map(_pieces, files)), note)

    def set_class(self, key: BlobKey, storage_class: str) -> None:
        """Give an object another storage class; on files that is only a label."""
        wanted, path = require_storage_class(storage_class), self._path(key)
        with failures_named():
            try:
                with locked(path.parent):
                    path.stat()
                    self._put_note(key, replace(self._note(key), storage_class=wanted))
            except MISSING as error:
                raise missing() from error

    def delete(self, key: BlobKey) -> bool:
        """Remove an object, then its note; False when there was none."""
        path = self._path(key)
        with failures_named():
            try:
                with locked(path.parent):
                    path.unlink()
                    self._disk.sync_folder(path.parent)
                    self._note_path(key).unlink(missing_ok=True)
            except MISSING:
                return False
        return True

    def upload_target(
        self, key: BlobKey, *, content_type: str, max_bytes: int, lifetime: timedelta
    ) -> UploadTarget:
        """An address of the API that ends in a token for exactly this object."""
        expires_at = self.clock.now() + lifetime
        address = (self.root.name, key.organization_id, key.path)
        grant = UploadGrant(*address, content_type, max_bytes, expires_at.timestamp())
        url = f"{self.base_url or ''}/api/v1/uploads/{grant.token(self.signing_key)}"
        return UploadTarget("PUT", url, {"Content-Type": content_type}, expires_at)

    def accept(self, token: str, stream: IO[bytes], content_type: str) -> BlobInfo:
        """Store what a client sends to an upload address.

        Raises ForbiddenError for a token that is altered, expired, of another area or for another
        content type; else as `put`.
        """
        grant = UploadGrant.opened(token, self.signing_key, self.root.name, self.clock.now())
        if grant.content_type != content_type:
            raise refused()
        key = BlobKey(grant.organization_id, grant.path)
        return self.put(key, stream, content_type=content_type, max_bytes=grant.max_bytes)

    def sweep_temporaries(self, older_than: timedelta) -> int:
        """Remove what crashed writers left behind; returns how many files that were."""
        oldest, swept = self.clock.now() - older_than, 0
        with failures_named(), suppress(FileNotFoundError):
            for path in (self.root / WRITING).iterdir():
                with suppress(FileNotFoundError):
                    if changed_at(path.stat()) < oldest:
                        path.unlink()
                        swept += 1
        return swept

    def ping(self) -> None:
        """Return when the folder is there and may be written to."""
        with failures_named():
            self._disk.make_folder(self.root)
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            raise StorageUnavailableError("The folder of objects may not be written to.")

    def _created(self, key: BlobKey, pieces: Iterable[bytes], note: Note) -> BlobInfo:
        with self._disk.temporary() as temporary:
            self._disk.write(temporary, pieces, self.clock.now())
            with failures_named():
                try:
                    self._publish(temporary, key, note)
                except TAKEN as error:
                    raise taken() from error
                return _described(key, temporary.stat(), note)

    def _publish(self, temporary: Path, key: BlobKey, note: Note) -> None:
        path = self._path(key)
        self._disk.make_folder(path.parent)
        with locked(path.parent):
            if path.exists():
                raise taken()
            self._put_note(key, note)
            os.link(temporary, path)
        try:
            self._disk.sync_folder(path.parent)
        except OSError:
            path.unlink(missing_ok=True)  # nobody was told of it, and it may not last
            raise

    def _put_note(self, key: BlobKey, note: Note) -> None:
        """Put a note in place durably; one that a crash left there must not stay."""
        path = self._note_path(key)
        if note == Note():
            path.unlink(missing_ok=True)
            return
        self._disk.make_folder(path.parent)
        with self._disk.temporary() as temporary:
            self._disk.write(temporary, [json.dumps(asdict(note)).encode()])
            temporary.replace(path)
        self._disk.sync_folder(path.parent)

    def _note(self, key: BlobKey) -> Note:
        try:
            return Note(**json.loads(self._note_path(key).read_bytes()))
        except MISSING:
            return Note()

    def _info(self, key: BlobKey, status: os.stat_result) -> BlobInfo:
        return _described(key, status, self._note(key))

    def _path(self, key: BlobKey) -> Path:
        return self.root / str(key)

    def _note_path(self, key: BlobKey) -> Path:
        return self.root / ABOUT / str(key)

    @property
    def _disk(self) -> Disk:
        return Disk(self.root / WRITING, self.sync)


def _described(key: BlobKey, status: os.stat_result, note: Note) -> BlobInfo:
    return BlobInfo(
        key=key,
        size_bytes=status.st_size,
        created_at=changed_at(status),
        storage_class=note.storage_class,
        metadata=note.metadata,
        content_type=note.content_type,
    )


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: stream.read(PIECE_BYTES), b"")
