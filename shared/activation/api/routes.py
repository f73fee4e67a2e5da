"""Routes of a resource: who may, what comes back, and that a repeated POST acts once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any

import flask
import orjson
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from activation.api.limits import class_of
from activation.api.responses import JSON, answered
from activation.app import App
from activation.domain.caller import Caller, Claim, Role
from activation.errors import (
    ActivationError,
    BadRequestError,
    PreconditionFailedError,
    ValidationError,
)
from activation.ports import Revision

PREFIX = "/api/v1"
MAX_KEY_CHARACTERS = 255

View = Callable[..., Any]
Replay = Callable[["Ask", dict[str, Any]], flask.Response]
Kept = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request as a view sees it: the App, the caller, and the revision he expects."""

    app: App
    caller: Caller

    @property
    def expected(self) -> Revision | None:
        """The revision named by If-Match; None without that header or with `*`."""
        header = flask.request.headers.get("If-Match")
        if header is None or header.strip() == "*":
            return None
        tag = header.strip()
        if len(tag) < 2 or tag[0] != '"' or tag[-1] != '"':
            raise PreconditionFailedError(
                "If-Match takes one strong ETag in quotes.", field="If-Match", reason="malformed"
            )
        return tag[1:-1]


class Resource:
    """The routes of one kind of record, as a blueprint under `/api/v1`."""

    def __init__(self, name: str, description: str) -> None:
        self.blueprint = APIBlueprint(
            name,
            __name__,
            url_prefix=PREFIX,
            abp_tags=[Tag(name=name, description=description)],
            abp_security=[{"bearer": []}],
        )

    def route(
        self,
        methods: str,
        rule: str,
        *,
        role: Role,
        answer: type[BaseModel] | None,
        status: int = 200,
        also: Mapping[int, type[BaseModel]] | None = None,
        reads: bool = False,
        streams: bool = False,
        replay: Replay | None = None,
        kept: Kept = dict,
        judges: bool = False,
    ) -> Callable[[View], View]:
        """Register a view under each of `methods` ("PATCH PUT"), for callers of at least `role`.

        `answer` describes the body of a success, None means 204 or a file; `also` describes
        other successes. A POST, and a DELETE that has an answer, takes an Idempotency-Key. One
        that only `reads` needs none, and its answer is not kept. A view that `streams` reads its
        body by itself. `replay` makes the answer of a repeated request from the stored one, when
        that is not simply the body; `kept` is what is stored of a body that is too long for that.
        A view that `judges` says of each row of its body what is wrong with its texts.
        """

        def register(view: View) -> View:
            repeat = None if reads else replay or _same(status)
            keyed = frozenset({"POST", "DELETE"} if answer else {"POST"})
            queried = view if _queries(view) else _unqueried(view)
            door = _door(queried, role, status, repeat, keyed, kept)
            door.streams, door.judges = streams, judges
            door.rate_class = class_of(view.__name__, methods, reads=reads)
            for method in methods.split():
                add = getattr(self.blueprint, method.lower())
                add(
                    rule,
                    operation_id=_operation_id(view, method, methods),
                    responses={status if answer else 204: answer, **(also or {})},
                    openapi_extensions={
                        "x-required-role": role.value,
                        "x-rate-limit": door.rate_class,
                    },
                )(door)
            return view

        return register


def _operation_id(view: View, method: str, methods: str) -> str:
    """The view's name; further methods of the same view add theirs."""
    first = methods.split(maxsplit=1)[0] == method
    return view.__name__ if first else f"{view.__name__}_{method.lower()}"


def _queries(view: View) -> bool:
    return "query" in signature(view).parameters


def _unqueried(view: View) -> View:
    """A view without parameters in its query refuses all of them, as the others refuse unknown
    ones."""

    @wraps(view)
    def checked(ask: Ask, **arguments: Any) -> Any:
        if flask.request.query_string:
            raise ValidationError(
                "This request takes no query.", field="*", reason="extra_forbidden"
            )
        return view(ask, **arguments)

    return checked


def _same(status: int) -> Replay:
    return lambda _ask, answer: answered(answer, status)


def _door(
    view: View,
    role: Role,
    status: int,
    repeat: Replay | None,
    keyed_methods: frozenset[str],
    kept: Kept,
) -> Any:
    @wraps(view)
    def door(**arguments: Any) -> flask.Response:
        ask = flask.g.ask
        ask.caller.require(role)
        request = flask.request
        keyed = request.method in keyed_methods and "Idempotency-Key" in request.headers
        if repeat is None or not keyed:
            return answered(view(ask, **arguments), status)
        return _once(ask, lambda held: answered(view(held, **arguments), status), repeat, kept)

    return door


def _once(
    ask: Ask, act: Callable[[Ask], flask.Response], repeat: Replay, kept: Kept
) -> flask.Response:
    """Run a keyed request, or repeat the answer it had (services/idempotency.py)."""
    claim = _claimed(ask)
    if not isinstance(claim, Claim):
        return _repeated(ask, claim, repeat)
    caller = ask.caller.with_claim(claim)
    try:
        answer = act(Ask(ask.app, caller))
    except BaseException as error:
        known = ask.app.idempotency.release(ask.caller, claim)
        if known is None or not isinstance(error, ActivationError):
            raise
        return _repeated(ask, known, repeat)
    ask.app.idempotency.finish(caller, claim, kept(orjson.loads(answer.get_data())))
    return answer


def _repeated(ask: Ask, known: dict[str, Any], repeat: Replay) -> flask.Response:
    repeated = repeat(ask, known)
    repeated.headers["Idempotent-Replay"] = "true"
    return repeated


def _claimed(ask: Ask) -> Claim | dict[str, Any]:
    key = flask.request.headers["Idempotency-Key"]
    if not 0 < len(key) <= MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable():
        raise ValidationError(
            f"An Idempotency-Key has 1 to {MAX_KEY_CHARACTERS} printable characters.",
            field="Idempotency-Key",
            reason="invalid",
        )
    route = f"{flask.request.method} {flask.request.path} {ask.caller.user_id}"
    return ask.app.idempotency.claim(ask.caller, route, key, _fingerprint())


def _fingerprint() -> str:
    """What tells two requests with one key apart. A streamed file counts by its length and its
    options: reading it first would mean to keep it."""
    request = flask.request
    streamed = request.endpoint is not None and is_streaming(request.endpoint)
    content = str(request.content_length).encode() if streamed else request.get_data()
    return hashlib.sha256(request.query_string + b"\n" + content).hexdigest()


def is_streaming(endpoint: str) -> bool:
    """Whether the view of `endpoint` reads a file from the body of this request by itself."""
    streams = getattr(flask.current_app.view_functions[endpoint], "streams", False)
    return bool(streams) and flask.request.mimetype != JSON


def judges_rows(endpoint: str | None) -> bool:
    """Whether the view of `endpoint` judges texts and depth of its body by itself."""
    return bool(getattr(flask.current_app.view_functions.get(endpoint or ""), "judges", False))


def rate_class(endpoint: str | None) -> str | None:
    """The class of requests that `endpoint` counts as; None for one that is not counted."""
    view = flask.current_app.view_functions.get(endpoint or "")
    found: str | None = getattr(view, "rate_class", None)
    return found


def no_body() -> None:
    """Refuse a body where none belongs."""
    if flask.request.content_length:
        raise BadRequestError("This request takes no body.", reason="unexpected_body")
