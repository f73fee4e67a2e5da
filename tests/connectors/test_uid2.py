"""Resolving hashes with an operator: the envelope, the answers, and what is kept of them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors import uid2
from activation.adapters.connectors.http import PlatformHTTP, Reply
from activation.adapters.connectors.uid2 import (
    MAX_ITEMS,
    Hashed,
    IdentityMap,
    Operator,
    answers,
    opened,
    question,
    refusal,
    sealed,
    secret_key,
)
from activation.domain.identifier import IdentifierType
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError
from activation.twins.faults import Fault
from activation.twins.the_trade_desk import TheTradeDeskTwin
from activation.twins.uid2 import TWIN_KEY, TWIN_SECRET, raw_id
from tests.connectors.support import digest
from tests.connectors.trade_desk import VECTORS, serving

EMAIL, PHONE = IdentifierType.EMAIL, IdentifierType.PHONE
NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
REQUEST, RESPONSE = (v for v in VECTORS if v["platform"] == "uid2")
RAW = base64.b64encode(b"r" * 32).decode()


@pytest.fixture
def twin(clock: MovableClock) -> TheTradeDeskTwin:
    return TheTradeDeskTwin(clock)


@pytest.fixture
def operator(twin: TheTradeDeskTwin) -> Iterator[Operator]:
    with serving(twin) as url:
        yield Operator(f"{url}/uid2/", TWIN_KEY, TWIN_SECRET)


@pytest.fixture
def identities(clock: MovableClock) -> Iterator[IdentityMap]:
    http = PlatformHTTP(clock, allow_private_hosts=True)
    yield IdentityMap(http)
    http.close()


def hashes(count: int) -> list[Hashed]:
    return [(PHONE if n % 3 == 0 else EMAIL, digest(f"p{n}")) for n in range(count)]


def raw_ids(wanted: list[Hashed], generation: int = 0) -> list[str]:
    return [raw_id(kind, value, generation=generation) for kind, value in wanted]


def test_a_request_is_the_one_of_the_vector() -> None:
    now = datetime.fromtimestamp(REQUEST["timestamp_ms"] / 1000, UTC)
    key = secret_key(REQUEST["secret_base64"])
    iv, nonce = bytes.fromhex(REQUEST["iv_hex"]), bytes.fromhex(REQUEST["nonce_hex"])
    envelope = sealed(key, iv, now, nonce, REQUEST["message"].encode())
    assert base64.b64encode(envelope).decode() == REQUEST["expected_base64"]


def test_an_answer_is_opened_for_its_own_request_only() -> None:
    key, nonce = secret_key(RESPONSE["secret_base64"]), bytes.fromhex(RESPONSE["nonce_hex"])
    envelope = base64.b64decode(RESPONSE["expected_base64"])
    assert orjson.loads(opened(key, nonce, envelope))["status"] == "success"
    for bad in ((bytes(32), nonce, envelope), (key, bytes(8), envelope), (key, nonce, b"")):
        with pytest.raises(ValueError, match="envelope"):
            opened(*bad)
    with pytest.raises(ValueError, match="open"):
        opened(key, nonce, envelope[:-1])


def test_kinds_are_asked_for_together_and_in_order() -> None:
    asked = orjson.loads(question([(EMAIL, "00" * 32), (PHONE, "01" * 32), (EMAIL, "02" * 32)]))
    first, second = (base64.b64encode(bytes([n]) * 32).decode() for n in (0, 2))
    assert asked["email_hash"] == [first, second]
    assert asked["phone_hash"] == [base64.b64encode(b"\1" * 32).decode()]


def test_hashes_become_raw_ids_in_their_order(identities: IdentityMap, operator: Operator) -> None:
    wanted = hashes(30)
    found = identities.resolved(operator, wanted)
    assert [identity.raw for identity in found] == raw_ids(wanted)
    assert {identity.reason for identity in found} == {None}


def test_more_than_5000_hashes_are_asked_for_in_pieces(
    identities: IdentityMap, operator: Operator, twin: TheTradeDeskTwin
) -> None:
    wanted = hashes(MAX_ITEMS)
    identities.resolved(operator, wanted)
    assert twin.state()["requests"] == {"POST 200": 1}
    wanted = hashes(2 * MAX_ITEMS + 1)
    found = identities.resolved(operator, [*wanted, *wanted])
    assert [identity.raw for identity in found] == raw_ids([*wanted, *wanted])
    assert twin.state()["requests"] == {"POST 200": 3}
    assert twin.operator.asked == 2 * MAX_ITEMS + 1


def test_raw_ids_are_kept_until_they_may_change(
    identities: IdentityMap, operator: Operator, twin: TheTradeDeskTwin, clock: MovableClock
) -> None:
    twin.operator.refresh_seconds = 600
    wanted = hashes(10)
    identities.resolved(operator, wanted)
    twin.operator.rotate()
    clock.sleep(599)
    assert [i.raw for i in identities.resolved(operator, wanted)] == raw_ids(wanted)
    assert twin.operator.asked == 10
    clock.sleep(1)
    fresh = identities.resolved(operator, wanted)
    assert [identity.raw for identity in fresh] == raw_ids(wanted, generation=1)
    assert [identity.previous for identity in fresh] == raw_ids(wanted)


def test_an_opt_out_is_noticed_within_a_day(
    identities: IdentityMap, operator: Operator, twin: TheTradeDeskTwin, clock: MovableClock
) -> None:
    wanted = hashes(2)
    identities.resolved(operator, wanted)
    twin.operator.optouts.add(wanted[0][1])
    clock.sleep(timedelta(hours=24).total_seconds())
    assert [i.reason for i in identities.resolved(operator, wanted)] == ["optout", None]


def test_who_came_back_is_asked_about_again(
    identities: IdentityMap, operator: Operator, twin: TheTradeDeskTwin
) -> None:
    wanted = hashes(1)
    twin.operator.optouts.add(wanted[0][1])
    assert identities.resolved(operator, wanted)[0].reason == "optout"
    assert identities._kept == {}
    twin.operator.optouts.clear()
    assert identities.resolved(operator, wanted)[0].raw == raw_ids(wanted)[0]


def test_what_is_kept_is_bounded_and_holds_no_hash(
    identities: IdentityMap, operator: Operator
) -> None:
    wanted: list[Hashed] = []
    for start in range(0, uid2.MAX_KEPT + MAX_ITEMS, MAX_ITEMS):
        wanted = [(EMAIL, digest(str(n))) for n in range(start, start + MAX_ITEMS)]
        identities.resolved(operator, wanted)
        assert len(identities._kept) <= uid2.MAX_KEPT
    assert {len(name) for name in identities._kept} == {16}
    kept = repr(identities._kept)
    assert wanted[0][1] not in kept
    assert raw_ids(wanted)[0] not in kept


def test_accounts_do_not_share_what_is_kept(
    identities: IdentityMap, operator: Operator, twin: TheTradeDeskTwin
) -> None:
    identities.resolved(operator, hashes(1))
    with pytest.raises(PlatformAuthError):
        identities.resolved(Operator(operator.url, "another key", TWIN_SECRET), hashes(1))
    assert TWIN_KEY not in repr(operator)
    assert TWIN_SECRET not in repr(operator)


@pytest.mark.parametrize(
    ("key", "secret", "kind", "code"),
    [
        ("stolen", TWIN_SECRET, PlatformAuthError, "unauthorized"),
        (TWIN_KEY, base64.b64encode(b"k" * 32).decode(), PlatformError, "client_error"),
        (TWIN_KEY, base64.b64encode(b"k" * 16).decode(), PlatformAuthError, None),
        (TWIN_KEY, "%%%", PlatformAuthError, None),
        (TWIN_KEY, "ä", PlatformAuthError, None),
    ],
)
def test_bad_credentials_are_refused(
    identities: IdentityMap,
    operator: Operator,
    key: str,
    secret: str,
    kind: type[PlatformError],
    code: str | None,
) -> None:
    with pytest.raises(PlatformError) as caught:
        identities.resolved(Operator(operator.url, key, secret), hashes(1))
    assert (type(caught.value), caught.value.platform_code) == (kind, code)
    assert secret not in str(caught.value)


def test_a_clock_that_is_wrong_by_more_than_a_minute_is_refused(
    operator: Operator, clock: MovableClock
) -> None:
    ours = MovableClock(clock.now())  # the operator's stands still
    http = PlatformHTTP(ours, allow_private_hosts=True)
    identities = IdentityMap(http)
    ours.sleep(60)
    assert identities.resolved(operator, hashes(1))[0].raw
    ours.sleep(1)
    with pytest.raises(PlatformError) as caught:
        identities.resolved(operator, hashes(2))
    assert caught.value.platform_code == "client_error"
    http.close()


def test_throttling_has_no_body(
    identities: IdentityMap, operator: Operator, twin: TheTradeDeskTwin
) -> None:
    twin.faults.plan(Fault("status", status=429, headers={"Retry-After": "30"}))
    with pytest.raises(PlatformTransientError) as caught:
        identities.resolved(operator, hashes(1))
    assert caught.value.retry_after_seconds == 30


def test_an_answer_of_another_request_is_not_taken(
    identities: IdentityMap, operator: Operator, twin: TheTradeDeskTwin
) -> None:
    twin.faults.plan(Fault("status", status=200, body="replayed", times=9))
    with pytest.raises(PlatformTransientError) as caught:
        identities.resolved(operator, hashes(1))
    assert "replayed" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (200, b"\0", None, None),
        (400, b'{"status":"client_error","message":"x"}', PlatformError, "client_error"),
        (400, b'{"status":"jane@example.com"}', PlatformError, "400"),
        (401, b'{"status":"unauthorized"}', PlatformAuthError, "unauthorized"),
        (401, b"no", PlatformAuthError, "401"),
        (403, b"[]", PlatformError, "403"),
        (408, b"", PlatformTransientError, "408"),
        (429, b"", PlatformTransientError, "429"),
        (500, b'{"status":"unknown"}', PlatformTransientError, "500"),
        (502, b"<html>", PlatformTransientError, "502"),
        (503, b"", PlatformTransientError, "503"),
        (504, b"", PlatformTransientError, "504"),
    ],
)
def test_replies_by_table(
    status: int, body: bytes, kind: type[PlatformError] | None, code: str | None
) -> None:
    error = refusal(Reply(status, {}, body), NOW)
    assert (type(error) if error else None) is kind
    assert error is None or error.platform_code == code


def answered(*items: Any, **more: Any) -> bytes:
    return orjson.dumps({"status": "success", "body": {"email_hash": list(items)}, **more})


def test_refresh_times_are_seconds_or_milliseconds() -> None:
    in_an_hour = int((NOW + timedelta(hours=1)).timestamp())
    for refresh in (in_an_hour, in_an_hour * 1000):
        (found,) = answers(answered({"u": RAW, "p": None, "r": refresh}), [(EMAIL, "")], NOW)
        assert found.keep_until == NOW + timedelta(hours=1)


def test_reasons_that_are_not_documented_are_not_repeated() -> None:
    (found,) = answers(answered({"e": "jane@example.com"}), [(EMAIL, "")], NOW)
    assert found.reason == "not mapped"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"7",
        b"{}",
        answered({"e": "optout"}, status="failure"),
        answered(),
        answered({"e": "optout"}, {"e": "optout"}),
        answered({}),
        answered(7),
        answered(None),
        answered({"u": "short", "p": None, "r": 1}),
        answered({"u": RAW, "p": "short", "r": 1}),
        answered({"u": None, "p": None, "r": 1}),
        answered({"u": RAW, "p": None}),
        answered({"u": RAW, "p": None, "r": "soon"}),
        answered({"u": RAW, "p": None, "r": 10**18}),
        answered({"e": "optout"}, body={"phone_hash": [{"e": "optout"}]}),
        answered({"e": "optout"}, body=None),
    ],
)
def test_other_documents_are_no_answer(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, the reply is asked for again
        answers(content, [(EMAIL, "")], NOW)
