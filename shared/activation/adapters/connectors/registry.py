"""Which connectors there are. Listing and checking load no HTTP client."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activation.adapters.connectors import (
    amazon_dsp,
    criteo,
    dv360,
    facebook,
    file_drop,
    google_ads,
    linkedin,
    liveramp,
    microsoft_ads,
    pinterest,
    snapchat,
    the_trade_desk,
    tiktok,
    webhook,
)
from activation.adapters.connectors.addresses import require_url
from activation.adapters.connectors.config import invalid, require_fields, resolved
from activation.adapters.connectors.http import PlatformHTTP
from activation.adapters.connectors.tokens import AccessTokens, TokenLock
from activation.adapters.connectors.uid2 import IdentityMap
from activation.domain.platform import ConnectorSpec, PlatformType
from activation.errors import ValidationError
from activation.ports import Clock, Connector

if TYPE_CHECKING:
    import httpx

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tools:
    """What connectors of one process share."""

    http: PlatformHTTP
    tokens: AccessTokens
    identities: IdentityMap
    drop_root: Path | None


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of platform: what it takes, the check of its fields, and its connector."""

    spec: ConnectorSpec
    validate: Callable[[Mapping[str, Any], Settings], None]
    make: Callable[[Tools, ConnectorSpec], Connector]
    spec_under: Callable[[Settings], ConnectorSpec] | None = None
    """The spec where an account's settings (resolved) change it."""


_KINDS: Mapping[PlatformType, Kind] = {
    PlatformType.THE_TRADE_DESK: Kind(
        the_trade_desk.SPEC,
        the_trade_desk.validate,
        lambda tools, spec: the_trade_desk.connector_for(tools.http, tools.identities, spec),
        the_trade_desk.spec_under,
    ),
    PlatformType.GOOGLE_ADS: Kind(
        google_ads.SPEC,
        google_ads.validate,
        lambda tools, spec: google_ads.GoogleAds(tools.http, tools.tokens, spec),
        google_ads.spec_under,
    ),
    PlatformType.FACEBOOK: Kind(
        facebook.SPEC, facebook.validate, lambda tools, _spec: facebook.Facebook(tools.http)
    ),
    PlatformType.AMAZON_DSP: Kind(
        amazon_dsp.SPEC,
        amazon_dsp.validate,
        lambda tools, spec: amazon_dsp.AmazonDsp(tools.http, tools.tokens, spec),
        amazon_dsp.spec_for,
    ),
    PlatformType.DV360: Kind(
        dv360.SPEC,
        dv360.validate,
        lambda tools, spec: dv360.DV360(tools.http, tools.tokens, spec),
        dv360.spec_under,
    ),
    PlatformType.TIKTOK: Kind(
        tiktok.SPEC,
        tiktok.validate,
        lambda tools, spec: tiktok.TikTok(tools.http, spec),
        tiktok.spec_under,
    ),
    PlatformType.LINKEDIN: Kind(
        linkedin.SPEC,
        linkedin.validate,
        lambda tools, _spec: linkedin.LinkedIn(tools.http, tools.tokens),
    ),
    PlatformType.SNAPCHAT: Kind(
        snapchat.SPEC,
        snapchat.validate,
        lambda tools, spec: snapchat.Snapchat(tools.http, tools.tokens, spec),
        snapchat.spec_under,
    ),
    PlatformType.PINTEREST: Kind(
        pinterest.SPEC,
        pinterest.validate,
        lambda tools, spec: pinterest.Pinterest(tools.http, tools.tokens, spec),
        pinterest.spec_under,
    ),
    PlatformType.MICROSOFT_ADS: Kind(
        microsoft_ads.SPEC,
        microsoft_ads.validate,
        lambda tools, spec: microsoft_ads.MicrosoftAds(tools.http, tools.tokens, spec),
        microsoft_ads.spec_under,
    ),
    PlatformType.CRITEO: Kind(
        criteo.SPEC,
        criteo.validate,
        lambda tools, spec: criteo.Criteo(tools.http, tools.tokens, spec),
        lambda settings: criteo.spec_for_caller(settings["gum_caller_id"]),
    ),
    PlatformType.LIVERAMP: Kind(
        liveramp.SPEC,
        liveramp.validate,
        lambda tools, spec: liveramp.LiveRamp(
            spec, tools.drop_root, allow_private_hosts=tools.http.allow_private_hosts
        ),
        liveramp.spec_under,
    ),
    PlatformType.WEBHOOK: Kind(
        webhook.SPEC,
        webhook.validate,
        lambda tools, spec: webhook.Webhook(tools.http, spec),
        webhook.spec_under,
    ),
    PlatformType.FILE_DROP: Kind(
        file_drop.SPEC, file_drop.validate, lambda tools, _spec: file_drop.FileDrop(tools.drop_root)
    ),
}


