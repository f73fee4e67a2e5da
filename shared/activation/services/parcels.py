"""Bytes that belong to a record: inside a document while they are few, else in an object."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from activation.ports import ABSENT, BlobKey, BlobStore, Document, Key, Write

INLINE_BYTES = 500_000
"""What fits into a document, with a third more for its text form."""


@dataclass(frozen=True, slots=True)
class Parcels:
    """Makes writes of bytes, and bytes of documents. An object's name is never used twice, so that
    two workers at one step do not meet; one without a document is swept by its age."""

    blobs: BlobStore
    inline_bytes: int = INLINE_BYTES

    def packed(self, key: Key, data: bytes, about: Mapping[str, Any] | None = None) -> Write:
        """A write that creates the document; a large object is stored at once."""
        content = {**(about or {}), "size_bytes": len(data)}
        if len(data) <= self.inline_bytes:
            return Write(key, {**content, "data": base64.b64encode(data).decode()}, ABSENT)
        path = f"segments/{key.collection}/{key.id}-{secrets.token_hex(8)}"
        self.blobs.put(BlobKey(key.organization_id, path), data)
        return Write(key, {**content, "object": path}, ABSENT)

    def opened(self, document: Document) -> bytes:
        """The bytes of a document; NotFoundError when its object was replaced meanwhile."""
        name = document.data.get("object")
        if name is not None:
            return self.blobs.get(BlobKey(document.key.organization_id, name))
        return base64.b64decode(document.data["data"])


def object_of(write: Write) -> tuple[str, ...]:
    """The name of the object that a write refers to, if any."""
    name = (write.data or {}).get("object")
    return () if name is None else (name,)
