"""The Google connector against its twin, over a socket."""

from __future__ import annotations

import dataclasses

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.domain.consent import ConsentBasis
from activation.domain.identifier import Consent
from activation.domain.platform import PlatformType
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformRowsError,
    PlatformTransientError,
)
from activation.ports import Account, Connector
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.google_oauth import GoogleLogins
from activation.twins.members import set_digest
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import ADD, MAID, digest_of, google_account, people, to


@pytest.fixture
def account(running: RunningTwins) -> Account:
    return google_account(running)


def test_a_list_is_made_once_per_external_id(
    google: Connector, account: Account, google_twin: GoogleAdsTwin
) -> None:
    first = google.create_audience(account, ADD)
    renamed = dataclasses.replace(ADD, audience_name="Renamed")
    assert google.create_audience(account, renamed) == first
    assert [a.external_id for a in google_twin.lists.values()] == [ADD.external_id]


def test_a_taken_display_name_is_made_unique(
    google: Connector, account: Account, google_twin: GoogleAdsTwin
) -> None:
    first = google.create_audience(account, ADD)
    other = dataclasses.replace(ADD, external_id="aa-other")
    second = google.create_audience(account, other)
    assert first != second
    assert google_twin.lists[second].name == "Spring buyers (aa-other)"


def test_the_final_set_is_what_was_sent_and_a_repeat_changes_nothing(
    google: Connector, account: Account, google_twin: GoogleAdsTwin
) -> None:
    audience_id = google.create_audience(account, ADD)
    delivery = to(ADD, audience_id, batches=2, rows=30)
    first, second = people(20), people(10, start=20)
    for seq, batch in ((1, first), (1, first), (2, second)):
        outcome = google.send(account, delivery, seq, batch)
        assert outcome.receipt
        assert not outcome.rejected
    google.finish(account, delivery)
    held = google_twin.lists[audience_id].keys
    assert set_digest(held) == digest_of(first, second)
    assert len(held) == 30 + 15


def test_a_removed_member_disappears(
    google: Connector, account: Account, google_twin: GoogleAdsTwin
) -> None:
    audience_id = google.create_audience(account, ADD)
    google.send(account, to(ADD, audience_id), 1, people(10))
    google.send(account, to(ADD, audience_id, operation="remove"), 1, people(4))
    assert set_digest(google_twin.lists[audience_id].keys) == digest_of(people(6, start=4))


def test_match_results_come_when_all_requests_are_through(
    google: Connector, account: Account
) -> None:
    delivery = to(ADD, google.create_audience(account, ADD))
    receipts = [str(google.send(account, delivery, n, people(200)).receipt) for n in (1, 2)]
    assert google.match_results(account, delivery, receipts).final is False
    assert google.match_results(account, delivery, receipts).final is False
    report = google.match_results(account, delivery, [",".join(receipts)])
    assert report.final
    assert report.matched is None
    assert report.match_rate_range in ("41-50%", "51-60%")
    assert report.failures == {}


def test_one_bad_hash_names_its_row_and_nothing_is_taken(
    google: Connector, account: Account, google_twin: GoogleAdsTwin
) -> None:
    audience_id = google.create_audience(account, ADD)
    batch = people(5)
    batch["email"][1] = "A" * 64
    batch["email"][3] = "abc123"
    with pytest.raises(PlatformRowsError) as caught:
        google.send(account, to(ADD, audience_id), 1, batch)
    assert caught.value.rows == (1, 3)
    assert caught.value.platform_code == "INVALID_SHA256_FORMAT"
    assert not google_twin.lists[audience_id].keys


@pytest.mark.parametrize(
    ("settings", "columns"),
    [
        (
            {"upload_key_type": "MOBILE_ID", "mobile_key_space": "IOS", "mobile_app_id": "77"},
            {"maid": [MAID]},
        ),
        ({"upload_key_type": "USER_ID"}, {"customer_id": ["crm-1", "crm-2"]}),
    ],
)
def test_other_lists_take_other_identifiers(
    registry: ConnectorRegistry,
    running: RunningTwins,
    google_twin: GoogleAdsTwin,
    settings: dict[str, str],
    columns: dict[str, list[str]],
) -> None:
    google = registry.connector(PlatformType.GOOGLE_ADS, settings)
    assert set(google.spec.identifiers) == set(columns)
    account = google_account(running, **settings)
    audience_id = google.create_audience(account, ADD)
    google.send(account, to(ADD, audience_id), 1, columns)
    assert set_digest(google_twin.lists[audience_id].keys) == digest_of(columns)


GRANTED, DENIED = Consent.GRANTED, Consent.DENIED


@pytest.mark.parametrize(
    ("basis", "fallback", "declared"),
    [
        (ConsentBasis(), False, "unspecified/unspecified"),
        (ConsentBasis(), True, "granted/granted"),
        (ConsentBasis(GRANTED, GRANTED), False, "granted/granted"),
        (ConsentBasis(GRANTED, DENIED), True, "granted/denied"),
        (ConsentBasis(DENIED, DENIED), True, "denied/denied"),
        (ConsentBasis(GRANTED, None), True, "granted/unspecified"),
        (ConsentBasis(None, DENIED), True, "unspecified/denied"),
        (ConsentBasis(limited_data_use=True), True, "unspecified/unspecified"),
    ],
)
def test_the_account_speaks_only_for_those_who_said_nothing(
    google: Connector,
    running: RunningTwins,
    google_twin: GoogleAdsTwin,
    basis: ConsentBasis,
    fallback: bool,
    declared: str,
) -> None:
    account = google_account(running, consent_granted=fallback, login_account_id="55")
    delivery = to(ADD, google.create_audience(account, ADD), consent=basis)
    google.send(account, delivery, 1, people(2))
    google.send(account, to(delivery, "7000000000", operation="remove"), 1, people(1))
    assert google_twin.lists["7000000000"].consents == {declared: 2}


