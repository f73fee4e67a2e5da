"""The last requests to a platform and its answers, kept per distribution, masked."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from activation import inspection, observability
from activation.domain.entity import new_id
from activation.domain.exchange import KEPT, Exchange, ExchangeLog, is_sampled
from activation.errors import ActivationError
from activation.ports import ABSENT, Batch, Clock, Document, DocumentStore, Key, Query, Write

COLLECTION = "exchanges"
FLUSH_AT = 25
"""Exchanges that wait in memory before they are stored."""
MAX_LOGS = 200


@dataclass(slots=True)
class Recorder:
    """Listens for one distribution; safe to share between threads."""

    logs: ExchangeLogs
    organization_id: str
    distribution_id: str
    _waiting: deque[Exchange] = field(default_factory=lambda: deque(maxlen=KEPT))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wants(self, *, failed: bool) -> bool:
        """Every call that is not about a batch."""
        return True

    def saw(self, exchange: Exchange) -> None:
        """Keep it; enough of them are stored at once."""
        with self._lock:
            self._waiting.append(exchange)
            full = len(self._waiting) >= FLUSH_AT
        if full:
            self.flush()

    def flush(self) -> None:
        """Store what waits. A store that fails costs these exchanges, never the work."""
        with self._lock:
            exchanges = tuple(self._waiting)
            self._waiting.clear()
        if not exchanges:
            return
        try:
            self.logs.add(self.organization_id, self.distribution_id, exchanges)
        except ActivationError as error:
            observability.event(
                "exchanges were not kept",
                level=logging.WARNING,
                distribution_id=self.distribution_id,
                code=error.code,
            )


@dataclass(frozen=True, slots=True)
class BatchListener:
    """Listens while one batch is sent: to all that fails, and to the rest when it is sampled."""

    recorder: Recorder
    batch: str
    sampled: bool

    def wants(self, *, failed: bool) -> bool:
        """Whether the call is worth keeping."""
        return failed or self.sampled

    def saw(self, exchange: Exchange) -> None:
        """Keep it under the batch's name."""
        self.recorder.saw(exchange.model_copy(update={"batch": self.batch}))


def about_batch(batch: str, seq: int) -> AbstractContextManager[None]:
    """Within it, calls are about this batch, the lane's number `seq`; nothing where nobody
    listens."""
    listener = inspection.observer()
    if not isinstance(listener, Recorder):
        return nullcontext()
    return inspection.observed_by(BatchListener(listener, batch, is_sampled(seq)))


@dataclass(frozen=True, slots=True)
class ExchangeLogs:
    """Keeps the last KEPT exchanges of each distribution, in records of their own: what is lost
    in a crash is the newest of them."""

    documents: DocumentStore
    clock: Clock

    @contextmanager
    def recording(self, organization_id: str, distribution_id: str) -> Iterator[None]:
        """Within it, what connectors and the platform say is kept for the distribution."""
        recorder = Recorder(self, organization_id, distribution_id)
        try:
            with inspection.observed_by(recorder):
                yield
        finally:
            recorder.flush()

    def add(
        self, organization_id: str, distribution_id: str, exchanges: Sequence[Exchange]
    ) -> None:
        """Store exchanges, and drop the records that the last KEPT are not in."""
        now = self.clock.now()
        log = ExchangeLog(
            organization_id=organization_id,
            created_at=now,
            updated_at=now,
            distribution_id=distribution_id,
            exchanges=tuple(exchanges),
        )
        key = Key(organization_id, COLLECTION, new_id(now))
        kept, dropped = len(exchanges), []
        for document in self._found(organization_id, distribution_id):
            if kept >= KEPT:
                dropped.append(Write(document.key, None))
            kept += len(document.data["exchanges"])
        self.documents.commit(Batch([Write(key, log.stored(), ABSENT), *dropped]))

    def last(self, organization_id: str, distribution_id: str) -> list[Exchange]:
        """The last KEPT exchanges, oldest first."""
        found = self._found(organization_id, distribution_id)
        logs = [ExchangeLog.restored(document.data) for document in reversed(found)]
        exchanges = [one for log in logs for one in log.exchanges]
        return sorted(exchanges, key=lambda one: one.at)[-KEPT:]

    def deletions(self, organization_id: str, distribution_id: str) -> list[Write]:
        """What takes all of them away."""
        found = self._found(organization_id, distribution_id)
        return [Write(document.key, None) for document in found]

    def _found(self, organization_id: str, distribution_id: str) -> list[Document]:
        """The distribution's records, newest first."""
        equal = {"distribution_id": distribution_id}
        return self.documents.query(Query(organization_id, COLLECTION, equal, limit=MAX_LOGS))
