"""The twin of Criteo's Marketing Solutions API: contact lists, and its token endpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.members import (
    SHA256_HEX,
    TwinAudience,
    hashed_keys,
    is_matched,
    member_key,
)
from activation.twins.oauth import OAuthEndpoint
from activation.twins.shapes import Many, problem
from activation.twins.wsgi import Refused, Twin, json_response

TOKEN_PATH = "/oauth2/token"  # noqa: S105 - an address
TOKEN_SECONDS = 900
MAX_IDENTIFIERS = 50_000
MAX_PAGE = 100
KINDS = {"email": "email", "madid": "maid", "identityLink": "ramp_id", "gum": "cookie_id"}
_SHAPES = {
    "email": SHA256_HEX,
    "madid": re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "identityLink": re.compile(r"[A-Za-z0-9_-]{20,254}"),
    "gum": re.compile(r"[!-~]{1,254}"),
}
_SEARCH = {
    "data": {
        "type": str,
        "attributes": {
            "advertiserIds": Many(str),
            "audienceSegmentIds": Many(str),
            "audienceSegmentTypes": Many(str),
        },
    }
}
_LIST = {"advertiserId": str, "name": str, "description": str, "contactList": {}}
_CREATE = {"data": Many({"type": str, "attributes": _LIST})}
_AMENDMENT = {
    "data": {
        "type": str,
        "attributes": {
            "operation": str,
            "identifierType": str,
            "identifiers": Many(str),
            "gumCallerId": int,
            "internalIdentifiers": bool,
        },
    }
}


class CriteoTwin(Twin):
    """One advertiser and its contact lists.

    Statistics of a list appear `match_delay_seconds` after its last change. Assumptions of the
    twin: 400 with `code` for what is wrong, names unique among the lists of the advertiser, the
    refusal of one of several lists to create in `errors` of a 200, and the number of samples.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        advertiser_id: str = "2001",
        api_version: str = "2026-07",
        match_rate: float = 0.5,
        match_delay_seconds: float = 12 * 3600.0,
        requests_per_minute: int = 250,
        max_samples: int = 10,
    ) -> None:
        super().__init__(clock)
        self.tokens = OAuthEndpoint(clock, refresh_token=None, lifetime_seconds=TOKEN_SECONDS)
        self.audiences: dict[str, TwinAudience] = {}
        self._advertiser = advertiser_id
        self._prefix = f"/{api_version}/marketing-solutions/audience-segments/"
        self._match_rate = match_rate
        self._delay = timedelta(seconds=match_delay_seconds)
        self._per_minute = requests_per_minute
        self._max_samples = max_samples
        self._minute = (0, 0)

    def contents(self) -> dict[str, Any]:
        """The contact lists."""
        return {"audiences": [audience.summary() for audience in self.audiences.values()]}

    def respond(self, request: Request) -> Response:
        """Answer as Criteo does."""
        if request.path == TOKEN_PATH:
            return self.tokens.respond(request)
        header = request.headers.get("Authorization", "")
        if not self.tokens.holds(header):
            code = "invalid" if not header.startswith("Bearer ") else "expired"
            raise refused(401, f"authorization-token-{code}")
        self._spend_quota()
        if not request.path.startswith(self._prefix):
            raise refused(404, "not-found")
        path = request.path.removeprefix(self._prefix)
        segment_id, _, rest = path.partition("/")
        match request.method, rest or path:
            case "POST", "search":
                return self._search(request)
            case "POST", "create":
                return self._create(request)
            case "PATCH", "contact-list":
                return self._amend(request, self._held(segment_id))
            case "GET", "contact-list/statistics":
                return self._statistics(self._held(segment_id))
        raise refused(404, "not-found")

    def _held(self, segment_id: str) -> TwinAudience:
        if segment_id not in self.audiences:
            raise refused(404, "audience-invalid")
        return self.audiences[segment_id]

    def _spend_quota(self) -> None:
        """Refuse more requests than a minute has; the header tells when the next one starts."""
        now = int(self.clock.now().timestamp())
        minute, spent = self._minute
        spent = spent + 1 if minute == now // 60 else 1
        self._minute = (now // 60, spent)
        if spent > self._per_minute:
            error = refused(429, "too-many-requests", kind="quota")
            error.response.headers["x-ratelimit-limit"] = str(self._per_minute)
            error.response.headers["x-ratelimit-remaining"] = "0"
            error.response.headers["x-ratelimit-reset"] = str((now // 60 + 1) * 60)
            raise error

    # Lists

    def _search(self, request: Request) -> Response:
        asked = parsed(request, _SEARCH, "AudienceSegment")["attributes"]
        limit, offset = request.args.get("limit", "50"), request.args.get("offset", "0")
        if set(request.args) - {"limit", "offset"} or not (limit + offset).isdigit():
            raise refused(400, "invalid-parameter")
        if not 1 <= int(limit) <= MAX_PAGE:
            raise refused(400, "invalid-parameter")
        ids, owners = asked.get("audienceSegmentIds"), asked.get("advertiserIds")
        kinds = asked.get("audienceSegmentTypes")
        found = [
            audience
            for audience in self.audiences.values()
            if (ids is None or audience.audience_id in ids)
            and (owners is None or self._advertiser in owners)
            and (kinds is None or "ContactList" in kinds)
        ]
        page = found[int(offset) : int(offset) + int(limit)]
        meta = {"totalItems": len(found), "limit": int(limit), "offset": int(offset)}
        return answered([self._shown(audience) for audience in page], meta=meta)

    def _create(self, request: Request) -> Response:
        made: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for wanted in parsed(request, _CREATE, "AudienceSegment"):
            attributes = wanted["attributes"]
            code = self._unmakeable(attributes)
            if code is not None:
                errors.append(trouble(code))
                continue
            audience = TwinAudience(
                str(400_000 + len(self.audiences)),
                attributes["name"],
                description=attributes.get("description", ""),
                created_at=self.clock.now(),
            )
            self.audiences[audience.audience_id] = audience
            made.append(self._shown(audience))
        return answered(made, errors=errors)

    def _unmakeable(self, attributes: Mapping[str, Any]) -> str | None:
        if attributes.get("advertiserId") != self._advertiser:
            return "advertiser-not-accessible"
        if "contactList" not in attributes:
            return "segment-must-have-one-type"
        if not attributes.get("name"):
            return "name-must-not-be-empty"
        taken = any(attributes["name"] == audience.name for audience in self.audiences.values())
        return "name-must-be-unique" if taken else None

    def _shown(self, audience: TwinAudience) -> dict[str, Any]:
        created = audience.created_at or self.clock.now()
        attributes = {
            "name": audience.name,
            "description": audience.description,
            "type": "ContactList",
            "advertiserId": self._advertiser,
            "createdAt": created.isoformat(),
            "updatedAt": created.isoformat(),
            "contactList": {"isReadOnly": False},
        }
        return {"id": audience.audience_id, "type": "AudienceSegment", "attributes": attributes}

    # Members

    def _amend(self, request: Request, audience: TwinAudience) -> Response:
        attributes = parsed(request, _AMENDMENT, "ContactlistAmendment")["attributes"]
        operation, kind = attributes.get("operation"), attributes.get("identifierType")
        values = attributes.get("identifiers") or []
        if operation not in ("add", "remove") or kind not in KINDS:
            raise refused(400, "invalid-parameter")
        if ("gumCallerId" in attributes) != (kind == "gum"):
            raise refused(400, "gum-caller-id-missing")
        if not 1 <= len(values) <= MAX_IDENTIFIERS:
            raise refused(400, "too-many-identifiers")
        keys, bad = _keys(kind, values)
        audience.change(operation, keys)
        audience.details["changed_at"] = self.clock.now()
        return answered(
            {
                "type": "ContactlistAmendment",
                "attributes": {
                    "contactListId": int(audience.audience_id),
                    "operation": operation,
                    "requestDate": self.clock.now().isoformat(),
                    "identifierType": kind,
                    "nbValidIdentifiers": len(keys),
                    "nbInvalidIdentifiers": len(bad),
                    "sampleInvalidIdentifiers": list(dict.fromkeys(bad))[: self._max_samples],
                },
            }
        )

    def _statistics(self, audience: TwinAudience) -> Response:
        changed: datetime | None = audience.details.get("changed_at")
        attributes: dict[str, Any] = dict.fromkeys(
            ("numberOfIdentifiers", "numberOfMatches", "matchRate")
        )
        if changed is not None and self.clock.now() >= changed + self._delay:
            held = len(audience.keys)
            matched = sum(is_matched(key, self._match_rate) for key in audience.keys)
            attributes["numberOfIdentifiers"], attributes["numberOfMatches"] = held, matched
            attributes["matchRate"] = matched / held if held else 0.0
        kind = "ContactListStatistics"
        return answered({"id": audience.audience_id, "type": kind, "attributes": attributes})


def _keys(kind: str, values: Sequence[str]) -> tuple[list[bytes], list[str]]:
    """The keys of the valid identifiers, and the invalid ones."""
    ours = KINDS[kind]
    whole = hashed_keys(ours, values) if kind == "email" and "" not in values else None
    if whole is not None:
        return whole, []
    if any("@" in value for value in values):
        raise refused(400, "identifier-not-hashed")
    shape = _SHAPES[kind]
    good = [member_key(ours, value) for value in values if shape.fullmatch(value)]
    return good, [value for value in values if not shape.fullmatch(value)]


def parsed(request: Request, shape: dict[str, Any], kind: str) -> Any:
    """`data` of the body, when it is JSON of this shape and of this type, and nothing more."""
    if request.mimetype != "application/json":
        raise refused(415, "unsupported-media-type")
    try:
        body = orjson.loads(request.get_data())
    except orjson.JSONDecodeError:
        raise refused(400, "invalid-json") from None
    if problem(body, shape) is not None or not body.get("data"):
        raise refused(400, "invalid-body")
    data = body["data"]
    for item in data if isinstance(data, list) else [data]:
        if item.get("type") != kind or "attributes" not in item:
            raise refused(400, "invalid-body")
    return data


def answered(data: Any, *, errors: Sequence[Any] = (), **more: Any) -> Response:
    """A success, also a partial one."""
    return json_response({**more, "data": data, "errors": list(errors), "warnings": []})


def trouble(code: str, kind: str = "validation") -> dict[str, Any]:
    """One of Criteo's errors."""
    return {"traceId": "twin", "type": kind, "code": code, "instance": "twin", "title": code}


def refused(status: int, code: str, *, kind: str = "validation") -> Refused:
    """Criteo's error body."""
    return Refused(json_response({"errors": [trouble(code, kind)], "warnings": []}, status))
