"""Being told of documents in Firestore: a listener that goes on by itself.

Firestore sends every document once, then each that is written, and bills one read for each. After
an interruption it goes on from a token, without reading all again. Google's own `on_snapshot` opens
a broken stream again at once and without end, and says nothing when it gives up; so this listens to
the stream itself, with pauses. Each has a connection of its own: one carries about a hundred calls
at a time, and streams that do not end would leave no room for others.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import orjson

from activation import observability
from activation.adapters.gcp.documents import revision_of
from activation.ports import Document, Key, Revision

TARGET = 1
FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 10.0
CLOSE_SECONDS = 2.0
CONNECTION = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)
"""A connection that is not shared, and that notices when nobody is there any more."""


class TargetRemovedError(Exception):
    """Firestore does not listen for us any more."""


class FirestoreWatch:
    """The port Watch, with a thread that lasts until it is closed."""

    def __init__(self, client: Any, database: str, organization_id: str, collection: str) -> None:
        self._database = database
        self._listens_on, self._metadata, self._connection = _connected(client)
        self._organization_id, self._collection = organization_id, collection
        self._known: dict[str, Revision] = {}
        self._written: dict[str, Document] = {}
        self._token = b""
        self._pause = FIRST_PAUSE_SECONDS
        self._heard = False
        self._news = threading.Condition()
        self._closed = threading.Event()
        name = f"activation-watch-{organization_id}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wait(self, timeout_seconds: float) -> list[Document]:
        """The documents that were written since the last call."""
        with self._news:
            self._news.wait_for(lambda: self._written or self._closed.is_set(), timeout_seconds)
            found = [] if self._closed.is_set() else list(self._written.values())
            self._written.clear()
            return found

    def close(self) -> None:
        """Tell nothing more, and end the stream."""
        with self._news:
            self._closed.set()
            self._news.notify_all()
        self._connection.close()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - whatever it is, it listens again
                self._interrupted(error)
            self._closed.wait(self._pause)
            self._pause = min(self._pause * 2, MAX_PAUSE_SECONDS)

    def _interrupted(self, error: Exception) -> None:
        """Forget a token that Firestore may not have liked: then it sends all again."""
        code = getattr(error, "code", None)
        reason = code().name if callable(code) else type(error).__name__
        if not self._heard and reason != "UNAVAILABLE":
            self._token = b""
        if not self._closed.is_set():
            observability.event("watch interrupted", reason=reason)

    def _listen(self) -> None:
        """Take in what Firestore says, until the stream ends."""
        ended = threading.Event()
        self._heard = False
        call = self._listens_on(self._requests(ended), metadata=self._metadata)
        try:
            for response in call:
                self._take(type(response).pb(response))
                self._heard = True
        finally:
            ended.set()
            call.cancel()

    def _requests(self, ended: threading.Event) -> Iterator[Any]:
        """What we ask, once; the stream lasts as long as we could ask more."""
        from google.cloud.firestore_v1.types import ListenRequest, StructuredQuery, Target

        query = StructuredQuery(from_=[{"collection_id": self._collection}])
        parent = f"{self._database}/documents/organizations/{self._organization_id}"
        target = Target(
            query=Target.QueryTarget(parent=parent, structured_query=query), target_id=TARGET
        )
        if self._token:
            target.resume_token = self._token
        yield ListenRequest(database=self._database, add_target=target)
        ended.wait()

    def _take(self, response: Any) -> None:
        if response.WhichOneof("response_type") == "target_change":
            self._take_change(response.target_change)
        elif TARGET in response.document_change.target_ids:
            self._tell(response.document_change.document)

    def _take_change(self, change: Any) -> None:
        kind = change.TargetChangeType.Name(change.target_change_type)
        if kind == "REMOVE":
            raise TargetRemovedError
        if kind == "RESET":
            self._token = b""
        elif change.resume_token:
            self._token, self._pause = change.resume_token, FIRST_PAUSE_SECONDS

    def _tell(self, stored: Any) -> None:
        """Hand a document over, unless it was: after an interruption all may come again."""
        id_ = stored.name.rpartition("/")[2]
        revision = revision_of(stored.update_time)
        if self._known.get(id_) == revision:
            return
        key = Key(self._organization_id, self._collection, id_)
        document = Document(key, orjson.loads(stored.fields["data"].string_value), revision)
        with self._news:
            self._known[id_] = revision
            self._written[id_] = document
            self._news.notify_all()


def _connected(client: Any) -> tuple[Any, Any, Any]:
    """How to listen where a client of Google's is connected to: a call, its metadata, and the
    connection to close."""
    import grpc
    from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport

    emulator, target = client._emulator_host, client._target  # noqa: SLF001
    if emulator:
        channel = grpc.insecure_channel(emulator, options=CONNECTION)
    else:
        channel = FirestoreGrpcTransport.create_channel(
            target,
            credentials=client._credentials,  # noqa: SLF001
            options=CONNECTION,
        )
    listen = FirestoreGrpcTransport(host=target, channel=channel).listen
    return listen, client._rpc_metadata, channel  # noqa: SLF001
