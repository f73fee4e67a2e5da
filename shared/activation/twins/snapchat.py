"""The twin of Snapchat's Marketing API v1: audience segments, with its token endpoint."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.members import SHA256_HEX, TwinAudience, is_matched, member_key
from activation.twins.oauth import OAuthEndpoint
from activation.twins.shapes import Many, problem
from activation.twins.wsgi import Refused, Twin, json_body, json_response

TOKEN_PATH = "/login/oauth2/access_token"  # noqa: S105 - a path
MAX_NAME = 375
MAX_RETENTION_DAYS = 9_999
MIN_PAGE, MAX_PAGE = 50, 1_000
MINIMUM_SIZE = 1_000

KINDS = {"EMAIL_SHA256": "email", "PHONE_SHA256": "phone", "MOBILE_AD_ID_SHA256": "maid"}
_CREATE = {
    "segments": Many(
        {
            "name": str,
            "description": str,
            "source_type": str,
            "retention_in_days": int,
            "ad_account_id": str,
        }
    )
}
_USERS = {"users": Many({"schema": Many(str), "data": Many(Many(str))})}
_SEGMENT = re.compile(r"/v1/segments/([^/]+)(/users)?")


class SnapchatTwin(Twin):
    """One ad account and its segments.

    An upload is worked on for `processing_seconds`. `max_rows` is an assumption of the twin, as
    are its error codes.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ad_account_id: str = "8adc3db7-8148-4fbf-999c-8d2266369d74",
        access_token: str = "twin-token",  # noqa: S107
        match_rate: float = 0.5,
        max_rows: int = 50_000,
        processing_seconds: float = 600.0,
    ) -> None:
        super().__init__(clock)
        self.tokens = OAuthEndpoint(clock)
        self.tokens.accept(access_token)
        self.audiences: dict[str, TwinAudience] = {}
        self._account = ad_account_id
        self._match_rate = match_rate
        self._max_rows = max_rows
        self._processing = timedelta(seconds=processing_seconds)

    def contents(self) -> dict[str, Any]:
        """The segments. Device ids are held as the hashes that came."""
        return {"audiences": [audience.summary() for audience in self.audiences.values()]}

    def respond(self, request: Request) -> Response:
        """Answer as Snapchat does."""
        if request.path == TOKEN_PATH:
            return self.tokens.respond(request)
        if not self.tokens.holds(request.headers.get("Authorization", "")):
            raise Refused(Response("Unauthorized", status=401, mimetype="text/plain"))
        if request.path == f"/v1/adaccounts/{self._account}/segments":
            return self._segments(request)
        found = _SEGMENT.fullmatch(request.path)
        segment = self.audiences.get(found[1]) if found else None
        if found is None or segment is None:
            raise refused(404, "E1001", "The requested resource is not available.")
        match request.method, found[2]:
            case "GET", None:
                return succeeded("segments", [self._entry(segment)])
            case "POST", "/users":
                return self._change(segment, "add", request)
            case "DELETE", "/users":
                return self._change(segment, "remove", request)
        raise refused(405, "E1002", "The method is not allowed.")

    # Segments

    def _segments(self, request: Request) -> Response:
        if request.method == "POST":
            return self._create(parsed(request, _CREATE))
        if request.method != "GET" or set(request.args) - {"limit", "cursor"}:
            raise refused(400, "E1003", "Unknown method or parameter.")
        limit, cursor = request.args.get("limit", "50"), request.args.get("cursor", "0")
        if not (limit.isdigit() and cursor.isdigit() and MIN_PAGE <= int(limit) <= MAX_PAGE):
            raise refused(400, "E1003", "Invalid paging.")
        found, end = list(self.audiences.values()), int(cursor) + int(limit)
        entries = [self._entry(segment) for segment in found[int(cursor) : end]]
        link = f"https://adsapi.snapchat.com{request.path}?cursor={end}&limit={limit}"
        paging = {"next_link": link} if end < len(found) else {}
        return succeeded("segments", entries, paging=paging)

    def _create(self, body: dict[str, Any]) -> Response:
        entries = body.get("segments") or []
        if len(entries) != 1 or not _is_complete(entries[0], self._account):
            raise refused(400, "E1003", "The segment is incomplete or invalid.")
        segment = TwinAudience(
            str(uuid.uuid4().int)[:16],
            entries[0]["name"],
            description=entries[0].get("description", ""),
            created_at=self.clock.now(),
            details={"retention_in_days": entries[0]["retention_in_days"]},
        )
        self.audiences[segment.audience_id] = segment
        return succeeded("segments", [self._entry(segment)])

    def _entry(self, segment: TwinAudience) -> dict[str, Any]:
        count = sum(is_matched(key, self._match_rate) for key in segment.keys)
        uploaded = segment.details.get("uploaded_at")
        done = uploaded is not None and self.clock.now() >= uploaded + self._processing
        upload = "NO_UPLOAD" if uploaded is None else "COMPLETE" if done else "PROCESSING"
        enough = "READY" if count >= MINIMUM_SIZE else "TOO_FEW_USERS"
        shown = {
            "id": segment.audience_id,
            "name": segment.name,
            "description": segment.description,
            "ad_account_id": self._account,
            "source_type": "FIRST_PARTY",
            "status": "ACTIVE",
            "retention_in_days": segment.details["retention_in_days"],
            "approximate_number_users": count if done else 0,
            "upload_status": upload,
            "targetable_status": enough if done else "NOT_READY",
        }
        return {"sub_request_status": "SUCCESS", "segment": shown}

    # Users

    def _change(self, segment: TwinAudience, operation: str, request: Request) -> Response:
        users = parsed(request, _USERS).get("users") or []
        if len(users) != 1 or len(users[0].get("schema") or []) != 1:
            raise refused(400, "E1003", "One schema per request.")
        kind = KINDS.get(users[0]["schema"][0])
        rows = users[0].get("data") or []
        if kind is None or not 1 <= len(rows) <= self._max_rows:
            raise refused(400, "E1003", "Unknown schema, or too few or too many rows.")
        values = [row[0] for row in rows if len(row) == 1 and SHA256_HEX.fullmatch(row[0])]
        if len(set(values)) != len(rows):
            raise refused(400, "E1004", "A row is not hashed, or stands twice.")
        segment.change(operation, [member_key(kind, value) for value in values])
        segment.details["uploaded_at"] = self.clock.now()
        entry = {"sub_request_status": "SUCCESS", "user": {"number_uploaded_users": len(rows)}}
        return succeeded("users", [entry])


def _is_complete(segment: Mapping[str, Any], account: str) -> bool:
    return (
        1 <= len(segment.get("name", "")) <= MAX_NAME
        and segment.get("source_type") == "FIRST_PARTY"
        and 1 <= segment.get("retention_in_days", 0) <= MAX_RETENTION_DAYS
        and segment.get("ad_account_id") == account
    )


def succeeded(name: str, entries: list[dict[str, Any]], **more: Any) -> Response:
    """Snapchat's envelope; its documents write the status in both cases."""
    return json_response({"request_status": "success", "request_id": "twin", **more, name: entries})


def refused(status: int, code: str, message: str) -> Refused:
    """Snapchat's error body."""
    body = {
        "request_status": "ERROR",
        "request_id": "twin",
        "debug_message": message,
        "display_message": message,
        "error_code": code,
    }
    return Refused(json_response(body, status))


def parsed(request: Request, shape: dict[str, Any]) -> dict[str, Any]:
    """The body, when it is JSON of this shape and nothing more."""
    body = json_body(request)
    found = problem(body, shape)
    if found is not None:
        raise refused(400, "E1003", f"Invalid field {found.path} ({found.kind}).")
    return dict(body)
