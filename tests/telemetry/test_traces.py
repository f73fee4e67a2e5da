"""Traces: one id from a request over messages and workers to the platform, and no person in it."""

from __future__ import annotations

import hashlib
import json
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bench.collector import Collector, Seen, collecting
from bench.trace import tree
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from werkzeug.wrappers import Request, Response

from activation import tracing
from activation.adapters.clock import MovableClock, SystemClock
from activation.adapters.connectors.hooks import HookPoster
from activation.adapters.connectors.http import PlatformHTTP
from activation.adapters.gcp.telemetry import authorized_session
from activation.adapters.telemetry.otlp import FLUSH_SECONDS, OtlpTracer
from activation.domain.entity import new_id
from activation.errors import ValidationError
from activation.local import LocalServer
from activation.message_codec import decode, encode, message_of, outbox_write
from activation.ports import Document, Message, Query
from activation.settings import Settings, from_environment
from activation.twins.facebook import FacebookTwin
from activation.twins.server import serve
from tests.api.client import Api, Description
from tests.connectors.support import WEBHOOK_SECRET
from tests.telemetry.conftest import Log
from tests.wire.http import served

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
RESOURCE = {"service.name": "test"}
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@contextmanager
def traced(
    settings: Settings, clock: MovableClock, collector: Collector, ratio: float = 1.0
) -> Iterator[LocalServer]:
    """Every function, with spans that go to the collector; all are there at the end."""
    given = Settings(
        data_folder=settings.data_folder,
        allow_private_hosts=True,
        otlp_endpoint=collector.url,
        trace_ratio=ratio,
        otlp_metrics=True,
    )
    server = LocalServer(given, clock=clock)
    server.app.telemetry.start()
    try:
        yield server
    finally:
        server.stop()


def _main_job(api: Api, url: str) -> None:
    """An import and a distribution, asked for by one caller's trace."""
    asked = api.with_headers(traceparent=PARENT)
    audience = api.audience()
    text = "email\n" + "\n".join(f"canary{n}@example.com" for n in range(8))
    path = f"/audiences/{audience['audience_id']}/imports"
    assert asked.post(path, data=text.encode(), content_type="text/csv").status_code == 202
    _deliver(api)
    platform = api.platform(
        name="Meta",
        platform_type="facebook",
        credentials={"access_token": "twin-token"},
        settings={"config": {"ad_account_id": "1001", "api_url": url}},
    )
    order = {"audience_id": audience["audience_id"], "platform_id": platform["platform_id"]}
    assert asked.post("/distributions", order).status_code == 202
    _deliver(api)


def _deliver(api: Api) -> None:
    while api.server.deliver():
        pass


def test_one_id_finds_request_messages_workers_platform_and_audit(
    settings: Settings,
    clock: MovableClock,
    collector: Collector,
    description: Description,
    log: Log,
) -> None:
    running = serve({"facebook": FacebookTwin(clock)})
    with traced(settings, clock, collector) as server:
        api = Api(server, description).as_()
        _main_job(api, running.url_of("facebook"))
        audit = server.app.documents.query(Query("acme", "audit", limit=200))
    running.close()
    spans = collector.trace(TRACE)
    _require_one_tree(spans)
    messages = {json.loads(text)["message"] for text in log.texts if TRACE in text}
    assert messages >= {"request", "message", "import ended", "batch sent", "distribution ended"}
    actions = {one.data["action"] for one in audit if one.data["trace_id"] == TRACE}
    assert actions >= {
        "api:import:create",
        "function:import:complete",
        "api:distribution:create",
        "function:distribution:completed",
    }
    sent = b"".join(collector.bodies)
    digests = [hashlib.sha256(f"canary{n}@example.com".encode()).hexdigest() for n in range(8)]
    for canary in ("canary", "twin-token", "traceparent", *digests):
        assert canary.encode() not in sent
    assert collector.figures["activation_imports_total"] == [
        {"status": "completed", "value": 1, "kind": "sum"}
    ]
    (rate,) = collector.figures["activation_import_seconds"]
    assert rate["kind"] == "histogram"


