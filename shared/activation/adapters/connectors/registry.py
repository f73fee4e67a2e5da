"""Which connectors there are. Listing and checking load no HTTP client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activation.adapters.connectors import facebook, file_drop, google_ads, webhook
from activation.adapters.connectors.addresses import require_url
from activation.adapters.connectors.config import require_fields, resolved
from activation.adapters.connectors.http import PlatformHTTP
from activation.adapters.connectors.oauth import GoogleTokens
from activation.domain.platform import ConnectorSpec, PlatformType
from activation.ports import Clock, Connector

if TYPE_CHECKING:
    import httpx

Validate = Callable[[Mapping[str, Any], Mapping[str, Any]], None]

_KINDS: Mapping[PlatformType, tuple[ConnectorSpec, Validate]] = {
    PlatformType.GOOGLE_ADS: (google_ads.SPEC, google_ads.validate),
    PlatformType.FACEBOOK: (facebook.SPEC, facebook.validate),
    PlatformType.WEBHOOK: (webhook.SPEC, webhook.validate),
    PlatformType.FILE_DROP: (file_drop.SPEC, file_drop.validate),
}


def specs() -> tuple[ConnectorSpec, ...]:
    """What every connector needs and can do, with its settings at their defaults."""
    return tuple(spec for spec, _ in _KINDS.values())


def spec_for(platform_type: PlatformType, config: Mapping[str, Any]) -> ConnectorSpec:
    """The spec of one platform account: on Google its settings choose the identifiers."""
    spec, _ = _KINDS[platform_type]
    if platform_type is PlatformType.GOOGLE_ADS:
        return google_ads.spec_for_key_type(resolved(spec, config)["upload_key_type"])
    return spec


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
    spec, validate = _KINDS[platform_type]

    def url(value: str, field: str) -> None:
        require_url(value, field=field, allow_private_hosts=allow_private_hosts)

    require_fields("credentials", spec.credentials, credentials, url)
    require_fields("settings", spec.settings, config, url)
    validate(credentials, config)


class ConnectorRegistry:
    """The connectors of one process: one HTTP client and one token cache between them.

    `drop_root` is the folder below which file drops may write; None where there is none.
    `transport` replaces the network (tests).
    """

    def __init__(
        self,
        clock: Clock,
        *,
        allow_private_hosts: bool = False,
        drop_root: Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = PlatformHTTP(
            clock, transport=transport, allow_private_hosts=allow_private_hosts
        )
        self._drop_root = drop_root
        self._tokens = GoogleTokens(self._http)

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

    def connector(self, platform_type: PlatformType, config: Mapping[str, Any]) -> Connector:
        """The connector that speaks to this kind of platform, under an account's settings."""
        if platform_type is PlatformType.GOOGLE_ADS:
            spec = spec_for(platform_type, config)
            return google_ads.GoogleAds(self._http, self._tokens, spec)
        if platform_type is PlatformType.FACEBOOK:
            return facebook.Facebook(self._http)
        if platform_type is PlatformType.WEBHOOK:
            return webhook.Webhook(self._http)
        return file_drop.FileDrop(self._drop_root)

    def close(self) -> None:
        """Close the connections to the platforms."""
        self._http.close()
