"""What an observer of platform traffic may keep: shapes, never a secret or an identifier."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.http import ATTEMPTS, PlatformHTTP, json_refusal
from activation.adapters.connectors.masking import (
    MAX_BODY_BYTES,
    MAX_SHOWN_BYTES,
    masked_body,
    masked_code,
    masked_headers,
    masked_json,
    masked_path,
    masked_type,
)
from activation.adapters.connectors.tokens import Grant, requested
from activation.domain.exchange import BodyKind, Exchange
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError
from activation.inspection import observed_by, observer
from activation.observability import LOGGER
from activation.ports import Connector
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.server import RunningTwins
from tests.api.test_local import Lines
from tests.connectors.listening import Ear
from tests.connectors.support import ADD, google_account, people, to
from tests.examples import examples

# canaries ---------------------------------------------------------------------------------------


def _hash(seed: bytes) -> str:
    return hashlib.sha256(seed).hexdigest()


seeds = st.binary(min_size=4, max_size=16)
emails = st.builds(
    "{}{}@{}.{}".format,
    st.sampled_from(["jane", "john.doe", "j+tag", "JANE", "müller"]),
    st.integers(0, 99),
    st.sampled_from(["example", "gmail", "mail-server"]),
    st.sampled_from(["com", "de", "co.uk"]),
)
hashes = seeds.map(_hash) | seeds.map(lambda seed: _hash(seed).upper())
uid2s = seeds.map(lambda seed: base64.b64encode(hashlib.sha256(seed).digest()).decode())
tokens = st.builds(
    "{}{}7{}".format,
    st.sampled_from(["EAAB", "ya29.", "whsec_", "AKIA", "Bearer ", "xoxb-"]),
    seeds.map(lambda seed: _hash(seed)[:12]),
    seeds.map(lambda seed: base64.urlsafe_b64encode(seed).decode().rstrip("=")),
)
maids = seeds.map(lambda seed: "-".join(_hash(seed)[a:b] for a, b in ((0, 8), (8, 12), (12, 24))))
phones = st.integers(10**9, 10**15 - 1).map("+{}".format)
texts = emails | hashes | uid2s | tokens | maids | phones
numbers = st.integers(10**9, 10**15)
"""Phone numbers that somebody sends as a number."""

names = st.sampled_from(["data", "userId", "status", "code", "error_type", "reason", "@type", "x9"])
plain = st.none() | st.booleans() | st.integers(-999, 999) | st.sampled_from(["", "ok", "DONE"])


@st.composite
def planted(draw: st.DrawFn) -> tuple[Any, list[str]]:
    """A JSON value with canaries as texts, numbers and names, and the canaries."""
    canaries: list[str] = []

    def canary(value: str | int) -> str | int:
        canaries.append(str(value))
        return value

    leaves = plain | texts.map(canary) | numbers.map(canary)
    value = draw(
        st.recursive(
            leaves,
            lambda inner: (
                st.lists(inner, max_size=5)
                | st.dictionaries(
                    names | texts.map(lambda text: str(canary(text))), inner, max_size=5
                )
            ),
            max_leaves=20,
        )
    )
    return value, canaries


@settings(max_examples=examples(200))
@given(
    sent=planted(),
    answered=planted(),
    path=st.lists(texts, max_size=3),
    query=st.dictionaries(texts | st.just("fields"), texts, max_size=3),
    header=texts,
    status=st.sampled_from([200, 201, 302, 400, 401, 403, 404, 413, 418]),
)
def test_no_canary_survives(
    sent: tuple[Any, list[str]],
    answered: tuple[Any, list[str]],
    path: list[str],
    query: dict[str, str],
    header: str,
    status: int,
) -> None:
    secret = header.encode("ascii", "ignore").decode()
    answer_headers = {
        "Retry-After": secret,
        "X-RateLimit-Remaining": secret,
        "X-Request-Id": secret,
        "Content-Type": f"application/{secret.replace(' ', '')}",
        "WWW-Authenticate": secret,
    }

    def handler(_: httpx.Request) -> httpx.Response:
        content = orjson.dumps({"error": answered[0], "reason": "DENIED"})
        return httpx.Response(status, headers=answer_headers, stream=_Bytes(content))

    ear = Ear()
    http = PlatformHTTP(MovableClock(), transport=httpx.MockTransport(handler))
    body = orjson.dumps(sent[0])
    url = httpx.URL("https://api.example.com").copy_with(
        path="/v1/" + "/".join(part.replace("/", "") for part in path)
    )
    with observed_by(ear):
        try:
            http.call(
                "POST",
                str(url),
                headers={"Authorization": f"Bearer {secret}", "X-Other": secret},
                params=query,
                content=body,
                attempts=1,
            )
        except PlatformError:
            assert status >= 300
    [heard] = ear.heard
    assert heard.status == status
    canaries = [*sent[1], *answered[1], *path, *(k for k in query if k != "fields")]
    canaries += [*query.values(), header, secret]
    kept = ear.bytes.decode().lower()
    assert [one for one in canaries if one.strip() and one.strip().lower() in kept] == []


class _Bytes(httpx.SyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content


# what stays -------------------------------------------------------------------------------------


def test_shape_numbers_and_known_words_stay() -> None:
    body = {
        "destinations": [{"operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "12"}}],
        "audienceMembers": [{"userData": {"userIdentifiers": [{"emailAddress": "ab" * 32}]}}] * 9,
        "encoding": "HEX",
        "validate": False,
        "session": {"batch_seq": 3, "last_batch_flag": True, "session_id": 9_778_993_123_456},
        "payload": {"schema": ["EMAIL", "PHONE"], "data": [["SMITH", "DOE"]]},
        "reason": "INVALID_SHA256_FORMAT",
        "name": "SMITH",
        "fraction": 0.25,
        "nothing": None,
    }
    member = {"userData": {"userIdentifiers": [{"emailAddress": "‹64 chars›"}]}}
    assert masked_json(body) == {
        "destinations": [
            {"operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "‹2 chars›"}}
        ],
        "audienceMembers": [member, member, "‹9 elements›"],
        "encoding": "HEX",
        "validate": False,
        "session": {"batch_seq": 3, "last_batch_flag": True, "session_id": "‹13 chars›"},
        "payload": {
            "schema": ["EMAIL", "PHONE"],
            "data": [["‹5 chars›", "‹3 chars›"]],
        },
        "reason": "INVALID_SHA256_FORMAT",
        "name": "‹5 chars›",
        "fraction": 0.25,
        "nothing": None,
    }


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/audienceMembers:ingest", "/v1/audienceMembers:ingest"),
        ("/v26.0/act_1001/users", "/v26.0/‹8 chars›/users"),
        (
            "/v1/accountTypes/GOOGLE_ADS/accounts/1234567890/userLists",
            "/v1/accountTypes/GOOGLE_ADS/accounts/‹10 chars›/userLists",
        ),
        ("/services/T0123/B0456/q7Xw", "/services/‹5 chars›/‹5 chars›/‹4 chars›"),
        ("/", "/"),
    ],
)
def test_paths_keep_their_words(path: str, shown: str) -> None:
    assert masked_path(path) == shown


def test_only_headers_that_ask_for_patience_stay() -> None:
    headers = {
        "retry-after": "120",
        "x-ratelimit-remaining": "0",
        "ratelimit-reset": "soon, jane@example.com",
        "content-type": "application/json",
        "set-cookie": "session=1",
        "x-request-id": "7",
    }
    assert masked_headers(headers) == {"retry-after": "120", "x-ratelimit-remaining": "0"}
    date = {"retry-after": "Sat, 21 Nov 2026 09:01:00 GMT"}
    assert masked_headers(date) == date


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("190", "190"),
        ("INVALID_FORMAT", "INVALID_FORMAT"),
        ("invalid_grant", "invalid_grant"),
        ("InvalidCredentials", "InvalidCredentials"),
        ("jane@example.com", "‹16 chars›"),
        ("491511234567", "‹12 chars›"),
        (None, None),
    ],
)
def test_a_platforms_code_stays_when_it_is_one(code: str | None, shown: str | None) -> None:
    assert masked_code(code) == shown


def test_large_bodies_are_a_size_and_a_digest() -> None:
    large = b"[" + b"1," * MAX_BODY_BYTES + b"1]"
    shown = masked_body(large, "application/json")
    assert (shown.kind, shown.size_bytes) == (BodyKind.LARGE, len(large))
    assert shown.sha256 == hashlib.sha256(large).hexdigest()
    assert shown.content is None


def test_what_is_not_json_is_a_type_and_a_size() -> None:
    page = masked_body(b"<html>jane@example.com</html>", "text/html; charset=utf-8")
    assert page.model_dump(exclude_none=True) == {
        "kind": BodyKind.OTHER,
        "size_bytes": 29,
        "content_type": "text/html",
    }
    assert masked_type("application/jane@example.com") == "other"
    assert masked_body(b"", "text/html").kind is BodyKind.EMPTY


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b"[" * 900 + b"]" * 900,
        orjson.dumps({f"name{'x' * (n % 9)}_{'ab' * (n // 9 % 9)}": [1] * 3 for n in range(2000)}),
        orjson.dumps([{"a" * 30: "b" * 300}] * 200),
        b"1e400",
        b"-0",
        b'"\\ud800"',
    ],
)
def test_what_is_kept_is_bounded(body: bytes) -> None:
    shown = masked_body(body, "application/json")
    assert len(shown.model_dump_json()) <= MAX_SHOWN_BYTES + 500


# over a socket ----------------------------------------------------------------------------------


def test_every_try_is_seen_and_nothing_changes(
    google: Connector, running: RunningTwins, google_twin: GoogleAdsTwin
) -> None:
    account, ear = google_account(running), Ear()
    audience_id = google.create_audience(account, ADD)
    throttled = Fault("status", path="ingest", status=429, headers={"Retry-After": "1"}, times=2)
    google_twin.faults.plan(throttled)
    with observed_by(ear):
        assert google.send(account, to(ADD, audience_id), 1, people(3)).receipt
    assert [one.status for one in ear.heard] == [429, 429, 200]
    assert [one.outcome for one in ear.heard] == ["PLATFORM_UNAVAILABLE"] * 2 + ["OK"]
    first, _, last = ear.heard
    assert first.headers == {"retry-after": "1"}
    assert (last.method, last.path) == ("POST", "/google_ads/v1/audienceMembers:ingest")
    assert last.request is not None
    assert last.request.content["audienceMembers"][2] == "‹3 elements›"
    assert [str(value) for value in people(3)["email"] if str(value).encode() in ear.bytes] == []


def test_of_token_endpoints_only_the_status_is_kept(clock: MovableClock) -> None:
    ear = Ear()

    def handler(request: httpx.Request) -> httpx.Response:
        content = b'{"access_token": "ya29.secret", "expires_in": 3600}'
        status = 200 if b"good" in request.content else 401
        return httpx.Response(status, stream=_Bytes(content))

    http = PlatformHTTP(clock, transport=httpx.MockTransport(handler))
    with observed_by(ear):
        requested(http, Grant("https://token.example.com/path", {"refresh_token": "good"}))
        with pytest.raises(PlatformAuthError):
            requested(http, Grant("https://token.example.com/path", {"refresh_token": "bad"}))
    assert [one.model_dump(exclude_defaults=True) for one in ear.heard] == [
        {"at": clock.now(), "status": 200},
        {"at": clock.now(), "status": 401},
    ]


def test_no_answer_is_seen_too(google: Connector, running: RunningTwins) -> None:
    running.close()
    ear = Ear()
    with observed_by(ear), pytest.raises(PlatformTransientError):
        google.check(google_account(running))
    assert len(ear.heard) == ATTEMPTS
    assert {one.status for one in ear.heard} == {None}


def test_who_wants_failures_only_gets_them_only(clock: MovableClock) -> None:
    statuses = iter([200, 400, 200])
    ear = Ear(only_failures=True)
    http = PlatformHTTP(
        clock,
        transport=httpx.MockTransport(
            lambda _: httpx.Response(next(statuses), stream=_Bytes(b"{}"))
        ),
    )
    with observed_by(ear):
        http.call("GET", "https://api.example.com/")
        with pytest.raises(PlatformError):
            http.call("GET", "https://api.example.com/")
        http.call("GET", "https://api.example.com/", refusal=json_refusal)
    assert [one.status for one in ear.heard] == [400]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The warnings and errors of a test, whatever level others have set."""
    kept, level = Lines(), LOGGER.level
    LOGGER.addHandler(kept)
    LOGGER.setLevel("WARNING")
    yield kept
    LOGGER.removeHandler(kept)
    LOGGER.setLevel(level)


def test_an_observer_that_fails_changes_nothing(clock: MovableClock, lines: Lines) -> None:
    class Broken(Ear):
        def saw(self, exchange: Exchange) -> None:
            raise RuntimeError(f"no room for {exchange}")

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=_Bytes(b"{}")))
    http = PlatformHTTP(clock, transport=transport)
    with observed_by(Broken()):
        assert http.call("GET", "https://api.example.com/").status == 200
    assert lines.last()["message"] == "an exchange was not kept"
    assert "no room" not in lines.texts[-1], "an exception's text may quote what was sent"


def test_who_listened_before_listens_afterwards() -> None:
    before = observer()
    with observed_by(None):
        with observed_by(ear := Ear()):
            assert observer() is ear
        assert observer() is None
    assert observer() is before
