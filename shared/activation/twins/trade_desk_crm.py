"""The Trade Desk's CRM API in its twin: segments, drops, and the store that takes the files."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import orjson
from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.members import TwinAudience, member_key
from activation.twins.shapes import problem
from activation.twins.wsgi import Refused, json_response

DROPS_PREFIX = "/drops/"
REGIONS = ("US", "EU", "APAC")
PII_TYPE = "EmailHashedUnifiedId2"
MERGE_MODES = ("Add", "Replace")
DROP_LIFETIME = timedelta(hours=1)
MINIMUM_ROWS = 1_500
_SEGMENT = {"AdvertiserId": str, "SegmentName": str, "Region": str, "DataProviderId": str}
_DROP = {"PiiType": str, "MergeMode": str, "RetentionEnabled": bool, "TtlInMinutes": int}
_PATH = re.compile(r"/v3/crmdata/(?:(targeting)/)?segment(?:/([^/]+))?(?:/([^/]+))?")


@dataclass
class Drop:
    """An address that was given out, and what came there."""

    segment_id: str
    merge_mode: str
    expires_at: datetime
    query: str = field(repr=False)
    rows: int | None = None
    built: bool = False
    """Whether the file had enough rows to be taken."""


class CrmDesk:
    """The segments of one advertiser, behind the twin's login.

    A file of fewer than `minimum_rows` lines changes nothing, and nobody is told. Real drops are
    worked on later and in an order of the platform's own; here at once. An object store does not
    look into files: that the twin's refuses lines that are no hashes is for tests to notice.
    """

    def __init__(
        self,
        clock: Clock,
        advertiser_id: str,
        *,
        minimum_rows: int = MINIMUM_ROWS,
        page_size: int = 100,
    ) -> None:
        self.clock = clock
        self.segments: dict[str, TwinAudience] = {}
        self.drops: dict[str, Drop] = {}
        self.minimum_rows = minimum_rows
        self.page_size = page_size
        self._advertiser_id = advertiser_id

    def respond(self, request: Request) -> Response:
        """Answer a call of the API."""
        path = _PATH.fullmatch(request.path)
        if path is None:
            raise _refused(404, "There is no such endpoint.")
        if path[2] not in (None, self._advertiser_id):
            raise _refused(403, "The advertiser is not yours.")
        if request.method == "POST" and path[2] is None:
            return self._created(_parsed(request, _SEGMENT))
        if request.method == "GET" and path[2] and not path[1] and not path[3]:
            return self._listed(request)
        if request.method == "POST" and path[3] in self.segments:
            return self._opened(request, str(path[3]))
        raise _refused(404, "There is no such segment.")

    def _created(self, body: Mapping[str, Any]) -> Response:
        if body.get("AdvertiserId") != self._advertiser_id:
            raise _refused(403, "The advertiser is not yours.")
        if not body.get("SegmentName") or body.get("Region") not in REGIONS:
            raise _refused(400, "A segment needs a name and a region.")
        segment_id = f"crm{len(self.segments) + 1:04d}"
        name = body["SegmentName"]
        marked = re.search(r"\(crm ([^()]+)\)$", name)
        self.segments[segment_id] = TwinAudience(
            segment_id,
            name,
            external_id=marked[1] if marked else "",
            created_at=self.clock.now(),
            details=dict(body),
        )
        number = 358_000_000 + len(self.segments)
        return json_response({"CrmDataId": segment_id, "FirstPartyDataId": number})

    def _listed(self, request: Request) -> Response:
        start = request.args.get("pagingToken", "0")
        if set(request.args) - {"pagingToken"} or not start.isdigit():
            raise _refused(400, "The paging token is not known.")
        end = int(start) + self.page_size
        shown = [
            {
                "CrmDataId": segment.audience_id,
                "SegmentName": segment.name,
                "Region": segment.details["Region"],
                "FirstPartyDataId": 358_000_000 + index,
            }
            for index, segment in enumerate(self.segments.values(), start=1)
        ][int(start) : end]
        return json_response({"Segments": shown, "PagingToken": str(end) if shown else None})

    def _opened(self, request: Request, segment_id: str) -> Response:
        body = _parsed(request, _DROP)
        if body.get("PiiType") != PII_TYPE or body.get("MergeMode") not in MERGE_MODES:
            raise _refused(400, "A drop needs a PII type and a merge mode.")
        query = urlencode(
            {
                "X-Amz-Expires": str(int(DROP_LIFETIME.total_seconds())),
                "X-Amz-SignedHeaders": "host",
                "X-Amz-Signature": secrets.token_hex(32),
            }
        )
        reference, expires_at = str(uuid.uuid4()), self.clock.now() + DROP_LIFETIME
        self.drops[reference] = Drop(segment_id, body["MergeMode"], expires_at, query)
        url = f"{request.root_url.rstrip('/')}{DROPS_PREFIX}{reference}?{query}"
        return json_response({"ReferenceId": reference, "Url": url})

    def dropped(self, request: Request) -> Response:
        """Answer a call of the object store, whose login is the address."""
        drop = self.drops.get(request.path.removeprefix(DROPS_PREFIX))
        if request.method != "PUT" or drop is None or request.query_string.decode() != drop.query:
            raise _store_refused(403, "SignatureDoesNotMatch")
        if self.clock.now() >= drop.expires_at:
            raise _store_refused(403, "AccessDenied")
        if any(login in request.headers for login in ("TTD-Auth", "Authorization")):
            raise _store_refused(400, "InvalidArgument")
        if request.mimetype != "text/plain":
            raise _store_refused(403, "SignatureDoesNotMatch")
        keys = [_key(line) for line in request.get_data().decode().splitlines()]
        drop.rows, drop.built = len(keys), len(keys) >= self.minimum_rows
        if drop.built:
            segment = self.segments[drop.segment_id]
            if drop.merge_mode == "Replace":
                segment.keys.clear()
            segment.change("add", keys)
        return Response(status=200)


def _key(line: str) -> bytes:
    try:
        digest = base64.b64decode(line, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise _store_refused(400, "InvalidRequest")
    return member_key("email", digest.hex())


def _parsed(request: Request, shape: dict[str, Any]) -> dict[str, Any]:
    try:
        body: dict[str, Any] = orjson.loads(request.get_data())
    except orjson.JSONDecodeError:
        raise _refused(400, "The body is not JSON.") from None
    found = problem(body, shape)
    if request.mimetype != "application/json" or found is not None:
        raise _refused(400, f"The body is not what it should be: {found}.")
    return body


def _refused(status: int, message: str) -> Refused:
    return Refused(json_response({"Message": message}, status))


def _store_refused(status: int, code: str) -> Refused:
    text = f"<Error><Code>{code}</Code></Error>"
    return Refused(Response(text, status, content_type="application/xml"))
