"""Documents in Firestore, at `organizations/{organization}/{collection}/{id}`.

A stored document has these fields: `data`, our JSON object as text (Firestore's own maps know no
list in a list, no name like `__x__` and no more than 20 levels); `index`, a map with an entry for
each term, because a query may combine any number of equalities but only one look into an array;
`organization_id`; `due_at` where the collection is swept, and the same instant as `expire_at` where
Firestore may delete the document then (it looks only at timestamps of its own kind); and `nonce`,
which makes every write a change: Firestore keeps the update time, which is our revision, when
nothing changes.

Commits are single batched writes with preconditions, never transactions: those wait for each
other. Every query has an equality and goes by descending name, which single-field indexes serve.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import Any

import orjson

from activation.adapters.document_rules import (
    MAX_COMMIT_BYTES,
    Change,
    Term,
    asked_terms,
    changes,
    conflict,
    require_swept,
)
from activation.adapters.gcp.calls import answered, once, patient
from activation.domain.entity import timestamp
from activation.indexes import EXPIRING, INDEXES, SWEPT, UNFILTERED
from activation.ports import ABSENT, Batch, Clock, Document, Key, Query, Revision, Watch

EMULATOR_MAX_COMMIT_BYTES = 4 * 1024 * 1024 - 64 * 1024
"""The emulator refuses larger requests, and Google's client then tries again for a minute."""


class FirestoreDocuments:
    """The port DocumentStore on a Firestore database; `client` is made on first use."""

    def __init__(
        self,
        project: str,
        database: str,
        clock: Clock,
        client: Any = None,
        timeout_seconds: float = 10.0,
    ) -> None:
        self._project = project
        self._database = database
        self._clock = clock
        self._given_client = client
        self._timeout_seconds = timeout_seconds

    def get(self, key: Key) -> Document | None:
        """Return the document as of the last commit, or None."""
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        """`get` for each key, in order, in one round trip."""
        if not keys:
            return []
        references = [self._reference(key) for key in dict.fromkeys(keys)]
        with answered("Firestore"):
            snapshots = list(self._client.get_all(references, **self._bounds))
        found = {s.reference.path: _document(s) for s in snapshots if s.exists}
        return [found.get(_path(key)) for key in keys]

    def query(self, query: Query) -> list[Document]:
        """One page of a query."""
        selected = self._selected(query)
        if query.after is not None:
            after = self._collection(query).document(query.after)
            selected = selected.start_after({"__name__": after})
        return self._documents(selected.limit(query.limit))

    def count(self, query: Query) -> int:
        """How many documents the query has without `after` and `limit`."""
        with answered("Firestore"):
            return int(self._selected(query).count().get(**self._bounds)[0][0].value)

    def due(self, collection: str, until: datetime, limit: int) -> list[Document]:
        """Documents of every organization whose `due_at` has come, oldest first."""
        require_swept(collection)
        group = self._client.collection_group(collection).order_by("due_at")
        return self._documents(_where(group, "due_at", "<=", timestamp(until)).limit(limit))

    def organizations(self) -> list[str]:
        """The ids of all organizations that have a document, sorted."""
        with answered("Firestore"):
            found = self._client.collection("organizations").list_documents(**self._bounds)
            return sorted(str(one.id) for one in found)

    def commit(self, batch: Batch) -> list[Revision]:
        """Apply all writes and keep all messages in the outbox, atomically and durably.

        Tried once: a second try could meet its own first one and call it a conflict.
        """
        prepared = changes(batch, self._clock.now(), self._max_commit_bytes)
        if not prepared:
            return []
        writes = self._client.batch()
        for change in prepared:
            self._add(writes, change)
        with answered("Firestore"), _conflicts(prepared):
            results = writes.commit(**once(self._timeout_seconds))
        return [
            ABSENT if change.json is None else revision_of(result.update_time)
            for change, result in zip(prepared, results, strict=True)
        ][: len(batch.writes)]

    def watch(self, organization_id: str, collection: str) -> Watch:
        """Be told of a collection of few documents."""
        from activation.adapters.gcp.watches import FirestoreWatch

        database = f"projects/{self._project}/databases/{self._database}"
        return FirestoreWatch(self._client, database, organization_id, collection)

    def ping(self) -> None:
        """Return when the store answers; raise StorageUnavailableError otherwise."""
        self.get(Key("ping", "ping", "ping"))

    def close(self) -> None:
        """Release the connection."""
        if "_client" in self.__dict__:
            self._client.close()

    @cached_property
    def _client(self) -> Any:
        from google.cloud.firestore import Client

        return self._given_client or Client(project=self._project, database=self._database)

    @cached_property
    def _bounds(self) -> dict[str, Any]:
        return patient(self._timeout_seconds)

    @property
    def _max_commit_bytes(self) -> int:
        emulated = getattr(self._client, "_emulator_host", None)
        return EMULATOR_MAX_COMMIT_BYTES if emulated else MAX_COMMIT_BYTES

    def _reference(self, key: Key) -> Any:
        return self._client.document(_path(key))

    def _collection(self, query: Query) -> Any:
        return self._client.collection("organizations", query.organization_id, query.collection)

    def _selected(self, query: Query) -> Any:
        collection = self._collection(query)
        selected = collection.order_by("__name__", direction="DESCENDING")
        selected = _where(selected, "organization_id", "==", query.organization_id)
        for term in asked_terms(query):
            selected = _where(selected, f"index.{term[0]}.{_mark(term)}", "==", True)
        if query.since is not None:
            selected = _where(selected, "__name__", ">=", collection.document(query.since))
        return selected

    def _documents(self, selected: Any) -> list[Document]:
        with answered("Firestore"):
            return [_document(snapshot) for snapshot in selected.get(**self._bounds)]

    def _add(self, writes: Any, change: Change) -> None:
        reference = self._reference(change.key)
        option = self._precondition(change)
        if change.json is None:
            writes.delete(reference, option)
        elif change.expected == ABSENT:
            writes.create(reference, _fields(change))
        elif option is None:
            writes.set(reference, _fields(change))
        else:
            writes.update(reference, _fields(change), option)

    def _precondition(self, change: Change) -> Any:
        from google.api_core.datetime_helpers import DatetimeWithNanoseconds

        expected = change.expected
        if expected is None:
            return None
        if expected == ABSENT:
            return self._client.write_option(exists=False)
        try:
            update_time = DatetimeWithNanoseconds.from_rfc3339(expected)
        except ValueError as error:
            raise conflict(change.key.collection) from error
        return self._client.write_option(last_update_time=update_time)


