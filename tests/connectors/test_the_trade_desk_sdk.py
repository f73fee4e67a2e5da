"""The vendors' own SDKs as oracles: of the Data API, and of the UID2 envelope both ways."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError

import orjson
import pytest
from ttd_data import DataClient, errors, models
from ttd_data.sdk import BaseDataClient
from ttd_data.uid2.config import IdentityScope, UID2Config
from ttd_data.uid2.models import AdvertiserDataItem
from uid2_client import IdentityMapV3Client, IdentityMapV3Input
from uid2_client.envelope import Envelope
from uid2_client.request_response_util import _decrypt_payload, create_envelope

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.config import resolved
from activation.adapters.connectors.the_trade_desk import SPEC
from activation.adapters.connectors.trade_desk_wire import (
    FIELDS,
    ROW_CODES,
    SEGMENT_CODES,
    UNKNOWN,
    items_of,
    request_body,
)
from activation.adapters.connectors.uid2 import answers, opened, question, sealed, secret_key
from activation.domain.identifier import UID2_DOMAINS, IdentifierType, email_plain, folded
from activation.twins.the_trade_desk import TWIN_TOKEN, TheTradeDeskTwin
from activation.twins.uid2 import TWIN_KEY, TWIN_SECRET, IdentityOperator, raw_id
from tests.connectors.support import digest, digest_of
from tests.connectors.trade_desk import as_raw_ids, devices, emails, guid, serving

SETTINGS = {**resolved(SPEC, {}), "advertiser_id": "adv1001"}
KEY = secret_key(TWIN_SECRET)
DATA = [models.AdvertiserData(name="By SDK", ttl_in_minutes=60)]
Call = Callable[..., Any]


@pytest.fixture
def twin() -> TheTradeDeskTwin:
    """A twin that lives now, as the SDK does."""
    clock = MovableClock(datetime.now(UTC))
    return TheTradeDeskTwin(clock, operator=IdentityOperator(clock))


@pytest.fixture
def url(twin: TheTradeDeskTwin) -> Iterator[str]:
    with serving(twin) as url:
        yield url


@pytest.fixture
def ingest(url: str) -> Iterator[Call]:
    """The SDK's call, pointed at the twin: it takes another address per call alone."""
    with BaseDataClient(TWIN_TOKEN) as sdk:
        yield (
            lambda **given: (
                sdk.advertiser.ingest_advertiser_data(
                    **{"advertiser_id": "adv1001", "server_url": url, **given}
                ).advertiser_data_server_response
            )
        )


def sdk_items(columns: dict[str, list[str | None]]) -> list[Any]:
    return [
        models.BaseAdvertiserDataItem.model_validate({item.field: item.value, "Data": DATA})
        for item in items_of(columns)
    ]


def held(twin: TheTradeDeskTwin) -> str:
    (audience,) = twin.contents()["audiences"]
    return str(audience["digest"])


# The Data API -----------------------------------------------------------------------------------


def test_the_twin_takes_what_the_sdk_sends(ingest: Call, twin: TheTradeDeskTwin) -> None:
    assert ingest(items=sdk_items(devices(40))).model_dump(by_alias=True) == {}
    gone = [models.AdvertiserData(name="By SDK", ttl_in_minutes=0)]
    ingest(items=[item.model_copy(update={"data": gone}) for item in sdk_items(devices(10))])
    assert held(twin) == digest_of(devices(30, start=10))


def test_the_sdk_reads_the_twins_failed_lines(ingest: Call) -> None:
    items = sdk_items({"maid": [guid(1), "x", guid(2), "y"]})
    lines = ingest(items=items).failed_lines
    found = [(line.error_code.value, line.item_number) for line in lines]
    assert found == [("MissingUserId", "2"), ("MissingUserId", "4")]


def test_the_sdk_understands_the_twins_refusals(ingest: Call, url: str) -> None:
    with pytest.raises(errors.AdvertiserDataServerResponseError) as refused:
        ingest(items=[])
    shown = refused.value.data.model_dump(by_alias=True, mode="json")
    assert [line["ErrorCode"] for line in shown["FailedLines"]] == [UNKNOWN]
    with pytest.raises(errors.APIError) as too_large:
        ingest(items=sdk_items({"maid": [guid(n) for n in range(1_601)]}))
    assert too_large.value.status_code == 413
    with BaseDataClient("stolen") as thief, pytest.raises(errors.APIError) as stolen:
        thief.advertiser.ingest_advertiser_data(
            advertiser_id="adv1001", items=sdk_items(devices(1)), server_url=url
        )
    assert stolen.value.status_code == 401


@pytest.mark.parametrize("ttl_minutes", [43_200, 0])
def test_our_requests_are_the_sdks_messages(ttl_minutes: int) -> None:
    settings = {**SETTINGS, "cookie_mapping_partner_id": "p1"}
    body = orjson.loads(request_body(settings, "Buyers", ttl_minutes, [*items_of(devices(8))]))
    message = models.AdvertiserDataRequest.model_validate(body)
    assert message.model_dump(by_alias=True, mode="json") == body
    known = {field.alias for field in models.BaseAdvertiserDataItem.model_fields.values()}
    assert {*FIELDS.values(), "EUID", "CookieMappingPartnerId"} <= known
    assert all(set(item) <= known for item in body["Items"])
    data = {field.alias for field in models.AdvertiserData.model_fields.values()}
    assert set(body["Items"][0]["Data"][0]) <= data


