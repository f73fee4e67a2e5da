"""The edge: the one way into every function, and the one way out.

Checks run in this order: size, route and method, token, rate, content type, JSON, schema, role,
then the use case. Whatever fails, wherever, leaves as the envelope of `api/envelope.py`.
"""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote_to_bytes

import flask
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestURITooLarge
from werkzeug.wsgi import LimitedStream

from activation import observability, tracing
from activation.adapters.clock import SystemClock
from activation.api import auth, trace
from activation.api.cors import allow_origin
from activation.api.doors import Doors, doors
from activation.api.envelope import ErrorAnswer, problem_of, schema_error
from activation.api.limits import tell
from activation.api.paths import SLASH
from activation.api.responses import JSON, empty, json_response
from activation.domain.caller import Caller
from activation.domain.entity import timestamp
from activation.errors import PayloadTooLargeError, UnsupportedMediaTypeError

if TYPE_CHECKING:
    import pydantic
    from flask_openapi3.openapi import OpenAPI

MAX_URL_CHARACTERS = 8192
HSTS = "max-age=31536000; includeSubDomains"
"""In the cloud every address of ours is behind TLS; on this machine there is none."""
DRAIN_PIECE = 64 * 1024

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_applications: dict[str, flask.Flask] = {}
_lock = threading.Lock()
_has_answered = False

Line = Literal["request", "message", "tick"]
"""What the one line is called that every answer leaves in the log."""


def serve(function: str, request: flask.Request) -> flask.Response:
    """Answer an HTTP request of a function with the application that holds its routes."""
    environ = {**request.environ, "PATH_INFO": _canonical(path_of(request.environ))}
    application = _application(function)
    with application.request_context(environ), _lines(function, "request"):
        given = flask.request.headers.get("traceparent")
        name = f"{_method()} {_route()}"
        with tracing.span(
            name, kind="server", trace_id=flask.g.trace_id, traceparent=given, function=function
        ) as span:
            response = application.full_dispatch_request()
            span.note("status", response.status_code)
    tracing.request_ended()
    request.stream = io.BytesIO()  # the framework would read the body again
    return response


def adopt_framework() -> None:
    """Give the framework's own answers our shape; called while it loads a function's module."""
    if flask.has_app_context():
        framework = flask.current_app
        framework.url_map.merge_slashes = False  # else `//` is answered with a redirect page
        framework.register_error_handler(Exception, _framework_failed)
        framework.register_error_handler(500, _framework_failed)


def guarded(
    function: str, act: Callable[[], flask.Response], line: Line = "request"
) -> flask.Response:
    """Run `act` outside of an application of ours; whatever happens leaves in our shape."""
    with _lines(function, line):
        try:
            flask.g.doors = doors(flask.request.environ)
            response = act()
        except Exception as error:  # noqa: BLE001 - this is the last door
            response = _failed(error)
        response = _left(response)
    tracing.request_ended()
    return response


def _framework_failed(error: Exception) -> flask.Response:
    def fail() -> flask.Response:
        raise error

    return guarded("framework", fail)


def path_of(environ: Mapping[str, Any]) -> str:
    """The path of a request. A slash that was sent as `%2F` divides nothing: it stands as SLASH
    until an id is read that may hold one."""
    path: str = environ.get("PATH_INFO", "")
    raw = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "").partition("?")[0]
    if "%2f" not in raw.lower() or _unquoted(raw) != path:
        return path.replace(SLASH, "\0")
    pieces = re.split("%2f", raw, flags=re.IGNORECASE)
    return SLASH.join(_unquoted(piece).replace(SLASH, "\0") for piece in pieces)


def _unquoted(text: str) -> str:
    """Text of an address as WSGI gives it."""
    return unquote_to_bytes(text).decode("latin-1")


def _canonical(path: str) -> str:
    """`/api/x` is the same as `/api/v1/x` (K-13)."""
    if path.startswith("/api/") and not (path + "/").startswith("/api/v1/"):
        return "/api/v1/" + path.removeprefix("/api/")
    return path


def _application(function: str) -> flask.Flask:
    with _lock:
        if function not in _applications:
            _applications[function] = _built(function)
        return _applications[function]


