"""Customer Match lists of Display & Video 360 advertisers. Facts: docs/platforms.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from activation.adapters.connectors.config import resolved
from activation.adapters.connectors.google_ads import GoogleAds
from activation.adapters.connectors.google_spec import (
    ADVERTISER,
    PARTNER,
    account_settings,
    data_manager_spec,
    validate_account,
)
from activation.domain.platform import ConnectorSpec, PlatformType
from activation.ports import Account

KEY_TYPES = ("CONTACT_ID", "MOBILE_ID")
"""Display & Video 360 matches contact data and devices, and no user ids."""


def spec_for_key_type(key_type: str) -> ConnectorSpec:
    """What the connector takes when its lists hold this kind of data."""
    settings = account_settings("Advertiser", KEY_TYPES, PARTNER)
    title = "Display & Video 360 (Data Manager API)"
    return data_manager_spec(PlatformType.DV360, title, key_type, settings)


def spec_under(settings: Mapping[str, Any]) -> ConnectorSpec:
    """The spec by what an account's lists hold, and for how long."""
    spec = spec_for_key_type(settings["upload_key_type"])
    return replace(spec, lapse_days=settings["membership_days"])


SPEC = spec_for_key_type("CONTACT_ID")


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    validate_account(credentials, resolved(SPEC, config), KEY_TYPES)


class DV360(GoogleAds):
    """Google's lists with an advertiser of Display & Video 360 as their owner."""

    def _settings(self, account: Account) -> dict[str, Any]:
        return {**super()._settings(account), "account_type": ADVERTISER}
