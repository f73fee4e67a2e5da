"""Meta's own SDK as the oracle: the twin takes its requests and it takes the twin's answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from facebook_business.adobjects.adaccount import AdAccount
from facebook_business.adobjects.customaudience import CustomAudience
from facebook_business.api import FacebookAdsApi
from facebook_business.exceptions import FacebookRequestError
from facebook_business.session import FacebookSession

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.facebook_wire import request_body
from activation.twins.facebook import FacebookTwin
from activation.twins.facebook_sessions import Terms
from activation.twins.server import serve
from tests.connectors.support import ADD, digest_of, people

KEYS = CustomAudience.Schema.MultiKeySchema


@pytest.fixture
def twin(clock: MovableClock) -> FacebookTwin:
    return FacebookTwin(clock, app_secret="app-secret", terms=Terms(require_session=False))


@pytest.fixture
def api(twin: FacebookTwin) -> Iterator[FacebookAdsApi]:
    """The SDK, pointed at the twin."""
    running = serve({"": twin})
    before = FacebookSession.GRAPH
    FacebookSession.GRAPH = running.url
    session = FacebookSession(app_secret="app-secret", access_token="twin-token")
    yield FacebookAdsApi(session, api_version="v26.0")
    session.requests.close()
    FacebookSession.GRAPH = before
    running.close()


def made(api: FacebookAdsApi) -> Any:
    account = AdAccount("act_1001", api=api)
    return account.create_custom_audience(
        params={
            "name": "By SDK",
            "subtype": "CUSTOM",
            "description": "x",
            "customer_file_source": "USER_PROVIDED_ONLY",
        }
    )


def rows_of(count: int, start: int = 0) -> list[list[str]]:
    batch = people(count, start)
    return [[e or "", p or ""] for e, p in zip(batch["email"], batch["phone"], strict=True)]


def test_the_twin_takes_what_the_sdk_sends(api: FacebookAdsApi, twin: FacebookTwin) -> None:
    audience = made(api)
    schema = [KEYS.email, KEYS.phone]
    session = {"session_id": 7, "batch_seq": 1, "last_batch_flag": True, "estimated_num_total": 20}
    audience.add_users(schema, rows_of(20), is_raw=True, pre_hashed=True, session=session)
    audience.remove_users(schema, rows_of(5), is_raw=True, pre_hashed=True)
    held = twin.audiences[audience["id"]].summary()
    assert held["digest"] == digest_of(people(15, start=5))
    shown = audience.api_get(fields=["name", "approximate_count_lower_bound"])
    assert shown["name"] == "By SDK"
    assert [a["id"] for a in AdAccount("act_1001", api=api).get_custom_audiences(["name"])] == [
        audience["id"]
    ]


def test_one_key_alone_is_a_flat_list(api: FacebookAdsApi, twin: FacebookTwin) -> None:
    audience = made(api)
    emails = [str(value) for value in people(9)["email"]]
    audience.add_users(CustomAudience.Schema.email_hash, emails, pre_hashed=True)
    assert twin.audiences[audience["id"]].summary()["digest"] == digest_of({"email": emails})


def test_ten_thousand_rows_go_through_a_form(api: FacebookAdsApi, twin: FacebookTwin) -> None:
    audience = made(api)
    answer = audience.add_users([KEYS.email, KEYS.phone], rows_of(10_000), True, pre_hashed=True)
    assert answer.json()["num_received"] == 10_000
    with pytest.raises(FacebookRequestError) as caught:
        audience.add_users([KEYS.email, KEYS.phone], rows_of(10_001), True, pre_hashed=True)
    assert caught.value.api_error_code() == 100
    assert len(twin.audiences[audience["id"]].keys) == 15_000


def test_a_large_removal_does_not_fit_into_the_sdks_address(
    api: FacebookAdsApi, twin: FacebookTwin
) -> None:
    """Why our connector puts removals into the body; the SDK takes the refusal for a success."""
    audience = made(api)
    schema, rows = [KEYS.email, KEYS.phone], rows_of(1_000)
    audience.add_users(schema, rows, True, pre_hashed=True)
    assert audience.remove_users(schema, rows, True, pre_hashed=True).status() == 414
    assert len(twin.audiences[audience["id"]].keys) == 1_500


def test_the_sdk_replaces_by_a_session(api: FacebookAdsApi, twin: FacebookTwin) -> None:
    """The edge that our connector uses, with the parameters that the SDK knows it by."""
    audience = made(api)
    audience.add_users([KEYS.email, KEYS.phone], rows_of(8), True, pre_hashed=True)
    delivery = dataclasses.replace(ADD, operation="replace", batches=2)
    for seq, batch in ((1, people(5, start=100)), (2, people(5, start=200))):
        audience.create_users_replace(params=_sent(request_body({}, delivery, seq, batch)))
    held = twin.audiences[audience["id"]].summary()
    assert held["digest"] == digest_of(people(5, start=100), people(5, start=200))


def test_the_sdk_understands_the_twins_refusals(api: FacebookAdsApi) -> None:
    audience = made(api)
    with pytest.raises(FacebookRequestError) as caught:
        audience.add_users([KEYS.email], [["jane@example.com"]], True, pre_hashed=True)
    assert caught.value.api_error_code() == 100
    stolen = FacebookSession(app_secret="app-secret", access_token="stolen")
    with pytest.raises(FacebookRequestError) as caught:
        AdAccount("act_1001", api=FacebookAdsApi(stolen, api_version="v26.0")).api_get()
    assert caught.value.api_error_code() == 190
    stolen.requests.close()


def test_our_keys_are_the_sdks() -> None:
    columns: dict[str, list[str]] = {
        "email": ["e"],
        "phone": ["p"],
        "maid": ["M"],
        "customer_id": ["c"],
    }
    payload = _sent(request_body({}, ADD, 1, columns))["payload"]
    assert payload["schema"] == [KEYS.email, KEYS.phone, KEYS.madid, KEYS.extern_id]
    theirs = CustomAudience.format_params(
        payload["schema"], [list(row) for row in payload["data"]], is_raw=True, pre_hashed=True
    )["payload"]
    assert theirs["data"] == [list(row) for row in payload["data"]]
    assert theirs["schema"] == payload["schema"]


def _sent(body: dict[str, Any]) -> dict[str, Any]:
    """The body as it is on the wire."""
    sent: dict[str, Any] = orjson.loads(orjson.dumps(body))
    return sent