def firestore_indexes() -> dict[str, Any]:
    """`firestore.indexes.json`: exactly the single-field indexes that our queries use.

    There is no composite index: equalities and a descending name are answered by merging
    single-field ones. What is not listed here keeps Firestore's default.
    """
    listed = {"order": "DESCENDING", "queryScope": "COLLECTION"}
    swept = {"order": "ASCENDING", "queryScope": "COLLECTION_GROUP"}
    overrides = []
    for collection in sorted({*INDEXES, *SWEPT, *UNFILTERED}):
        fields = {"data": [], "index": [listed], "nonce": [], "organization_id": [listed]}
        if collection in SWEPT:
            fields["due_at"] = [swept]
        if collection in EXPIRING:
            fields["expire_at"] = []
        overrides += [
            {"collectionGroup": collection, "fieldPath": field, "indexes": indexes}
            | ({"ttl": True} if field == "expire_at" else {})
            for field, indexes in sorted(fields.items())
        ]
    return {"indexes": [], "fieldOverrides": overrides}


def _path(key: Key) -> str:
    return f"organizations/{key.organization_id}/{key.collection}/{key.id}"


def _fields(change: Change) -> dict[str, Any]:
    """All fields, so that an update of them replaces the document."""
    index: dict[str, dict[str, bool]] = {}
    for term in change.terms:
        index.setdefault(term[0], {})[_mark(term)] = True
    fields: dict[str, Any] = {
        "data": (change.json or b"").decode(),
        "index": index,
        "nonce": secrets.token_hex(8),
        "organization_id": change.key.organization_id,
    }
    if change.key.collection in SWEPT:
        fields["due_at"] = change.due_at
    if change.key.collection in EXPIRING and change.due_at:
        fields["expire_at"] = datetime.fromisoformat(change.due_at)
    return fields


def _mark(term: Term) -> str:
    """The term's value as a field name: Firestore limits what may stand in one, values are free."""
    return "v" + hashlib.sha256(term[1].encode()).hexdigest()[:32]


def _where(selected: Any, field: str, operator: str, value: Any) -> Any:
    from google.cloud.firestore_v1.base_query import FieldFilter

    return selected.where(filter=FieldFilter(field, operator, value))


def _document(snapshot: Any) -> Document:
    _, organization_id, collection, id_ = snapshot.reference.path.split("/")
    data = orjson.loads(snapshot.get("data"))
    return Document(Key(organization_id, collection, id_), data, revision_of(snapshot.update_time))


def revision_of(update_time: Any) -> Revision:
    """An update time to the nanosecond; collection groups have it as protobuf's own type."""
    from google.api_core.datetime_helpers import DatetimeWithNanoseconds
    from google.protobuf.timestamp_pb2 import Timestamp

    if isinstance(update_time, Timestamp):
        update_time = DatetimeWithNanoseconds.from_timestamp_pb(update_time)
    return str(update_time.rfc3339())


@contextmanager
def _conflicts(prepared: Sequence[Change]) -> Iterator[None]:
    """Raise ConflictError for a precondition that did not hold, and for a collision."""
    from google.api_core.exceptions import Aborted, AlreadyExists, FailedPrecondition, NotFound

    try:
        yield
    except (Aborted, AlreadyExists, FailedPrecondition) as error:
        raise conflict(prepared[0].key.collection) from error
    except NotFound as error:
        if all(change.expected is None for change in prepared):
            raise
        raise conflict(prepared[0].key.collection) from error
