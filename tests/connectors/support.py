"""What the connector tests build their cases from."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from activation.domain.delivery import Delivery
from activation.ports import Account
from activation.twins.members import member_key, set_digest
from activation.twins.server import RunningTwins

WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_WEBHOOK_SECRET = "whsec_" + "b2xkLWtleS1vZi10aGUtcmVjZWl2ZXItMDEyMzQ1Njc4OQ=="
MAID = "38400000-8cf0-11bd-b23e-10b96e40000d"

ADD = Delivery(
    distribution_id="0198c2a0-0000-7000-8000-00000000d001",
    external_id="aa-0198c2a0-0000-7000-8000-00000000a001",
    audience_name="Spring buyers",
    description="Bought in spring",
    operation="add",
    rows=3,
    batches=1,
    session_id=9_778_993,
)

Columns = Mapping[str, Sequence[Any]]


def digest(text: str) -> str:
    """A hashed identifier."""
    return hashlib.sha256(text.encode()).hexdigest()


def people(count: int, start: int = 0) -> dict[str, list[str | None]]:
    """`count` people with an e-mail; every second one has a phone too."""
    numbers = range(start, start + count)
    return {
        "email": [digest(f"person{n}@example.com") for n in numbers],
        "phone": [digest(f"+1555{n:07d}") if n % 2 else None for n in numbers],
    }


def digest_of(*batches: Columns) -> str:
    """The digest of the set of identifiers in some batches, as a twin computes it."""
    return set_digest(
        {
            member_key(kind, value)
            for batch in batches
            for kind, values in batch.items()
            for value in values
            if value is not None
        }
    )


def to(delivery: Delivery, audience_id: str, **changes: Any) -> Delivery:
    """The delivery once the platform's audience is known."""
    return dataclasses.replace(delivery, platform_audience_id=audience_id, **changes)


def google_account(
    running: RunningTwins, platform_type: str = "google_ads", **settings: Any
) -> Account:
    """An account at a Google twin."""
    url = running.url_of(platform_type)
    return Account(
        "platform-g",
        {
            "account_id": "1234567890",
            "terms_accepted": True,
            "api_url": url,
            "token_url": f"{url}/token",
            **settings,
        },
        {
            "client_id": "twin-client",
            "client_secret": "twin-secret",
            "refresh_token": "twin-refresh",
        },
    )


def facebook_account(running: RunningTwins, **credentials: str) -> Account:
    """An account at the Meta twin."""
    settings = {"ad_account_id": "1001", "api_url": running.url_of("facebook")}
    return Account("platform-f", settings, {"access_token": "twin-token", **credentials})


def members_of(*batches: Columns) -> list[tuple[str, str]]:
    """The identifiers in some batches, sorted: types and values."""
    return sorted(
        {
            (kind, value)
            for batch in batches
            for kind, values in batch.items()
            for value in values
            if value is not None
        }
    )


def webhook_account(running: RunningTwins, **settings: Any) -> Account:
    """An account at the webhook twin."""
    return Account(
        "platform-w",
        {"url": f"{running.url_of('webhook')}/in", **settings},
        {"signing_secret": WEBHOOK_SECRET},
    )
