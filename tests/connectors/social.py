"""Accounts at the twins of the social platforms, and people in the form these take."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.domain.platform import PlatformType
from activation.ports import Account, Connector
from activation.twins.linkedin import TOKEN_PATH as LINKEDIN_TOKENS
from activation.twins.linkedin import LinkedInTwin
from activation.twins.members import TwinAudience, set_digest
from activation.twins.pinterest import TOKEN_PATH as PINTEREST_TOKENS
from activation.twins.pinterest import PinterestTwin
from activation.twins.server import serve
from activation.twins.snapchat import TOKEN_PATH as SNAPCHAT_TOKENS
from activation.twins.snapchat import SnapchatTwin
from activation.twins.tiktok import TikTokTwin
from tests.connectors.support import digest

SNAP_ACCOUNT = "8adc3db7-8148-4fbf-999c-8d2266369d74"
TOKEN = {"access_token": "twin-token"}
REFRESH = {
    "client_id": "twin-client",
    "client_secret": "twin-secret",
    "refresh_token": "twin-refresh",
}


SocialTwin = TikTokTwin | LinkedInTwin | SnapchatTwin | PinterestTwin


@dataclass(frozen=True)
class Kind:
    """How one platform is reached."""

    make: Callable[[MovableClock], SocialTwin]
    settings: Mapping[str, Any]
    urls: Mapping[str, str]
    credentials: Mapping[str, str]
    users_path: str
    """A part of the address to which members go."""
    reads_path: str
    """A part of the address that `check` reads."""


KINDS: Mapping[str, Kind] = {
    "tiktok": Kind(
        TikTokTwin,
        {"advertiser_id": "7001"},
        {"api_url": "/open_api/v1.3"},
        TOKEN,
        "/segment/mapping",
        "/list",
    ),
    "linkedin": Kind(
        lambda clock: LinkedInTwin(clock, settle_seconds=0),
        {"ad_account_id": "501", "source_platform": "TWIN", "settle_seconds": 0},
        {"api_url": "/rest", "token_url": LINKEDIN_TOKENS},
        REFRESH,
        "/users",
        "/dmpSegments",
    ),
    "snapchat": Kind(
        SnapchatTwin,
        {"ad_account_id": SNAP_ACCOUNT},
        {"api_url": "/v1", "token_url": SNAPCHAT_TOKENS},
        REFRESH,
        "/users",
        "/segments",
    ),
    "pinterest": Kind(
        PinterestTwin,
        {"ad_account_id": "549755885175"},
        {"api_url": "/v5", "token_url": PINTEREST_TOKENS},
        REFRESH,
        "/customer_lists/",
        "/customer_lists",
    ),
}


@dataclass
class Stage:
    """A twin behind a socket, an account at it, and the connector under the account's settings."""

    name: str
    kind: Kind
    twin: SocialTwin
    url: str
    registry: ConnectorRegistry
    settings: Mapping[str, Any]

    @property
    def account(self) -> Account:
        """The account with the credentials that the platform is best used with."""
        return self.account_with(self.kind.credentials)

    @property
    def audiences(self) -> dict[str, TwinAudience]:
        """What the twin holds."""
        return self.twin.audiences

    def account_with(self, credentials: Mapping[str, str], **settings: Any) -> Account:
        """The account with other credentials or settings."""
        return Account("platform-s", {**self.settings, **settings}, dict(credentials))

    def connector(self, **settings: Any) -> Connector:
        """The connector, as new."""
        config = {**self.settings, **settings}
        return self.registry.connector(PlatformType(self.name), config)

    def digest(self) -> str:
        """The digest of the one audience there is."""
        (audience,) = self.audiences.values()
        return set_digest(audience.keys)


@contextmanager
def staged(
    name: str, registry: ConnectorRegistry, twin: SocialTwin, **settings: Any
) -> Iterator[Stage]:
    """A stage with this twin, as long as the context lasts."""
    kind = KINDS[name]
    running = serve({name: twin})
    try:
        url = running.url_of(name)
        urls = {setting: f"{url}{path}" for setting, path in kind.urls.items()}
        yield Stage(name, kind, twin, url, registry, {**kind.settings, **urls, **settings})
    finally:
        running.close()


def emails(count: int, start: int = 0) -> dict[str, list[str | None]]:
    """`count` people with an e-mail each."""
    return {"email": [digest(f"person{n}@example.com") for n in range(start, start + count)]}


def guids(count: int) -> list[str]:
    """Device ids, as we store them."""
    return [f"38400000-8cf0-11bd-b23e-{n:012d}" for n in range(1, count + 1)]


def hashed(values: Sequence[str | None]) -> list[str | None]:
    """What becomes of device ids on platforms that want them hashed."""
    return [hashlib.sha256(v.encode()).hexdigest() if v else None for v in values]
