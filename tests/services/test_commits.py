"""Idempotency keys and the outbox: once in effect, whatever is repeated or lost."""

from __future__ import annotations

from datetime import timedelta

import pytest

from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.caller import Caller, Claim
from activation.errors import (
    ConflictError,
    IdempotencyInProgressError,
    IdempotencyKeyReusedError,
)
from activation.ports import OUTBOX, Batch, Message

ROUTE = "POST /audiences"
DRAFT = AudienceDraft.model_validate({"name": "Buyers", "type": "first_party"})


def claimed(app: App, caller: Caller, body: str = "a") -> Claim:
    claim = app.idempotency.claim(caller, ROUTE, "key-1", body)
    assert isinstance(claim, Claim)
    return claim


def test_the_first_answer_is_given_again(app: App, ann: Caller) -> None:
    claim = claimed(app, ann)
    created = app.audiences.create(ann.with_claim(claim), DRAFT).entity
    assert app.idempotency.claim(ann, ROUTE, "key-1", "a") == created.public()
    assert app.audiences.count(ann, {}) == 1


def test_another_body_under_the_key_is_refused(app: App, ann: Caller) -> None:
    app.audiences.create(ann.with_claim(claimed(app, ann)), DRAFT)
    with pytest.raises(IdempotencyKeyReusedError):
        app.idempotency.claim(ann, ROUTE, "key-1", "b")


def test_a_running_request_holds_its_key(app: App, ann: Caller) -> None:
    claimed(app, ann)
    with pytest.raises(IdempotencyInProgressError) as refused:
        app.idempotency.claim(ann, ROUTE, "key-1", "a")
    assert refused.value.retry_after_seconds


def test_the_claim_of_a_dead_request_is_taken_over(app: App, ann: Caller) -> None:
    dead = claimed(app, ann)
    app.clock.sleep(61)
    taken = claimed(app, ann)
    with pytest.raises(ConflictError):
        app.audiences.create(ann.with_claim(dead), DRAFT)
    app.audiences.create(ann.with_claim(taken), DRAFT)
    assert app.audiences.count(ann, {}) == 1


def test_a_failed_request_gives_its_key_back(app: App, ann: Caller) -> None:
    app.idempotency.release(ann, claimed(app, ann))
    claimed(app, ann)


def test_keys_of_another_organization_are_others(app: App, ann: Caller, eve: Caller) -> None:
    claimed(app, ann)
    claimed(app, eve, body="z")


def test_old_answers_are_dropped(app: App, ann: Caller) -> None:
    app.audiences.create(ann.with_claim(claimed(app, ann)), DRAFT)
    app.clock.sleep(timedelta(hours=25).total_seconds())
    assert app.due.run()["idempotency"] == 1
    claimed(app, ann)


def test_a_message_that_a_crash_left_is_published_later(app: App) -> None:
    message = Message("distribution-requests", "acme", "m-1", {"distribution_id": "d"})
    app.documents.commit(Batch(messages=[message]))
    assert app.due.run()["outbox"] == 0, "its own request may still publish it"
    app.clock.sleep(31)
    assert app.due.run()["outbox"] == 1
    app.clock.sleep(31)
    assert app.due.run()["outbox"] == 0
    assert app.documents.due(OUTBOX, app.clock.now(), 10) == []
