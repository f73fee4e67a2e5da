"""The Trade Desk: its Data API, and CRM drops of e-mail lists. Facts: docs/platforms.md."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from activation.adapters.connectors.config import invalid, require_choice, resolved
from activation.adapters.connectors.http import PlatformHTTP
from activation.adapters.connectors.trade_desk_crm import CrmDrop
from activation.adapters.connectors.trade_desk_data import DataApi
from activation.adapters.connectors.trade_desk_wire import FIELDS
from activation.adapters.connectors.uid2 import IdentityMap, secret_key
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, Replacement, SettingField
from activation.errors import PlatformAuthError
from activation.ports import Connector

PRODUCTS = ("data_api", "crm")
RESOLVERS = ("none", "uid2", "euid")
REGIONS = ("US", "EU", "APAC")
UID2_URL = "https://prod.uidapi.com"
MINUTES_A_DAY = 1440
MAX_TTL_MINUTES = 259_200
MAX_RESOLVED_TTL_MINUTES = 129_600
"""90 days: for so long an operator still tells the raw id that a person had before, and what
was added under it can be removed."""

_CREDENTIALS = (
    SettingField("api_token", "Long-lived platform API token (TTD-Auth)", secret=True),
    SettingField(
        "advertiser_secret_key", "Signs calls of the Data API, in place of the token", secret=True
    ),
    SettingField("uid2_api_key", "API key at the UID2 or EUID operator", secret=True),
    SettingField("uid2_client_secret", "Client secret there, base64 of 32 bytes", secret=True),
)
_SETTINGS = (
    SettingField("advertiser_id", "Advertiser that owns the data", required=True, place=True),
    SettingField("product", " | ".join(PRODUCTS), default="data_api"),
    SettingField(
        "ttl_minutes",
        f"Data API: minutes a member stays after it was last added, 1 to {MAX_TTL_MINUTES}",
        default=43_200,
        kind="integer",
    ),
    SettingField("cookie_mapping_partner_id", "Data API: the partner whose ids cookie_id holds"),
    SettingField(
        "resolve_with",
        f"Data API: what e-mails and phones are resolved to, {' | '.join(RESOLVERS)}",
        default="none",
    ),
    SettingField("uid2_url", "Address of the operator", default=UID2_URL, kind="url", trusted=True),
    SettingField("crm_region", f"CRM: where the people are, {' | '.join(REGIONS)}"),
    SettingField("crm_ttl_minutes", "CRM: minutes a member stays", kind="integer"),
    SettingField(
        "crm_retention", "CRM: sent as RetentionEnabled, which is deprecated", kind="boolean"
    ),
    SettingField(
        "crm_minimum_rows",
        "CRM: a drop of fewer rows is rejected here instead of being ignored there",
        default=1_500,
        kind="integer",
    ),
    SettingField(
        "data_url",
        "Address of the Data API in the advertiser's region",
        default="https://usw-data.adsrvr.org",
        kind="url",
        trusted=True,
    ),
    SettingField(
        "graphql_url",
        "Address that tells sizes",
        default="https://desk.thetradedesk.com/graphql",
        kind="url",
        trusted=True,
    ),
    SettingField(
        "api_url",
        "Address of the platform API, for CRM",
        default="https://api.thetradedesk.com/v3",
        kind="url",
        trusted=True,
    ),
)

SPEC = ConnectorSpec(
    platform_type=PlatformType.THE_TRADE_DESK,
    title="The Trade Desk",
    identifiers=dict.fromkeys(FIELDS, Variant.RAW),
    max_rows=1_600,
    max_bytes=2_000_000,
    requests_per_minute=300,
    credentials=_CREDENTIALS,
    settings=_SETTINGS,
    lanes=4,
    tells_size=True,
    reports_matches=False,
)
RESOLVING = dataclasses.replace(
    SPEC,
    identifiers={
        IdentifierType.EMAIL: Variant.UID2,
        IdentifierType.PHONE: Variant.E164,
        **SPEC.identifiers,
    },
    lanes=1,
)
"""Operators want one request at a time."""
CRM = dataclasses.replace(
    SPEC,
    title="The Trade Desk CRM",
    identifiers={IdentifierType.EMAIL: Variant.UID2},
    max_rows=200_000,
    max_bytes=None,
    requests_per_minute=60,
    removes=False,
    replacement=Replacement.SESSION,
    lanes=1,
    minimum_size=1_500,
)


def spec_under(settings: Mapping[str, Any]) -> ConnectorSpec:
    """What the connector takes under an account's settings."""
    if settings["product"] == "crm":
        minutes = settings["crm_ttl_minutes"]
        return dataclasses.replace(CRM, lapse_days=minutes / MINUTES_A_DAY if minutes else None)
    spec = SPEC if settings["resolve_with"] == "none" else RESOLVING
    return dataclasses.replace(spec, lapse_days=settings["ttl_minutes"] / MINUTES_A_DAY)


def connector_for(http: PlatformHTTP, identities: IdentityMap, spec: ConnectorSpec) -> Connector:
    """The connector of the product that a spec is of."""
    is_crm = spec.replacement is CRM.replacement
    return CrmDrop(http, spec) if is_crm else DataApi(http, identities, spec)


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    for name in ("advertiser_id", "cookie_mapping_partner_id"):
        if settings[name] and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", settings[name]):
            raise invalid(f"settings.{name}", "must be letters, digits, - and _")
    require_choice("settings.product", settings["product"], PRODUCTS)
    require_choice("settings.resolve_with", settings["resolve_with"], RESOLVERS)
    if settings["product"] == "crm":
        _validate_crm(credentials, settings)
    else:
        _validate_data_api(credentials, settings)


def _validate_crm(credentials: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    _require(credentials, "api_token")
    require_choice("settings.crm_region", settings["crm_region"], REGIONS)
    if settings["resolve_with"] != "none":
        raise invalid("settings.resolve_with", "must be none: the platform resolves a CRM drop")
    if settings["crm_ttl_minutes"] is not None:
        _require_minutes("crm_ttl_minutes", settings["crm_ttl_minutes"], MAX_TTL_MINUTES)
    if settings["crm_minimum_rows"] < 0:
        raise invalid("settings.crm_minimum_rows", "must not be negative")


def _validate_data_api(credentials: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    if not credentials.get("advertiser_secret_key"):
        _require(credentials, "api_token")
    resolver = settings["resolve_with"]
    if resolver == "none":
        _require_minutes("ttl_minutes", settings["ttl_minutes"], MAX_TTL_MINUTES)
        return
    _require_minutes("ttl_minutes", settings["ttl_minutes"], MAX_RESOLVED_TTL_MINUTES)
    for name in ("uid2_api_key", "uid2_client_secret"):
        _require(credentials, name)
    try:
        secret_key(credentials["uid2_client_secret"])
    except PlatformAuthError:
        raise invalid("credentials.uid2_client_secret", "must be base64 of 32 bytes") from None
    if resolver == "euid" and settings["uid2_url"] == UID2_URL:
        raise invalid("settings.uid2_url", "must be the address of an EUID operator")


def _require(credentials: Mapping[str, Any], name: str) -> None:
    if not credentials.get(name):
        raise invalid(f"credentials.{name}", "is required", "missing")


def _require_minutes(name: str, minutes: int, most: int) -> None:
    if not 1 <= minutes <= most:
        raise invalid(f"settings.{name}", f"must be 1 to {most}")
