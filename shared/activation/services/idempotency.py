"""Idempotency keys: the same key and body get the first answer again, whatever happened between.

claim ──► work ──► commit of the effect, which also stores the answer
  │                  └─ a later request with the key is answered from the record
  ├─ the same key, still running: 409 with Retry-After
  ├─ the same key, other body: 422
  └─ the worker died: after LEASE the next request takes the claim over
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from activation.domain.caller import Caller, Claim
from activation.domain.entity import timestamp
from activation.errors import (
    ConflictError,
    IdempotencyInProgressError,
    IdempotencyKeyReusedError,
)
from activation.ports import ABSENT, Batch, Clock, DocumentStore, Key, Write

COLLECTION = "idempotency"
KEPT = timedelta(hours=24)
LEASE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class IdempotencyService:
    """Claims keys for requests; the record is completed in the commit of the effect."""

    documents: DocumentStore
    clock: Clock

    def claim(
        self, caller: Caller, route: str, key: str, body_sha256: str
    ) -> Claim | dict[str, Any]:
        """Claim `key` for a request, or return the answer that it already had.

        Raises IdempotencyKeyReusedError for another body and IdempotencyInProgressError while
        the first request runs.
        """
        record_id = hashlib.sha256(f"{len(route)}:{route}{key}".encode()).hexdigest()
        address = Key(caller.organization_id, COLLECTION, record_id)
        found = self.documents.get(address)
        if found is None:
            return self._take(address, body_sha256, ABSENT)
        if found.data["body_sha256"] != body_sha256:
            raise IdempotencyKeyReusedError(
                "This Idempotency-Key was used with another body.", field="Idempotency-Key"
            )
        if found.data["answer"] is not None:
            return dict(found.data["answer"])
        now = timestamp(self.clock.now())
        if found.data["lease_until"] > now:
            raise _in_progress()
        return self._take(address, body_sha256, found.revision)

    def finish(self, caller: Caller, claim: Claim, answer: Mapping[str, Any]) -> None:
        """Store the answer of a request that committed nothing by itself."""
        try:
            self.documents.commit(Batch([completion(caller, claim, answer, self.clock.now())]))
        except ConflictError:
            return  # the commit of the effect has stored the answer already

    def release(self, caller: Caller, claim: Claim) -> dict[str, Any] | None:
        """Forget a claim whose request failed, so that the key can be tried again.

        Returns the answer when the key has one by now: the same request, sent again, took the
        claim over and did it, and may be why this one failed (a name that is taken, a full quota).
        """
        address = Key(caller.organization_id, COLLECTION, claim.id)
        try:
            self.documents.commit(Batch([Write(address, None, expected=claim.revision)]))
        except ConflictError:
            found = self.documents.get(address)
            if found is not None and found.data["body_sha256"] == claim.body_sha256:
                answer: dict[str, Any] | None = found.data["answer"]
                return answer
        return None

    def _take(self, address: Key, body_sha256: str, expected: str) -> Claim:
        now = self.clock.now()
        record = _record(body_sha256, now, lease_until=now + LEASE, answer=None)
        try:
            revision = self.documents.commit(Batch([Write(address, record, expected)]))[0]
        except ConflictError as error:
            raise _in_progress() from error
        return Claim(address.id, revision, body_sha256)


def completion(caller: Caller, claim: Claim, answer: Mapping[str, Any], now: datetime) -> Write:
    """The write that completes a claim; it belongs into the commit of the effect."""
    record = _record(claim.body_sha256, now, lease_until=now, answer=answer)
    return Write(Key(caller.organization_id, COLLECTION, claim.id), record, claim.revision)


def _record(
    body_sha256: str, now: datetime, lease_until: datetime, answer: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "body_sha256": body_sha256,
        "lease_until": timestamp(lease_until),
        "answer": answer,
        "due_at": timestamp(now + KEPT),
    }


def _in_progress() -> IdempotencyInProgressError:
    return IdempotencyInProgressError(
        "A request with this Idempotency-Key is still running.",
        field="Idempotency-Key",
        retry_after_seconds=2,
    )
