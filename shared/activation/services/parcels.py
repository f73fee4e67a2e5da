"""Bytes that belong to a record: inside a document while they are few, else in an object."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from activation.ports import ABSENT, BlobKey, BlobStore, Document, DocumentStore, Key, Write

FOLDER = "segments"
PAGE = 100
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
        path = f"{FOLDER}/{key.collection}/{key.id}/{secrets.token_hex(8)}"
        self.blobs.put(BlobKey(key.organization_id, path), data)
        return Write(key, {**content, "object": path}, ABSENT)

    def opened(self, document: Document) -> bytes:
        """The bytes of a document; NotFoundError when its object was replaced meanwhile."""
        name = document.data.get("object")
        if name is not None:
            return self.blobs.get(BlobKey(document.key.organization_id, name))
        return base64.b64decode(document.data["data"])

    def sweep(self, documents: DocumentStore, organization_id: str, before: datetime) -> int:
        """Delete the objects of an organization, made before an instant, that no document names:
        those of workers who died before their commit; returns how many."""
        old = (
            info.key
            for info in self.blobs.list(organization_id, f"{FOLDER}/")
            if info.created_at < before
        )
        count = 0
        while some := list(islice(old, PAGE)):
            owners = [Key(organization_id, *key.path.split("/")[1:3]) for key in some]
            for key, owner in zip(some, documents.get_many(owners), strict=True):
                if owner is None or owner.data.get("object") != key.path:
                    count += self.blobs.delete(key)
        return count


def object_of(write: Write) -> tuple[str, ...]:
    """The name of the object that a write refers to, if any."""
    name = (write.data or {}).get("object")
    return () if name is None else (name,)