def _require_one_tree(spans: list[Seen]) -> None:
    """Every step is there, below the caller's span, each below the one that asked for it."""
    names = {span.name for span in spans}
    assert names >= {
        "POST /api/v1/audiences/<audience_id>/imports",
        "import_members message",
        "import read",
        "import merge",
        "POST /api/v1/distributions",
        "dispatch_distribution message",
        "prepare lists",
        "create audience",
        "batch",
        "platform request",
        "settle ledger",
        "commit",
    }
    by_id = {span.span_id: span for span in spans}
    roots = [span for span in spans if span.parent_id not in by_id]
    assert {span.parent_id for span in roots} == {"00f067aa0ba902b7"}, "below the caller's span"
    assert {span.name.split()[0] for span in roots} == {"POST"}
    (batch,) = (span for span in spans if span.name == "batch")
    above = _above(batch, by_id)
    assert above[0] == "dispatch_distribution message"
    assert above[-1] == "POST /api/v1/distributions"
    kinds = {span.name: span.kind for span in spans}
    assert kinds["import_members message"] == CONSUMER
    assert kinds["publish member-imports"] == PRODUCER
    assert kinds["platform request"] == CLIENT
    assert kinds["POST /api/v1/distributions"] == SERVER
    assert not [span for span in spans if span.failed]
    printed = [row[0] for row in tree(spans)]
    assert any(row.startswith("      import read") for row in printed)


def _above(span: Any, by_id: dict[str, Any]) -> list[str]:
    names = []
    while span.parent_id in by_id:
        span = by_id[span.parent_id]
        names.append(span.name)
    return names


def test_a_share_of_no_traces_sends_none_and_their_id_still_answers(
    settings: Settings, clock: MovableClock, collector: Collector, description: Description
) -> None:
    with traced(settings, clock, collector, ratio=0.0) as server:
        api = Api(server, description).as_()
        made = api.get("/audiences", headers={"traceparent": PARENT})
        assert made.headers["X-Trace-Id"] == TRACE
    assert collector.spans == []


def test_a_trace_is_kept_or_left_out_whole(collector: Collector) -> None:
    """Two processes decide alike, whatever the caller's flag says."""
    tracers = [OtlpTracer(collector.url, RESOURCE, 0.5) for _ in range(2)]
    for tracer in tracers:
        for number in range(64):
            trace_id = hashlib.sha256(bytes([number])).hexdigest()[:32]
            flag = tracing.Place(trace_id, "00f067aa0ba902b7", sampled=number % 2 == 0)
            with tracer.span("x", "internal", trace_id, flag, {}):
                pass
        tracer.close()
    counts = {span.trace_id: 0 for span in collector.spans}
    for span in collector.spans:
        counts[span.trace_id] += 1
    assert 16 < len(counts) < 48
    assert set(counts.values()) == {2}


def test_an_id_of_the_callers_own_making_becomes_a_trace_by_its_digest(
    settings: Settings, clock: MovableClock, collector: Collector, description: Description
) -> None:
    with traced(settings, clock, collector) as server:
        api = Api(server, description).as_()
        made = api.get("/audiences", headers={"X-Trace-Id": "my-run-7"})
        assert made.headers["X-Trace-Id"] == "my-run-7"
    (span,) = collector.spans
    assert span.trace_id == hashlib.sha256(b"my-run-7").hexdigest()[:32]
    assert span.parent_id == ""


def test_a_function_sends_its_spans_before_its_answer_leaves(collector: Collector) -> None:
    tracer = OtlpTracer(collector.url, RESOURCE, 1.0, flushes=True)
    tracing.install(tracer)
    try:
        with tracing.span("GET /x", trace_id=TRACE):
            pass
        assert collector.spans == []
        tracing.request_ended()
        assert [span.name for span in collector.spans] == ["GET /x"]
    finally:
        tracing.install(None)
        tracer.close()


def test_answers_wait_once_for_a_collector_that_is_down() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        tracer = OtlpTracer(url, RESOURCE, 1.0, flushes=True)
        waited = []
        for _ in range(8):
            with tracer.span("x", "internal", TRACE, None, {}):
                pass
            started = time.monotonic()
            tracer.request_ended()
            waited.append(time.monotonic() - started)
        assert waited[0] < FLUSH_SECONDS + 10
        assert statistics.median(waited[1:]) < 0.1
        tracer.close()


