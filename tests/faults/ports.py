"""Stores whose every call is written down, and at any of which the process may die.

The wrappers stand in front of the real adapters. What they raise, `Crash`, is a BaseException, so
that no `except Exception` of a flow can swallow it, and after it every further call raises it too:
what a dead process would still have cleaned up stays undone.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import IO, Any, TypeVar

from activation.app import App
from activation.ports import (
    Batch,
    BlobInfo,
    BlobKey,
    BlobStore,
    Document,
    DocumentStore,
    Key,
    Message,
    MessageBus,
    Query,
    Revision,
    Watch,
)
from tests.faults.witness import Witness

T = TypeVar("T")

AREAS = (
    *("uploads", "member_blobs", "backup_blobs", "archive_blobs", "event_blobs"),
    "journal_blobs",
)
"""The App's object stores."""


class Crash(BaseException):
    """The process is dead."""


class When(StrEnum):
    """Where in a store call the process dies."""

    BEFORE = "before"
    AFTER = "after"
    """The call has taken effect; nobody learns its answer."""
    TORN = "torn"
    """Half of it has taken effect."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The process dies at call number `call` (from 1), counted over effects or over reads."""

    call: int
    when: When
    of_reads: bool = False

    def __str__(self) -> str:
        return f"{self.when} {'read' if self.of_reads else 'effect'} {self.call}"


@dataclass(slots=True)
class Tape:
    """What one process asked its stores, and the fault that it dies of.

    `gate` is called before each call and may wait there: that is how two processes are
    interleaved.
    """

    fault: Fault | None = None
    gate: Callable[[], None] = lambda: None
    effects: list[str] = field(default_factory=list)
    tearable: list[int] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    published: list[Message] = field(default_factory=list)
    dead: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, name: str, act: Callable[[], T]) -> T:
        """A call that changes nothing."""
        return self._step(self.reads, name, act, None)

    def effect(
        self, name: str, act: Callable[[], T], torn: Callable[[], object] | None = None
    ) -> T:
        """A call that changes a store; `torn` does half of it."""
        return self._step(self.effects, name, act, torn)

    def _step(
        self,
        calls: list[str],
        name: str,
        act: Callable[[], T],
        torn: Callable[[], object] | None,
    ) -> T:
        self.gate()
        when = self._written_down(calls, name, torn is not None)
        if when is When.BEFORE:
            self._die()
        if when is When.TORN:
            if torn is not None:
                torn()
            self._die()
        result = act()
        if when is When.AFTER:
            self._die()
        return result

    def _written_down(self, calls: list[str], name: str, tearable: bool) -> When | None:
        """Note a call; returns where in it the process dies."""
        with self._lock:
            if self.dead:
                raise Crash
            calls.append(name)
            if tearable:
                self.tearable.append(len(calls))
            fault = self.fault
            if fault is None or fault.of_reads != (calls is self.reads):
                return None
            return fault.when if fault.call == len(calls) else None

    def _die(self) -> None:
        self.dead = True
        raise Crash


def attach(app: App, tape: Tape, witness: Witness | None = None) -> App:
    """Put the wrappers between an App that was not used yet and its stores."""
    ports: dict[str, Any] = {area: TapedBlobs(getattr(app, area), area, tape) for area in AREAS}
    ports["documents"] = TapedDocuments(app.documents, tape, witness or Witness())
    ports["bus"] = TapedBus(app.bus, tape)
    app.__dict__.update(ports)
    return app


