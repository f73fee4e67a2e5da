"""Log lines: what each of them says, and that none of them says anything about people."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from activation import tracing
from activation.adapters.telemetry.meters import CatalogMeter
from activation.api.trace import trace_id as trace_id_of
from activation.message_codec import push_body
from activation.observability import LOGGER, JSONLines, event, lines_about, listen, note, unlisten
from activation.ports import Message
from activation.twins.facebook import FacebookTwin
from activation.twins.server import RunningTwins, serve
from tests.api.client import SECRET, Api
from tests.telemetry.conftest import Log
from tests.telemetry.figures import Figures

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_every_answer_leaves_one_line_that_says_whose_and_what(api: Api, log: Log) -> None:
    made = api.post(
        "/audiences", {"name": "x", "type": "first_party"}, headers={"traceparent": PARENT}
    )
    assert made.headers["X-Trace-Id"] == TRACE
    (line,) = log.of("request")
    assert (
        line.items()
        >= {
            "severity": "INFO",
            "logger": "activation",
            "function": "audiences",
            "organization": "acme",
            "trace": TRACE,
            "method": "POST",
            "route": "/api/v1/audiences",
            "status": 201,
        }.items()
    )
    assert 0 < line["seconds"] < 60
    lines = [json.loads(text) for text in log.texts]
    assert {"committed"} < {one["message"] for one in lines}
    for one in lines:
        assert {"severity", "message", "logger", "function", "organization", "trace"} <= set(one)


def test_a_path_that_nobody_knows_is_not_repeated(api: Api, log: Log) -> None:
    api.send("SECRETVERB", "/p7@example.com")
    (line,) = log.of("request")
    assert (line["route"], line["method"], line["code"]) == ("none", "other", "NOT_FOUND")


def test_every_message_leaves_one_line(api: Api, log: Log) -> None:
    path = f"/audiences/{api.audience()['audience_id']}/imports"
    job = api.post(
        path,
        data=b"email\na@example.com\n",
        content_type="text/csv",
        headers={"traceparent": PARENT},
    ).get_json()
    while api.server.deliver():
        pass
    imported = [one for one in log.of("message") if one["function"] == "import_members"]
    (line,) = imported
    assert line["organization"] == "acme"
    assert line["trace"] == TRACE
    assert (line["outcome"], line["redelivered"], line["attempt"]) == ("handled", "no", 1)
    assert line["waited_seconds"] >= 0
    (ended,) = log.of("import ended")
    assert (
        ended.items()
        >= {
            "import_id": job["import_id"],
            "status": "completed",
            "accepted": 1,
            "function": "import_members",
            "organization": "acme",
            "trace": TRACE,
        }.items()
    )


@pytest.mark.parametrize(
    ("data", "attempt", "outcome", "status"),
    [
        ({}, 2, "refused", 400),
        ({"import_id": "no-such-import"}, 1, "handled", 204),
        ({"import_id": "../x"}, 3, "given_up", 204),
    ],
)
def test_what_became_of_a_message(
    api: Api, log: Log, data: dict[str, Any], attempt: int, outcome: str, status: int
) -> None:
    message = Message("member-imports", "acme", "m-1", data, trace_id="p7@example.com")
    answered, _ = api.server.post("import_members", push_body(message, "import_members", attempt))
    assert answered == status
    (line,) = log.of("message")
    assert (line["outcome"], line["redelivered"]) == (outcome, "yes" if attempt > 1 else "no")
    assert line["trace"] != message.trace_id, "an id of no shape of ours is not repeated"
    assert "message_id" not in line


def test_a_stranger_at_the_door_of_messages_is_refused(api: Api, log: Log) -> None:
    from werkzeug.test import Client

    function = api.server._functions["import_members"]
    doors = {"activation.doors": api.server._doors}
    assert Client(function).post("/", json={}, environ_overrides=doors).status_code == 401
    (line,) = log.of("message")
    assert (line["outcome"], line["code"]) == ("refused", "UNAUTHENTICATED")


def test_the_clock_leaves_a_line_and_a_round(api: Api, log: Log) -> None:
    api.server.tick()
    assert {line["function"] for line in log.of("tick")} == {"run_due", "run_retention"}
    (line,) = log.of("round")
    assert (line["outbox_age_seconds"], line["distribution_age_seconds"]) == (0.0, 0.0)


# what Cloud Logging wants -----------------------------------------------------------------------


class Kept(logging.Handler):
    def __init__(self, project: str) -> None:
        super().__init__()
        self.setFormatter(JSONLines(project))
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def linked() -> Iterator[list[dict[str, Any]]]:
    """Lines as they are written where a project is set."""
    kept, level = Kept("my-project"), LOGGER.level
    LOGGER.addHandler(kept)
    LOGGER.setLevel("INFO")
    yield kept.lines
    LOGGER.removeHandler(kept)
    LOGGER.setLevel(level)


def test_a_project_links_its_lines_to_traces(linked: list[dict[str, Any]]) -> None:
    with lines_about(trace=TRACE):
        event("hello")
    with lines_about(trace="my-run-7"):
        event("hello")
    event("hello")
    first, second, third = (line.get("logging.googleapis.com/trace") for line in linked)
    assert first == f"projects/my-project/traces/{TRACE}"
    assert second == f"projects/my-project/traces/{tracing.trace_of('my-run-7')}"
    assert third is None


def test_lines_carry_what_is_noted_until_the_end_and_no_longer(
    linked: list[dict[str, Any]],
) -> None:
    note(platform="nobody listens")
    with lines_about(function="f"):
        with lines_about(organization="acme"):
            note(platform="facebook")
            event("inside")
            logging.getLogger("activation.services.lanes").info("a plain line")
        event("outside")
    inside, plain, outside = linked
    assert (inside["platform"], plain["platform"]) == ("facebook", "facebook")
    assert plain["logger"] == "activation.services.lanes"
    assert (outside.get("platform"), outside["function"]) == (None, "f")


@pytest.mark.parametrize("given", ["p7@example.com", "x" * 65, "a\nb", "+49151234567"])
def test_a_trace_id_of_another_shape_is_not_taken_over(given: str) -> None:
    from werkzeug.datastructures import Headers

    assert tracing.shown(given) is None
    if "\n" not in given:
        assert trace_id_of(Headers({"X-Trace-Id": given})) != given


# people -----------------------------------------------------------------------------------------

PEOPLE = [f"canary.{number}@example.com" for number in range(12)]
PHONES = [f"+4915155500{number:02d}" for number in range(12)]
CITY = "Canarytown"
BROKEN = ["canary.broken(at)example.com", "+49 canary 7"]


def canaries() -> list[str]:
    """Everything of a person that a line could carry, as it came and as it is stored."""
    plain = [*PEOPLE, *PHONES, *(phone[1:] for phone in PHONES)]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in plain]
    return [*plain, *digests, CITY, *BROKEN, SECRET, "twin-token"]


@pytest.fixture
def twins(api: Api) -> Iterator[RunningTwins]:
    running = serve({"facebook": FacebookTwin(api.server.app.clock)})
    yield running
    running.close()


def test_no_line_and_no_figure_is_about_a_person(api: Api, log: Log, twins: RunningTwins) -> None:
    """Import, distribution, opting out and erasure, each with what goes wrong in it."""
    figures = Figures()
    meter = CatalogMeter(figures)
    listen(meter)
    try:
        _all_flows(api, twins)
    finally:
        unlisten(meter)
    kinds = {json.loads(text)["message"] for text in log.texts}
    assert kinds >= {
        "import ended",
        "import rejects",
        "batch sent",
        "rows rejected",
        "members withheld",
        "platform request",
        "distribution ended",
        "suppressions added",
    }
    found = [(text, one) for text in log.texts for one in canaries() if one.lower() in text.lower()]
    assert found == []
    labels = " ".join(str(labels) for _, labels in figures.kept)
    assert [one for one in canaries() if one in labels] == []


def _all_flows(api: Api, twins: RunningTwins) -> None:
    audience = api.audience()
    path = f"/audiences/{audience['audience_id']}"
    config = {"ad_account_id": "1001", "api_url": twins.url_of("facebook")}
    platform = api.platform(
        name="Meta",
        platform_type="facebook",
        credentials={"access_token": "twin-token"},
        settings={"config": config},
    )
    _imported(api, path, [*PEOPLE, BROKEN[0]], [*PHONES, BROKEN[1]])
    _suppressed(api, PEOPLE[1], "opt_out")
    order = {"audience_id": audience["audience_id"], "platform_id": platform["platform_id"]}
    sent = api.post("/distributions", order).get_json()
    server = api.server
    server.app.dispatcher.run("acme", sent["distribution_id"], TRACE)
    _suppressed(api, PEOPLE[2], "opt_out")
    _delivered(api)
    _suppressed(api, PEOPLE[3], "erasure")
    api.delete(f"{path}/members", json={"members": [_email(PEOPLE[3])]})
    _imported(api, path, PEOPLE, PHONES)
    order["distribution_type"] = "incremental"
    api.post("/distributions", order)
    _delivered(api)
    api.post(f"/platforms/{api.platform(name='Hook')['platform_id']}/test")
    _delivered(api)


def _imported(api: Api, path: str, mails: list[str], phones: list[str]) -> None:
    rows = [f"{mail},{phone},{CITY}" for mail, phone in zip(mails, phones, strict=True)]
    text = "\n".join(["email,phone,city", *rows])
    made = api.post(f"{path}/imports", data=text.encode(), content_type="text/csv")
    assert made.status_code == 202
    _delivered(api)


def _suppressed(api: Api, mail: str, reason: str) -> None:
    made = api.post("/suppressions", {"suppressions": [{**_email(mail), "reason": reason}]})
    assert made.status_code < 300, made.get_json()


def _email(mail: str) -> dict[str, str]:
    return {"identifier_type": "email", "identifier_value": mail}


def _delivered(api: Api) -> None:
    while api.server.deliver():
        pass
