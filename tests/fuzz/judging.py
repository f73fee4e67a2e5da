"""What every answer has to be, whatever was asked."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs
import orjson
from werkzeug.datastructures import Headers
from werkzeug.test import run_wsgi_app

from activation.local import LocalServer
from tests.api.client import ENVELOPE, PREFIX, Description
from tests.fuzz.requests import Request

_ENVELOPE = jsonschema_rs.validator_for(ENVELOPE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Answer:
    """Status, headers and body."""

    status: int
    headers: Headers
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(orjson.loads(self.body)["error"]["code"])


def answered(server: LocalServer, request: Request) -> Answer:
    """What the functions answer."""
    pieces, status, headers = run_wsgi_app(server.wsgi, request.environ(), buffered=True)
    return Answer(int(status.split()[0]), headers, b"".join(pieces))


@dataclass
class Judge:
    """Says what is wrong with answers, and counts them."""

    description: Description
    statuses: Counter[int] = field(default_factory=Counter)
    _schemas: dict[int, Any] = field(default_factory=dict)

    def faults(self, request: Request, answer: Answer) -> list[str]:
        """What an answer must not be; nothing for a good one."""
        self.statuses[answer.status] += 1
        found = []
        if answer.status >= 500:
            found.append(f"status {answer.status}")
        if not answer.headers.get("X-Trace-Id"):
            found.append("no trace id")
        if answer.headers.get("X-Content-Type-Options") != "nosniff":
            found.append("may be sniffed")
        if any(_CONTROL.search(value) for _, value in answer.headers):
            found.append("control character in a header")
        if request.method != "HEAD":
            found += self._body_faults(request, answer)
        return found

    def _body_faults(self, request: Request, answer: Answer) -> list[str]:
        if 300 <= answer.status < 400:
            return ["a redirect"]
        if answer.status >= 400:
            return _envelope_faults(answer)
        if request.method == "OPTIONS":
            return []
        return self._success_faults(request, answer)

    def _success_faults(self, request: Request, answer: Answer) -> list[str]:
        path = re.sub(r"^/api/(?!v1/)", PREFIX + "/", request.path)
        operation = self.description.operation(request.method.upper(), path)
        if operation is None:
            return [] if not path.startswith(PREFIX) else ["success of an unknown operation"]
        described = operation["responses"].get(str(answer.status))
        if described is None:
            return [f"{answer.status} is not described"]
        content = described.get("content", {})
        kind = (answer.headers.get("Content-Type") or "").partition(";")[0]
        if content and kind not in content:
            return [f"{kind} is not described"]
        if kind == "application/json" and content:
            return self._schema_faults(content[kind]["schema"], answer.body)
        return []

    def _schema_faults(self, schema: dict[str, Any], body: bytes) -> list[str]:
        validator = self._schemas.get(id(schema))
        if validator is None:
            components = self.description.document["components"]
            validator = jsonschema_rs.validator_for({**schema, "components": components})
            self._schemas[id(schema)] = validator
        error = next(validator.iter_errors(orjson.loads(body)), None)
        return [] if error is None else [f"body does not fit: {error.message[:120]}"]


def _envelope_faults(answer: Answer) -> list[str]:
    if answer.headers.get("Content-Type") != "application/json; charset=utf-8":
        return ["an error that is no JSON"]
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return ["an error that is no JSON"]
    if not _ENVELOPE.is_valid(body):
        return ["not the envelope"]
    same = body["error"]["traceId"] == answer.headers.get("X-Trace-Id")
    return [] if same else ["two trace ids"]
