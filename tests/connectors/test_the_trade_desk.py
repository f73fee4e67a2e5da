"""The Data API connector against its twin, over a socket."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.config import resolved
from activation.adapters.connectors.http import Reply
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.adapters.connectors.the_trade_desk import CRM, RESOLVING, SPEC
from activation.adapters.connectors.trade_desk_wire import (
    MAX_NAME,
    Item,
    data_name,
    data_refusal,
    rejects,
    request_body,
    signature,
)
from activation.app import App
from activation.domain.delivery import PlatformSize
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import PlatformType, Replacement
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformRowsError,
    PlatformTransientError,
)
from activation.ports import Account, Connector
from activation.services.sending import Sender
from activation.twins.faults import Fault
from activation.twins.members import set_digest
from activation.twins.the_trade_desk import TheTradeDeskTwin
from activation.twins.trade_desk_rules import Rules
from activation.twins.uid2 import IdentityOperator, raw_id
from tests.connectors.support import ADD, MAID, Columns, digest_of, to
from tests.connectors.trade_desk import (
    KEY,
    OPERATOR,
    TOKEN,
    VECTORS,
    account_at,
    as_raw_ids,
    devices,
    emails,
    guid,
    phones,
    serving,
)

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
NAME = f"Spring buyers ({ADD.external_id})"
Serve = Callable[[TheTradeDeskTwin], str]


@pytest.fixture
def served() -> Iterator[Serve]:
    """Serves twins, each behind a port of its own, until the test is over."""
    with ExitStack() as running:
        yield lambda twin: running.enter_context(serving(twin))


@pytest.fixture
def twin(clock: MovableClock) -> TheTradeDeskTwin:
    return TheTradeDeskTwin(clock)


@pytest.fixture
def url(served: Serve, twin: TheTradeDeskTwin) -> str:
    return served(twin)


@pytest.fixture
def account(url: str) -> Account:
    return account_at(url)


@pytest.fixture
def desk(registry: ConnectorRegistry) -> Connector:
    """The connector of the Data API."""
    return registry.connector(PlatformType.THE_TRADE_DESK, {})


@pytest.fixture
def resolving(registry: ConnectorRegistry) -> Connector:
    """The same, where e-mails and phones are resolved first."""
    return registry.connector(PlatformType.THE_TRADE_DESK, {"resolve_with": "uid2"})


def held(twin: TheTradeDeskTwin, name: str = NAME) -> str:
    audiences = {a["audience_id"]: a["digest"] for a in twin.contents()["audiences"]}
    return str(audiences.get(name, set_digest([])))


def test_the_specs_are_the_limits_of_the_twin() -> None:
    rules = Rules()
    assert (SPEC.max_rows, SPEC.max_bytes) == (rules.max_items, rules.max_bytes)
    assert set(SPEC.identifiers.values()) == {Variant.RAW}
    assert RESOLVING.identifiers[IdentifierType.EMAIL] is Variant.UID2
    assert RESOLVING.identifiers[IdentifierType.PHONE] is Variant.E164
    assert (SPEC.removes, SPEC.replacement) == (True, Replacement.NONE)
    assert (CRM.removes, CRM.replacement) == (False, Replacement.SESSION)


def test_data_has_one_name_from_the_first_distribution_on(
    desk: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    assert [desk.create_audience(account, ADD) for _ in range(2)] == [NAME, NAME]
    assert twin.data == {}  # nothing is there until data comes
    desk.send(account, to(ADD, NAME), 1, devices(4))
    renamed = dataclasses.replace(ADD, audience_name="Renamed")
    assert desk.create_audience(account, renamed) == NAME
    keyed = dataclasses.replace(account, credentials=KEY)
    assert desk.create_audience(keyed, to(renamed, NAME)) == NAME
    assert desk.create_audience(keyed, renamed) != NAME
    other = dataclasses.replace(ADD, external_id="aa-other")
    assert desk.create_audience(account, other) == "Spring buyers (aa-other)"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("  Spring \n buyers\t", "Spring buyers"),
        ('"Quotes" and \\', '"Quotes" and \\'),
        ("Käufer \N{ZERO WIDTH JOINER}\N{SPARKLES}", "Käufer \N{SPARKLES}"),
        ("x" * 255, "x" * (MAX_NAME - len(ADD.external_id) - 3)),
    ],
)
def test_names_are_made_presentable(
    desk: Connector, account: Account, given: str, shown: str
) -> None:
    delivery = dataclasses.replace(ADD, audience_name=given)
    name = desk.create_audience(account, delivery)
    assert name == f"{shown} ({ADD.external_id})"
    assert len(name) <= MAX_NAME
    desk.send(account, to(ADD, name), 1, devices(1))
    assert desk.create_audience(account, delivery) == name  # found through a query


def test_a_name_of_nothing_is_refused() -> None:
    nameless = dataclasses.replace(ADD, audience_name=" \u200d ")
    with pytest.raises(PlatformError) as caught:
        data_name(nameless, "(aa-1)")
    assert caught.value.reason == "invalid_name"


def test_the_final_set_is_what_was_sent_and_a_repeat_changes_nothing(
    desk: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    delivery = to(ADD, NAME, batches=2, rows=60)
    first, second = devices(40), devices(20, start=40)
    for seq, batch in ((1, first), (1, first), (2, second), (2, second)):
        assert desk.send(account, delivery, seq, batch).rejected == {}
    assert held(twin) == digest_of(first, second)


def test_a_removed_member_disappears_and_a_removal_can_be_repeated(
    desk: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    desk.send(account, to(ADD, NAME), 1, devices(10))
    for _ in range(2):
        outcome = desk.send(account, to(ADD, NAME, operation="remove"), 1, devices(4))
        assert outcome.rejected == {}
    assert held(twin) == digest_of(devices(6, start=4))


def test_members_stay_as_long_as_the_account_says(
    desk: Connector, url: str, twin: TheTradeDeskTwin, clock: MovableClock
) -> None:
    desk.send(account_at(url, ttl_minutes=60), to(ADD, NAME), 1, devices(4))
    clock.sleep(30 * 60)
    desk.send(account_at(url, ttl_minutes=60), to(ADD, NAME), 2, devices(2))
    clock.sleep(30 * 60)
    assert held(twin) == digest_of(devices(2))
    clock.sleep(30 * 60)
    assert held(twin) == digest_of({})


def test_nothing_is_replaced(desk: Connector, account: Account) -> None:
    with pytest.raises(PlatformError) as caught:
        desk.send(account, to(ADD, NAME, operation="replace"), 1, devices(1))
    assert caught.value.reason == "unsupported"


def test_bad_rows_are_named_and_the_others_taken(
    desk: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    batch = devices(8)
    batch["maid"][4], batch["cookie_id"][1] = "not a device", "abc"
    outcome = desk.send(account, to(ADD, NAME), 1, batch)
    assert outcome.rejected == {4: "MissingUserId", 1: "MissingUserId"}
    batch["maid"][4] = batch["cookie_id"][1] = None
    assert held(twin) == digest_of(batch)


def test_cookies_of_a_partner_are_sent_as_such(
    desk: Connector, url: str, twin: TheTradeDeskTwin
) -> None:
    batch: Columns = {"cookie_id": ['odd"cookie\\1', "c2"], "maid": [None, MAID]}
    mine = account_at(url, cookie_mapping_partner_id="twin-partner")
    assert desk.send(mine, to(ADD, NAME), 1, batch).rejected == {}
    assert held(twin) == digest_of(batch)
    unknown = account_at(url, cookie_mapping_partner_id="nobody")
    outcome = desk.send(unknown, to(ADD, NAME), 1, batch)
    assert outcome.rejected == {0: "UserNotMapped", 1: "UserNotMapped"}


def test_a_message_names_the_item_where_the_line_does_not(
    desk: Connector, served: Serve, clock: MovableClock
) -> None:
    twin = TheTradeDeskTwin(clock, rules=Rules(numbers_items=False))
    batch: dict[str, list[str | None]] = {"maid": [guid(1), "x", guid(2)]}
    outcome = desk.send(account_at(served(twin)), to(ADD, NAME), 1, batch)
    assert outcome.rejected == {1: "MissingUserId"}


def test_the_most_rows_fit_and_one_more_does_not(
    desk: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    assert desk.send(account, to(ADD, NAME), 1, devices(SPEC.max_rows)).rejected == {}
    settings = resolved(SPEC, account.settings)
    items = [Item(0, "DAID", guid(n)) for n in range(SPEC.max_rows + 1)]
    reply = desk._http.call(  # type: ignore[attr-defined]
        "POST",
        f"{settings['data_url']}/data/advertiser",
        headers={"TTD-Auth": TOKEN["api_token"], "Content-Type": "application/json"},
        content=request_body(settings, NAME, 1, items),
        refusal=lambda reply, now: None,
    )
    assert (reply.status, reply.parsed()) == (413, None)
    assert held(twin) == digest_of(devices(SPEC.max_rows))


def test_the_largest_batch_stays_below_the_bytes() -> None:
    settings = {**resolved(SPEC, {}), "advertiser_id": "a" * 64}
    settings["cookie_mapping_partner_id"] = "p" * 64
    items = [Item(n, "TDID", '"' * 254) for n in range(SPEC.max_rows)]
    body = request_body(settings, "\N{PARTY POPPER}" * MAX_NAME, 259_200, items)
    assert 1_800_000 < len(body) < (SPEC.max_bytes or 0)


def test_a_batch_that_is_too_large_may_be_halved(
    desk: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    twin.faults.plan(Fault("limit", path="/data/", size=3_000))
    with pytest.raises(PlatformRowsError) as caught:
        desk.send(account, to(ADD, NAME), 1, devices(40))
    assert (caught.value.platform_code, caught.value.rows) == ("413", ())


def test_the_engine_halves_it_until_all_is_through(
    app: App, desk: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    twin.faults.plan(Fault("limit", path="/data/", size=3_000, times=99))
    batch = devices(40)
    batch["maid"][8] = "no device"
    sender = Sender(app.suppressions)
    sent = sender.send("acme", desk, account, to(ADD, NAME), 1, batch, lambda: True)
    assert sent.rejected == {8: "MissingUserId"}
    batch["maid"][8] = None
    assert held(twin) == digest_of(batch)


def test_a_refused_batch_names_rows_and_not_items(
    desk: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    body = {"FailedLines": [line("ItemDeserializationError", "3")]}
    twin.faults.plan(Fault("status", status=400, body=body))
    with pytest.raises(PlatformRowsError) as caught:
        desk.send(account, to(ADD, NAME), 1, devices(8))
    assert caught.value.rows == (1,)  # two devices come before the first cookie
    assert held(twin) == digest_of({})


# Signatures and logins --------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kind"] == "TtdSignature"])
def test_signatures_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    assert signature(vector["secret"], vector["message"].encode()) == vector["expected"]


def test_calls_are_signed_where_there_is_a_secret_key(
    desk: Connector, url: str, twin: TheTradeDeskTwin
) -> None:
    signed = account_at(url, KEY)
    assert desk.create_audience(signed, ADD) == NAME
    assert desk.send(signed, to(ADD, NAME), 1, devices(4)).rejected == {}
    assert held(twin) == digest_of(devices(4))
    desk.check(signed)
    with pytest.raises(PlatformAuthError):
        desk.send(account_at(url, {**TOKEN, "advertiser_secret_key": "x"}), ADD, 1, devices(1))


@pytest.mark.parametrize(
    ("credentials", "settings"),
    [
        (TOKEN, {}),
        (KEY, {}),
        ({**TOKEN, **KEY}, {}),
        ({**TOKEN, **OPERATOR}, {"resolve_with": "uid2"}),
    ],
)
def test_good_credentials_pass_the_check_and_leave_nothing(
    desk: Connector,
    url: str,
    twin: TheTradeDeskTwin,
    credentials: dict[str, str],
    settings: dict[str, str],
) -> None:
    desk.check(account_at(url, credentials, **settings))
    assert twin.contents() == {"audiences": []}


@pytest.mark.parametrize(
    ("credentials", "settings", "kind"),
    [
        ({"api_token": "stolen"}, {}, PlatformAuthError),
        ({"advertiser_secret_key": "stolen"}, {}, PlatformAuthError),
        ({**TOKEN, "advertiser_secret_key": "stolen"}, {}, PlatformAuthError),
        (TOKEN, {"advertiser_id": "other"}, PlatformError),
        (KEY, {"advertiser_id": "other"}, PlatformError),
        ({**TOKEN, **OPERATOR, "uid2_api_key": "x"}, {"resolve_with": "uid2"}, PlatformAuthError),
        (
            {**TOKEN, **OPERATOR, "uid2_client_secret": "A" * 43 + "="},
            {"resolve_with": "uid2"},
            PlatformError,
        ),
        (
            {**TOKEN, **OPERATOR, "uid2_client_secret": "short"},
            {"resolve_with": "uid2"},
            PlatformAuthError,
        ),
    ],
)
def test_bad_credentials_do_not_pass_the_check(
    desk: Connector,
    url: str,
    credentials: dict[str, str],
    settings: dict[str, str],
    kind: type[PlatformError],
) -> None:
    with pytest.raises(PlatformError) as caught:
        desk.check(account_at(url, credentials, **settings))
    assert type(caught.value) is kind
    assert not [secret for secret in credentials.values() if secret in str(caught.value)]


def test_refused_credentials_end_a_batch_at_once(
    desk: Connector, url: str, twin: TheTradeDeskTwin
) -> None:
    with pytest.raises(PlatformAuthError) as caught:
        desk.send(account_at(url, {"api_token": "stolen"}), to(ADD, NAME), 1, devices(2))
    assert caught.value.platform_code == "401"
    assert twin.state()["requests"] == {"POST 401": 1}


def test_an_advertiser_without_new_data_is_refused_for_good(
    desk: Connector, served: Serve, clock: MovableClock
) -> None:
    account = account_at(served(TheTradeDeskTwin(clock, may_create=False)))
    with pytest.raises(PlatformError) as caught:
        desk.send(account, to(ADD, NAME), 1, devices(2))
    assert (type(caught.value), caught.value.platform_code) == (PlatformError, "403")


# What answers mean ------------------------------------------------------------------------------


def line(code: str, number: str | None = None, message: str = "") -> dict[str, str]:
    numbered = {"ItemNumber": number} if number is not None else {}
    return {"ErrorCode": code, "Message": message, **numbered}


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "rows"),
    [
        (200, {}, None, None, ()),
        (200, {"FailedLines": None}, None, None, ()),
        (200, {"FailedLines": [line("MissingUserId", "3")]}, None, None, ()),
        (200, {"FailedLines": [line("X", None, "Invalid DAID, item #2")]}, None, None, ()),
        (200, {"FailedLines": [line("UserNotMapped")]}, PlatformRowsError, "UserNotMapped", ()),
        (200, {"FailedLines": "jane@example.com"}, PlatformRowsError, "Unknown", ()),
        (200, {"FailedLines": ["jane@example.com"]}, PlatformRowsError, "Unknown", ()),
        (200, {"FailedLines": 7}, PlatformRowsError, "Unknown", ()),
        (200, {"FailedLines": [line("Unknown", "9" * 5_000)]}, PlatformRowsError, "Unknown", ()),
        (
            200,
            {"FailedLines": [line("MissingUserId", "3"), line("UserNotMapped")]},
            PlatformRowsError,
            "MissingUserId",
            (),
        ),
        (200, {"FailedLines": [line("Unknown")]}, PlatformRowsError, "Unknown", ()),
        (200, {"FailedLines": [line("Unknown", "0")]}, PlatformRowsError, "Unknown", ()),
        (200, {"FailedLines": [line("Unknown", "11")]}, PlatformRowsError, "Unknown", ()),
        (200, {"FailedLines": [line("jane@example.com")]}, PlatformRowsError, "Unknown", ()),
        (
            200,
            {"FailedLines": [line("TargetingDataDisabled", "1"), line("MissingUserId", "2")]},
            PlatformError,
            "TargetingDataDisabled",
            (),
        ),
        (
            200,
            {"FailedLines": [line("TargetingDataCountLimitExceeded")]},
            PlatformError,
            "TargetingDataCountLimitExceeded",
            (),
        ),
        (200, "<html>", PlatformTransientError, "200", ()),
        (
            400,
            {"FailedLines": [line("ItemDeserializationError", "4"), line("MissingUserId", "2")]},
            PlatformRowsError,
            "ItemDeserializationError",
            (1, 3),
        ),
        (
            400,
            {"FailedLines": [line("InvalidTtlInMinutes")]},
            PlatformRowsError,
            "InvalidTtlInMinutes",
            (),
        ),
        (400, {"FailedLines": [line("Unknown")]}, PlatformError, "Unknown", ()),
        (400, {"FailedLines": [line("InvalidDataOwnerId")]}, PlatformError, None, ()),
        (
            400,
            {"FailedLines": [line("TenantRestrictionsExternalData")]},
            PlatformError,
            "TenantRestrictionsExternalData",
            (),
        ),
        (400, {}, PlatformError, "400", ()),
        (400, "No items", PlatformError, "400", ()),
        (401, "Unauthorized", PlatformAuthError, "401", ()),
        (403, "Forbidden", PlatformError, "403", ()),
        (404, "", PlatformError, "404", ()),
        (413, "Too large", PlatformRowsError, "413", ()),
        (429, {"FailedLines": []}, PlatformTransientError, "429", ()),
        (500, "", PlatformTransientError, "500", ()),
        (502, "<html>", PlatformTransientError, "502", ()),
        (503, {"FailedLines": [line("Unknown")]}, PlatformTransientError, "503", ()),
        (504, "", PlatformTransientError, "504", ()),
    ],
)
def test_answers_by_table(
    status: int,
    body: Any,
    kind: type[PlatformError] | None,
    code: str | None,
    rows: tuple[int, ...],
) -> None:
    content = body.encode() if isinstance(body, str) else orjson.dumps(body)
    error = data_refusal(10)(Reply(status, {}, content), NOW)
    assert (type(error) if error else None) is kind
    if error is not None:
        assert code is None or error.platform_code == code
        assert getattr(error, "rows", ()) == rows
        assert "jane" not in f"{error!r} {vars(error)}"


def test_rejects_name_rows_and_known_codes() -> None:
    items = [Item(row, "UID2", "x") for row in (0, 0, 5, 7)]
    lines = [line("UserNotMapped", "3"), line("secret", "4"), line("MissingUserId", "9")]
    reply = Reply(200, {}, orjson.dumps({"FailedLines": [*lines, "no line"]}))
    assert rejects(reply, items) == {5: "UserNotMapped", 7: "Unknown"}


@pytest.mark.parametrize(
    ("status", "seconds"), [(429, 60.0), (503, 60.0)], ids=["throttled", "overloaded"]
)
def test_throttling_tells_when_to_come_back(
    desk: Connector, account: Account, twin: TheTradeDeskTwin, status: int, seconds: float
) -> None:
    twin.faults.plan(Fault("status", status=status, body={}, headers={"Retry-After": "60"}))
    with pytest.raises(PlatformTransientError) as caught:
        desk.send(account, to(ADD, NAME), 1, devices(2))
    assert caught.value.retry_after_seconds == seconds
    assert caught.value.platform_code == str(status)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", path="/data/"),
        Fault("truncate", path="/data/"),
        Fault("cut", path="/data/"),
        Fault("lost", path="/data/"),
        Fault("status", path="/data/", status=500),
        Fault("status", path="/data/", status=502, body="<html>Bad gateway</html>"),
        Fault("status", path="/data/", status=429, headers={"Retry-After": "1"}),
        Fault("reset", path="/uid2/"),
        Fault("cut", path="/uid2/"),
        Fault("lost", path="/uid2/"),
        Fault("status", path="/uid2/", status=429),
        Fault("status", path="/uid2/", status=200, body="<html>Welcome</html>"),
    ],
    ids=lambda fault: f"{fault.path}{fault.kind}-{fault.status}",
)
def test_one_failure_is_overcome_and_nothing_is_doubled(
    resolving: Connector, url: str, twin: TheTradeDeskTwin, fault: Fault
) -> None:
    twin.faults.plan(fault)
    batch = emails(10)
    outcome = resolving.send(account_at(url, resolve_with="uid2"), to(ADD, NAME), 1, batch)
    assert outcome.rejected == {}
    assert held(twin) == digest_of(as_raw_ids(batch))
    assert twin.faults.pending() == []


# E-mails and phones -----------------------------------------------------------------------------


def test_hashes_go_as_the_raw_ids_they_are_mapped_to(
    resolving: Connector, url: str, twin: TheTradeDeskTwin
) -> None:
    account = account_at(url, resolve_with="uid2")
    plain = devices(4)
    nothing: list[str | None] = [None] * 4
    mixed = {
        **{kind: [*values, *nothing, *nothing] for kind, values in plain.items()},
        "email": [*nothing, *emails(4)["email"], *nothing],
        "phone": [*nothing, *nothing, *phones(4)["phone"]],
    }
    assert resolving.send(account, to(ADD, NAME), 1, mixed).rejected == {}
    assert held(twin) == digest_of(plain, as_raw_ids(emails(4), phones(4)))
    gone = to(ADD, NAME, operation="remove")
    assert resolving.send(account, gone, 1, {**emails(4), **phones(4)}).rejected == {}
    assert held(twin) == digest_of(plain)


def test_who_has_opted_out_or_is_unknown_is_rejected_with_that_reason(
    resolving: Connector, url: str, twin: TheTradeDeskTwin
) -> None:
    batch = emails(6)
    twin.operator.optouts.add(str(batch["email"][1]))
    twin.operator.unknown.add(str(batch["email"][4]))
    account = account_at(url, resolve_with="uid2")
    outcome = resolving.send(account, to(ADD, NAME), 1, batch)
    assert outcome.rejected == {1: "optout", 4: "invalid identifier"}
    kept = {"email": [v for row, v in enumerate(batch["email"]) if row not in (1, 4)]}
    assert held(twin) == digest_of(as_raw_ids(kept))


def test_a_batch_of_nobody_is_not_sent(
    resolving: Connector, url: str, twin: TheTradeDeskTwin
) -> None:
    batch = emails(3)
    twin.operator.optouts.update(map(str, batch["email"]))
    account = account_at(url, resolve_with="uid2")
    outcome = resolving.send(account, to(ADD, NAME), 1, batch)
    assert outcome.rejected == dict.fromkeys(range(3), "optout")
    assert twin.state()["requests"] == {"POST 200": 1}


def test_a_removal_finds_people_whose_raw_id_has_changed(
    registry: ConnectorRegistry, url: str, twin: TheTradeDeskTwin, clock: MovableClock
) -> None:
    """All that may still be held is removed: raw ids live on for 90 days, members no longer."""
    account = account_at(url, resolve_with="uid2", ttl_minutes=129_600)
    settings = {"resolve_with": "uid2"}
    batch = emails(1_000)
    resolving = registry.connector(PlatformType.THE_TRADE_DESK, settings)
    resolving.send(account, to(ADD, NAME), 1, batch)
    twin.operator.rotate()
    clock.sleep(89 * 86_400)
    resolving.send(account, to(ADD, NAME), 2, emails(10))
    gone = to(ADD, NAME, operation="remove")
    assert resolving.send(account, gone, 1, batch).rejected == {}
    assert held(twin) == digest_of({})


def test_european_ids_have_a_field_of_their_own(
    registry: ConnectorRegistry, served: Serve, clock: MovableClock
) -> None:
    twin = TheTradeDeskTwin(clock, operator=IdentityOperator(clock, scope="euid"))
    desk = registry.connector(PlatformType.THE_TRADE_DESK, {"resolve_with": "euid"})
    account = account_at(served(twin), resolve_with="euid")
    assert desk.send(account, to(ADD, NAME), 1, emails(5)).rejected == {}
    raw = [raw_id("email", str(value), scope="euid") for value in emails(5)["email"]]
    assert held(twin) == digest_of({"euid": raw})


# Sizes ------------------------------------------------------------------------------------------


def test_the_size_is_what_was_active_of_late(
    desk: Connector, served: Serve, clock: MovableClock
) -> None:
    twin = TheTradeDeskTwin(clock, match_rate=0.5)
    account = account_at(served(twin))
    assert desk.size(account, to(ADD, NAME)) is None
    desk.send(account, to(ADD, NAME), 1, devices(400))
    size = desk.size(account, to(ADD, NAME))
    assert size is not None
    assert size.low == size.high
    assert 150 < size.low < 250
    assert desk.size(dataclasses.replace(account, credentials=KEY), to(ADD, NAME)) is None


def test_a_size_is_that_of_our_data_alone(
    desk: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    desk.send(account, to(ADD, f"{NAME} copy"), 1, devices(8))
    assert desk.size(account, to(ADD, NAME)) is None
    desk.send(account, to(ADD, NAME), 1, devices(3))
    assert desk.size(account, to(ADD, NAME)) == PlatformSize(3, 3)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"errors": [{"message": "jane@example.com"}]}, "query_refused"),
        ({"data": None}, "no_advertiser"),
        ({"data": {"advertiser": None}}, "no_advertiser"),
    ],
)
def test_a_query_that_is_not_answered_is_an_error(
    desk: Connector, account: Account, twin: TheTradeDeskTwin, body: dict[str, Any], reason: str
) -> None:
    twin.faults.plan(Fault("status", status=200, body=body))
    with pytest.raises(PlatformError) as caught:
        desk.size(account, to(ADD, NAME))
    assert caught.value.reason == reason
    assert "jane" not in str(caught.value)
