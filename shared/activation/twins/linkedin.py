"""The twin of LinkedIn's DMP segments, with its token endpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.members import SHA256_HEX, TwinAudience, is_matched, member_key
from activation.twins.oauth import OAuthEndpoint
from activation.twins.shapes import Many, problem
from activation.twins.wsgi import Refused, Twin, json_body, json_response

TOKEN_PATH = "/oauth/v2/accessToken"  # noqa: S105 - a path
SEGMENTS = "/rest/dmpSegments"
MAX_ELEMENTS = 5_000
VERSIONS = tuple(str(version) for version in range(202604, 202612))
MAX_PAGE = 100

KINDS: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "SHA256_EMAIL": ("email", SHA256_HEX),
    "SHA512_EMAIL": ("email", re.compile(r"[0-9a-f]{128}")),
    "GOOGLE_AID": ("maid", re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")),
}
"""By `idType`: our type of identifier, and the shape of its value."""
_CREATE = {
    "name": str,
    "sourcePlatform": str,
    "sourceSegmentId": str,
    "account": str,
    "accessPolicy": str,
    "type": str,
    "destinations": Many({"destination": str}),
}
_QUERY = ("q", "account", "sourcePlatform", "sourceSegmentId", "start", "count")
_USERS = {
    "elements": Many(
        {
            "action": str,
            "userIds": Many({"idType": str, "idValue": str}),
            "firstName": str,
            "lastName": str,
            "title": str,
            "company": str,
            "country": str,
        }
    )
}


class LinkedInTwin(Twin):
    """One sponsored account and its user segments.

    Users of a segment younger than `settle_seconds` are answered with 404, for what LinkedIn
    might lose. `status` is that of every segment's destination.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ad_account_id: str = "501",
        source_platform: str = "TWIN",
        access_token: str = "twin-token",  # noqa: S107
        match_rate: float = 0.5,
        settle_seconds: float = 5.0,
        versions: Sequence[str] = VERSIONS,
    ) -> None:
        super().__init__(clock)
        self.tokens = OAuthEndpoint(clock)
        self.tokens.accept(access_token)
        self.audiences: dict[str, TwinAudience] = {}
        self.status = "READY"
        self._account = f"urn:li:sponsoredAccount:{ad_account_id}"
        self._platform = source_platform
        self._match_rate = match_rate
        self._settle = timedelta(seconds=settle_seconds)
        self._versions = versions

    def contents(self) -> dict[str, Any]:
        """The segments."""
        return {"audiences": [audience.summary() for audience in self.audiences.values()]}

    def respond(self, request: Request) -> Response:
        """Answer as LinkedIn does."""
        if request.path == TOKEN_PATH:
            return self.tokens.respond(request)
        self._require_headers(request)
        rest = request.path.removeprefix(SEGMENTS)
        if rest == request.path:
            raise refused(404, "RESOURCE_NOT_FOUND", "No virtual resource found.")
        if rest == "":
            return self._segments(request)
        _, segment_id, *edge = rest.split("/")
        match request.method, edge:
            case "GET", []:
                return json_response(self._shown(self._segment(segment_id)))
            case "POST", ["users"]:
                return self._change(self._segment(segment_id), request)
        raise refused(404, "RESOURCE_NOT_FOUND", "No virtual resource found.")

    def _require_headers(self, request: Request) -> None:
        if not self.tokens.holds(request.headers.get("Authorization", "")):
            body = {"serviceErrorCode": 65600, "message": "Invalid access token", "status": 401}
            raise Refused(json_response(body, 401))
        version = request.headers.get("LinkedIn-Version", "")
        if version not in self._versions:
            words = f"Requested version {version} is not active"
            raise refused(426, "NONEXISTENT_VERSION", words)
        if request.headers.get("X-Restli-Protocol-Version") != "2.0.0":
            raise refused(400, "ILLEGAL_ARGUMENT", "Wrong protocol version.")
        if b":" in request.query_string:
            raise refused(400, "ILLEGAL_ARGUMENT", "Reserved characters must be escaped.")

    # Segments

    def _segments(self, request: Request) -> Response:
        if request.method == "POST":
            return self._create(parsed(request, _CREATE))
        given = request.args
        if request.method != "GET" or given.get("q") != "account" or set(given) - set(_QUERY):
            raise refused(400, "ILLEGAL_ARGUMENT", "Unknown finder or parameter.")
        self._require_account(given.get("account"), given.get("sourcePlatform"))
        start, count = given.get("start", "0"), given.get("count", "10")
        if not (start.isdigit() and count.isdigit() and 1 <= int(count) <= MAX_PAGE):
            raise refused(400, "ILLEGAL_ARGUMENT", "Invalid paging.")
        wanted = given.get("sourceSegmentId")
        found = [a for a in self.audiences.values() if wanted in (None, a.external_id)]
        page = found[int(start) : int(start) + int(count)]
        paging = {"start": int(start), "count": int(count), "links": [], "total": len(found)}
        return json_response({"paging": paging, "elements": [self._shown(a) for a in page]})

    def _create(self, body: dict[str, Any]) -> Response:
        self._require_account(body.get("account"), body.get("sourcePlatform"))
        destinations = [{"destination": "LINKEDIN"}]
        if not body.get("name") or body.get("type") != "USER":
            raise refused(400, "ILLEGAL_ARGUMENT", "name and type USER are required.")
        if body.get("destinations") != destinations:
            raise refused(400, "ILLEGAL_ARGUMENT", "The destination must be LINKEDIN.")
        segment_id = str(17_000_000 + len(self.audiences))
        self.audiences[segment_id] = TwinAudience(
            segment_id,
            body["name"],
            external_id=body.get("sourceSegmentId", ""),
            created_at=self.clock.now(),
        )
        headers = {"x-restli-id": segment_id, "x-linkedin-id": segment_id}
        return Response(status=201, headers=headers)

    def _require_account(self, account: str | None, platform: str | None) -> None:
        if (account, platform) != (self._account, self._platform):
            raise refused(403, "ACCESS_DENIED", "Not enough permissions to access the account.")

    def _segment(self, segment_id: str) -> TwinAudience:
        segment = self.audiences.get(segment_id)
        if segment is None:
            raise refused(404, "NOT_FOUND", "The segment does not exist.")
        return segment

    def _shown(self, segment: TwinAudience) -> dict[str, Any]:
        assert segment.created_at is not None
        count = sum(is_matched(key, self._match_rate) for key in segment.keys)
        counts = {"audienceSize": count, "matchedCount": count} if segment.keys else {}
        status = self.status if segment.keys else "BUILDING"
        return {
            "id": int(segment.audience_id),
            "name": segment.name,
            "account": self._account,
            "accessPolicy": "PRIVATE",
            "type": "USER",
            "sourcePlatform": self._platform,
            "sourceSegmentId": segment.external_id,
            "created": int(segment.created_at.timestamp() * 1000),
            "destinations": [{"destination": "LINKEDIN", "status": status, **counts}],
        }

    # Users

    def _change(self, segment: TwinAudience, request: Request) -> Response:
        assert segment.created_at is not None
        if self.clock.now() < segment.created_at + self._settle:
            raise refused(404, "NOT_FOUND", "The segment does not exist.")
        if request.headers.get("X-RestLi-Method") != "BATCH_CREATE":
            raise refused(400, "ILLEGAL_ARGUMENT", "The method must be BATCH_CREATE.")
        elements = parsed(request, _USERS).get("elements") or []
        if not 1 <= len(elements) <= MAX_ELEMENTS:
            raise refused(400, "ILLEGAL_ARGUMENT", f"1 to {MAX_ELEMENTS} elements.")
        return json_response({"elements": [_taken(segment, element) for element in elements]})