def _built(function: str) -> OpenAPI:
    from flask_openapi3.models.info import Info
    from flask_openapi3.openapi import OpenAPI

    from activation import __version__
    from activation.api import catalog

    application = OpenAPI(
        __name__,
        info=Info(title="Audience activation", version=__version__),
        security_schemes={"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        validation_error_model=ErrorAnswer,
        validation_error_callback=_schema_failed,
        doc_ui=False,
        static_folder=None,
    )
    application.config["FUNCTION"] = function
    application.config["OPEN_ENDPOINTS"] = catalog.OPEN_ENDPOINTS
    application.request_class = StrictRequest
    application.url_map.merge_slashes = False
    application.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    application.before_request(_enter)
    application.after_request(_left)
    application.register_error_handler(Exception, _failed)
    for resource in catalog.resources(function):
        application.register_api(resource)
    for fixture in catalog.fixtures(function):
        application.register_blueprint(fixture)
    return application


class StrictRequest(flask.Request):
    """A request whose JSON is read by `api/body.py` and nothing else."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The parsed body; raises instead of returning None."""
        from activation.api import body
        from activation.api.routes import judges_rows

        if self.mimetype != JSON or "Content-Encoding" in self.headers:
            raise UnsupportedMediaTypeError("Send application/json.", field="Content-Type")
        return body.parse(self.get_data(cache=cache), judged=judges_rows(self.endpoint))


# on the way in --------------------------------------------------------------------------------


@contextmanager
def _lines(function: str, line: Line) -> Iterator[None]:
    """Fix what every answer and log line of this request carries."""
    flask.g.line = line
    flask.g.trace_id = trace.trace_id(flask.request.headers)
    flask.g.started = SystemClock().monotonic()
    with observability.lines_about(function=function, trace=flask.g.trace_id):
        yield


def _enter() -> flask.Response | None:
    from activation.api.routes import Ask

    flask.g.doors = doors(flask.request.environ)
    request = flask.request
    _check_size(request)
    refused = request.routing_exception
    if request.method == "OPTIONS" and isinstance(refused, MethodNotAllowed):
        allowed = ", ".join(sorted({*(refused.valid_methods or ()), "OPTIONS"}))
        return empty(Allow=allowed)
    if refused is not None:
        raise refused
    if request.endpoint in flask.current_app.config["OPEN_ENDPOINTS"]:
        return None
    door = flask.g.doors
    caller = auth.operator(door.operators, request.headers, flask.g.trace_id)
    observability.note(organization=caller.organization_id)
    _count(caller)
    door.app.operator_accounts.seen(caller)
    flask.g.ask = Ask(door.app, caller)
    return None


def _count(caller: Caller) -> None:
    """Count the request; RateLimitedError when it is one too many."""
    from activation.api.routes import rate_class

    name = rate_class(flask.request.endpoint)
    standing = (
        flask.g.doors.app.rate_limits.admitted(caller.organization_id, name) if name else None
    )
    if standing is not None:
        flask.g.standing = standing
        standing.require_allowed()


def _check_size(request: flask.Request) -> None:
    from activation.api.routes import is_streaming

    settings = flask.g.doors.app.settings
    streamed = request.endpoint is not None and is_streaming(request.endpoint)
    limit = settings.max_upload_bytes if streamed else settings.max_body_bytes
    request.max_content_length = limit
    if (request.content_length or 0) > limit:
        raise PayloadTooLargeError(f"The body is larger than {limit} bytes.", reason="too_large")
    if len(request.environ.get("RAW_URI", "") or request.full_path) > MAX_URL_CHARACTERS:
        raise RequestURITooLarge


# on the way out -------------------------------------------------------------------------------


def _schema_failed(error: pydantic.ValidationError) -> flask.Response:
    raise schema_error(error)


def _failed(error: Exception) -> flask.Response:
    problem = problem_of(error)
    if problem.status == 500:
        observability.failure("unexpected failure", error)
    flask.g.code = problem.code
    door = flask.g.get("doors")
    clock = door.app.clock if door else SystemClock()
    body = problem.body(flask.g.trace_id, timestamp(clock.now()))
    response = json_response(body, problem.status)
    response.headers.extend(problem.headers)
    if door:
        _drain(flask.request, door.app.settings.max_body_bytes)
    return response


def _drain(request: flask.Request, limit: int) -> None:
    """Read what a refused client still sends, within reason: he gets an answer, not a reset."""
    length = min(request.content_length or 0, limit)
    if "stream" in request.__dict__ or not length:
        return
    rest = LimitedStream(request.environ["wsgi.input"], length)
    request.stream = io.BytesIO()  # the framework would go on reading
    try:
        while rest.read(DRAIN_PIECE):
            pass
    except (HTTPException, OSError):
        return


def _left(response: flask.Response) -> flask.Response:
    headers = response.headers
    headers["X-Trace-Id"] = flask.g.trace_id
    headers.setdefault("Cache-Control", "no-store")
    headers["X-Content-Type-Options"] = "nosniff"
    standing = flask.g.get("standing")
    if standing is not None:
        tell(response, standing)
    door: Doors | None = flask.g.get("doors")
    if door:
        if door.app.settings.backend == "google":
            headers["Strict-Transport-Security"] = HSTS
        allow_origin(response, flask.request, door.app.settings.cors_origins)
    _log(response)
    return response


def _log(response: flask.Response) -> None:
    """One line for every answer."""
    fields: dict[str, Any] = {"method": _method(), "route": _route()}
    if flask.g.line == "message":
        fields = flask.g.get("message", {"redelivered": "no"}) | {"outcome": _outcome(response)}
    if flask.g.line == "tick":
        fields = {}
    observability.event(
        flask.g.line,
        **fields,
        status=response.status_code,
        code=flask.g.get("code"),
        seconds=round(SystemClock().monotonic() - flask.g.started, 4),
    )
    _log_cold_start()


def _log_cold_start() -> None:
    """Say of the first answer of a process what it took to start it."""
    global _has_answered
    if not _has_answered:
        _has_answered = True
        observability.event("cold start", seconds=round(time.process_time(), 3))


def _method() -> str:
    method = flask.request.method
    return method if method in METHODS else "other"


def _route() -> str:
    rule = flask.request.url_rule
    return rule.rule if rule else "none"


def _outcome(response: flask.Response) -> str:
    """What became of a message."""
    outcome: str | None = flask.g.get("outcome")
    if outcome is not None:
        return outcome
    if response.status_code < 300:
        return "handled"
    return "failed" if response.status_code >= 500 else "refused"
