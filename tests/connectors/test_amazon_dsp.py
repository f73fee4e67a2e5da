"""The Amazon DSP connector against its twin, over a socket."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.amazon_wire import (
    audience_name,
    dataset_name,
    external_user_id,
    match_rate,
    members_body,
    refusal,
    rejects,
)
from activation.adapters.connectors.http import Reply
from activation.adapters.connectors.registry import ConnectorRegistry, spec_for
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
from activation.twins.amazon_dsp import FIRST_ID, AmazonDspTwin, Dataset
from activation.twins.amazon_shapes import MAX_BYTES, MAX_MEMBERS
from activation.twins.faults import Fault
from activation.twins.members import set_digest
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import ADD, MAID, digest, digest_of, to

GRANTED, DENIED = Consent.GRANTED, Consent.DENIED
RAMP = "XYabcdefghijklmnopqrstuvwxyz0123456789_-"


def singles(count: int, start: int = 0) -> dict[str, list[str | None]]:
    """`count` rows with one identifier each, e-mails and phones in turns."""
    numbers = range(start, start + count)
    return {
        "email": [digest(f"p{n}@example.com") if n % 2 else None for n in numbers],
        "phone": [None if n % 2 else digest(f"1555{n:07d}") for n in numbers],
    }


@pytest.fixture
def twin(clock: MovableClock) -> AmazonDspTwin:
    return AmazonDspTwin(clock)


@pytest.fixture
def amazon_twins(twin: AmazonDspTwin) -> Iterator[RunningTwins]:
    running = serve({"amazon_dsp": twin})
    yield running
    running.close()


def account_at(running: RunningTwins, **settings: Any) -> Account:
    url = running.url_of("amazon_dsp")
    return Account(
        "platform-a",
        {
            "manager_account_id": "amzn1.ads-account.g.manager",
            "destination_account_id": "413642381039213999",
            "marketplace_id": "ATVPDKIKX0DER",
            "country_code": "US",
            "api_url": url,
            "token_url": f"{url}/auth/o2/token",
            **settings,
        },
        {
            "client_id": "twin-client",
            "client_secret": "twin-secret",
            "refresh_token": "twin-refresh",
        },
    )


@pytest.fixture
def account(amazon_twins: RunningTwins) -> Account:
    return account_at(amazon_twins)


@pytest.fixture
def amazon(registry: ConnectorRegistry) -> Connector:
    return registry.connector(PlatformType.AMAZON_DSP, {})


def test_a_dataset_is_made_and_shared_once_per_external_id(
    amazon: Connector, account: Account, twin: AmazonDspTwin
) -> None:
    first = amazon.create_audience(account, ADD)
    renamed = dataclasses.replace(ADD, audience_name="Renamed since then")
    assert amazon.create_audience(account, renamed) == first
    assert [dataset.name for dataset in twin.datasets.values()] == [ADD.external_id]
    (rule,) = twin.rules
    assert (rule["application"], rule["dataSetId"]) == ("DSP_AUDIENCES", first)
    assert rule["destinationAccountId"] == "413642381039213999"
    assert rule["metadata"]["audienceName"] == ADD.audience_name


@pytest.mark.parametrize("numeric", [False, True])
def test_ids_beyond_floating_point_stay_exact(
    amazon: Connector, clock: MovableClock, numeric: bool
) -> None:
    twin = AmazonDspTwin(clock, numeric_ids=numeric)
    running = serve({"amazon_dsp": twin})
    try:
        account = account_at(running)
        ids = [
            amazon.create_audience(account, dataclasses.replace(ADD, external_id=f"aa-{n:05d}"))
            for n in range(3)
        ]
        assert ids == [str(FIRST_ID + n) for n in range(3)]
        amazon.send(account, to(ADD, ids[1]), 1, singles(4))
        assert [len(dataset.keys) for dataset in twin.datasets.values()] == [0, 4, 0]
    finally:
        running.close()


def test_a_dataset_is_found_behind_many_others(
    amazon: Connector, account: Account, twin: AmazonDspTwin
) -> None:
    first = amazon.create_audience(account, ADD)
    mine = twin.datasets.pop(first)
    for number in range(230):
        other = dataclasses.replace(mine, dataset_id=str(number), name=f"other-{number}")
        twin.datasets[str(number)] = other
    twin.datasets[first] = mine
    assert amazon.create_audience(account, ADD) == first
    assert len(twin.datasets) == 231


@pytest.mark.parametrize("spelled", ["datasetId", "dataSetId"])
def test_a_name_that_is_taken_meanwhile_tells_whose_it_is(
    amazon: Connector, account: Account, twin: AmazonDspTwin, spelled: str
) -> None:
    theirs = Dataset(str(FIRST_ID + 7), "not-listed-yet", "US", "")
    twin.datasets[theirs.dataset_id] = theirs
    body = {"code": "DuplicateDatasetName", spelled: FIRST_ID + 7}
    fault = Fault("status", method="POST", path="/adm/audiences", status=400, body=body)
    twin.faults.plan(fault)
    assert amazon.create_audience(account, ADD) == theirs.dataset_id
    assert len(twin.datasets) == 1


def test_a_lost_answer_makes_no_second_dataset(
    amazon: Connector, account: Account, twin: AmazonDspTwin
) -> None:
    twin.faults.plan(Fault("lost", method="POST", path="/adm/audiences"))
    with pytest.raises(PlatformTransientError):
        amazon.create_audience(account, ADD)
    assert len(twin.datasets) == 1
    assert amazon.create_audience(account, ADD) == str(FIRST_ID)
    assert len(twin.datasets) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", path="/adm/sharingRules", after=1, status=429),
        Fault("status", path="/adm/sharingRules", after=1, status=503),
        Fault("lost", path="/adm/sharingRules", after=1),
    ],
    ids=["429", "503", "lost"],
)
def test_a_sharing_rule_is_looked_for_and_never_posted_again_unseen(
    amazon: Connector, account: Account, twin: AmazonDspTwin, fault: Fault
) -> None:
    twin.faults.plan(fault)
    twin.faults.plan(Fault("status", path="/adm/sharingRules", status=500))
    with pytest.raises(PlatformTransientError):
        amazon.create_audience(account, ADD)
    assert len(twin.faults.pending()) == 1, "the rule was posted a second time"
    twin.faults.clear()
    amazon.create_audience(account, ADD)
    amazon.create_audience(account, ADD)
    assert len(twin.rules) == 1


def test_a_revoked_rule_is_not_made_anew(
    amazon: Connector, account: Account, twin: AmazonDspTwin
) -> None:
    amazon.create_audience(account, ADD)
    twin.rules[0]["status"] = "REVOKED_BY_USER"
    with pytest.raises(PlatformError) as caught:
        amazon.create_audience(account, ADD)
    assert (caught.value.reason, len(twin.rules)) == ("sharing_revoked", 1)
    twin.rules.append({**twin.rules[0], "status": "ACTIVE"})
    assert amazon.create_audience(account, ADD)


def test_another_destination_gets_a_rule_of_its_own(
    amazon: Connector, account: Account, amazon_twins: RunningTwins, twin: AmazonDspTwin
) -> None:
    first = amazon.create_audience(account, ADD)
    other = account_at(amazon_twins, destination_account_id="77")
    assert amazon.create_audience(other, ADD) == first
    assert [rule["destinationAccountId"] for rule in twin.rules] == ["413642381039213999", "77"]


# Terms and the data room -------------------------------------------------------------------------


def test_terms_are_accepted_only_where_the_account_says_so(
    amazon: Connector, account: Account, amazon_twins: RunningTwins, twin: AmazonDspTwin
) -> None:
    twin.terms_accepted = twin.data_room = False
    for call in (amazon.check, lambda account: amazon.create_audience(account, ADD)):
        with pytest.raises(PlatformError) as caught:
            call(account)
        assert (caught.value.reason, caught.value.retryable) == ("terms_not_accepted", False)
    willing = account_at(amazon_twins, accept_terms=True)
    amazon.check(willing)
    assert not twin.terms_accepted
    assert amazon.create_audience(willing, ADD)
    assert (twin.terms_accepted, twin.data_room) == (True, True)


def test_a_data_room_is_made_where_there_is_none(
    amazon: Connector, account: Account, twin: AmazonDspTwin
) -> None:
    twin.data_room = False
    amazon.create_audience(account, ADD)
    assert twin.data_room
    assert len(twin.datasets) == 1


# Members ----------------------------------------------------------------------------------------


def test_the_final_set_is_what_was_sent_and_a_repeat_changes_nothing(
    amazon: Connector, account: Account, twin: AmazonDspTwin
) -> None:
    audience_id = amazon.create_audience(account, ADD)
    delivery = to(ADD, audience_id, batches=2, rows=30)
    first, second = singles(20), singles(10, start=20)
    for seq, batch in ((1, first), (1, first), (2, second), (2, second)):
        outcome = amazon.send(account, delivery, seq, batch)
        assert outcome.receipt
        assert (outcome.rejected, outcome.unplaced_rejects) == ({}, {})
    amazon.finish(account, delivery)
    assert set_digest(twin.datasets[audience_id].keys) == digest_of(first, second)
    assert len(twin.datasets[audience_id].records) == 30


def test_what_was_added_is_removed_whatever_else_is_known_of_the_person(
    registry: ConnectorRegistry, amazon_twins: RunningTwins, twin: AmazonDspTwin
) -> None:
    flags = {"send_maid": True, "send_ramp_id": True}
    amazon = registry.connector(PlatformType.AMAZON_DSP, flags)
    account = account_at(amazon_twins, **flags)
    audience_id = amazon.create_audience(account, ADD)
    add, remove = to(ADD, audience_id), to(ADD, audience_id, operation="remove")
    person = {
        "email": [digest("jane@example.com"), None, None, None],
        "phone": [None, digest("15550001"), None, None],
        "maid": [None, None, MAID, None],
        "ramp_id": [None, None, None, RAMP],
    }
    amazon.send(account, add, 1, person)
    assert set_digest(twin.datasets[audience_id].keys) == digest_of(person)
    amazon.send(account, remove, 1, {"phone": [digest("15550001")]})
    amazon.send(account, remove, 2, {"email": [None], "maid": [MAID]})
    left = {"email": [digest("jane@example.com")], "ramp_id": [RAMP]}
    assert set_digest(twin.datasets[audience_id].keys) == digest_of(left)
    amazon.send(account, remove, 3, {"ramp_id": [RAMP, None], "email": [None, left["email"][0]]})
    assert not twin.datasets[audience_id].records
    amazon.send(account, remove, 3, left | {"ramp_id": [None]})
    assert not twin.datasets[audience_id].records


def test_the_names_of_records_tell_nothing_and_differ_by_kind() -> None:
    value = digest("jane@example.com")
    names = {external_user_id(kind, value) for kind in ("email", "phone", "maid", "ramp_id")}
    assert len(names) == 4
    assert value not in names
    assert all(len(name) == 64 for name in names)
    assert external_user_id("email", value) == external_user_id("email", value)


@pytest.mark.parametrize("row", [{"email": ["a"], "phone": ["b"]}, {"email": [None]}])
def test_a_row_is_one_identifier_and_no_other(row: dict[str, list[str | None]]) -> None:
    assert not spec_for(PlatformType.AMAZON_DSP, {}).multi_key
    with pytest.raises(ValueError, match="unpack"):
        members_body({"country_code": "US"}, to(ADD, "1", operation="remove"), row)


def test_rejected_records_are_named_by_position(
    amazon: Connector, account: Account, twin: AmazonDspTwin
) -> None:
    audience_id = amazon.create_audience(account, ADD)
    batch: dict[str, list[str | None]] = {"email": [digest(str(n)) for n in range(5)]}
    batch["email"][1] = "A" * 64
    batch["email"][4] = "jane@example.com"
    outcome = amazon.send(account, to(ADD, audience_id), 1, batch)
    assert outcome.rejected == {1: "InvalidHash", 4: "InvalidHash"}
    assert outcome.unplaced_rejects == {}
    good = {"email": [batch["email"][n] for n in (0, 2, 3)]}
    assert set_digest(twin.datasets[audience_id].keys) == digest_of(good)


@pytest.mark.parametrize(
    ("errors", "placed", "unplaced"),
    [
        (None, {}, {}),
        ([{"index": 0, "code": "400"}], {0: "400"}, {}),
        ([{"index": 2.0, "errors": [{"errorType": "BadHash"}]}], {2: "BadHash"}, {}),
        ([{"index": 3, "code": "400"}], {}, {"400": 1}),
        ([{"index": -1, "code": "400"}], {}, {"400": 1}),
        ([{"index": 0.5, "code": "400"}], {}, {"400": 1}),
        ([{"code": "400"}, {"code": "400"}], {}, {"400": 2}),
        ([{"index": "1", "code": "400"}], {}, {"400": 1}),
        ([{"index": 1, "code": "jane@example.com", "errors": []}], {1: "refused_by_platform"}, {}),
        ("broken", {}, {"refused_by_platform": 1}),
        ([None, "broken"], {}, {"refused_by_platform": 2}),
        ([{"index": 1, "errors": [None], "code": 400}], {1: "400"}, {}),
        ([{"index": 1, "errors": [], "code": digest("a")}], {1: "refused_by_platform"}, {}),
        (
            [{"index": 1, "errors": [{"errorType": "e-mail jane@example.com is bad"}]}],
            {1: "refused_by_platform"},
            {},
        ),
    ],
)
def test_rejects_are_counted_and_never_quoted(
    errors: Any, placed: dict[int, str], unplaced: dict[str, int]
) -> None:
    assert rejects({"errors": errors}, 3) == (placed, unplaced)


@pytest.mark.parametrize(
    ("basis", "fallback", "declared"),
    [
        (ConsentBasis(), False, "none"),
        (ConsentBasis(), True, "granted/granted"),
        (ConsentBasis(GRANTED, GRANTED), False, "granted/granted"),
        (ConsentBasis(GRANTED, DENIED), True, "granted/denied"),
        (ConsentBasis(GRANTED, None), True, "granted/unknown"),
        (ConsentBasis(None, DENIED), True, "unknown/denied"),
        (ConsentBasis(limited_data_use=True), True, "none"),
    ],
)
def test_the_account_speaks_only_for_those_who_said_nothing(
    amazon: Connector,
    amazon_twins: RunningTwins,
    twin: AmazonDspTwin,
    basis: ConsentBasis,
    fallback: bool,
    declared: str,
) -> None:
    account = account_at(amazon_twins, consent_granted=fallback)
    audience_id = amazon.create_audience(account, ADD)
    amazon.send(account, to(ADD, audience_id, consent=basis), 1, singles(3))
    assert twin.datasets[audience_id].consents == {declared: 3}


def test_europeans_without_a_word_on_consent_are_rejected_and_can_still_be_removed(
    amazon: Connector, amazon_twins: RunningTwins, twin: AmazonDspTwin
) -> None:
    account = account_at(amazon_twins, country_code="DE")
    delivery = to(ADD, amazon.create_audience(account, ADD))
    refused = amazon.send(account, delivery, 1, singles(2))
    assert refused.rejected == {0: "MissingConsent", 1: "MissingConsent"}
    said = dataclasses.replace(delivery, consent=ConsentBasis(GRANTED, GRANTED))
    assert amazon.send(account, said, 1, singles(2)).rejected == {}
    gone = dataclasses.replace(delivery, operation="remove")
    assert amazon.send(account, gone, 1, singles(2)).rejected == {}
    assert not twin.datasets[str(FIRST_ID)].records


def test_records_say_where_they_are_from() -> None:
    delivery = to(ADD, "1", consent=ConsentBasis(GRANTED, DENIED))
    settings = {"country_code": "FR", "consent_granted": False}
    body = orjson.loads(members_body(settings, delivery, {"email": [digest("a")]}))
    assert body == {
        "members": [
            {
                "action": "CREATE",
                "externalUserId": external_user_id("email", digest("a")),
                "userIdentity": {"hashedPiis": [{"em": digest("a")}]},
                "userConsent": {
                    "geo": {"countryCode": "FR"},
                    "consent": {"amzn": {"amznUserData": "GRANTED", "amznAdStorage": "DENIED"}},
                },
            }
        ]
    }


# Limits -----------------------------------------------------------------------------------------


def test_the_plans_limits_are_within_amazons() -> None:
    spec = spec_for(PlatformType.AMAZON_DSP, {})
    assert (spec.max_rows, spec.max_bytes) == (5_000, MAX_BYTES)
    assert spec.max_rows <= MAX_MEMBERS
    settings = {"country_code": "FR", "consent_granted": True}
    largest = members_body(settings, ADD, {"email": [digest("a")] * spec.max_rows})
    assert len(largest) < MAX_BYTES // 5


@pytest.mark.parametrize(("rows", "error"), [(MAX_MEMBERS, None), (MAX_MEMBERS + 1, PlatformError)])
def test_ten_thousand_records_are_the_most(
    amazon: Connector, account: Account, rows: int, error: type[PlatformError] | None
) -> None:
    delivery = to(ADD, amazon.create_audience(account, ADD))
    batch = {"email": [digest("a")] * rows}
    if error is None:
        assert amazon.send(account, delivery, 1, batch).receipt
        return
    with pytest.raises(error) as caught:
        amazon.send(account, delivery, 1, batch)
    assert (caught.value.platform_code, caught.value.retryable) == ("400", False)


def test_a_request_over_ten_megabytes_may_be_halved(
    registry: ConnectorRegistry, amazon_twins: RunningTwins
) -> None:
    flags = {"send_ramp_id": True}
    amazon = registry.connector(PlatformType.AMAZON_DSP, flags)
    account = account_at(amazon_twins, **flags)
    delivery = to(ADD, amazon.create_audience(account, ADD))
    with pytest.raises(PlatformRowsError) as caught:
        amazon.send(account, delivery, 1, {"ramp_id": ["X" * 20_000] * 600})
    assert (caught.value.rows, caught.value.platform_code) == ((), "413")


# Answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, '{"code":"400","details":"x"}', PlatformError, "400"),
        (400, '{"code":"DuplicateSharingRule"}', PlatformError, "DuplicateSharingRule"),
        (401, '{"code":"401"}', PlatformAuthError, "401"),
        (401, "Unauthorized", PlatformAuthError, "401"),
        (403, '{"code":"jane@example.com"}', PlatformError, "403"),
        (404, '{"code":"404"}', PlatformError, "404"),
        (413, "<html>", PlatformRowsError, "413"),
        (429, '{"code":"429"}', PlatformTransientError, "429"),
        (500, "{}", PlatformTransientError, "500"),
        (502, "<html>Bad gateway</html>", PlatformTransientError, "502"),
        (200, "<html>", PlatformTransientError, "200"),
        (200, '{"ingressId":"i"}', None, None),
        (201, '{"code":"201"}', None, None),
        (204, "", None, None),
    ],
)
def test_amazons_own_codes(
    clock: MovableClock,
    status: int,
    body: str,
    kind: type[PlatformError] | None,
    code: str | None,
) -> None:
    error = refusal(Reply(status, {}, body.encode()), clock.now())
    assert (type(error) if error else None) is kind
    assert (error.platform_code if error else None) == code


def test_a_rate_limit_tells_when_to_come_back(
    amazon: Connector, account: Account, twin: AmazonDspTwin
) -> None:
    delivery = to(ADD, amazon.create_audience(account, ADD))
    headers = {"Retry-After": "90"}
    twin.faults.plan(Fault("status", path="/members", status=429, headers=headers))
    with pytest.raises(PlatformTransientError) as caught:
        amazon.send(account, delivery, 1, singles(2))
    assert caught.value.retry_after_seconds == 90
    assert amazon.send(account, delivery, 1, singles(2)).receipt


@pytest.mark.parametrize("kind", ["reset", "truncate", "cut", "lost"])
def test_one_bad_answer_is_overcome(
    amazon: Connector, account: Account, twin: AmazonDspTwin, kind: str
) -> None:
    audience_id = amazon.create_audience(account, ADD)
    twin.faults.plan(Fault(kind, path="/members"))
    assert amazon.send(account, to(ADD, audience_id), 1, singles(6)).receipt
    assert set_digest(twin.datasets[audience_id].keys) == digest_of(singles(6))


def test_a_token_is_replaced_once_and_then_the_login_is_at_fault(
    amazon: Connector, account: Account, twin: AmazonDspTwin
) -> None:
    amazon.check(account)
    twin.login.revoke_all()
    amazon.check(account)
    assert twin.state()["requests"] == {"POST 200": 2, "GET 200": 2, "GET 401": 1}
    twin.faults.plan(Fault("status", path="/adm/terms", status=401, times=9))
    with pytest.raises(PlatformAuthError):
        amazon.check(account)


@pytest.mark.parametrize(
    ("field", "code"),
    [("refresh_token", "invalid_grant"), ("client_secret", "invalid_client")],
)
def test_a_wrong_login_needs_a_new_one(
    amazon: Connector, account: Account, field: str, code: str
) -> None:
    wrong = dataclasses.replace(account, credentials={**account.credentials, field: "x"})
    with pytest.raises(PlatformAuthError) as caught:
        amazon.check(wrong)
    assert caught.value.platform_code == code


def test_an_advertiser_account_works_too_but_sees_no_metrics(
    amazon: Connector, amazon_twins: RunningTwins, twin: AmazonDspTwin
) -> None:
    mine = {"manager_account_id": "", "advertiser_account_id": "amzn1.ads-account.g.advertiser"}
    account = account_at(amazon_twins, **mine)
    delivery = to(ADD, amazon.create_audience(account, ADD))
    amazon.send(account, delivery, 1, singles(2))
    with pytest.raises(PlatformError) as caught:
        amazon.match_results(account, delivery, [])
    assert (caught.value.platform_code, caught.value.retryable) == ("403", False)
    with pytest.raises(PlatformError):
        amazon.check(account_at(amazon_twins, manager_account_id="someone-elses"))


def test_the_share_of_known_records_comes_when_there_are_any(
    amazon: Connector, account: Account
) -> None:
    delivery = to(ADD, amazon.create_audience(account, ADD))
    assert not amazon.match_results(account, delivery, []).final
    amazon.send(account, delivery, 1, singles(400))
    report = amazon.match_results(account, delivery, [])
    assert (report.final, report.matched) == (True, None)
    assert report.match_rate_range is not None
    assert 40 < int(report.match_rate_range.rstrip("%")) < 60


@pytest.mark.parametrize(
    ("metrics", "rate"),
    [
        ({}, None),
        ({"recordsResolved": 0, "recordsWithIdentity": 0}, None),
        ({"recordsResolved": 0.0, "recordsWithIdentity": 3.0}, "0%"),
        ({"recordsResolved": 2.0, "recordsWithIdentity": 3.0}, "67%"),
        ({"recordsResolved": None, "recordsWithIdentity": 3}, None),
        ({"recordsResolved": "1", "recordsWithIdentity": "3"}, None),
    ],
)
def test_rates_are_parts_of_what_has_an_identity(metrics: dict[str, Any], rate: str | None) -> None:
    assert match_rate(metrics) == rate


def test_names_fit_amazons_rules() -> None:
    assert dataset_name(ADD.external_id) == ADD.external_id
    assert dataset_name("9 lives") == dataset_name("9 lives") != dataset_name("9 livez")
    assert dataset_name("9 lives").startswith("aa-")
    assert len(dataset_name("x" * 101)) == 67
    short = dataclasses.replace(ADD, audience_name="VIP")
    assert audience_name(short) == f"VIP ({ADD.external_id})"
    assert len(audience_name(dataclasses.replace(ADD, audience_name="x" * 255))) == 127