def test_functions_sign_in_at_googles_endpoint_as_themselves(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def token(_request: Request) -> Response:
        granted = {"access_token": "of-the-function", "expires_in": 3600, "token_type": "Bearer"}
        return Response(json.dumps(granted), content_type="application/json")

    with served(token) as url:
        key_file = tmp_path / "service-account.json"
        key_file.write_text(json.dumps(_service_account(f"{url}/token")))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
        tracer = OtlpTracer(collector.url, RESOURCE, 1.0, session=authorized_session())
        with tracer.span("x", "internal", TRACE, None, {}):
            pass
        tracer.close()
    assert collector.tokens == ["Bearer of-the-function"]
    assert [span.name for span in collector.spans] == ["x"]


def _service_account(token_url: str) -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "client_email": "dispatcher@my-project.iam.gserviceaccount.com",
        "private_key": pem.decode(),
        "private_key_id": "1",
        "token_uri": token_url,
        "project_id": "my-project",
    }


def test_a_failure_is_told_by_its_type_alone(collector: Collector) -> None:
    tracer = OtlpTracer(collector.url, RESOURCE, 1.0)
    tracing.install(tracer)
    try:
        with pytest.raises(KeyError), tracing.span("x", trace_id=TRACE, nothing=None):
            raise KeyError("canary@example.com")
    finally:
        tracing.install(None)
        tracer.close()
    (span,) = collector.spans
    assert span.failed
    assert b"KeyError" in collector.bodies[0]
    assert b"canary" not in collector.bodies[0]


def test_a_collector_that_is_down_fails_no_request(
    settings: Settings, clock: MovableClock, description: Description
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = Collector(url=f"http://127.0.0.1:{unused.getsockname()[1]}")
        with traced(settings, clock, nobody) as server:
            api = Api(server, description).as_()
            waited = []
            for _ in range(5):
                started = time.monotonic()
                assert api.get("/audiences").status_code == 200
                waited.append(time.monotonic() - started)
            assert statistics.median(waited) < 2


def test_ad_platforms_are_told_of_no_trace_and_receivers_of_the_operator_are(
    collector: Collector,
) -> None:
    seen: list[dict[str, str]] = []

    def receive(request: Request) -> Response:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return Response(status=200)

    tracer = OtlpTracer(collector.url, RESOURCE, 1.0)
    tracing.install(tracer)
    platforms = PlatformHTTP(SystemClock(), allow_private_hosts=True)
    hooks = HookPoster(SystemClock(), allow_private_hosts=True)
    try:
        with served(receive) as url, tracing.span("work", trace_id=TRACE) as span:
            platforms.call("POST", f"{url}/ads", content=b"{}")
            hooks.post(f"{url}/events", [WEBHOOK_SECRET], "msg-1", {"type": "ping"})
            assert span.place is not None
            place = span.place.traceparent
        hooks.close()
        platforms.close()
    finally:
        tracing.install(None)
        tracer.close()
    ads, hook = seen
    assert "traceparent" not in ads
    assert hook["traceparent"] == place
    assert place.startswith(f"00-{TRACE}-")


# messages ---------------------------------------------------------------------------------------


def test_a_message_goes_on_below_the_span_that_committed_it(collector: Collector) -> None:
    """Also when the bus was down, and the outbox is what it comes from."""
    now = MovableClock(SystemClock().now()).now()
    message = Message("member-imports", "acme", new_id(now), {}, trace_id=TRACE)
    tracer = OtlpTracer(collector.url, RESOURCE, 1.0)
    tracing.install(tracer)
    try:
        with tracing.span("commit", trace_id=TRACE) as span:
            write = outbox_write(message, now)
        with tracing.span("another request", trace_id="0af7651916cd43dd8448eb211c80319c"):
            assert write.data is not None
            kept = message_of(Document(write.key, write.data, "1"))
            data, attributes = encode(kept)
            assert encode(message)[1].get("traceparent") is None, "that is another trace"
    finally:
        tracing.install(None)
        tracer.close()
    assert span.place is not None
    assert attributes["traceparent"] == span.place.traceparent
    assert decode(data, attributes, "m").traceparent == span.place.traceparent


def test_a_foreign_publisher_brings_its_trace() -> None:
    found = decode(b"{}", {"traceparent": PARENT}, "m", "user-events")
    assert (found.trace_id, found.traceparent) == (TRACE, PARENT)
    for wrong in ("", "00-x", PARENT.replace("-01", ""), f"00-{'0' * 32}-{'1' * 16}-01"):
        assert decode(b"{}", {"traceparent": wrong}, "m").trace_id is None


@pytest.mark.parametrize(
    ("name", "value"), [("OTLP_ENDPOINT", "collector:4318"), ("TRACE_RATIO", "1.5")]
)
def test_settings_that_cannot_be_meant_are_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        from_environment({f"ACTIVATION_{name}": value})
