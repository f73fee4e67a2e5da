"""The twin of Meta's Graph API: custom audiences, their users and upload sessions."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.facebook_rules import (
    FLAGGED,
    MAX_SAMPLES,
    Payload,
    arguments,
    read_payload,
    refused,
    require_known,
    require_shape,
)
from activation.twins.facebook_sessions import Session, Sessions, Terms
from activation.twins.members import TwinAudience, is_matched, matched_rows
from activation.twins.shapes import Many
from activation.twins.wsgi import Twin, json_response

MAX_PAGE = 500
COUNT_STEP = 100
"""Counts are told as bounds this far apart."""

FILE_SOURCES = ("USER_PROVIDED_ONLY", "PARTNER_PROVIDED_ONLY", "BOTH_USER_AND_PARTNER_PROVIDED")
_CREDENTIALS = ("access_token", "appsecret_proof")
_CREATE = {
    "name": str,
    "subtype": str,
    "description": str,
    "customer_file_source": str,
    "audience_labels": Many(str),
}
_FIELDS = (
    "id",
    "name",
    "description",
    "subtype",
    "approximate_count_lower_bound",
    "approximate_count_upper_bound",
    "operation_status",
    "delivery_status",
    "time_updated",
)


class FacebookTwin(Twin):
    """One ad account and its custom audiences.

    Match results of a session, and the counts of an audience, appear `match_delay_seconds` after
    its last batch. Assumptions of the twin: a batch that is sent again with the same content is
    accepted and changes nothing, one out of sequence is refused with code 100, a replacement
    that may not be with 2650; how samples of invalid entries look (`sample_rows`).
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ad_account_id: str = "1001",
        access_token: str = "twin-token",  # noqa: S107
        app_secret: str | None = None,
        api_version: str = "v26.0",
        match_rate: float = 0.5,
        match_delay_seconds: float = 3600.0,
        max_samples: int = MAX_SAMPLES,
        sample_rows: bool = True,
        terms: Terms | None = None,
    ) -> None:
        super().__init__(clock)
        self.audiences: dict[str, TwinAudience] = {}
        self.flagged: set[str] = set()
        """Audiences that Meta has flagged: nothing may be changed in them."""
        self.limited_rows = 0
        """Rows that came under Limited Data Use."""
        self._account = f"act_{ad_account_id}"
        self._token = access_token
        self._secret = app_secret
        self._version = api_version
        self._match_rate = match_rate
        self._delay = timedelta(seconds=match_delay_seconds)
        self._max_samples = max_samples
        self._sample_rows = sample_rows
        self._sessions = Sessions(clock, terms or Terms())

    def contents(self) -> dict[str, Any]:
        """The custom audiences."""
        return {
            "audiences": [audience.summary() for audience in self.audiences.values()],
            "limited_rows": self.limited_rows,
        }

    def respond(self, request: Request) -> Response:
        """Answer as the Graph API does."""
        version, _, path = request.path.removeprefix("/").partition("/")
        if version != self._version:
            raise refused(2635, f"You are calling a deprecated version: {version}.")
        given = arguments(request)
        self._authenticate(request, given)
        given = {name: value for name, value in given.items() if name not in _CREDENTIALS}
        node, _, edge = path.partition("/")
        if node == self._account and edge == "customaudiences":
            return self._account_audiences(request.method, given)
        audience = self.audiences.get(node)
        if audience is None:
            raise refused(100, "Unsupported request: object does not exist.", subcode=33)
        match request.method, edge:
            case "GET", "":
                return json_response(self._shown(audience, given))
            case "GET", "sessions":
                return self._session_status(audience, given)
            case "POST" | "DELETE" as method, "users":
                return self._change(audience, "add" if method == "POST" else "remove", given)
            case "POST", "usersreplace":
                return self._change(audience, "replace", given)
        raise refused(100, "Unsupported request.", subcode=33)

    def _authenticate(self, request: Request, given: Mapping[str, Any]) -> None:
        header = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if (header or given.get("access_token")) != self._token:
            raise refused(190, "Invalid OAuth access token.", status=401)
        if self._secret is None:
            return
        proof = hmac.new(self._secret.encode(), self._token.encode(), hashlib.sha256).hexdigest()
        if given.get("appsecret_proof") != proof:
            raise refused(100, "Invalid appsecret_proof provided in the API argument.")

    # Audiences

    def _account_audiences(self, method: str, given: dict[str, Any]) -> Response:
        if method == "POST":
            return self._create(given)
        if method != "GET":
            raise refused(100, "Unsupported request.", subcode=33)
        require_known(given, ("fields", "limit", "after", "summary"))
        limit, start = str(given.get("limit", "25")), str(given.get("after", "0"))
        if not (limit.isdigit() and start.isdigit() and 1 <= int(limit) <= MAX_PAGE):
            raise refused(100, "Invalid paging.")
        found = list(self.audiences.values())
        end = int(start) + int(limit)
        rows = [self._shown(audience, given) for audience in found[int(start) : end]]
        paging: dict[str, Any] = {"cursors": {"before": start, "after": str(end)}}
        if end < len(found):
            paging["next"] = "https://graph.facebook.com/next"
        return json_response({"data": rows, "paging": paging})

    def _create(self, given: dict[str, Any]) -> Response:
        require_shape(given, _CREATE)
        if given.get("subtype") != "CUSTOM" or not given.get("name"):
            raise refused(100, "name and subtype CUSTOM are required.")
        if given.get("customer_file_source") not in FILE_SOURCES:
            raise refused(100, "customer_file_source is required.")
        audience_id = str(23_850_000_000_000 + len(self.audiences))
        self.audiences[audience_id] = TwinAudience(
            audience_id,
            given["name"],
            description=given.get("description", ""),
            created_at=self.clock.now(),
        )
        return json_response({"id": audience_id})

    def _shown(self, audience: TwinAudience, given: Mapping[str, Any]) -> dict[str, Any]:
        flagged = audience.audience_id in self.flagged
        whole = {
            "id": audience.audience_id,
            "name": audience.name,
            "description": audience.description,
            "subtype": "CUSTOM",
            "operation_status": {"code": 471 if flagged else 200, "description": "Status"},
            "delivery_status": {"code": 200, "description": "Ready"},
            "time_updated": int(self.clock.now().timestamp()),
        }
        wanted = str(given.get("fields", "id")).split(",")
        if any(name.startswith("approximate_count") for name in wanted):
            whole |= self._counts(audience)
        for name in wanted:
            if name not in whole:
                raise refused(100, f"Tried accessing nonexisting field ({name}).")
        return {name: whole[name] for name in dict.fromkeys(["id", *wanted])}

    def _counts(self, audience: TwinAudience) -> dict[str, int]:
        """Bounds of the known identifiers; -1 while the last change is not worked in."""
        changed: datetime | None = audience.details.get("changed_at")
        low, high = -1, -1
        if changed is None or self.clock.now() >= changed + self._delay:
            known = sum(is_matched(key, self._match_rate) for key in audience.keys)
            low = known // COUNT_STEP * COUNT_STEP
            high = low + COUNT_STEP
        return {"approximate_count_lower_bound": low, "approximate_count_upper_bound": high}

    # Users

    def _change(self, audience: TwinAudience, operation: str, given: dict[str, Any]) -> Response:
        require_known(given, ("payload", "session"))
        if audience.audience_id in self.flagged:
            raise refused(100, "Invalid parameter", subcode=FLAGGED)
        payload = read_payload(given.get("payload"))
        session, new = self._sessions.batch(
            audience.audience_id, operation, given.get("session"), payload.digest
        )
        if new:
            self._take(audience, operation, session, payload)
        samples = payload.samples(self._max_samples, whole_rows=self._sample_rows)
        return json_response(
            {
                "audience_id": audience.audience_id,
                "session_id": str((given.get("session") or {}).get("session_id", "")),
                "num_received": len(payload.rows),
                "num_invalid_entries": len(payload.bad),
                "invalid_entry_samples": samples or [],
            }
        )

    def _take(
        self, audience: TwinAudience, operation: str, session: Session, payload: Payload
    ) -> None:
        if operation == "replace":
            self._sessions.require_small(session, payload)
            session.keys.update(payload.keys())
            if session.ended_at is not None:
                audience.keys, session.keys = session.keys, set()
        else:
            audience.change(operation, payload.keys())
        audience.details["changed_at"] = self.clock.now()
        session.received += len(payload.rows)
        session.invalid += len(payload.bad)
        session.matched += self._matched(payload)
        if payload.limited:
            self.limited_rows += len(payload.rows)

    def _matched(self, payload: Payload) -> int:
        """Rows in which the platform knows at least one identifier."""
        known: set[int] = set()
        for column in payload.columns:
            known |= matched_rows(column, self._match_rate)
        return len(known - payload.bad)

    def _session_status(self, audience: TwinAudience, given: dict[str, Any]) -> Response:
        require_known(given, ("session_id", "fields"))
        number = str(given.get("session_id", ""))
        session = self._sessions.find(audience.audience_id, number)
        if session is None:
            return json_response({"data": []})
        ended = session.ended_at
        done = ended is not None and self.clock.now() >= ended + self._delay
        matched = session.matched if done else -1
        status = {
            "session_id": number,
            "num_received": str(session.received),
            "num_matched": str(matched),
            "num_invalid_entries": str(session.invalid),
            "progress": "100" if done else "0",
            "stage": "complete" if done else "uploading",
        }
        return json_response({"data": [status]})
