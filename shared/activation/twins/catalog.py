"""The twins there are, each with what an account at it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from activation.ports import Clock
from activation.twins import linkedin, pinterest, snapchat, tiktok
from activation.twins.amazon_dsp import AmazonDspTwin
from activation.twins.criteo import CriteoTwin
from activation.twins.facebook import FacebookTwin
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.liveramp import LiveRampTwin
from activation.twins.microsoft_ads import MicrosoftAdsTwin
from activation.twins.the_trade_desk import TWIN_TOKEN, TheTradeDeskTwin
from activation.twins.uid2 import TWIN_KEY, TWIN_SECRET
from activation.twins.webhook import WebhookTwin
from activation.twins.wsgi import Twin

Make = Callable[[Clock, float], Twin]
"""A twin by its clock and the share of people that it knows."""

CLIENT = {
    "client_id": "twin-client",
    "client_secret": "twin-secret",
    "refresh_token": "twin-refresh",
}


SIGNING_SECRET = "whsec_dHdpbi1zaWduaW5nLWtleS0wMTIzNDU2Nzg5"  # noqa: S105 - of the twin only


@dataclass(frozen=True, slots=True)
class Offer:
    """A twin that tells its match results as soon as it is asked, and how to reach it."""

    make: Make
    credentials: Mapping[str, str]
    """What it accepts; no platform in the world does."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings of an account, besides those in `urls`."""
    urls: Mapping[str, str] = field(default_factory=lambda: {"api_url": ""})
    """Settings that are addresses: what comes after the twin's own."""
    requests_per_minute: int | None = None
    """What the twin bears, where the connector would be more careful than it needs."""

    def account(self, platform_type: str, url: str, twin: Twin | None = None) -> dict[str, Any]:
        """What `POST /platforms` takes for the twin, which may be started, at `url`."""
        addresses = {name: f"{url}{path}" for name, path in self.urls.items()}
        more = {} if twin is None else twin.settings()
        settings: dict[str, Any] = {"config": {**self.config, **addresses, **more}}
        if self.requests_per_minute is not None:
            settings["requests_per_minute"] = self.requests_per_minute
        return {
            "platform_type": platform_type,
            "credentials": dict(self.credentials),
            "settings": settings,
        }


OFFERS: Mapping[str, Offer] = {
    "the_trade_desk": Offer(
        lambda clock, rate: TheTradeDeskTwin(clock, match_rate=rate),
        {
            "api_token": TWIN_TOKEN,
            "uid2_api_key": TWIN_KEY,
            "uid2_client_secret": TWIN_SECRET,
        },
        {"advertiser_id": "adv1001", "resolve_with": "uid2"},
        {"data_url": "", "graphql_url": "/graphql", "api_url": "/v3", "uid2_url": "/uid2"},
    ),
    "google_ads": Offer(
        lambda clock, rate: GoogleAdsTwin(clock, match_rate=rate, polls_before_final=0),
        CLIENT,
        {"account_id": "1234567890", "terms_accepted": True, "consent_granted": True},
        {"api_url": "", "token_url": "/token"},
    ),
    "facebook": Offer(
        lambda clock, rate: FacebookTwin(clock, match_rate=rate, match_delay_seconds=0.0),
        {"access_token": "twin-token"},
        {"ad_account_id": "1001"},
        requests_per_minute=6_000,
    ),
    "amazon_dsp": Offer(
        lambda clock, rate: AmazonDspTwin(clock, match_rate=rate),
        CLIENT,
        {
            "manager_account_id": "amzn1.ads-account.g.manager",
            "destination_account_id": "1001",
            "marketplace_id": "ATVPDKIKX0DER",
            "country_code": "US",
            "consent_granted": True,
        },
        {"api_url": "", "token_url": "/auth/o2/token"},
    ),
    "dv360": Offer(
        lambda clock, rate: GoogleAdsTwin(
            clock,
            account_type="DISPLAY_VIDEO_ADVERTISER",
            match_rate=rate,
            polls_before_final=0,
        ),
        CLIENT,
        {"account_id": "1234567890", "terms_accepted": True, "consent_granted": True},
        {"api_url": "", "token_url": "/token"},
    ),
    "tiktok": Offer(
        lambda clock, rate: tiktok.TikTokTwin(clock, match_rate=rate),
        {"access_token": "twin-token"},
        {"advertiser_id": "7001"},
        {"api_url": "/open_api/v1.3"},
    ),
    "linkedin": Offer(
        lambda clock, rate: linkedin.LinkedInTwin(clock, match_rate=rate, settle_seconds=0.0),
        CLIENT,
        {"ad_account_id": "501", "source_platform": "TWIN", "settle_seconds": 0},
        {"api_url": "/rest", "token_url": linkedin.TOKEN_PATH},
    ),
    "snapchat": Offer(
        lambda clock, rate: snapchat.SnapchatTwin(clock, match_rate=rate, processing_seconds=0.0),
        CLIENT,
        {"ad_account_id": "8adc3db7-8148-4fbf-999c-8d2266369d74"},
        {"api_url": "/v1", "token_url": snapchat.TOKEN_PATH},
    ),
    "pinterest": Offer(
        lambda clock, rate: pinterest.PinterestTwin(clock, match_rate=rate, processing_seconds=0.0),
        CLIENT,
        {"ad_account_id": "549755885175"},
        {"api_url": "/v5", "token_url": pinterest.TOKEN_PATH},
    ),
    "microsoft_ads": Offer(
        lambda clock, rate: MicrosoftAdsTwin(clock, match_rate=rate, size_delay=timedelta()),
        {**CLIENT, "developer_token": "twin-developer"},
        {"account_id": "1001", "customer_id": "2002"},
        {"api_url": "", "token_url": "/token"},
    ),
    "criteo": Offer(
        lambda clock, rate: CriteoTwin(clock, match_rate=rate, match_delay_seconds=0.0),
        {"client_id": "twin-client", "client_secret": "twin-secret"},
        {"advertiser_id": "2001"},
    ),
    "liveramp": Offer(
        lambda clock, _rate: LiveRampTwin(clock),
        {"username": "twin-user", "password": "twin-password"},
        urls={},
    ),
    "webhook": Offer(
        lambda clock, _rate: WebhookTwin(clock, secrets=[SIGNING_SECRET]),
        {"signing_secret": SIGNING_SECRET},
        {},
        {"url": "/in", "list_url": "/members"},
    ),
}
"""By platform type."""
