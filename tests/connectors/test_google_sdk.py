"""Google's own SDK as the oracle: the twin takes its requests, it reads ours."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from google.ads import datamanager_v1
from google.ads.datamanager_util.format import Encoding, Formatter
from google.ads.datamanager_v1.services.ingestion_service.transports import (
    IngestionServiceRestTransport,
)
from google.ads.datamanager_v1.services.user_list_service.transports import (
    UserListServiceRestTransport,
)
from google.api_core.exceptions import BadRequest, TooManyRequests
from google.auth.exceptions import RefreshError
from google.oauth2.credentials import Credentials

from activation.adapters.clock import MovableClock
from activation.adapters.connectors import google_wire
from activation.adapters.connectors.config import resolved
from activation.adapters.connectors.google_ads import SPEC
from activation.adapters.connectors.google_wire import ROW_REASONS, list_body
from activation.domain.delivery import Delivery
from activation.domain.identifier import GOOGLE_DOMAINS, email_plain, folded, phone_e164
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import ADD, MAID, digest, digest_of, people, to

dm: Any = datamanager_v1
SETTINGS = resolved(SPEC, {"account_id": "1234567890", "terms_accepted": True})
PARENT = "accountTypes/GOOGLE_ADS/accounts/1234567890"


@pytest.fixture
def root(google_twin: GoogleAdsTwin) -> Iterator[RunningTwins]:
    """The twin where the SDK can reach it: at the root of a port."""
    running = serve({"": google_twin})
    yield running
    running.close()


def clients(running: RunningTwins, token: str) -> tuple[Any, Any]:
    """The SDK's clients for members and lists, over plain HTTP to the twin."""
    host = running.url.removeprefix("http://")
    options: dict[str, Any] = {
        "host": host,
        "url_scheme": "http",
        "credentials": Credentials(token=token),
    }
    return (
        dm.IngestionServiceClient(transport=IngestionServiceRestTransport(**options)),
        dm.UserListServiceClient(transport=UserListServiceRestTransport(**options)),
    )


@pytest.fixture
def sdk(root: RunningTwins, google_twin: GoogleAdsTwin) -> tuple[Any, Any]:
    return clients(root, google_twin.tokens.issue())


def sdk_list(lists: Any) -> str:
    body = orjson.dumps(list_body(SETTINGS, ADD, ADD.audience_name)).decode()
    made = lists.create_user_list(parent=PARENT, user_list=dm.UserList.from_json(body))
    return str(made.id)


def request_body(
    settings: dict[str, Any], delivery: Delivery, columns: dict[str, list[str | None]]
) -> Any:
    """What goes over the wire, parsed."""
    return orjson.loads(orjson.dumps(google_wire.request_body(settings, delivery, columns)))


def read_by_sdk(kind: Any, body: dict[str, Any]) -> Any:
    """The body as the SDK's message; a field it does not know is an error."""
    return kind.from_json(orjson.dumps(body).decode(), ignore_unknown_fields=False)


def test_the_twin_takes_what_the_sdk_sends(
    sdk: tuple[Any, Any], google_twin: GoogleAdsTwin
) -> None:
    ingestion, lists = sdk
    delivery = to(ADD, sdk_list(lists))
    body = request_body(SETTINGS, delivery, people(20))
    first = ingestion.ingest_audience_members(
        request=read_by_sdk(dm.IngestAudienceMembersRequest, body)
    )
    status = ingestion.retrieve_request_status(request={"request_id": first.request_id})
    state = dm.RequestStatusPerDestination.RequestStatus
    assert status.request_status_per_destination[0].request_status == state.PROCESSING
    final = ingestion.retrieve_request_status(request={"request_id": first.request_id})
    destination = final.request_status_per_destination[0]
    counted = destination.audience_members_ingestion_status.user_data_ingestion_status
    assert destination.request_status == state.SUCCESS
    assert (counted.record_count, counted.user_identifier_count) == (20, 30)
    assert counted.upload_match_rate_range.name.startswith("MATCH_RATE_RANGE_")
    gone = to(delivery, str(delivery.platform_audience_id), operation="remove")
    removal = read_by_sdk(dm.RemoveAudienceMembersRequest, request_body(SETTINGS, gone, people(5)))
    assert ingestion.remove_audience_members(request=removal).request_id
    (audience,) = google_twin.lists.values()
    assert audience.summary()["digest"] == digest_of(people(15, start=5))


