"""The webhook connector against a receiver, and its signature against the scheme's own library."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import standardwebhooks

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.facebook_wire import appsecret_proof
from activation.adapters.connectors.webhook import batch_body, signature, signing_key
from activation.errors import PlatformAuthError, PlatformError
from activation.ports import Account, Connector
from activation.twins.faults import Fault
from activation.twins.members import set_digest
from activation.twins.server import RunningTwins
from activation.twins.webhook import WebhookTwin
from tests.connectors.support import (
    ADD,
    OLD_WEBHOOK_SECRET,
    WEBHOOK_SECRET,
    digest_of,
    people,
    to,
    webhook_account,
)

VECTORS: list[dict[str, Any]] = orjson.loads(
    (Path(__file__).parents[1] / "data" / "signature_vectors.json").read_bytes()
)


@pytest.fixture
def account(running: RunningTwins) -> Account:
    return webhook_account(running)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["kind"])
def test_signatures_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    if vector["kind"] == "standard_webhooks":
        key = signing_key(vector["secret"])
        body = vector["message"].encode()
        made = signature(key, vector["id"], vector["timestamp"], body)
    else:
        # The form with a time is the same proof over `token|seconds`.
        made = appsecret_proof(vector["secret"], vector["message"])
    assert made == vector["expected"]


def test_the_schemes_own_library_signs_alike(clock: MovableClock) -> None:
    body = batch_body(ADD, 1, people(3), "json")
    now = clock.now()
    theirs = standardwebhooks.Webhook(WEBHOOK_SECRET).sign("msg-1", now, body.decode())
    ours = signature(signing_key(WEBHOOK_SECRET), "msg-1", int(now.timestamp()), body)
    assert ours == theirs


@pytest.mark.parametrize("form", ["ndjson", "json"])
def test_the_final_set_is_what_was_sent(
    webhook: Connector, running: RunningTwins, webhook_twin: WebhookTwin, form: str
) -> None:
    account = webhook_account(running, format=form)
    audience_id = webhook.create_audience(account, ADD)
    delivery = to(ADD, audience_id, batches=2)
    first, second = people(20), people(5, start=20)
    for seq, batch in ((1, first), (1, first), (2, second)):
        webhook.send(account, delivery, seq, batch)
    webhook.send(account, to(delivery, audience_id, operation="remove"), 1, people(4))
    held = webhook_twin.audiences[ADD.external_id].keys
    assert set_digest(held) == digest_of(people(21, start=4))
    number = ADD.distribution_id
    assert webhook_twin.message_ids == [f"{number}.1", f"{number}.2", f"{number}.remove.1"]


def test_a_receiver_with_the_old_key_still_verifies_during_a_change(
    webhook: Connector, account: Account, clock: MovableClock
) -> None:
    changing = dataclasses.replace(
        account,
        credentials={
            "signing_secret": "whsec_" + "bmV3LWtleS1vZi10aGUtc2VuZGVyLTAxMjM0NTY3ODk=",
            "signing_secret_previous": OLD_WEBHOOK_SECRET,
        },
    )
    webhook.check(changing)
    alone = {"signing_secret": changing.credentials["signing_secret"]}
    with pytest.raises(PlatformAuthError):
        webhook.check(dataclasses.replace(changing, credentials=alone))


def test_an_old_message_is_refused_by_the_receiver(
    webhook: Connector, running: RunningTwins, webhook_twin: WebhookTwin
) -> None:
    behind = MovableClock(webhook_twin.clock.now() - timedelta(minutes=6))
    webhook_twin.clock = behind
    with pytest.raises(PlatformAuthError):
        webhook.check(webhook_account(running))


def test_a_receiver_that_is_gone_is_left_alone(
    webhook: Connector, account: Account, webhook_twin: WebhookTwin
) -> None:
    webhook_twin.faults.plan(Fault("status", status=410))
    with pytest.raises(PlatformError) as caught:
        webhook.send(account, to(ADD, "x"), 1, people(1))
    assert caught.value.reason == "gone"
    assert not caught.value.retryable


def test_the_query_of_the_address_is_kept(running: RunningTwins, webhook: Connector) -> None:
    account = webhook_account(running, url=f"{running.url_of('webhook')}/in?tenant=7")
    webhook.check(account)
    assert webhook.match_results(account, ADD, []).final