@dataclass(frozen=True, slots=True)
class TapedDocuments:
    """A commit is all or nothing: it cannot be torn."""

    inner: DocumentStore
    tape: Tape
    witness: Witness

    def get(self, key: Key) -> Document | None:
        return self.tape.read(f"get {key.collection}", lambda: self.inner.get(key))

    def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        return self.tape.read("get many", lambda: self.inner.get_many(keys))

    def query(self, query: Query) -> list[Document]:
        return self.tape.read(f"query {query.collection}", lambda: self.inner.query(query))

    def count(self, query: Query) -> int:
        return self.tape.read(f"count {query.collection}", lambda: self.inner.count(query))

    def due(self, collection: str, until: datetime, limit: int) -> list[Document]:
        return self.tape.read(f"due {collection}", lambda: self.inner.due(collection, until, limit))

    def organizations(self) -> list[str]:
        return self.tape.read("organizations", self.inner.organizations)

    def commit(self, batch: Batch) -> list[Revision]:
        touched = ", ".join(dict.fromkeys(write.key.collection for write in batch.writes))
        return self.tape.effect(f"commit {touched or OUTBOX_ONLY}", lambda: self._commit(batch))

    def watch(self, organization_id: str, collection: str) -> Watch:
        return self.inner.watch(organization_id, collection)

    def _commit(self, batch: Batch) -> list[Revision]:
        revisions = self.inner.commit(batch)
        self.witness.committed(batch)
        return revisions

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


OUTBOX_ONLY = "outbox"


@dataclass(frozen=True, slots=True)
class TapedBlobs:
    """A torn `put` leaves the first half of the bytes under the name."""

    inner: BlobStore
    area: str
    tape: Tape

    def put(self, key: BlobKey, data: bytes | IO[bytes], **options: Any) -> BlobInfo:
        return self.tape.effect(
            f"put {self.area}",
            lambda: self.inner.put(key, data, **options),
            lambda: self._put_half(key, data, options),
        )

    def _put_half(self, key: BlobKey, data: bytes | IO[bytes], options: dict[str, Any]) -> None:
        content = data if isinstance(data, bytes) else data.read()
        self.inner.put(key, content[: len(content) // 2], **options)

    def compose(self, sources: Sequence[BlobKey], target: BlobKey) -> BlobInfo:
        return self.tape.effect(
            f"compose {self.area}",
            lambda: self.inner.compose(sources, target),
            lambda: self.inner.compose(sources[: len(sources) // 2] or sources, target),
        )

    def open(self, key: BlobKey) -> IO[bytes]:
        opened = self.tape.read(f"open {self.area}", lambda: self.inner.open(key))
        return io.BufferedReader(_TapedFile(opened, f"read {self.area}", self.tape))

    def get(self, key: BlobKey, start: int = 0, end: int | None = None) -> bytes:
        return self.tape.read(f"get {self.area}", lambda: self.inner.get(key, start, end))

    def stat(self, key: BlobKey) -> BlobInfo | None:
        return self.tape.read(f"stat {self.area}", lambda: self.inner.stat(key))

    def list(self, organization_id: str, prefix: str = "") -> Iterator[BlobInfo]:
        listed = self.tape.read(
            f"list {self.area}", lambda: [*self.inner.list(organization_id, prefix)]
        )
        return iter(listed)

    def set_class(self, key: BlobKey, storage_class: str) -> None:
        self.tape.effect(f"set class {self.area}", lambda: self.inner.set_class(key, storage_class))

    def delete(self, key: BlobKey) -> bool:
        return self.tape.effect(f"delete {self.area}", lambda: self.inner.delete(key))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def untaped(blobs: BlobStore) -> BlobStore:
    """The store itself, for what is done outside of our processes."""
    return blobs.inner if isinstance(blobs, TapedBlobs) else blobs


class _TapedFile(io.RawIOBase):
    """A reader whose reads are calls."""

    def __init__(self, inner: IO[bytes], name: str, tape: Tape) -> None:
        self._inner, self._name, self._tape = inner, name, tape

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._tape.read(self._name, lambda: self._inner.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def close(self) -> None:
        self._inner.close()
        super().close()


@dataclass(frozen=True, slots=True)
class TapedBus:
    """A torn `publish` loses the later half of the messages."""

    inner: MessageBus
    tape: Tape

    def publish(self, messages: Sequence[Message]) -> None:
        self.tape.effect(
            "publish",
            lambda: self._publish(messages),
            lambda: self._publish(messages[: len(messages) // 2]),
        )

    def revise(self, subscription: str, revised: Callable[[Message], Message | None]) -> bool:
        return self.tape.effect("revise", lambda: self.inner.revise(subscription, revised))

    def _publish(self, messages: Sequence[Message]) -> None:
        self.inner.publish(messages)
        self.tape.published.extend(messages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
