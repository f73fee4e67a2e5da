"""What the registry tells and refuses, without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.connectors.registry import (
    ConnectorRegistry,
    spec_for,
    specs,
    validate_new_settings,
    validate_platform,
)
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import PlatformType
from activation.errors import ValidationError
from activation.ports import Connectors
from tests.connectors.support import WEBHOOK_SECRET

GOOGLE = {"account_id": "1234567890", "terms_accepted": True}
LOGIN = {"client_id": "a", "client_secret": "b", "refresh_token": "c"}
BING = {**LOGIN, "developer_token": "d"}
BING_ADS = {"account_id": "1001", "customer_id": "2002"}
META = {"ad_account_id": "1001"}
TIKTOK = {"advertiser_id": "7001"}
LINKEDIN = {"ad_account_id": "501", "source_platform": "TWIN"}
SNAPCHAT = {"ad_account_id": "8adc3db7-8148-4fbf-999c-8d2266369d74"}
PINTEREST = {"ad_account_id": "549755885175"}
TOKEN = {"access_token": "t"}
AMAZON = {
    "manager_account_id": "amzn1.ads-account.g.a",
    "destination_account_id": "413642381039213536",
    "marketplace_id": "ATVPDKIKX0DER",
    "country_code": "US",
}
CLIENT = {"client_id": "app", "client_secret": "secret"}
USER = {"username": "user", "password": "password"}
HOST = {"host_key": f"SHA256:{'A' * 43} SHA256:{'B' * 43}"}
HOOK = {"url": "https://hooks.example.com/in"}
KEY = {"signing_secret": WEBHOOK_SECRET}
TTD = {"advertiser_id": "adv1001"}
CRM = {**TTD, "product": "crm", "crm_region": "EU"}
TTD_TOKEN = {"api_token": "token-1"}
OPERATOR = {"uid2_api_key": "key-1", "uid2_client_secret": "A" * 43 + "="}
UID2 = {**TTD, "resolve_with": "uid2"}
EUID = {**TTD, "resolve_with": "euid", "uid2_url": "https://euid.example.com"}

GOOD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("the_trade_desk", TTD_TOKEN, TTD),
    ("the_trade_desk", {"advertiser_secret_key": "s"}, {**TTD, "ttl_minutes": 259_200}),
    ("the_trade_desk", {**TTD_TOKEN, **OPERATOR}, {**UID2, "ttl_minutes": 129_600}),
    ("the_trade_desk", {**TTD_TOKEN, **OPERATOR}, EUID),
    ("the_trade_desk", TTD_TOKEN, {**CRM, "crm_ttl_minutes": 60, "crm_retention": True}),
    ("google_ads", LOGIN, GOOGLE),
    ("google_ads", {"service_account_json": '{"client_email":"r","private_key":"k"}'}, GOOGLE),
    (
        "google_ads",
        LOGIN,
        {
            **GOOGLE,
            "upload_key_type": "MOBILE_ID",
            "mobile_key_space": "IOS",
            "mobile_app_id": "1",
        },
    ),
    ("google_ads", LOGIN, {**GOOGLE, "membership_days": None, "account_type": ""}),
    ("facebook", TOKEN, META),
    ("facebook", {**TOKEN, "app_secret": "s"}, {**META, "api_version": "v25.0"}),
    ("amazon_dsp", LOGIN, AMAZON),
    ("amazon_dsp", LOGIN, {**AMAZON, "send_maid": True, "send_ramp_id": True}),
    ("amazon_dsp", LOGIN, {**AMAZON, "manager_account_id": "", "advertiser_account_id": "b"}),
    ("dv360", LOGIN, GOOGLE),
    (
        "dv360",
        LOGIN,
        {**GOOGLE, "login_account_id": "9", "login_account_type": "DISPLAY_VIDEO_PARTNER"},
    ),
    ("tiktok", TOKEN, TIKTOK),
    (
        "tiktok",
        TOKEN,
        {**TIKTOK, "phone_with_plus": False, "device_ids": "IDFA", "rows_per_request": 1},
    ),
    ("linkedin", TOKEN, LINKEDIN),
    ("linkedin", LOGIN, {**LINKEDIN, "api_version": "202604", "settle_seconds": 120}),
    ("snapchat", TOKEN, SNAPCHAT),
    ("snapchat", {**LOGIN, **TOKEN}, {**SNAPCHAT, "retention_days": 30}),
    ("pinterest", TOKEN, PINTEREST),
    ("pinterest", LOGIN, {**PINTEREST, "list_type": "LR_ID", "rows_per_request": None}),
    ("microsoft_ads", BING, BING_ADS),
    ("microsoft_ads", BING, {**BING_ADS, "membership_days": 180}),
    ("criteo", CLIENT, {"advertiser_id": "2001"}),
    ("criteo", CLIENT, {"advertiser_id": "2001", "api_version": "2027-01", "gum_caller_id": 7}),
    ("liveramp", USER, HOST),
    ("liveramp", {"username": "u", "private_key": "k"}, {**HOST, "update": "incremental"}),
    ("liveramp", {}, {"delivery": "folder", "delimiter": "tab", "ramp_ids": True}),
    ("webhook", KEY, HOOK),
    ("webhook", {**KEY, "signing_secret_previous": WEBHOOK_SECRET}, {**HOOK, "format": "json"}),
    ("webhook", KEY, {**HOOK, "list_url": "https://hooks.example.com/members?tenant=7"}),
    ("file_drop", {}, {}),
    ("file_drop", {}, {"folder": "crm/daily"}),
]

BAD: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("the_trade_desk", {}, TTD, "credentials.api_token"),
    ("the_trade_desk", {"advertiser_secret_key": "s"}, CRM, "credentials.api_token"),
    ("the_trade_desk", {**TTD_TOKEN, "password": "x"}, TTD, "credentials.password"),
    ("the_trade_desk", TTD_TOKEN, {}, "settings.advertiser_id"),
    ("the_trade_desk", TTD_TOKEN, {"advertiser_id": "a/b"}, "settings.advertiser_id"),
    ("the_trade_desk", TTD_TOKEN, {**TTD, "product": "x"}, "settings.product"),
    ("the_trade_desk", TTD_TOKEN, {**TTD, "ttl_minutes": 0}, "settings.ttl_minutes"),
    ("the_trade_desk", TTD_TOKEN, {**TTD, "ttl_minutes": 259_201}, "settings.ttl_minutes"),
    (
        "the_trade_desk",
        TTD_TOKEN,
        {**TTD, "cookie_mapping_partner_id": "a b"},
        "settings.cookie_mapping_partner_id",
    ),
    ("the_trade_desk", TTD_TOKEN, {**TTD, "resolve_with": "x"}, "settings.resolve_with"),
    ("the_trade_desk", TTD_TOKEN, UID2, "credentials.uid2_api_key"),
    (
        "the_trade_desk",
        {**TTD_TOKEN, "uid2_api_key": "k"},
        UID2,
        "credentials.uid2_client_secret",
    ),
    (
        "the_trade_desk",
        {**TTD_TOKEN, **OPERATOR, "uid2_client_secret": "c2hvcnQ="},
        UID2,
        "credentials.uid2_client_secret",
    ),
    (
        "the_trade_desk",
        {**TTD_TOKEN, **OPERATOR},
        {**UID2, "ttl_minutes": 129_601},
        "settings.ttl_minutes",
    ),
    (
        "the_trade_desk",
        {**TTD_TOKEN, **OPERATOR},
        {**TTD, "resolve_with": "euid"},
        "settings.uid2_url",
    ),
    ("the_trade_desk", TTD_TOKEN, {**TTD, "product": "crm"}, "settings.crm_region"),
    ("the_trade_desk", TTD_TOKEN, {**CRM, "crm_region": "MARS"}, "settings.crm_region"),
    ("the_trade_desk", TTD_TOKEN, {**CRM, "crm_ttl_minutes": 0}, "settings.crm_ttl_minutes"),
    ("the_trade_desk", TTD_TOKEN, {**CRM, "crm_minimum_rows": -1}, "settings.crm_minimum_rows"),
    (
        "the_trade_desk",
        {**TTD_TOKEN, **OPERATOR},
        {**CRM, "resolve_with": "uid2"},
        "settings.resolve_with",
    ),
    ("the_trade_desk", TTD_TOKEN, {**TTD, "data_url": "http://10.0.0.1/"}, "settings.data_url"),
    ("google_ads", {}, GOOGLE, "credentials.client_id"),
    ("google_ads", {"client_id": "a", "client_secret": "b"}, GOOGLE, "credentials.refresh_token"),
    (
        "google_ads",
        {"service_account_json": "{}"},
        GOOGLE,
        "credentials.service_account_json",
    ),
    ("google_ads", {**LOGIN, "password": "x"}, GOOGLE, "credentials.password"),
    ("google_ads", LOGIN, {}, "settings.account_id"),
    ("google_ads", LOGIN, {**GOOGLE, "account_id": "123-456"}, "settings.account_id"),
    ("google_ads", LOGIN, {**GOOGLE, "account_id": 123}, "settings.account_id"),
    ("google_ads", LOGIN, {**GOOGLE, "terms_accepted": False}, "settings.terms_accepted"),
    ("google_ads", LOGIN, {**GOOGLE, "terms_accepted": 1}, "settings.terms_accepted"),
    ("google_ads", LOGIN, {**GOOGLE, "account_type": "X"}, "settings.account_type"),
    ("google_ads", LOGIN, {**GOOGLE, "upload_key_type": "X"}, "settings.upload_key_type"),
    ("google_ads", LOGIN, {**GOOGLE, "membership_days": 541}, "settings.membership_days"),
    ("google_ads", LOGIN, {**GOOGLE, "membership_days": True}, "settings.membership_days"),
    (
        "google_ads",
        LOGIN,
        {**GOOGLE, "upload_key_type": "MOBILE_ID"},
        "settings.mobile_key_space",
    ),
    ("google_ads", LOGIN, {**GOOGLE, "api_url": "http://127.0.0.1/"}, "settings.api_url"),
    ("facebook", {}, META, "credentials.access_token"),
    ("facebook", {"access_token": ""}, META, "credentials.access_token"),
    ("facebook", TOKEN, {"ad_account_id": "act_1"}, "settings.ad_account_id"),
    ("facebook", TOKEN, {**META, "api_version": "26"}, "settings.api_version"),
    ("facebook", TOKEN, {**META, "customer_file_source": "X"}, "settings.customer_file_source"),
    ("facebook", TOKEN, {**META, "folder": "x"}, "settings.folder"),
    ("amazon_dsp", {}, AMAZON, "credentials.client_id"),
    ("amazon_dsp", {"client_id": "a", "client_secret": "b"}, AMAZON, "credentials.refresh_token"),
    ("amazon_dsp", LOGIN, {**AMAZON, "country_code": ""}, "settings.country_code"),
    ("amazon_dsp", LOGIN, {**AMAZON, "country_code": "us"}, "settings.country_code"),
    ("amazon_dsp", LOGIN, {**AMAZON, "country_code": "USA"}, "settings.country_code"),
    ("amazon_dsp", LOGIN, {**AMAZON, "manager_account_id": ""}, "settings.manager_account_id"),
    (
        "amazon_dsp",
        LOGIN,
        {**AMAZON, "advertiser_account_id": "b"},
        "settings.manager_account_id",
    ),
    (
        "amazon_dsp",
        LOGIN,
        {**AMAZON, "destination_account_id": "a b"},
        "settings.destination_account_id",
    ),
    ("amazon_dsp", LOGIN, {**AMAZON, "marketplace_id": ""}, "settings.marketplace_id"),
    ("amazon_dsp", LOGIN, {**AMAZON, "send_maid": "yes"}, "settings.send_maid"),
    ("dv360", {}, GOOGLE, "credentials.client_id"),
    ("dv360", LOGIN, {**GOOGLE, "terms_accepted": False}, "settings.terms_accepted"),
    ("dv360", LOGIN, {**GOOGLE, "account_type": "GOOGLE_ADS"}, "settings.account_type"),
    ("dv360", LOGIN, {**GOOGLE, "upload_key_type": "USER_ID"}, "settings.upload_key_type"),
    ("dv360", LOGIN, {**GOOGLE, "login_account_type": "X"}, "settings.login_account_type"),
    ("tiktok", {}, TIKTOK, "credentials.access_token"),
    ("tiktok", {**TOKEN, **LOGIN}, TIKTOK, "credentials.client_id"),
    ("tiktok", TOKEN, {}, "settings.advertiser_id"),
    ("tiktok", TOKEN, {"advertiser_id": "act_1"}, "settings.advertiser_id"),
    ("tiktok", TOKEN, {**TIKTOK, "device_ids": "GAID"}, "settings.device_ids"),
    ("tiktok", TOKEN, {**TIKTOK, "phone_with_plus": "no"}, "settings.phone_with_plus"),
    ("tiktok", TOKEN, {**TIKTOK, "rows_per_request": 0}, "settings.rows_per_request"),
    ("tiktok", TOKEN, {**TIKTOK, "api_url": "https://10.0.0.1/"}, "settings.api_url"),
    ("linkedin", {}, LINKEDIN, "credentials.access_token"),
    ("linkedin", {"refresh_token": "r"}, LINKEDIN, "credentials.client_id"),
    ("linkedin", {**TOKEN, "client_id": "a"}, LINKEDIN, "credentials.client_secret"),
    ("linkedin", TOKEN, {"source_platform": "TWIN"}, "settings.ad_account_id"),
    ("linkedin", TOKEN, {**LINKEDIN, "ad_account_id": "urn:1"}, "settings.ad_account_id"),
    ("linkedin", TOKEN, {"ad_account_id": "501"}, "settings.source_platform"),
    ("linkedin", TOKEN, {**LINKEDIN, "source_platform": "a b"}, "settings.source_platform"),
    ("linkedin", TOKEN, {**LINKEDIN, "api_version": "202613"}, "settings.api_version"),
    ("linkedin", TOKEN, {**LINKEDIN, "settle_seconds": 601}, "settings.settle_seconds"),
    ("linkedin", TOKEN, {**LINKEDIN, "token_url": "ftp://x/"}, "settings.token_url"),
    ("snapchat", {}, SNAPCHAT, "credentials.access_token"),
    ("snapchat", TOKEN, {}, "settings.ad_account_id"),
    ("snapchat", TOKEN, {"ad_account_id": "1001"}, "settings.ad_account_id"),
    ("snapchat", TOKEN, {**SNAPCHAT, "retention_days": 0}, "settings.retention_days"),
    ("snapchat", TOKEN, {**SNAPCHAT, "rows_per_request": 100_001}, "settings.rows_per_request"),
    ("pinterest", {"client_id": "a"}, PINTEREST, "credentials.client_secret"),
    ("pinterest", TOKEN, {"ad_account_id": "a/1"}, "settings.ad_account_id"),
    ("pinterest", TOKEN, {**PINTEREST, "list_type": "PHONE"}, "settings.list_type"),
    ("pinterest", TOKEN, {**PINTEREST, "rows_per_request": -1}, "settings.rows_per_request"),
    ("microsoft_ads", LOGIN, BING_ADS, "credentials.developer_token"),
    ("microsoft_ads", {"developer_token": "d"}, BING_ADS, "credentials.client_id"),
    ("microsoft_ads", BING, {"account_id": "1"}, "settings.customer_id"),
    ("microsoft_ads", BING, {**BING_ADS, "account_id": "F1"}, "settings.account_id"),
    ("microsoft_ads", BING, {**BING_ADS, "membership_days": 0}, "settings.membership_days"),
    ("microsoft_ads", BING, {**BING_ADS, "membership_days": 181}, "settings.membership_days"),
    ("microsoft_ads", BING, {**BING_ADS, "membership_days": -2}, "settings.membership_days"),
    ("facebook", TOKEN, {**META, "ldu_state": -1}, "settings.ldu_state"),
    ("facebook", TOKEN, {**META, "replace_minutes": 0}, "settings.replace_minutes"),
    ("criteo", {"client_id": "a"}, {"advertiser_id": "1"}, "credentials.client_secret"),
    ("criteo", CLIENT, {}, "settings.advertiser_id"),
    ("criteo", CLIENT, {"advertiser_id": "x1"}, "settings.advertiser_id"),
    ("criteo", CLIENT, {"advertiser_id": "1", "api_version": "v1"}, "settings.api_version"),
    ("criteo", CLIENT, {"advertiser_id": "1", "gum_caller_id": 0}, "settings.gum_caller_id"),
    ("liveramp", {"password": "p"}, HOST, "credentials.username"),
    ("liveramp", {"username": "u"}, HOST, "credentials.password"),
    ("liveramp", USER, {}, "settings.host_key"),
    ("liveramp", USER, {"host_key": "SHA256:short"}, "settings.host_key"),
    ("liveramp", USER, {**HOST, "sftp_host": "a b"}, "settings.sftp_host"),
    ("liveramp", USER, {**HOST, "sftp_port": 0}, "settings.sftp_port"),
    ("liveramp", USER, {**HOST, "folder": "../up"}, "settings.folder"),
    ("liveramp", USER, {**HOST, "update": "x"}, "settings.update"),
    ("liveramp", USER, {**HOST, "delivery": "s3"}, "settings.delivery"),
    ("liveramp", USER, {**HOST, "delimiter": ";"}, "settings.delimiter"),
    ("webhook", {}, HOOK, "credentials.signing_secret"),
    ("webhook", {"signing_secret": "whsec_c2hvcnQ="}, HOOK, "credentials.signing_secret"),
    ("webhook", {"signing_secret": "whsec_%%%"}, HOOK, "credentials.signing_secret"),
    (
        "webhook",
        {**KEY, "signing_secret_previous": "no"},
        HOOK,
        "credentials.signing_secret_previous",
    ),
    ("webhook", KEY, {}, "settings.url"),
    ("webhook", KEY, {"url": "https://10.0.0.1/"}, "settings.url"),
    ("webhook", KEY, {**HOOK, "format": "xml"}, "settings.format"),
    ("webhook", KEY, {**HOOK, "list_url": "http://hooks.example.com/"}, "settings.list_url"),
    ("webhook", KEY, {**HOOK, "rows_per_request": 100_001}, "settings.rows_per_request"),
    ("file_drop", {}, {"folder": "../up"}, "settings.folder"),
    ("file_drop", {"password": "x"}, {}, "credentials.password"),
]


@pytest.mark.parametrize(("kind", "credentials", "config"), GOOD)
def test_what_is_complete_passes(
    kind: str, credentials: dict[str, Any], config: dict[str, Any]
) -> None:
    validate_platform(PlatformType(kind), credentials, config)


@pytest.mark.parametrize(("kind", "credentials", "config", "field"), BAD)
def test_what_is_wrong_is_named_and_not_quoted(
    kind: str, credentials: dict[str, Any], config: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        validate_platform(PlatformType(kind), credentials, config)
    assert caught.value.field == field
    for value in credentials.values():
        assert len(str(value)) < 3 or str(value) not in caught.value.message


@pytest.mark.parametrize(("kind", "credentials", "config"), GOOD)
def test_settings_that_stay_pass_without_the_secrets(
    kind: str, credentials: dict[str, Any], config: dict[str, Any]
) -> None:
    given = [name for name, value in credentials.items() if value]
    validate_new_settings(PlatformType(kind), given, config, config)


@pytest.mark.parametrize(
    ("kind", "credentials", "config", "field"),
    [one for one in BAD if one[3].startswith("settings.") and one[0] != "nope"],
)
def test_settings_alone_are_checked_as_with_new_credentials(
    kind: str, credentials: dict[str, Any], config: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        validate_new_settings(PlatformType(kind), list(credentials), config, config)
    assert caught.value.field == field


def test_what_new_settings_ask_for_must_have_been_entered() -> None:
    with pytest.raises(ValidationError) as caught:
        validate_new_settings(PlatformType.THE_TRADE_DESK, ["api_token"], UID2, TTD)
    assert caught.value.field == "credentials.uid2_api_key"


@pytest.mark.parametrize("kind", sorted(set(PlatformType) - {"webhook", "file_drop"}))
def test_no_credentials_go_to_an_address_that_was_set_without_them(kind: PlatformType) -> None:
    """Who may change settings, and not read secrets, must not have them sent to himself."""
    given = {one[0]: one for one in reversed(GOOD)}[kind.value]
    spec = {one.platform_type: one for one in specs()}[kind]
    addresses = [field.name for field in spec.settings if field.trusted]
    assert addresses
    assert set(addresses) >= {field.name for field in spec.settings if field.kind == "url"}
    for name in addresses:
        other = {"sftp_port": 2022, "host_key": f"SHA256:{'B' * 43}", "sftp_host": "evil.example"}
        config = {**given[2], name: other.get(name, "https://evil.example/")}
        with pytest.raises(ValidationError) as caught:
            validate_new_settings(kind, list(given[1]), config, given[2])
        assert (caught.value.field, caught.value.reason) == (
            f"settings.{name}",
            "needs_credentials",
        )


def test_there_is_a_spec_for_every_kind_of_platform() -> None:
    assert {spec.platform_type for spec in specs()} == set(PlatformType)
    for spec in specs():
        assert spec.max_rows > 0
        assert spec.requests_per_minute > 0
        assert all(field.description for field in (*spec.credentials, *spec.settings))


def test_identifiers_follow_the_settings() -> None:
    mobile = spec_for(PlatformType.GOOGLE_ADS, {"upload_key_type": "MOBILE_ID"})
    assert mobile.identifiers == {IdentifierType.MAID: Variant.RAW}
    assert not mobile.multi_key
    assert IdentifierType.EMAIL in spec_for(PlatformType.GOOGLE_ADS, {}).identifiers
    assert IdentifierType.EMAIL not in spec_for(PlatformType.THE_TRADE_DESK, TTD).identifiers
    assert IdentifierType.EMAIL in spec_for(PlatformType.THE_TRADE_DESK, UID2).identifiers
    assert list(spec_for(PlatformType.THE_TRADE_DESK, CRM).identifiers) == [IdentifierType.EMAIL]
    amazon = spec_for(PlatformType.AMAZON_DSP, {"send_maid": True}).identifiers
    assert set(amazon) - {IdentifierType.EMAIL, IdentifierType.PHONE} == {IdentifierType.MAID}
    assert spec_for(PlatformType.FACEBOOK, {}).identifiers[IdentifierType.PHONE] is Variant.DIGITS


def test_the_registry_is_the_port(registry: ConnectorRegistry) -> None:
    port: Connectors = registry
    port.validate(PlatformType.WEBHOOK, KEY, {"url": "http://127.0.0.1:9/"})
    for kind in PlatformType:
        assert port.connector(kind, {}).spec == port.spec_for(kind, {})
    assert len(port.specs()) == len(PlatformType)


def test_listing_loads_no_client() -> None:
    script = (
        "import sys; from activation.adapters.connectors import registry; registry.specs();"
        "heavy = {'httpx', 'httpcore', 'stamina', 'jwt', 'cryptography', 'google.auth', 'grpc',"
        "'paramiko'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    shared = Path(__file__).parents[2] / "shared"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=shared, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
