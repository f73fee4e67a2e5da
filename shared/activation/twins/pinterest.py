"""The twin of Pinterest's API v5: customer lists, with its token endpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.members import SHA256_HEX, TwinAudience, is_matched, member_key
from activation.twins.oauth import OAuthEndpoint
from activation.twins.shapes import problem
from activation.twins.wsgi import Refused, Twin, json_body, json_response

TOKEN_PATH = "/v5/oauth/token"  # noqa: S105 - a path
MAX_PAGE = 250
MINIMUM_SIZE = 100

KINDS: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "EMAIL": ("email", SHA256_HEX),
    "MAID": ("maid", SHA256_HEX),
    "IDFA": ("maid", SHA256_HEX),
    "LR_ID": ("ramp_id", re.compile(r"[A-Za-z0-9_-]{20,254}")),
}
"""By `list_type`: our type of identifier, and its shape. Pinterest takes plain e-mails and other
hashes too; the twin does not, because ours are never that."""
_CREATE = {"name": str, "list_type": str, "records": str}
_UPDATE = {"records": str, "operation_type": str}


class PinterestTwin(Twin):
    """One ad account and its customer lists.

    A list is worked on for `processing_seconds` after each change. `max_rows` is an assumption of
    the twin, as are its error codes.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ad_account_id: str = "549755885175",
        access_token: str = "twin-token",  # noqa: S107
        match_rate: float = 0.5,
        max_rows: int = 10_000,
        processing_seconds: float = 600.0,
    ) -> None:
        super().__init__(clock)
        self.tokens = OAuthEndpoint(clock, basic=True)
        self.tokens.accept(access_token)
        self.audiences: dict[str, TwinAudience] = {}
        self._path = f"/v5/ad_accounts/{ad_account_id}/customer_lists"
        self._match_rate = match_rate
        self._max_rows = max_rows
        self._processing = timedelta(seconds=processing_seconds)

    def contents(self) -> dict[str, Any]:
        """The customer lists. Device ids are held as the hashes that came."""
        return {"audiences": [audience.summary() for audience in self.audiences.values()]}

    def respond(self, request: Request) -> Response:
        """Answer as Pinterest does."""
        if request.path == TOKEN_PATH:
            return self.tokens.respond(request)
        if not self.tokens.holds(request.headers.get("Authorization", "")):
            raise refused(401, 2, "Authentication failed.")
        if request.path == self._path and request.method == "POST":
            return self._create(parsed(request, _CREATE))
        if request.path == self._path and request.method == "GET":
            return self._listed(request.args)
        name = request.path.removeprefix(f"{self._path}/")
        audience = self.audiences.get(name)
        if audience is None and request.path.startswith("/v5/ad_accounts/"):
            known = request.path.startswith(self._path)
            raise refused(404, 70, "Not found.") if known else refused(403, 29, "Not permitted.")
        if audience is None or request.method not in ("GET", "PATCH"):
            raise refused(405, 3, "Method not allowed.")
        if request.method == "PATCH":
            self._update(audience, parsed(request, _UPDATE))
        return json_response(self._shown(audience))

    def _create(self, body: dict[str, Any]) -> Response:
        if not body.get("name") or body.get("list_type") not in KINDS:
            raise refused(400, 1, "name and list_type are required.")
        keys = self._keys(body["list_type"], body.get("records"))
        list_id = str(643_000_000_000 + len(self.audiences))
        audience = TwinAudience(list_id, body["name"], created_at=self.clock.now())
        audience.details = {"list_type": body["list_type"], "batches": 0, "added": 0, "removed": 0}
        self.audiences[list_id] = audience
        self._count(audience, "add", keys)
        return json_response(self._shown(audience))

    def _update(self, audience: TwinAudience, body: dict[str, Any]) -> None:
        if body.get("operation_type") not in ("ADD", "REMOVE"):
            raise refused(400, 1, "operation_type must be ADD or REMOVE.")
        keys = self._keys(audience.details["list_type"], body.get("records"))
        self._count(audience, body["operation_type"].lower(), keys)

    def _count(self, audience: TwinAudience, operation: str, keys: list[bytes]) -> None:
        """Change the set; the counters rise also for people who were there, or not there."""
        audience.change(operation, keys)
        audience.details["batches"] += 1
        audience.details["added" if operation == "add" else "removed"] += len(keys)
        audience.details["changed_at"] = self.clock.now()

    def _keys(self, list_type: str, records: str | None) -> list[bytes]:
        kind, shape = KINDS[list_type]
        values = records.split(",") if records else []
        if not 1 <= len(values) <= self._max_rows:
            raise refused(400, 1, f"records must have 1 to {self._max_rows} entries.")
        if not all(shape.fullmatch(value) for value in values):
            raise refused(400, 1, "A record is not what the list holds.")
        return [member_key(kind, value) for value in values]

    def _listed(self, given: Mapping[str, str]) -> Response:
        size, start = given.get("page_size", "25"), given.get("bookmark", "0")
        if set(given) - {"page_size", "bookmark", "order"}:
            raise refused(400, 1, "Unknown parameter.")
        if not (size.isdigit() and start.isdigit() and 1 <= int(size) <= MAX_PAGE):
            raise refused(400, 1, "Invalid paging.")
        found, end = list(self.audiences.values()), int(start) + int(size)
        items = [self._shown(audience) for audience in found[int(start) : end]]
        return json_response({"items": items, "bookmark": str(end) if end < len(found) else None})

    def _shown(self, audience: TwinAudience) -> dict[str, Any]:
        count = sum(is_matched(key, self._match_rate) for key in audience.keys)
        details = audience.details
        working = self.clock.now() < details["changed_at"] + self._processing
        enough = "READY" if count >= MINIMUM_SIZE else "TOO_SMALL"
        assert audience.created_at is not None
        return {
            "id": audience.audience_id,
            "name": audience.name,
            "type": "customerlist",
            "status": "PROCESSING" if working else enough,
            "num_batches": details["batches"],
            "num_uploaded_user_records": details["added"],
            "num_removed_user_records": details["removed"],
            "created_time": int(audience.created_at.timestamp()),
            "exceptions": {},
        }


def refused(status: int, code: int, message: str) -> Refused:
    """Pinterest's error body."""
    return Refused(json_response({"code": code, "message": message}, status))


def parsed(request: Request, shape: dict[str, Any]) -> dict[str, Any]:
    """The body, when it is JSON of this shape and nothing more."""
    body = json_body(request)
    found = problem(body, shape)
    if found is not None:
        raise refused(400, 1, f"Invalid field {found.path} ({found.kind}).")
    return dict(body)
