"""Webhooks as values: who is told, which secrets sign, when a delivery is tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activation.domain.entity import timestamp
from activation.domain.webhook import (
    DELAYS,
    MAX_OLD_SECRETS,
    PING,
    DeliveryStatus,
    SecretInfo,
    Webhook,
    WebhookDelivery,
    WebhookEventType,
    WebhookSecrets,
    WebhookStatus,
)

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
COMMON: dict[str, Any] = {
    "organization_id": "acme",
    "created_at": NOW,
    "updated_at": NOW,
    "webhook_id": "w-1",
}


def webhook(**fields: Any) -> Webhook:
    secret = SecretInfo(updated_at=NOW)
    return Webhook(**COMMON, user_id="ann", url="https://x.example", secret_info=secret, **fields)


def delivery(**fields: Any) -> WebhookDelivery:
    given = {"delivery_id": "d-1", "event_id": "e-1", "event_type": "x.y", "payload": {}}
    return WebhookDelivery(**{**COMMON, **given, **fields})


def test_who_names_no_events_gets_them_all() -> None:
    assert all(webhook().wants(event) for event in WebhookEventType)


def test_who_names_events_gets_those() -> None:
    chosen = webhook(events=(WebhookEventType.PLATFORM_RECOVERED,))
    assert [event for event in WebhookEventType if chosen.wants(event)] == [
        WebhookEventType.PLATFORM_RECOVERED
    ]


def test_who_is_disabled_gets_none() -> None:
    off = webhook(status=WebhookStatus.DISABLED)
    assert not any(off.wants(event) for event in WebhookEventType)


def test_old_secrets_sign_for_a_day() -> None:
    kept = WebhookSecrets(**COMMON, version=1, sealed="s1").replaced("s2", NOW)
    assert (kept.version, kept.sealed) == (2, "s2")
    assert [old.version for old in kept.signing(NOW + timedelta(hours=23, minutes=59))] == [1]
    assert kept.signing(NOW + timedelta(hours=24)) == ()


def test_a_second_change_within_the_day_leaves_the_first_secret_its_time() -> None:
    """Whoever lost the answer changes again; what his receiver knows is two changes old."""
    kept = WebhookSecrets(**COMMON, version=1, sealed="s1")
    for number in range(2, 5):
        kept = kept.replaced(f"s{number}", NOW + timedelta(hours=number))
    assert [old.version for old in kept.signing(NOW + timedelta(hours=5))] == [3, 2, 1]
    assert [old.version for old in kept.signing(NOW + timedelta(hours=26, minutes=1))] == [3, 2]
    for number in range(5, 30):
        kept = kept.replaced(f"s{number}", NOW + timedelta(hours=5))
    assert len(kept.old) == MAX_OLD_SECRETS


def test_a_delivery_is_tried_eight_times_in_a_bit_more_than_a_day() -> None:
    one, waits = delivery(), []
    while one.tries_left:
        one = one.changed(attempts=one.attempts + 1)
        if one.tries_left:
            waits.append(one.next_delay(None))
    assert one.attempts == 8
    for wait, least in zip(waits, DELAYS, strict=True):
        assert least <= wait <= least * 1.2
    assert [delay.total_seconds() for delay in DELAYS] == [
        *(5, 300, 1800, 7200, 18000, 36000, 36000)
    ]


def test_deliveries_of_one_moment_come_back_spread() -> None:
    waits = {delivery(delivery_id=f"d-{n}", attempts=2).next_delay(None) for n in range(50)}
    assert len(waits) == 50
    assert max(waits) - min(waits) > timedelta(seconds=30)
    again = delivery(delivery_id="d-7", attempts=2).next_delay(None)
    assert again == delivery(delivery_id="d-7", attempts=2).next_delay(None)


@pytest.mark.parametrize(
    ("asked", "least", "most"), [(900, 900, 900), (1, 5, 6), (10**9, 36000, 36000), (0.0, 5, 6)]
)
def test_a_receiver_may_ask_for_more_patience(asked: float, least: float, most: float) -> None:
    wait = delivery(attempts=1).next_delay(asked).total_seconds()
    assert least <= wait <= most


def test_a_ping_is_tried_once() -> None:
    assert delivery(event_type=PING).tries_left == 1
    assert delivery(event_type=PING, attempts=1).tries_left == 0


def test_what_somebody_waits_for() -> None:
    assert delivery(event_type=PING, attempts=1).is_awaited
    assert delivery(replays=1, attempts=1).is_awaited
    assert not delivery(replays=1, attempts=2).is_awaited
    assert not delivery(attempts=1).is_awaited


def test_the_clock_looks_at_what_waits_and_at_what_is_old() -> None:
    later = NOW + timedelta(minutes=1)
    waiting = delivery(next_at=NOW)
    assert waiting.stored()["due_at"] == timestamp(NOW)
    assert waiting.changed(lease_until=later).stored()["due_at"] == timestamp(later)
    for status in (DeliveryStatus.DELIVERED, DeliveryStatus.FAILED):
        ended = delivery(status=status)
        assert ended.stored()["due_at"] == timestamp(NOW + timedelta(days=30))
        assert WebhookDelivery.restored(ended.stored()) == ended