def test_the_sdk_finds_our_list_by_its_code(sdk: tuple[Any, Any]) -> None:
    _, lists = sdk
    made = sdk_list(lists)
    request = {"parent": PARENT, "filter": f'integration_code = "{ADD.external_id}"'}
    found = list(lists.list_user_lists(request=request))
    assert [str(one.id) for one in found] == [made]
    assert found[0].ingested_user_list_info.upload_key_types == [1]


def test_base64_names_the_same_people(sdk: tuple[Any, Any], google_twin: GoogleAdsTwin) -> None:
    ingestion, lists = sdk
    body = request_body(SETTINGS, to(ADD, sdk_list(lists)), people(4))
    for member in body["audienceMembers"]:
        for identifier in member["userData"]["userIdentifiers"]:
            for name, value in identifier.items():
                identifier[name] = base64.b64encode(bytes.fromhex(value)).decode()
    body["encoding"] = "BASE64"
    ingestion.ingest_audience_members(request=read_by_sdk(dm.IngestAudienceMembersRequest, body))
    (audience,) = google_twin.lists.values()
    assert audience.summary()["digest"] == digest_of(people(4))


def test_the_sdk_understands_the_twins_refusals(
    sdk: tuple[Any, Any], root: RunningTwins, google_twin: GoogleAdsTwin
) -> None:
    ingestion, lists = sdk
    batch = people(3)
    batch["email"][2] = "jane@example.com"
    body = request_body(SETTINGS, to(ADD, sdk_list(lists)), batch)
    request = read_by_sdk(dm.IngestAudienceMembersRequest, body)
    with pytest.raises(BadRequest) as caught:
        ingestion.ingest_audience_members(request=request)
    assert caught.value.reason == "INVALID_HEX_ENCODING"
    with pytest.raises(RefreshError):  # it takes the 401 and asks its login for a new token
        clients(root, "ya29.stolen")[0].ingest_audience_members(request=request)


def test_the_sdk_meets_the_quota(clock: MovableClock) -> None:
    twin = GoogleAdsTwin(clock, requests_per_minute=0)
    running = serve({"": twin})
    try:
        ingestion, _ = clients(running, twin.tokens.issue())
        with pytest.raises(TooManyRequests):
            ingestion.ingest_audience_members(request=dm.IngestAudienceMembersRequest())
    finally:
        running.close()


@pytest.mark.parametrize(
    ("settings", "columns"),
    [
        ({"login_account_id": "7", "consent_granted": True}, people(3)),
        ({"upload_key_type": "MOBILE_ID"}, {"maid": [MAID]}),
        ({"upload_key_type": "USER_ID"}, {"customer_id": ["crm-1"]}),
    ],
)
@pytest.mark.parametrize("operation", ["add", "remove"])
def test_our_requests_are_the_sdks_messages(
    settings: dict[str, Any], columns: dict[str, list[str | None]], operation: str
) -> None:
    delivery = to(ADD, "42", operation=operation)
    body = request_body({**SETTINGS, **settings}, delivery, columns)
    kind = (
        dm.IngestAudienceMembersRequest if operation == "add" else dm.RemoveAudienceMembersRequest
    )
    message = read_by_sdk(kind, body)
    again = orjson.loads(
        kind.to_json(
            message, use_integers_for_enums=False, always_print_fields_with_no_presence=False
        )
    )
    assert again == body


@pytest.mark.parametrize("key_type", ["CONTACT_ID", "MOBILE_ID", "USER_ID"])
def test_our_lists_are_the_sdks_messages(key_type: str) -> None:
    settings = {**SETTINGS, "upload_key_type": key_type, "mobile_key_space": "IOS"}
    body = list_body({**settings, "mobile_app_id": "77"}, ADD, "Buyers")
    message = read_by_sdk(dm.UserList, body)
    assert message.membership_duration.days == 540
    assert message.ingested_user_list_info.upload_key_types[0].name == key_type


def test_every_reason_of_ours_is_one_of_googles() -> None:
    known = {reason.name for reason in dm.ErrorReason}
    assert known >= ROW_REASONS


@pytest.mark.parametrize(
    "email", ["Jane.Doe+x@Gmail.com", " a.b@googlemail.com ", "A.B+c@Example.com"]
)
def test_googles_formatter_hashes_alike(email: str) -> None:
    ours = digest(folded(email_plain(email) or "", GOOGLE_DOMAINS))
    assert ours == Formatter().process_email_address(email, Encoding.HEX)


def test_googles_formatter_hashes_phones_alike() -> None:
    ours = digest(phone_e164("+1 (800) 555-0100") or "")
    assert ours == Formatter().process_phone_number("+1 (800) 555-0100", Encoding.HEX)
