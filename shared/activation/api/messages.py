"""The door for messages: push requests and CloudEvents in, acknowledgement or refusal out.

204 acknowledges: the work is done, or its record is gone. 400 refuses what is no message of ours;
the bus tries it again and in the end keeps it as a dead letter, where it can be looked at. 503
asks the bus to deliver again: a store, a lease or a platform was not ready. 500 is a fault of
ours; that too ends as a dead letter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flask

from activation import observability, tracing
from activation.api import auth, edge
from activation.api.responses import empty, json_response
from activation.app import App
from activation.domain.entity import made_at
from activation.errors import (
    ActivationError,
    BadRequestError,
    MethodNotAllowedError,
    PayloadTooLargeError,
)
from activation.ports import Message
from activation.services.suppression_imports import FOLDER as SUPPRESSION_FILES

MAX_MESSAGE_BYTES = 14 * 1024 * 1024
"""A push request with the largest message Pub/Sub takes (10 MB), in base64."""

HEALTH = "/health"

Handler = Callable[[App, Message], None]


def receive(function: str, request: flask.Request, handle: Handler) -> flask.Response:
    """Let a message in and answer for what became of it."""

    def act() -> flask.Response:
        _admit(function, request)
        try:
            _handled(function, message_of(request), handle)
        except ActivationError as error:
            if error.retryable:
                return _again(error)
            if isinstance(error, BadRequestError):
                raise
            flask.g.outcome, flask.g.code = "given_up", error.code
        return empty()

    return _guarded(function, request, act, "message")


def _handled(function: str, message: Message, handle: Handler) -> None:
    """Do what the message asks for, in its own trace."""
    with tracing.span(
        f"{function} message",
        kind="consumer",
        trace_id=flask.g.trace_id,
        traceparent=message.traceparent,
        topic=tracing.shown(message.topic),
        organization=tracing.shown(message.organization_id),
    ):
        handle(flask.g.doors.app, message)


def tick(
    function: str, request: flask.Request, act: Callable[[App], Mapping[str, int]]
) -> flask.Response:
    """Do what the clock asks for; the answer says how much was found."""

    def found() -> flask.Response:
        _admit(function, request)
        return json_response(dict(act(flask.g.doors.app)), 200)

    return _guarded(function, request, found, "tick")


def _guarded(
    function: str, request: flask.Request, act: Callable[[], flask.Response], line: edge.Line
) -> flask.Response:
    if request.method == "GET" and request.path == HEALTH:
        return edge.guarded(function, _lives)
    return edge.guarded(function, act, line)


def _lives() -> flask.Response:
    """The process lives and its settings are right."""
    return json_response({"status": "ok"}, 200)


def _admit(function: str, request: flask.Request) -> None:
    if (request.content_length or 0) > MAX_MESSAGE_BYTES:
        raise PayloadTooLargeError(f"A message has at most {MAX_MESSAGE_BYTES} bytes.")
    request.max_content_length = MAX_MESSAGE_BYTES
    if request.method != "POST":
        raise MethodNotAllowedError("Messages are posted.")
    door = flask.g.doors
    auth.service(door.services, door.deliverers, function, request.headers)


def message_of(request: flask.Request) -> Message:
    """The message of a push request, bare or as the data of a CloudEvent (binary, structured).

    Raises BadRequestError for everything else.
    """
    from activation.api import body
    from activation.message_codec import attempt_of, from_push

    parsed: Any = body.parse(request.get_data())
    if isinstance(parsed, dict) and "specversion" in parsed:
        parsed = parsed.get("data")
    message = from_push(parsed)[1]
    flask.g.trace_id = tracing.shown(message.trace_id) or flask.g.trace_id
    organization = tracing.shown(message.organization_id)
    observability.note(trace=flask.g.trace_id, organization=organization)
    flask.g.message = _line_of(message, attempt_of(parsed))
    return message


def _line_of(message: Message, attempt: int | None) -> dict[str, Any]:
    """What the line of a message says of it."""
    made = made_at(message.id)
    waited = (flask.g.doors.app.clock.now() - made).total_seconds() if made else None
    return {
        "message_id": message.id if made else None,
        "attempt": attempt,
        "redelivered": observability.yes_no(attempt is not None and attempt > 1),
        "waited_seconds": round(max(waited, 0.0), 3) if waited is not None else None,
    }


def _again(error: ActivationError) -> flask.Response:
    """Not now: 503, whatever status the same error has for callers."""
    response = json_response({"retry": error.code}, 503)
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_seconds)))
    flask.g.outcome, flask.g.code = "again", error.code
    return response


# what the messages mean -----------------------------------------------------------------------


def import_members(app: App, message: Message) -> None:
    """Work on an import: one that is queued, or one whose file has just arrived."""
    organization_id, import_id = message.organization_id, message.data.get("import_id")
    if message.data.get("kind") == "storage#object":
        name = _text(message.data.get("name"), "name")
        if name.split("/")[1:2] == [SUPPRESSION_FILES]:
            return  # whoever put it asks for its import
        organization_id, import_id = _uploaded(name)
    app.import_worker.run(organization_id, _text(import_id, "import_id"), _trace(message))


def dispatch_distribution(app: App, message: Message) -> None:
    """Work on a distribution or one of its lanes, request those that are due, check a platform's
    credentials, or tell a webhook."""
    delivery_id = message.data.get("webhook_delivery_id")
    if delivery_id is not None:
        app.webhook_sender.run(message.organization_id, _text(delivery_id, "webhook_delivery_id"))
        return
    platform_id = message.data.get("platform_id")
    if platform_id is not None:
        app.dispatcher.check(message.organization_id, _text(platform_id, "platform_id"))
        return
    refresh = message.data.get("refresh")
    if refresh is not None:
        app.refreshing.run(message.organization_id, _text(refresh, "refresh"), _trace(message))
        return
    ledger_id = message.data.get("ledger_id")
    if ledger_id is not None:
        ledger_id = _text(ledger_id, "ledger_id")
        app.reconciler.run(message.organization_id, ledger_id, _trace(message))
        return
    followed = message.data.get("followed")
    if followed is not None:
        app.follow_sends.run(message.organization_id, _text(followed, "followed"), _trace(message))
        return
    lane_id = message.data.get("lane_id")
    if lane_id is not None:
        lane_id = _text(lane_id, "lane_id")
        app.lane_worker.run(message.organization_id, lane_id, _trace(message))
        return
    distribution_id = _text(message.data.get("distribution_id"), "distribution_id")
    app.dispatcher.run(message.organization_id, distribution_id, _trace(message))


def run_job(app: App, message: Message) -> None:
    """Work on a job of an audience or an organization, or bring an audience in step with the
    segment it follows."""
    audience_id = message.data.get("follow")
    if audience_id is not None:
        audience_id = _text(audience_id, "follow")
        app.follow_worker.run(message.organization_id, audience_id, _trace(message))
        return
    job_id = _text(message.data.get("job_id"), "job_id")
    app.job_worker.run(message.organization_id, job_id, _trace(message))


def process_events(app: App, message: Message) -> None:
    """Take in events, sweep a shard, or bring shards to new rules."""
    app.event_worker.run(message)


def follow_segments(app: App, message: Message) -> None:
    """Mark the audiences that follow a segment which a step of a shard has changed."""
    shard, number = message.data.get("shard"), message.data.get("number")
    if type(shard) is not int or type(number) is not int:
        raise BadRequestError("shard and number name a step.", field="number", reason="missing")
    trace_id = tracing.shown(message.trace_id) or message.id
    app.segment_marking.run(message.organization_id, shard, number, trace_id)


def run_due(app: App) -> Mapping[str, int]:
    """Wake everything whose time has come."""
    found = app.due.run()
    app.census.take_when_due()
    return found


def run_retention(app: App) -> Mapping[str, int]:
    """Start the retention runs whose time has come, whichever schedule rings."""
    return {"started": app.retention.start_due(flask.g.trace_id)}


def _uploaded(name: str) -> tuple[str, str]:
    """Organization and import of an object `{organization}/imports/{import}/source`."""
    parts = name.split("/")
    if len(parts) != 4 or parts[1] != "imports" or parts[3] != "source":
        raise BadRequestError("The object is not the file of an import.", field="name")
    return parts[0], parts[2]


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadRequestError(f"{field} is missing.", field=field, reason="missing")
    return value


def _trace(message: Message) -> str:
    return tracing.shown(message.trace_id) or flask.g.trace_id
