"""Google's own SDK as the oracle: the twin takes its requests, it reads ours."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
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
from activation.adapters.connectors.google_wire import (
    ROW_REASONS,
    clear_body,
    list_body,
    list_size,
)
from activation.domain.consent import ConsentBasis
from activation.domain.delivery import Delivery
from activation.domain.identifier import GOOGLE_DOMAINS, Consent, email_plain, folded, phone_e164
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


def test_the_sdk_clears_what_was_added_before(
    sdk: tuple[Any, Any], google_twin: GoogleAdsTwin, clock: MovableClock
) -> None:
    ingestion, lists = sdk
    delivery = to(ADD, sdk_list(lists))
    began = delivery
    for batch in (people(10), people(3)):
        clock.sleep(0.5)
        began = dataclasses.replace(delivery, started_at=clock.now())
        body = request_body(SETTINGS, delivery, batch)
        ingestion.ingest_audience_members(
            request=read_by_sdk(dm.IngestAudienceMembersRequest, body)
        )
    request = read_by_sdk(dm.RemoveAllAudienceMembersRequest, clear_body(SETTINGS, began))
    answer = ingestion.remove_all_audience_members(request=request)
    (audience,) = google_twin.lists.values()
    assert audience.summary()["digest"] == digest_of(people(3))
    asked = {"request_id": answer.request_id}
    seen = [ingestion.retrieve_request_status(request=asked) for _ in range(2)]
    (begun,), (final,) = (status.request_status_per_destination for status in seen)
    assert (begun.request_status.name, final.request_status.name) == ("PROCESSING", "SUCCESS")
    assert "remove_all_audience_members_status" in final
    assert "audience_members_removal_status" not in final


def test_the_sdk_understands_that_a_time_is_still_to_come(
    sdk: tuple[Any, Any], google_twin: GoogleAdsTwin, clock: MovableClock
) -> None:
    ingestion, lists = sdk
    ahead = to(ADD, sdk_list(lists), started_at=clock.now() + timedelta(microseconds=1))
    request = read_by_sdk(dm.RemoveAllAudienceMembersRequest, clear_body(SETTINGS, ahead))
    with pytest.raises(BadRequest) as caught:
        ingestion.remove_all_audience_members(request=request)
    assert caught.value.reason == dm.ErrorReason.INVALID_REMOVE_AS_OF_TIME.name


@pytest.mark.parametrize(
    ("started_at", "nanos"),
    [
        (datetime(2026, 11, 21, 9, 0, 0, 123_456, UTC), 123_456_000),
        (datetime(2026, 11, 21, 10, 0, 0, 0, timezone(timedelta(hours=1))), 0),
    ],
)
def test_our_clearing_is_the_sdks_message(started_at: datetime, nanos: int) -> None:
    delivery = to(ADD, "42", started_at=started_at)
    body = clear_body({**SETTINGS, "login_account_id": "7"}, delivery)
    message = read_by_sdk(dm.RemoveAllAudienceMembersRequest, body)
    stamp = dm.RemoveAllAudienceMembersRequest.pb(message).remove_as_of_time
    assert (stamp.seconds, stamp.nanos) == (1_795_251_600, nanos)
    (destination,) = message.destinations
    assert destination.product_destination_id == "42"
    assert destination.login_account.account_id == "7"


def test_the_sdk_does_not_clear_twice_by_itself_and_neither_do_we() -> None:
    transport: Any = IngestionServiceRestTransport(credentials=Credentials(token="t"))
    clearing = transport._wrapped_methods[transport.remove_all_audience_members]
    adding = transport._wrapped_methods[transport.ingest_audience_members]
    assert (clearing._retry, adding._retry is None) == (None, False)


def test_the_sdk_reads_how_large_a_list_is(
    sdk: tuple[Any, Any], google_twin: GoogleAdsTwin
) -> None:
    ingestion, lists = sdk
    made = sdk_list(lists)
    name = f"{PARENT}/userLists/{made}"
    assert "size_info" in lists.get_user_list(name=name)
    body = request_body(SETTINGS, to(ADD, made), people(40))
    ingestion.ingest_audience_members(request=read_by_sdk(dm.IngestAudienceMembersRequest, body))
    shown = lists.get_user_list(name=name)
    again = orjson.loads(dm.UserList.to_json(shown, always_print_fields_with_no_presence=False))
    size = list_size(again)
    assert size is not None
    assert size.low == shown.size_info.display_network_members_count > 0


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
        (
            {
                "account_type": "DISPLAY_VIDEO_ADVERTISER",
                "login_account_id": "7",
                "login_account_type": "DISPLAY_VIDEO_PARTNER",
            },
            people(3),
        ),
        ({}, {"email": [None, digest("a")], "phone": [digest("b"), None]}),
        ({}, {"email": [digest("a")], "phone": [None]}),
        ({}, {"email": [None], "phone": [digest("b")]}),
        ({"upload_key_type": "MOBILE_ID"}, {"maid": [MAID]}),
        ({"upload_key_type": "USER_ID"}, {"customer_id": ["crm-1"]}),
    ],
)
@pytest.mark.parametrize("consent", [ConsentBasis(), ConsentBasis(Consent.GRANTED, Consent.DENIED)])
@pytest.mark.parametrize("operation", ["add", "remove"])
def test_our_requests_are_the_sdks_messages(
    settings: dict[str, Any],
    columns: dict[str, list[str | None]],
    operation: str,
    consent: ConsentBasis,
) -> None:
    delivery = to(ADD, "42", operation=operation, consent=consent)
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
