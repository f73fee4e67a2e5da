"""The twin of TikTok's Business API v1.3: streamed custom audiences, and their listing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

import orjson
from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.members import TwinAudience, is_matched, member_key
from activation.twins.shapes import Many, problem
from activation.twins.wsgi import Refused, Twin, json_body, json_response

MAX_PAGE = 100
MINIMUM_SIZE = 1_000

PERMISSION, PARAMETER, RATE_LIMIT, NO_TOKEN, BAD_TOKEN = 40001, 40002, 40100, 40104, 40105
PARTIAL = 20001

KINDS: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "EMAIL_SHA256": ("email", re.compile(r"[0-9a-f]{64}")),
    "PHONE_SHA256": ("phone", re.compile(r"[0-9a-f]{64}")),
    "IDFA_SHA256": ("maid", re.compile(r"[0-9a-f]{64}")),
    "AAID_SHA256": ("maid", re.compile(r"[0-9a-f]{64}")),
    "IDFA_MD5": ("maid", re.compile(r"[0-9a-f]{32}")),
    "AAID_MD5": ("maid", re.compile(r"[0-9a-f]{32}")),
}
"""By position of a schema: our type of identifier, and the shape of its hash."""
_CREATE = {"custom_audience_name": str, "advertiser_id": str, "action": str}
_PLACE = {"id": str, "audience_ids": Many(str)}
_MAPPING = {
    "advertiser_ids": Many(str),
    "action": str,
    "id_schema": Many(str),
    "batch_data": Many(Many(_PLACE)),
}


class TikTokTwin(Twin):
    """One advertiser and its custom audiences. Every answer comes with HTTP 200.

    A bad row refuses the whole batch; with `partial` the others are taken, and the answer is
    20001. `max_rows` and `requests_per_minute` (of the mapping) are assumptions of the twin.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        advertiser_id: str = "7001",
        access_token: str = "twin-token",  # noqa: S107
        match_rate: float = 0.5,
        max_rows: int = 10_000,
        requests_per_minute: int = 600,
        partial: bool = False,
    ) -> None:
        super().__init__(clock)
        self.audiences: dict[str, TwinAudience] = {}
        self._advertiser = advertiser_id
        self._token = access_token
        self._match_rate = match_rate
        self._max_rows = max_rows
        self._per_minute = requests_per_minute
        self._partial = partial
        self._minute = (0, 0)

    def contents(self) -> dict[str, Any]:
        """The custom audiences. Device ids are held as the hashes that came."""
        return {"audiences": [audience.summary() for audience in self.audiences.values()]}

    def respond(self, request: Request) -> Response:
        """Answer as TikTok does."""
        token = request.headers.get("Access-Token", "")
        if token != self._token:
            raise refused(BAD_TOKEN if token else NO_TOKEN, "Access token is empty or incorrect.")
        match request.method, request.path:
            case "POST", "/open_api/v1.3/segment/audience/":
                return self._create(parsed(request, _CREATE))
            case "POST", "/open_api/v1.3/segment/mapping/":
                return self._map(parsed(request, _MAPPING))
            case "GET", "/open_api/v1.3/dmp/custom_audience/list/":
                return self._listed(request.args)
        raise Refused(Response("404 page not found", status=404, mimetype="text/plain"))

    def _require_advertiser(self, *given: Any) -> None:
        if given != (self._advertiser,):
            raise refused(PERMISSION, "No permission to operate the advertiser.")

    # Audiences

    def _create(self, body: dict[str, Any]) -> Response:
        self._require_advertiser(body.get("advertiser_id"))
        name = body.get("custom_audience_name")
        if not name or body.get("action") != "create":
            raise refused(PARAMETER, "custom_audience_name and action create are required.")
        audience_id = str(7_300_000_000_000 + len(self.audiences))
        self.audiences[audience_id] = TwinAudience(audience_id, name, created_at=self.clock.now())
        return answered({"audience_id": audience_id})

    def _listed(self, given: Mapping[str, str]) -> Response:
        known = ("advertiser_id", "custom_audience_ids", "page", "page_size")
        unknown = [name for name in given if name not in known]
        page, size = given.get("page", "1"), given.get("page_size", "10")
        if unknown or not (page.isdigit() and size.isdigit() and 1 <= int(size) <= MAX_PAGE):
            raise refused(PARAMETER, "Unknown parameter or invalid paging.")
        self._require_advertiser(given.get("advertiser_id"))
        found = self._wanted(given.get("custom_audience_ids"))
        start = (int(page) - 1) * int(size)
        info = {
            "page": int(page),
            "page_size": int(size),
            "total_number": len(found),
            "total_page": -(-len(found) // int(size)),
        }
        rows = [self._shown(audience) for audience in found[start : start + int(size)]]
        return answered({"list": rows, "page_info": info})

    def _wanted(self, ids: str | None) -> list[TwinAudience]:
        if ids is None:
            return list(self.audiences.values())
        try:
            wanted = orjson.loads(ids)
        except orjson.JSONDecodeError:
            wanted = None
        if problem(wanted, Many(str)) or not 1 <= len(wanted) <= MAX_PAGE:
            raise refused(PARAMETER, "custom_audience_ids must be 1 to 100 ids.")
        return [self.audiences[name] for name in wanted if name in self.audiences]

    def _shown(self, audience: TwinAudience) -> dict[str, Any]:
        count = sum(is_matched(key, self._match_rate) for key in audience.keys)
        return {
            "audience_id": audience.audience_id,
            "name": audience.name,
            "cover_num": count,
            "is_valid": count >= MINIMUM_SIZE,
            "is_expiring": False,
        }

    # Members

    def _map(self, body: dict[str, Any]) -> Response:
        self._spend_quota()
        self._require_advertiser(*(body.get("advertiser_ids") or []))
        schema, rows, action = body.get("id_schema"), body.get("batch_data"), body.get("action")
        if not schema or len(set(schema)) != len(schema) or not set(schema) <= set(KINDS):
            raise refused(PARAMETER, "id_schema is unknown.")
        if not rows or len(rows) > self._max_rows or action not in ("add", "delete"):
            raise refused(PARAMETER, "batch_data or action is invalid.")
        good = [row for row in rows if self._is_good(schema, row)]
        if not good or (len(good) < len(rows) and not self._partial):
            raise refused(PARAMETER, "batch_data is invalid.")
        for name, place in chain.from_iterable(zip(schema, row, strict=True) for row in good):
            for audience_id in place.get("audience_ids", ()):
                key = member_key(KINDS[name][0], place["id"])
                self.audiences[audience_id].change(action, [key])
        return answered({}, PARTIAL if len(good) < len(rows) else 0)

    def _is_good(self, schema: list[str], row: list[dict[str, Any]]) -> bool:
        """Whether a row has a place for every id of the schema, and a right one in some."""
        places = [(name, place) for name, place in zip(schema, row, strict=False) if place]
        return (
            len(row) == len(schema)
            and bool(places)
            and all(
                KINDS[name][1].fullmatch(place.get("id", ""))
                and place.get("audience_ids")
                and set(place["audience_ids"]) <= set(self.audiences)
                for name, place in places
            )
        )

    def _spend_quota(self) -> None:
        now = int(self.clock.now().timestamp() // 60)
        minute, spent = self._minute
        self._minute = (now, spent + 1 if minute == now else 1)
        if self._minute[1] > self._per_minute:
            raise refused(RATE_LIMIT, "Too many requests. Please retry later.")


def answered(data: dict[str, Any], code: int = 0) -> Response:
    """TikTok's envelope."""
    message = "OK" if code == 0 else "Partial success."
    return json_response({"code": code, "message": message, "request_id": "twin", "data": data})


def refused(code: int, message: str) -> Refused:
    """The same envelope with an error in it."""
    body = {"code": code, "message": message, "request_id": "twin", "data": {}}
    return Refused(json_response(body))


def parsed(request: Request, shape: dict[str, Any]) -> dict[str, Any]:
    """The body, when it is JSON of this shape and nothing more."""
    body = json_body(request)
    found = problem(body, shape)
    if found is not None:
        raise refused(PARAMETER, f"Invalid parameter {found.path} ({found.kind}).")
    return dict(body)
