"""A client of the real functions. Every answer it gets is checked against what holds for all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jsonschema_rs
from werkzeug.test import Client, TestResponse

from activation.domain.caller import Role
from activation.local import LocalServer

PREFIX = "/api/v1"
ENVELOPE = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "details", "timestamp", "traceId"],
            "additionalProperties": False,
            "properties": {
                "code": {"type": "string", "pattern": "^[A-Z0-9_]+$"},
                "message": {"type": "string", "minLength": 5},
                "details": {
                    "type": "object",
                    "required": ["field", "reason"],
                    "additionalProperties": False,
                    "properties": {
                        "field": {"type": ["string", "null"]},
                        "reason": {"type": ["string", "null"]},
                    },
                },
                "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT[\d:.]+Z$"},
                "traceId": {"type": "string", "minLength": 1},
            },
        }
    },
}
_ENVELOPE = jsonschema_rs.validator_for(ENVELOPE)


@dataclass(frozen=True)
class Description:
    """The API as the running system describes it."""

    document: dict[str, Any]

    @cached_property
    def operations(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(method, path template, operation) of every route."""
        return [
            (method.upper(), path, operation)
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
        ]

    @cached_property
    def _shapes(self) -> list[tuple[str, str, re.Pattern[str], dict[str, Any]]]:
        return [
            (method, path, re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), operation)
            for method, path, operation in self.operations
        ]

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """The operation that serves a concrete path; literal paths win over templates."""
        found = [
            (template.count("{"), number, operation)
            for number, (verb, template, shape, operation) in enumerate(self._shapes)
            if verb == method and shape.fullmatch(path)
        ]
        return min(found)[2] if found else None

    def require_described(self, method: str, path: str, response: TestResponse) -> None:
        """Fail when a success has a status or body that the description does not have."""
        operation = self.operation(method, path)
        if operation is None or not path.startswith(PREFIX):
            return
        described = operation["responses"]
        assert str(response.status_code) in described, (method, path, response.status_code)
        content = described[str(response.status_code)].get("content", {})
        assert (response.mimetype in content) or not content
        if response.mimetype == "application/json":
            schema = content["application/json"]["schema"]
            rules = {**schema, "components": self.document["components"]}
            jsonschema_rs.validator_for(rules).validate(response.get_json())


def require_envelope(response: TestResponse) -> None:
    """Fail unless the answer is an error in the one shape of errors."""
    assert response.content_type == "application/json; charset=utf-8"
    _ENVELOPE.validate(response.get_json())
    assert response.get_json()["error"]["traceId"] == response.headers["X-Trace-Id"]


def code(response: TestResponse) -> tuple[int, str]:
    """Status and error code."""
    return response.status_code, response.get_json()["error"]["code"]


@dataclass(frozen=True)
class Api:
    """An operator with his token."""

    server: LocalServer
    description: Description
    headers: Mapping[str, str] = field(default_factory=dict)
    prefix: str = PREFIX

    def as_(self, role: Role = Role.ADMIN, org: str = "acme", user: str = "ann") -> Api:
        """The same API for another operator."""
        token = self.server.issuer.token(org, user, role)
        return self.with_headers(Authorization=f"Bearer {token}")

    def with_headers(self, **headers: str) -> Api:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **named})

    def at(self, prefix: str) -> Api:
        return replace(self, prefix=prefix)

    def send(self, method: str, path: str, **options: Any) -> TestResponse:
        """Send a request; `json`, `data`, `content_type`, `headers` as in werkzeug's client."""
        headers = {**self.headers, **options.pop("headers", {})}
        address = self.prefix + path
        response = Client(self.server.wsgi).open(address, method=method, headers=headers, **options)
        self._check(method, address.partition("?")[0], response)
        return response

    def _check(self, method: str, path: str, response: TestResponse) -> None:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Trace-Id"]
        if response.status_code >= 400 and method != "HEAD":
            require_envelope(response)
        elif method not in ("HEAD", "OPTIONS"):
            canonical = re.sub(r"^/api/(?!v1/)", PREFIX + "/", path)
            self.description.require_described(method, canonical, response)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.send("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> TestResponse:
        if json is not None:
            options["json"] = json
        return self.send("POST", path, **options)

    def patch(self, path: str, json: Any, **options: Any) -> TestResponse:
        return self.send("PATCH", path, json=json, **options)

    def put(self, path: str, json: Any, **options: Any) -> TestResponse:
        return self.send("PUT", path, json=json, **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        return self.send("DELETE", path, **options)

    # what most tests need first ---------------------------------------------------------------

    def audience(self, name: str = "Buyers", **fields: Any) -> dict[str, Any]:
        """A new audience."""
        response = self.post("/audiences", {"name": name, "type": "1st-party", **fields})
        assert response.status_code == 201, response.get_json()
        created: dict[str, Any] = response.get_json()
        return created

    def audience_with_members(self, *addresses: str, name: str = "Buyers") -> dict[str, Any]:
        """A new active audience that holds these e-mail addresses."""
        path = f"/audiences/{self.audience(name)['audience_id']}"
        members = [{"identifier_type": "email", "identifier_value": one} for one in addresses]
        added = self.post(f"{path}/members", {"members": members})
        assert added.get_json()["added"] == len(addresses)
        active: dict[str, Any] = self.put(f"{path}/status", {"status": "active"}).get_json()
        return active

    def platform(self, name: str = "CRM hook", **fields: Any) -> dict[str, Any]:
        """A new webhook platform."""
        response = self.post("/platforms", {**WEBHOOK, "name": name, **fields})
        assert response.status_code == 201, response.get_json()
        created: dict[str, Any] = response.get_json()
        return created

    def webhook(self, **fields: Any) -> dict[str, Any]:
        """A new webhook, with the secret that it is told of once."""
        response = self.post("/webhooks", {"url": "http://127.0.0.1:9/events", **fields})
        assert response.status_code == 201, response.get_json()
        created: dict[str, Any] = response.get_json()
        return created


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WEBHOOK = {
    "platform_type": "webhook",
    "name": "CRM hook",
    "credentials": {"signing_secret": SECRET, "account_id": "crm-1"},
    "settings": {"config": {"url": "http://127.0.0.1:9/hook"}},
}
