"""What every document store does with a batch before it is stored, and with a query's filters.

The limits are Firestore's, held everywhere: what works on this machine works in the cloud.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from activation import observability
from activation.errors import ConflictError, PayloadTooLargeError
from activation.indexes import SWEPT, indexed_fields
from activation.message_codec import outbox_write
from activation.ports import Batch, JSONObject, Key, Query, Revision, Write

MAX_DOCUMENT_BYTES = 1_000_000
"""JSON of one document; Firestore takes 1 MiB with names and index entries."""
MAX_COMMIT_BYTES = 10 * 1024 * 1024

MET_EVERY_DAY = frozenset({"idempotency"})
"""Collections where a precondition that does not hold is the usual way to learn something."""

WRITE_OVERHEAD_BYTES = 1024
TERM_BYTES = 64

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

Term = tuple[str, str]
"""A declared field and one of its values as JSON, which keeps `1`, `"1"` and `true` apart."""


@dataclass(frozen=True, slots=True)
class Change:
    """A write, checked and encoded. `json` is None for a delete."""

    key: Key
    expected: Revision | None
    json: bytes | None
    due_at: str | None
    terms: frozenset[Term]

    @property
    def size_bytes(self) -> int:
        """What the write takes of a commit's limit, rounded up generously."""
        return len(self.json or b"") + TERM_BYTES * len(self.terms) + WRITE_OVERHEAD_BYTES


def changes(batch: Batch, now: datetime, max_bytes: int = MAX_COMMIT_BYTES) -> list[Change]:
    """All that a commit has to apply: the batch's writes, then its messages as outbox documents.

    Raises ValueError for what is our own mistake (a key touched twice, a `due_at` nobody would
    look for) and PayloadTooLargeError for a document or commit over its limit.
    """
    writes = [*batch.writes, *(outbox_write(message, now) for message in batch.messages)]
    if len({write.key for write in writes}) != len(writes):
        raise ValueError("A batch touches each key at most once.")
    prepared = [_change(write) for write in writes]
    if sum(change.size_bytes for change in prepared) > max_bytes:
        raise PayloadTooLargeError(f"A commit takes at most {max_bytes:,} bytes.")
    return prepared


def _change(write: Write) -> Change:
    if write.data is None:
        return Change(write.key, write.expected, None, None, frozenset())
    encoded = orjson.dumps(dict(write.data))
    if len(encoded) > MAX_DOCUMENT_BYTES:
        raise PayloadTooLargeError(f"A document takes at most {MAX_DOCUMENT_BYTES:,} bytes.")
    collection = write.key.collection
    due_at = _due_at(collection, write.data)
    return Change(write.key, write.expected, encoded, due_at, terms(collection, write.data))


def _due_at(collection: str, data: JSONObject) -> str | None:
    due_at = data.get("due_at")
    if due_at is None:
        return None
    require_swept(collection)
    if not isinstance(due_at, str) or not _TIMESTAMP.fullmatch(due_at):
        raise ValueError("due_at is text as domain.entity.timestamp makes it.")
    return due_at


def require_swept(collection: str) -> None:
    """Raise ValueError unless documents of the collection may be due."""
    if collection not in SWEPT:
        raise ValueError(f"{collection} is not in indexes.SWEPT.")


def conflict(collection: str) -> ConflictError:
    """The one answer to a precondition that does not hold, on a record of `collection`."""
    if collection not in MET_EVERY_DAY:
        observability.event("store conflict", collection=collection)
    return ConflictError("Somebody else has changed this in the meantime.")


def terms(collection: str, data: JSONObject) -> frozenset[Term]:
    """What the document is found by: each value, or list element, of a declared field."""
    return frozenset(
        (field, _json(value))
        for field in indexed_fields(collection)
        for value in _values(data.get(field))
    )


def asked_terms(query: Query) -> list[Term]:
    """The terms that a document must have; ValueError for a field that is not declared."""
    undeclared = query.equal.keys() - set(indexed_fields(query.collection))
    if undeclared:
        raise ValueError(f"{query.collection} has no index on {', '.join(sorted(undeclared))}.")
    return [(field, _json(value)) for field, value in sorted(query.equal.items())]


def _values(value: Any) -> Iterator[str | bool | int]:
    for element in value if isinstance(value, list | tuple) else (value,):
        if isinstance(element, str | bool | int):
            yield element


def _json(value: str | bool | int) -> str:
    return orjson.dumps(value).decode()
