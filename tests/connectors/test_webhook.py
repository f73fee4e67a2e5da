"""The webhook connector against a receiver, and its signature against the scheme's own library."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import standardwebhooks

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.facebook_wire import appsecret_proof
from activation.adapters.connectors.webhook import batch_body, signature, signing_key
from activation.domain.platform import PlatformType
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError
from activation.ports import Account, Connector, Connectors
from activation.twins.faults import Fault
from activation.twins.members import set_digest
from activation.twins.server import RunningTwins
from activation.twins.webhook import WebhookTwin
from tests.connectors.support import (
    ADD,
    OLD_WEBHOOK_SECRET,
    WEBHOOK_SECRET,
    Columns,
    digest_of,
    members_of,
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


# Listing ----------------------------------------------------------------------------------------


@pytest.fixture
def lister(running: RunningTwins) -> Account:
    return webhook_account(running, list_url=f"{running.url_of('webhook')}/members?tenant=7")


def test_a_receiver_tells_what_it_holds_in_pages(
    webhook: Connector, lister: Account, webhook_twin: WebhookTwin
) -> None:
    webhook_twin._page_size = 7
    delivery = to(ADD, ADD.external_id)
    assert list(webhook.listing(lister, delivery)) == []
    more: Columns = {"customer_id": ["=1+1", "'x", "b"], "maid": [None, "M-1", None]}
    webhook.send(lister, delivery, 1, people(20))
    webhook.send(lister, delivery, 2, more)
    webhook.send(lister, to(delivery, "x", operation="remove"), 1, people(5))
    listed = list(webhook.listing(lister, delivery))
    assert sorted(listed) == members_of(people(15, start=5), more)
    assert len(listed) == len(set(listed))
    assert webhook_twin.state()["requests"]["GET 200"] == 1 + -(-len(listed) // 7)


def test_only_a_receiver_with_an_address_for_it_lists(
    webhook: Connector, account: Account, registry: Connectors
) -> None:
    url = {"list_url": "https://hooks.example.com/members"}
    assert registry.spec_for(PlatformType.WEBHOOK, url).lists_members
    assert registry.connector(PlatformType.WEBHOOK, url).spec.lists_members
    assert not webhook.spec.lists_members
    with pytest.raises(PlatformError) as caught:
        webhook.listing(account, ADD)
    assert caught.value.reason == "unsupported"


def test_a_page_is_only_for_who_asks_for_it_with_the_key(
    webhook: Connector, lister: Account, running: RunningTwins, clock: MovableClock
) -> None:
    stranger = dataclasses.replace(
        lister,
        credentials={"signing_secret": "whsec_" + "bm90LXRoZS1rZXktb2YtdGhlLXJlY2VpdmVyIQ=="},
    )
    with pytest.raises(PlatformAuthError):
        list(webhook.listing(stranger, ADD))
    now = int(clock.now().timestamp())
    signed = signature(signing_key(WEBHOOK_SECRET), f"list.{ADD.external_id}", now, b"")
    answer = httpx.get(
        f"{running.url_of('webhook')}/members?audience_id=another",
        headers={
            "webhook-id": f"list.{ADD.external_id}",
            "webhook-timestamp": str(now),
            "webhook-signature": signed,
        },
    )
    assert answer.status_code == 401


@pytest.mark.parametrize("kind", ["cut", "truncate", "reset", "lost"])
def test_half_a_page_is_asked_for_again(
    webhook: Connector, lister: Account, webhook_twin: WebhookTwin, kind: str
) -> None:
    webhook.send(lister, to(ADD, "x"), 1, people(9))
    webhook_twin.faults.plan(Fault(kind, method="GET"))
    assert sorted(webhook.listing(lister, ADD)) == members_of(people(9))


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b'{"type":"email","value":"a"}\n', PlatformTransientError, None),
        (b"", PlatformTransientError, None),
        (b"<html>", PlatformTransientError, None),
        (b'{"next":"a b"}', PlatformError, "unreadable_listing"),
        (b'{"next":7}', PlatformError, "unreadable_listing"),
        (b'{"next":"x"}', PlatformError, "unreadable_listing"),
        (b'{"type":"nickname","value":"a"}\n{"next":null}', PlatformError, "unreadable_listing"),
        (b'{"type":["email"],"value":"a"}\n{"next":null}', PlatformError, "unreadable_listing"),
        (b'{"type":"email","value":""}\n{"next":null}', PlatformError, "unreadable_listing"),
        (
            b'{"type":"email","value":"nickname"}\n{"next":null}',
            PlatformError,
            "unreadable_listing",
        ),
        (
            b'{"type":"maid","value":"nick name"}\n{"next":null}',
            PlatformError,
            "unreadable_listing",
        ),
        (b'{"type":"email"}\n{"next":null}', PlatformError, "unreadable_listing"),
        (b'7\n{"next":null}', PlatformError, "unreadable_listing"),
    ],
)
def test_a_listing_that_is_none_is_refused_and_not_quoted(
    webhook: Connector,
    lister: Account,
    webhook_twin: WebhookTwin,
    body: bytes,
    kind: type[PlatformError],
    reason: str | None,
) -> None:
    webhook_twin.faults.plan(Fault("status", method="GET", status=200, body=body.decode(), times=9))
    with pytest.raises(PlatformError) as caught:
        list(webhook.listing(lister, ADD))
    assert type(caught.value) is kind
    assert caught.value.reason == reason
    assert "nickname" not in str(caught.value)