def _taken(segment: TwinAudience, element: Mapping[str, Any]) -> dict[str, Any]:
    """The status of one element; a good one is in the segment now, or out of it."""
    ids = element.get("userIds") or []
    keys = [member_key(KINDS[i["idType"]][0], i["idValue"]) for i in ids if _is_good(i)]
    if element.get("action") not in ("ADD", "REMOVE") or not keys or len(keys) < len(ids):
        return {"status": 400, "message": "The action or an id is invalid."}
    segment.change(element["action"].lower(), keys)
    return {"status": 201}


def _is_good(user_id: Mapping[str, Any]) -> bool:
    kind = KINDS.get(user_id.get("idType", ""))
    return kind is not None and kind[1].fullmatch(user_id.get("idValue", "")) is not None


def refused(status: int, code: str, message: str) -> Refused:
    """LinkedIn's error body."""
    return Refused(json_response({"status": status, "code": code, "message": message}, status))


def parsed(request: Request, shape: dict[str, Any]) -> dict[str, Any]:
    """The body, when it is JSON of this shape and nothing more."""
    body = json_body(request)
    found = problem(body, shape)
    if found is not None:
        raise refused(400, "ILLEGAL_ARGUMENT", f"Invalid field {found.path} ({found.kind}).")
    return dict(body)