def test_a_revoked_token_is_replaced_once(
    google: Connector, account: Account, google_twin: GoogleAdsTwin
) -> None:
    google.check(account)
    google_twin.tokens.revoke_all()
    google.check(account)
    assert google_twin.state()["requests"] == {"POST 200": 2, "GET 200": 2, "GET 401": 1}


def test_a_token_is_kept_until_shortly_before_it_ends(
    google: Connector, account: Account, google_twin: GoogleAdsTwin, clock: MovableClock
) -> None:
    for seconds in (0, 3000, 500, 100):
        clock.sleep(seconds)
        google.check(account)
    assert google_twin.state()["requests"] == {"POST 200": 2, "GET 200": 4}


def test_credentials_refused_for_good_need_a_new_login(
    google: Connector, account: Account, google_twin: GoogleAdsTwin
) -> None:
    google_twin.faults.plan(Fault("status", status=401, path="/userLists", times=9))
    with pytest.raises(PlatformAuthError):
        google.check(account)
    wrong = dataclasses.replace(account, credentials={**account.credentials, "refresh_token": "x"})
    with pytest.raises(PlatformAuthError) as caught:
        google.check(wrong)
    assert caught.value.platform_code == "invalid_grant"


@pytest.mark.usefixtures("hasty")
def test_a_busy_token_endpoint_says_nothing_of_the_credentials(
    google: Connector, account: Account, google_twin: GoogleAdsTwin
) -> None:
    body = {"error": "temporarily_unavailable"}
    busy = Fault("status", status=400, path="/token", body=body, headers={"Retry-After": "90"})
    google_twin.faults.plan(busy)
    with pytest.raises(PlatformTransientError) as caught:
        google.check(account)
    assert caught.value.retry_after_seconds == 90


@pytest.mark.parametrize("lifetime", ["3600", 3599])
def test_a_lifetime_may_come_as_text(
    google: Connector, account: Account, google_twin: GoogleAdsTwin, lifetime: object
) -> None:
    body = {"access_token": "granted", "token_type": "Bearer", "expires_in": lifetime}
    google_twin.faults.plan(Fault("status", status=200, path="/token", body=body))
    google_twin.faults.plan(Fault("status", status=200, path="/userLists", body={}))
    google.check(account)


def test_a_service_account_signs_its_way_in(
    google: Connector, account: Account, clock: MovableClock
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    logins = GoogleLogins(service_accounts={"robot@example.com": public.decode()})
    twin = GoogleAdsTwin(clock, logins=logins)
    running = serve({"google_ads": twin})
    try:
        robot = {"client_email": "robot@example.com", "private_key": private.decode()}
        mine = dataclasses.replace(
            google_account(running), credentials={"service_account_json": _json(robot)}
        )
        google.check(mine)
        stranger = _json({**robot, "client_email": "stranger@example.com"})
        foreign = dataclasses.replace(mine, credentials={"service_account_json": stranger})
        with pytest.raises(PlatformAuthError):
            google.check(foreign)
    finally:
        running.close()


def test_an_unusable_key_is_a_matter_of_credentials(google: Connector, account: Account) -> None:
    for text in ("{}", _json({"client_email": "r@example.com", "private_key": "no key"})):
        broken = dataclasses.replace(account, credentials={"service_account_json": text})
        with pytest.raises(PlatformAuthError):
            google.check(broken)


def test_the_quota_is_answered_with_a_time_to_come_back(
    google: Connector, clock: MovableClock
) -> None:
    running = serve({"google_ads": GoogleAdsTwin(clock, requests_per_minute=1)})
    try:
        account = google_account(running)
        delivery = to(ADD, google.create_audience(account, ADD))
        google.send(account, delivery, 1, people(1))
        with pytest.raises(PlatformTransientError) as caught:
            google.send(account, delivery, 2, people(1))
        assert caught.value.retry_after_seconds == 60
        clock.sleep(60)
        assert google.send(account, delivery, 2, people(1)).receipt
    finally:
        running.close()


def test_a_batch_that_is_too_large_may_be_halved(
    google: Connector, account: Account, google_twin: GoogleAdsTwin
) -> None:
    delivery = to(ADD, google.create_audience(account, ADD))
    google_twin.faults.plan(Fault("limit", path="ingest", size=1000, times=9))
    with pytest.raises(PlatformRowsError):
        google.send(account, delivery, 1, people(50))
    assert google.send(account, delivery, 1, people(2)).receipt


def test_a_foreign_account_is_refused_for_good(google: Connector, running: RunningTwins) -> None:
    with pytest.raises(PlatformError) as caught:
        google.check(google_account(running, account_id="1"))
    assert not caught.value.retryable
    assert caught.value.platform_code == "PERMISSION_DENIED"


def _json(value: dict[str, str]) -> str:
    return orjson.dumps(value).decode()
