"""The model of a storage server: one bucket, objects with generations, preconditions, sessions."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import google_crc32c

from activation.ports import Clock

STORAGE_CLASSES = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
WRITABLE = ("contentType", "metadata", "storageClass")
CHUNK_QUANTUM = 256 * 1024


class RefusedError(Exception):
    """An answer with an error status, as the JSON API words it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class StoredObject:
    """One generation of an object."""

    name: str
    data: bytes
    generation: int
    created_at: datetime
    crc32c: str
    storage_class: str = "STANDARD"
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    components: int | None = None
    kms_key: str | None = None

    def resource(self, bucket: str) -> dict[str, Any]:
        """The JSON resource."""
        instant = self.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        md5 = hashlib.md5(self.data, usedforsecurity=False).digest()
        composed = {"componentCount": self.components} if self.components else None
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": bucket,
            "generation": str(self.generation),
            "metageneration": "1",
            "size": str(len(self.data)),
            "storageClass": self.storage_class,
            "timeCreated": instant,
            "updated": instant,
            "crc32c": self.crc32c,
            **(composed or {"md5Hash": base64.b64encode(md5).decode()}),
            **({"contentType": self.content_type} if self.content_type else {}),
            **({"metadata": dict(self.metadata)} if self.metadata else {}),
            **({"kmsKeyName": self.kms_key} if self.kms_key else {}),
        }


def checksum(data: bytes) -> str:
    """CRC32C, as Cloud Storage writes it."""
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


@dataclass
class Session:
    """A resumable upload under way."""

    name: str
    resource: Mapping[str, Any]
    conditions: Mapping[str, str]
    data: bytearray = field(default_factory=bytearray)
    finished: StoredObject | None = None


class Objects:
    """The objects of one bucket; every method is one atomic step."""

    def __init__(self, bucket: str, clock: Clock, kms_key: str | None = None) -> None:
        self.bucket = bucket
        self.clock = clock
        self.kms_key = kms_key
        self._lock = threading.RLock()
        self._live: dict[str, StoredObject] = {}
        self._sessions: dict[str, Session] = {}
        self._generation = 1_700_000_000_000_000

    def find(self, name: str, generation: str | None = None) -> StoredObject:
        """The live object, of this generation if one is asked for."""
        found = self._live.get(name)
        if found is None or (generation is not None and int(generation) != found.generation):
            raise RefusedError(404, "notFound")
        return found

    def create(
        self,
        name: str,
        data: bytes,
        resource: Mapping[str, Any],
        conditions: Mapping[str, str],
        components: int | None = None,
    ) -> StoredObject:
        """Store a new generation, when the preconditions hold and the checksums agree."""
        storage_class = resource.get("storageClass") or "STANDARD"
        if storage_class not in STORAGE_CLASSES:
            raise RefusedError(400, "invalid")
        with self._lock:
            self.require(name, conditions)
            self._generation += 1
            made = StoredObject(
                name=name,
                data=data,
                generation=self._generation,
                created_at=self.clock.now(),
                crc32c=checksum(data),
                storage_class=storage_class,
                content_type=resource.get("contentType"),
                metadata=resource.get("metadata") or {},
                components=components,
                kms_key=self.kms_key,
            )
            if resource.get("crc32c", made.crc32c) != made.crc32c:
                raise RefusedError(400, "invalid")
            self._live[name] = made
        return made

    def require(self, name: str, conditions: Mapping[str, str]) -> None:
        """Refuse with 412 unless the object has the generation that a writer expects."""
        found = self._live.get(name)
        current = found.generation if found else 0
        expected = conditions.get("ifGenerationMatch")
        if expected is not None and int(expected) != current:
            raise RefusedError(412, "conditionNotMet")

    def compose(
        self, name: str, sources: Sequence[str], resource: Mapping[str, Any], conditions: Any
    ) -> StoredObject:
        """Join objects into one."""
        if not 1 <= len(sources) <= 32:
            raise RefusedError(400, "invalid")
        with self._lock:
            parts = [self.find(source) for source in sources]
            count = sum(part.components or 1 for part in parts)
            data = b"".join(part.data for part in parts)
            return self.create(name, data, resource, conditions, components=count)

    def rewrite(
        self, source: str, target: str, resource: Mapping[str, Any], conditions: Mapping[str, str]
    ) -> StoredObject:
        """Copy; a body with any metadata replaces all of the source's, as the API documents."""
        with self._lock:
            found = self.find(source, conditions.get("sourceGeneration"))
            given = {name: resource[name] for name in WRITABLE if name in resource}
            kept = {"contentType": found.content_type, "metadata": found.metadata}
            return self.create(target, found.data, given or kept, conditions)

    def delete(self, name: str, conditions: Mapping[str, str]) -> None:
        """Remove the live object."""
        with self._lock:
            self.find(name, conditions.get("generation"))
            self.require(name, conditions)
            del self._live[name]

    def damage(self, name: str) -> None:
        """Lose the last byte of the content, as a fault on the way would."""
        found = self._live[name]
        self._live[name] = replace(found, data=found.data[:-1])

    def listed(self, prefix: str, after: str, limit: int) -> tuple[list[StoredObject], bool]:
        """Up to `limit` objects in name order, and whether there are more."""
        with self._lock:
            names = sorted(n for n in self._live if n.startswith(prefix) and n > after)
            return [self._live[name] for name in names[:limit]], len(names) > limit

    def begin(self, session: Session) -> str:
        """Open a resumable session and return its id."""
        self.require(session.name, session.conditions)
        session_id = secrets.token_hex(16)
        self._sessions[session_id] = session
        return session_id

    def append(
        self, session_id: str, start: int | None, data: bytes, total: int | None
    ) -> StoredObject | int:
        """Add a chunk; the finished object, or how many bytes are kept so far.

        Bytes that are there already are ignored; a gap is refused. All chunks but the last keep
        whole multiples of 256 KiB.
        """
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                raise RefusedError(404, "notFound")
            if session.finished is not None:
                return session.finished
            kept = len(session.data)
            if start is not None and start > kept:
                raise RefusedError(503, "backendError")
            session.data += data[kept - start :] if start is not None else b""
            if total is None or len(session.data) < total:
                del session.data[len(session.data) // CHUNK_QUANTUM * CHUNK_QUANTUM :]
                return len(session.data)
            made = self.create(
                session.name, bytes(session.data), session.resource, session.conditions
            )
            self._sessions[session_id] = replace(session, finished=made, data=bytearray())
            return made
