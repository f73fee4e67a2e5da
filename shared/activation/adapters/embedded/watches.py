"""Being told of documents in SQLite: the file says cheaply whether anybody has committed."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from activation.ports import Document, Key

if TYPE_CHECKING:
    from activation.adapters.embedded.documents import SqliteDocuments

LOOK_SECONDS = 0.05
"""How often one who waits asks whether anybody has committed."""


class SqliteWatch:
    """The port Watch. It has no thread: who waits does the asking, and documents are looked at
    only after a commit."""

    def __init__(self, documents: SqliteDocuments, organization_id: str, collection: str) -> None:
        self._documents = documents
        self._organization_id, self._collection = organization_id, collection
        self._known: dict[str, int] = {}
        self._behind = False
        self._pulse = documents.pulse()
        self._closed = threading.Event()

    def wait(self, timeout_seconds: float) -> list[Document]:
        """The documents that were written since the last call."""
        until = time.monotonic() + timeout_seconds
        while not self._closed.is_set():
            self._behind = self._pulse.beat() or self._behind
            if self._behind and (found := self._written()):
                return found
            left = until - time.monotonic()
            if left <= 0:
                break
            self._closed.wait(min(left, LOOK_SECONDS))
        return []

    def close(self) -> None:
        """Tell nothing more."""
        self._closed.set()
        self._pulse.close()

    def _written(self) -> list[Document]:
        now = self._documents.revisions(self._organization_id, self._collection)
        ids = [id_ for id_, revision in now.items() if self._known.get(id_) != revision]
        keys = [Key(self._organization_id, self._collection, id_) for id_ in ids]
        found = self._documents.get_many(keys)
        self._known, self._behind = now, False
        return [one for one in found if one is not None]
