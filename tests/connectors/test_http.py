"""What replies mean, and what bad networks do: by table, and over a socket."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import httpx
import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors import facebook_wire, google_wire
from activation.adapters.connectors.http import (
    ATTEMPTS,
    MAX_REPLY_BYTES,
    PlatformHTTP,
    Reply,
    http_refusal,
    json_refusal,
    pause,
    retry_after,
)
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformRowsError,
    PlatformTransientError,
)
from activation.ports import Connector
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.server import RunningTwins
from tests.connectors.support import ADD, digest_of, google_account, people, to

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
URL = "https://api.example.com/x?appsecret_proof=PROOF"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, None),
        (204, None),
        (301, PlatformError),
        (400, PlatformError),
        (401, PlatformAuthError),
        (403, PlatformError),
        (404, PlatformError),
        (408, PlatformTransientError),
        (410, PlatformError),
        (413, PlatformError),
        (425, PlatformTransientError),
        (429, PlatformTransientError),
        (500, PlatformTransientError),
        (501, PlatformError),
        (507, PlatformTransientError),
        (522, PlatformTransientError),
        (529, PlatformTransientError),
        (502, PlatformTransientError),
        (503, PlatformTransientError),
        (504, PlatformTransientError),
    ],
)
def test_a_status_alone(status: int, kind: type[PlatformError] | None) -> None:
    error = http_refusal(Reply(status), NOW)
    assert (type(error) if error else None) is kind


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, '{"error":{"code":190,"error_subcode":463}}', PlatformAuthError),
        (400, '{"error":{"code":102}}', PlatformAuthError),
        (400, '{"error":{"code":1,"error_subcode":99}}', PlatformTransientError),
        (400, '{"error":{"code":2}}', PlatformTransientError),
        (400, '{"error":{"code":17,"error_subcode":2446079}}', PlatformTransientError),
        (400, '{"error":{"code":613}}', PlatformTransientError),
        (403, '{"error":{"code":80004}}', PlatformTransientError),
        (400, '{"error":{"code":803}}', PlatformTransientError),
        (400, '{"error":{"code":999,"is_transient":true}}', PlatformTransientError),
        (400, '{"error":{"code":10}}', PlatformError),
        (403, '{"error":{"code":200}}', PlatformError),
        (400, '{"error":{"code":100,"error_subcode":1713230}}', PlatformError),
        (400, '{"error":{"code":2650}}', PlatformError),
        (500, '{"error":{"code":12345}}', PlatformTransientError),
        (502, "<html>Bad gateway</html>", PlatformTransientError),
        (400, "<html>", PlatformError),
        (400, '{"error":"text"}', PlatformError),
        (400, "[1]", PlatformError),
    ],
)
def test_metas_own_codes(status: int, body: str, kind: type[PlatformError]) -> None:
    assert type(facebook_wire.refusal(Reply(status, {}, body.encode()), NOW)) is kind


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "INVALID_SHA256_FORMAT", PlatformRowsError),
        (400, "NO_IDENTIFIERS_PROVIDED", PlatformRowsError),
        (400, "INVALID_USER_LIST_ID", PlatformError),
        (400, "TERMS_AND_CONDITIONS_NOT_SIGNED", PlatformError),
        (401, "CREDENTIALS_INVALID", PlatformAuthError),
        (403, "NOT_ALLOWLISTED", PlatformError),
        (413, "", PlatformRowsError),
        (429, "RESOURCE_EXHAUSTED", PlatformTransientError),
        (500, "INTERNAL_ERROR", PlatformTransientError),
        (503, "UNAVAILABLE", PlatformTransientError),
        (504, "DEADLINE_EXCEEDED", PlatformTransientError),
    ],
)
def test_googles_own_reasons(status: int, reason: str, kind: type[PlatformError]) -> None:
    body = f'{{"error":{{"code":{status},"details":[{{"reason":"{reason}"}}]}}}}'
    error = google_wire.refusal(Reply(status, {}, body.encode()), NOW)
    assert type(error) is kind
    assert isinstance(error, PlatformError)
    assert error.platform_code == (reason or "413")


@pytest.mark.parametrize(
    ("field", "rows"),
    [
        ("audience_members[3].user_data.user_identifiers[1]", (3,)),
        ("audience_members.members[4].user_data", (4,)),
        ("audienceMembers[5]", (5,)),
        ("destinations[2]", ()),
        (None, ()),
    ],
)
def test_google_names_rows_in_several_ways(field: str | None, rows: tuple[int, ...]) -> None:
    details = [{"reason": "INVALID_FORMAT"}, {"fieldViolations": [{"field": field}]}]
    content = orjson.dumps({"error": {"code": 400, "details": details}})
    error = google_wire.refusal(Reply(400, {}, content), NOW)
    assert isinstance(error, PlatformRowsError)
    assert error.rows == rows


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("Sat, 21 Nov 2026 09:01:00 GMT", 60.0),
        ("Sat, 21 Nov 2026 08:00:00 GMT", 0.0),
        ("soon", None),
        ("Sat, 21 Nov 2026 09:01:00 +99999999999999", None),
        ("-1", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_comes_in_two_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_short_pauses_are_kept_here_and_long_ones_handed_back() -> None:
    assert pause(PlatformTransientError("x")) is True
    assert pause(PlatformTransientError("x", retry_after_seconds=3)) == 3
    assert pause(PlatformTransientError("x", retry_after_seconds=300)) is False
    assert pause(PlatformError("x")) is False
    assert pause(PlatformAuthError("x")) is False


def over(handler: Callable[[httpx.Request], httpx.Response], clock: MovableClock) -> PlatformHTTP:
    def streamed(request: httpx.Request) -> httpx.Response:
        made = handler(request)
        if not made.is_stream_consumed:
            return made
        return httpx.Response(made.status_code, headers=made.headers, stream=_Bytes(made.content))

    return PlatformHTTP(clock, transport=httpx.MockTransport(streamed))


def test_transient_failures_are_tried_again_with_the_same_bytes(clock: MovableClock) -> None:
    bodies: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return httpx.Response(503 if len(bodies) < ATTEMPTS else 200, json={"ok": True})

    reply = over(handler, clock).call("POST", URL, content=b"batch")
    assert reply.object() == {"ok": True}
    assert bodies == [b"batch"] * ATTEMPTS


def test_a_wait_that_is_too_long_is_the_engines(clock: MovableClock) -> None:
    calls: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request.method)
        return httpx.Response(429, headers={"Retry-After": "120"})

    with pytest.raises(PlatformTransientError) as caught:
        over(handler, clock).call("POST", URL)
    assert caught.value.retry_after_seconds == 120
    assert len(calls) == 1


def test_a_call_that_must_not_happen_twice_does_not(clock: MovableClock) -> None:
    calls: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request.method)
        raise httpx.ReadTimeout("slow", request=request)

    with pytest.raises(PlatformTransientError):
        over(handler, clock).call("POST", URL, attempts=1)
    assert len(calls) == 1


def test_redirects_are_not_followed(clock: MovableClock) -> None:
    calls: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(str(request.url))
        return httpx.Response(302, headers={"Location": "https://169.254.169.254/"})

    with pytest.raises(PlatformError):
        over(handler, clock).call("GET", URL)
    assert calls == [URL]


def test_an_endless_answer_is_cut_off(clock: MovableClock) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 65_536
            yield b"x" * 65_536

    http = over(lambda _: httpx.Response(200, content=endless()), clock)
    with pytest.raises(PlatformError) as caught:
        http.call("GET", URL)
    assert caught.value.reason == "reply_too_long"
    assert read <= MAX_REPLY_BYTES + 2 * 65_536


def test_an_answer_that_drips_for_ever_is_cut_off(clock: MovableClock) -> None:
    def drip() -> Iterator[bytes]:
        while True:
            clock.sleep(50)
            yield b"x"

    with pytest.raises(PlatformError):
        over(lambda _: httpx.Response(200, content=drip()), clock).call("GET", URL)


def test_a_packed_answer_is_not_unpacked(clock: MovableClock) -> None:
    packed = httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=_Bytes(b"\x1f\x8b"))
    with pytest.raises(PlatformError):
        over(lambda _: packed, clock).call("GET", URL)


@pytest.mark.parametrize("status", [200, 400, 401, 413, 429, 500])
def test_no_error_tells_what_the_platform_said(clock: MovableClock, status: int) -> None:
    secret = "jane@example.com ya29.token PROOF"
    body = {"error": {"code": 100, "message": secret, "details": [{"description": secret}]}}
    content = secret.encode() if status == 200 else httpx.Response(200, json=body).content
    http = over(lambda _: httpx.Response(status, content=content), clock)
    with pytest.raises(PlatformError) as caught:
        http.call("GET", URL, headers={"Authorization": "Bearer ya29.token"}, refusal=json_refusal)
    shown = f"{caught.value!r} {vars(caught.value)}"
    assert not [word for word in secret.split() if word in shown]


def test_nothing_of_a_request_is_logged(
    google: Connector, running: RunningTwins, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    account = google_account(running)
    audience_id = google.create_audience(account, ADD)
    google.send(account, to(ADD, audience_id), 1, people(1))
    logged = caplog.text
    secrets = ("ya29", "twin-secret", "twin-refresh", "userLists", str(people(1)["email"][0]))
    assert not [secret for secret in secrets if secret in logged]


@pytest.mark.parametrize("url", ["https://a..example.com/", "https://xn--/", "https://xn--a-/"])
def test_a_name_that_cannot_be_one_is_a_platform_error(clock: MovableClock, url: str) -> None:
    with pytest.raises(PlatformError) as caught:
        PlatformHTTP(clock).call("GET", url)
    assert caught.value.reason == "URL_NOT_ALLOWED"


# Over a socket ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", path="ingest"),
        Fault("truncate", path="ingest"),
        Fault("cut", path="ingest"),
        Fault("lost", path="ingest"),
        Fault("status", path="ingest", status=500),
        Fault("status", path="ingest", status=502, body="<html>Bad gateway</html>"),
        Fault("status", path="ingest", status=429, headers={"Retry-After": "1"}),
        Fault("status", path="ingest", status=401),
        Fault("delay", path="ingest", seconds=5),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
def test_one_failure_is_overcome_and_nothing_is_doubled(
    google: Connector, running: RunningTwins, google_twin: GoogleAdsTwin, fault: Fault
) -> None:
    account = google_account(running)
    audience_id = google.create_audience(account, ADD)
    google_twin.faults.plan(fault)
    assert google.send(account, to(ADD, audience_id), 1, people(10)).receipt
    assert google_twin.lists[audience_id].summary()["digest"] == digest_of(people(10))
    assert google_twin.faults.pending() == []


def test_a_platform_that_is_down_is_transient(google: Connector, running: RunningTwins) -> None:
    account = google_account(running)
    running.close()
    with pytest.raises(PlatformTransientError) as caught:
        google.check(account)
    assert "127.0.0.1" in str(caught.value)


class _Bytes(httpx.SyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
