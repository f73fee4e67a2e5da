"""What an account at the Data Manager API has to say, whichever Google product it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from activation.adapters.connectors.config import invalid, require_choice
from activation.adapters.connectors.google_tokens import service_account
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, Replacement, SettingField

KEY_TYPES: Mapping[str, Mapping[IdentifierType, Variant]] = {
    "CONTACT_ID": {IdentifierType.EMAIL: Variant.GOOGLE, IdentifierType.PHONE: Variant.E164},
    "MOBILE_ID": {IdentifierType.MAID: Variant.RAW},
    "USER_ID": {IdentifierType.CUSTOMER_ID: Variant.RAW},
}
"""A Google list holds one kind of data, for ever; contact lists take e-mail and phone per row."""

ADVERTISER, PARTNER = "DISPLAY_VIDEO_ADVERTISER", "DISPLAY_VIDEO_PARTNER"
ACCOUNT_TYPES = ("GOOGLE_ADS", ADVERTISER, PARTNER)
MAX_MEMBERSHIP_DAYS = 540
LANES = 4

_CREDENTIALS = (
    SettingField("service_account_json", "Key file of a service account", secret=True),
    SettingField("client_id", "OAuth client id, with client_secret and refresh_token"),
    SettingField("client_secret", "OAuth client secret", secret=True),
    SettingField("refresh_token", "OAuth refresh token", secret=True),
)


def account_settings(
    owner: str, key_types: Iterable[str], login_type: str
) -> tuple[SettingField, ...]:
    """The settings of an account whose lists belong to `owner` and hold one of `key_types`."""
    return (
        SettingField(
            "account_id", f"{owner} that owns the lists, digits only", required=True, place=True
        ),
        SettingField(
            "terms_accepted",
            "The advertiser has accepted Google's Customer Match terms",
            required=True,
            kind="boolean",
        ),
        SettingField("login_account_id", "Account above, through which the credentials reach it"),
        SettingField("login_account_type", " | ".join(ACCOUNT_TYPES), default=login_type),
        SettingField("upload_key_type", " | ".join(key_types), default="CONTACT_ID"),
        SettingField("mobile_key_space", "MOBILE_ID only: IOS | ANDROID", place=True),
        SettingField(
            "mobile_app_id", "MOBILE_ID only: the app the ids were collected in", place=True
        ),
        SettingField(
            "membership_days",
            f"Days a member stays, 1 to {MAX_MEMBERSHIP_DAYS}",
            default=MAX_MEMBERSHIP_DAYS,
            kind="integer",
        ),
        SettingField(
            "consent_granted",
            "Declare consent for people of whom nothing is known",
            default=False,
            kind="boolean",
        ),
        *_ADDRESSES,
    )


_ADDRESSES = (
    SettingField(
        "api_url",
        "Address of the API",
        default="https://datamanager.googleapis.com",
        kind="url",
        trusted=True,
    ),
    SettingField(
        "token_url",
        "Address that gives access tokens",
        default="https://oauth2.googleapis.com/token",
        kind="url",
        trusted=True,
    ),
)


def data_manager_spec(
    platform_type: PlatformType, title: str, key_type: str, settings: tuple[SettingField, ...]
) -> ConnectorSpec:
    """What the API takes when the lists hold this kind of data."""
    return ConnectorSpec(
        platform_type=platform_type,
        title=title,
        identifiers=KEY_TYPES[key_type],
        max_rows=10_000,
        max_bytes=None,
        requests_per_minute=300,
        credentials=_CREDENTIALS,
        settings=settings,
        multi_key=key_type == "CONTACT_ID",
        carries_consent=True,
        replacement=Replacement.AS_OF,
        lanes=LANES,
        tells_size=True,
        reports_failures=True,
        poll_seconds=1800.0,
    )


def validate_account(
    credentials: Mapping[str, Any], settings: Mapping[str, Any], key_types: Iterable[str]
) -> None:
    """Raise ValidationError for what single fields do not show; `settings` are resolved."""
    require_choice("settings.login_account_type", settings["login_account_type"], ACCOUNT_TYPES)
    require_choice("settings.upload_key_type", settings["upload_key_type"], key_types)
    for name in ("account_id", "login_account_id"):
        if settings[name] and not re.fullmatch(r"[0-9]{1,20}", settings[name]):
            raise invalid(f"settings.{name}", "must be digits only")
    if not 1 <= settings["membership_days"] <= MAX_MEMBERSHIP_DAYS:
        raise invalid("settings.membership_days", f"must be 1 to {MAX_MEMBERSHIP_DAYS}")
    if not settings["terms_accepted"]:
        raise invalid("settings.terms_accepted", "must be true", "terms_not_accepted")
    if settings["upload_key_type"] == "MOBILE_ID":
        require_choice(
            "settings.mobile_key_space", settings["mobile_key_space"], ("IOS", "ANDROID")
        )
        if not settings["mobile_app_id"]:
            raise invalid("settings.mobile_app_id", "is required", "missing")
    _validate_credentials(credentials)


def _validate_credentials(credentials: Mapping[str, Any]) -> None:
    if credentials.get("service_account_json"):
        try:
            service_account(credentials["service_account_json"])
        except ValueError as error:
            raise invalid("credentials.service_account_json", f"is {error}") from None
        return
    for name in ("client_id", "client_secret", "refresh_token"):
        if not credentials.get(name):
            raise invalid(f"credentials.{name}", "is required", "missing")