def test_every_code_is_classified() -> None:
    known = {code.value for code in models.AdvertiserDataResponseErrorCode}
    client_side = {"Uid2Error"}
    assert known - client_side == ROW_CODES | SEGMENT_CODES | {UNKNOWN}


def test_the_sdks_address_is_our_default() -> None:
    assert [SETTINGS["data_url"]] == models.INGEST_ADVERTISER_DATA_OP_SERVERS


def test_the_sdk_resolves_hashes_as_we_do(url: str, twin: TheTradeDeskTwin) -> None:
    config = UID2Config(f"{url}/uid2", TWIN_KEY, TWIN_SECRET, IdentityScope.UID2)
    hashes = [str(value) for value in emails(6)["email"]]
    twin.operator.optouts.add(hashes[2])
    items = [AdvertiserDataItem(hashed_email=as_base64(value), data=DATA) for value in hashes]
    with BaseDataClient(TWIN_TOKEN) as sdk:
        answer = DataClient(config, sdk).advertiser.ingest_advertiser_data(
            advertiser_id="adv1001", items=items, server_url=url
        )
    (line,) = answer.model_dump(by_alias=True)["advertiser_data_server_response"]["FailedLines"]
    assert (line["ItemNumber"], line["Message"]) == ("3", "optout")
    kept = [value for value in hashes if value != hashes[2]]
    assert held(twin) == digest_of(as_raw_ids({"email": kept}))


# The operator -----------------------------------------------------------------------------------


def as_base64(value: str) -> str:
    return base64.b64encode(bytes.fromhex(value)).decode()


def test_the_operator_takes_what_the_sdk_sends(url: str, twin: TheTradeDeskTwin) -> None:
    mails, phones = [digest(f"m{n}") for n in range(5)], [digest(f"p{n}") for n in range(5)]
    twin.operator.optouts.add(mails[1])
    twin.operator.unknown.add(phones[3])
    asked = IdentityMapV3Input().with_hashed_emails([as_base64(value) for value in mails])
    asked = asked.with_hashed_phones([as_base64(value) for value in phones])
    sdk = IdentityMapV3Client(f"{url}/uid2", TWIN_KEY, TWIN_SECRET)
    found = sdk.generate_identity_map(asked)
    first = found.mapped_identities[as_base64(mails[0])]
    assert first.current_raw_uid == raw_id("email", mails[0])
    assert first.previous_raw_uid is None
    assert (first.refresh_from - datetime.now(UTC)).days in (6, 7)
    reasons = {name: one.raw_reason for name, one in found.unmapped_identities.items()}
    assert reasons == {
        as_base64(mails[1]): "optout",
        as_base64(phones[3]): "invalid identifier",
    }


def test_the_sdk_understands_the_operators_refusals(url: str) -> None:
    asked = IdentityMapV3Input.from_hashed_emails([as_base64(digest("a"))])
    for key, secret, status in (
        ("stolen", TWIN_SECRET, 401),
        (TWIN_KEY, base64.b64encode(b"k" * 32).decode(), 400),
    ):
        with pytest.raises(HTTPError) as refused:
            IdentityMapV3Client(f"{url}/uid2", key, secret).generate_identity_map(asked)
        assert refused.value.code == status
        refused.value.close()


def test_the_sdk_opens_our_envelopes() -> None:
    nonce, iv = secrets.token_bytes(8), secrets.token_bytes(12)
    wanted = [(IdentifierType.EMAIL, digest("a")), (IdentifierType.PHONE, digest("b"))]
    envelope = sealed(KEY, iv, datetime.now(UTC), nonce, question(wanted))
    theirs = IdentityMapV3Input.from_hashed_emails([as_base64(digest("a"))])
    theirs = theirs.with_hashed_phones([as_base64(digest("b"))])
    assert envelope[:1] == b"\1"
    content = _decrypt_payload(KEY, envelope[1:], nonce)
    assert orjson.loads(content) == orjson.loads(theirs.get_identity_map_input_as_json_string())


def test_we_open_the_sdks_envelopes() -> None:
    raw = raw_id("email", digest("a"))
    item = {"u": raw, "p": None, "r": int(datetime.now(UTC).timestamp()) + 60}
    document = {"status": "success", "body": {"email_hash": [item]}}
    made: Envelope = create_envelope(KEY, datetime.now(UTC), orjson.dumps(document))
    # An answer has no version byte; all else is the same.
    content = opened(KEY, made.nonce, made.binary_envelope[1:])
    (found,) = answers(content, [(IdentifierType.EMAIL, digest("a"))], datetime.now(UTC))
    assert found.raw == raw


@pytest.mark.parametrize(
    "email", ["Jane.Doe+x@Gmail.com", " a.b@googlemail.com ", "A.B+c@Example.com"]
)
def test_the_sdk_hashes_e_mails_alike(email: str) -> None:
    ours = digest(folded(email_plain(email) or "", UID2_DOMAINS))
    asked = orjson.loads(
        IdentityMapV3Input.from_emails([email]).get_identity_map_input_as_json_string()
    )
    assert asked["email_hash"] == [as_base64(ours)]