def specs() -> tuple[ConnectorSpec, ...]:
    """What every connector needs and can do, with its settings at their defaults."""
    return tuple(kind.spec for kind in _KINDS.values())


def spec_for(platform_type: PlatformType, config: Settings) -> ConnectorSpec:
    """The spec of one platform account under its settings."""
    kind = _KINDS[platform_type]
    return kind.spec_under(resolved(kind.spec, config)) if kind.spec_under else kind.spec


def validate_platform(
    platform_type: PlatformType,
    credentials: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    allow_private_hosts: bool = False,
) -> None:
    """Raise ValidationError that names the first missing, unknown or impossible field.

    Fields are named `credentials.x` and `settings.x`; no network is used.
    """
    spec = _KINDS[platform_type].spec

    def url(value: str, field: str) -> None:
        require_url(value, field=field, allow_private_hosts=allow_private_hosts)

    require_fields("credentials", spec.credentials, credentials, url)
    require_fields("settings", spec.settings, config, url)
    _KINDS[platform_type].validate(credentials, config)


SEALED = base64.b64encode(bytes(32)).decode()
"""Stands for a secret that nobody may open: it has the form of most of them."""


def validate_new_settings(
    platform_type: PlatformType,
    sealed: Iterable[str],
    config: Settings,
    before: Settings,
    *,
    allow_private_hosts: bool = False,
) -> None:
    """Raise ValidationError for settings that do not fit the credentials of these names, or that
    would have them sent to another address than the one they were entered for."""
    spec = _KINDS[platform_type].spec

    def url(value: str, field: str) -> None:
        require_url(value, field=field, allow_private_hosts=allow_private_hosts)

    require_fields("settings", spec.settings, config, url)
    try:
        _KINDS[platform_type].validate(dict.fromkeys(sealed, SEALED), config)
    except ValidationError as error:
        # The form of what is sealed was looked at when it was entered.
        if str(error.field).startswith("settings.") or error.reason == "missing":
            raise
    old, new = resolved(spec, before), resolved(spec, config)
    for field in spec.settings:
        if field.trusted and old[field.name] != new[field.name]:
            problem = "says where credentials are sent: enter them again together with it"
            raise invalid(f"settings.{field.name}", problem, "needs_credentials")


class ConnectorRegistry:
    """The connectors of one process: one HTTP client and one token cache between them.

    `drop_root` is the folder below which file drops may write; None where there is none.
    `transport` replaces the network (tests); `lock` keeps two workers from refreshing one
    account at a time.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        allow_private_hosts: bool = False,
        drop_root: Path | None = None,
        transport: httpx.BaseTransport | None = None,
        lock: TokenLock | None = None,
    ) -> None:
        self._http = PlatformHTTP(
            clock, transport=transport, allow_private_hosts=allow_private_hosts
        )
        self._tools = Tools(
            self._http, AccessTokens(self._http, lock), IdentityMap(self._http), drop_root
        )

    def specs(self) -> tuple[ConnectorSpec, ...]:
        """One spec per kind of platform, with default settings."""
        return specs()

    def spec_for(self, platform_type: PlatformType, config: Mapping[str, Any]) -> ConnectorSpec:
        """The spec under an account's settings."""
        return spec_for(platform_type, config)

    def validate(
        self,
        platform_type: PlatformType,
        credentials: Mapping[str, Any],
        config: Mapping[str, Any],
    ) -> None:
        """Raise ValidationError naming a credential or setting that is missing or unknown."""
        allowed = self._http.allow_private_hosts
        validate_platform(platform_type, credentials, config, allow_private_hosts=allowed)

    def validate_settings(
        self,
        platform_type: PlatformType,
        sealed: Sequence[str],
        config: Mapping[str, Any],
        before: Mapping[str, Any],
    ) -> None:
        """Raise ValidationError for settings that may not take the place of `before` alone."""
        allowed = self._http.allow_private_hosts
        validate_new_settings(platform_type, sealed, config, before, allow_private_hosts=allowed)

    def connector(self, platform_type: PlatformType, config: Mapping[str, Any]) -> Connector:
        """The connector that speaks to this kind of platform, under an account's settings."""
        kind = _KINDS[platform_type]
        return kind.make(self._tools, spec_for(platform_type, config))

    def close(self) -> None:
        """Close the connections to the platforms."""
        self._http.close()
