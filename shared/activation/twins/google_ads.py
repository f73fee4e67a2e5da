"""The twin of Google's Data Manager API v1, with its token endpoint at `/token`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.google_lists import UserList
from activation.twins.google_members import Members, strict_members, usual_members
from activation.twins.google_oauth import TOKEN_PATH, GoogleLogins, TokenEndpoint
from activation.twins.google_rules import (
    as_of,
    membership,
    parsed,
    refused,
    require_declarations,
    require_key_type,
    require_list_kind,
    require_query,
    require_shape,
    wanted_code,
)
from activation.twins.google_shapes import ACCOUNT_TYPE, INGEST, REMOVE, REMOVE_ALL, USER_LIST
from activation.twins.members import count_matched
from activation.twins.wsgi import Refused, Twin, json_response

MAX_DESTINATIONS = 10
MAX_PAGE_SIZE = 1_000
INTERNAL_ERROR = "PROCESSING_ERROR_REASON_INTERNAL_ERROR"

_LISTS = re.compile(r"/v1/accountTypes/([A-Z_0-9]+)/accounts/([0-9]+)/userLists(?:/([0-9]+))?")
_BANDS = ("20_TO_30", *(f"{low}1_TO_{low + 1}0" for low in range(3, 10)))


@dataclass
class _Upload:
    """A request that was accepted, as `requestStatus:retrieve` will tell of it."""

    destination: dict[str, Any]
    operation: str
    polls_left: int
    data_field: str = ""
    records: int = 0
    identifiers: int = 0
    matched: int = 0
    failed: bool = False


class GoogleAdsTwin(Twin):
    """One advertiser account and its user lists.

    A request's status is PROCESSING for `polls_before_final` looks; of the next `failing` requests
    it is FAILED then, and nothing of them is done. `requests_per_minute` is the
    project quota for ingestion; the `Retry-After` on its 429 is an assumption of the twin.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        account_id: str = "1234567890",
        account_type: str = "GOOGLE_ADS",
        logins: GoogleLogins | None = None,
        match_rate: float = 0.5,
        polls_before_final: int = 1,
        requests_per_minute: int = 300,
    ) -> None:
        super().__init__(clock)
        self.tokens = TokenEndpoint(clock, logins or GoogleLogins())
        self.lists: dict[str, UserList] = {}
        self.failing = 0
        self._account = (account_type, account_id)
        self._match_rate = match_rate
        self._polls = polls_before_final
        self._per_minute = requests_per_minute
        self._uploads: dict[str, _Upload] = {}
        self._minute = (0, 0)

    def contents(self) -> dict[str, Any]:
        """The user lists."""
        self._forget()
        return {"audiences": [audience.summary() for audience in self.lists.values()]}

    def respond(self, request: Request) -> Response:
        """Answer as Google does."""
        if request.path == TOKEN_PATH:
            return self.tokens.respond(request)
        if not self.tokens.holds(request.headers.get("Authorization", "")):
            raise refused(401, "CREDENTIALS_INVALID", "Request had invalid credentials.")
        self._forget()
        lists = _LISTS.fullmatch(request.path)
        if lists:
            return self._user_lists(request, lists[1], lists[2], lists[3])
        match request.method, request.path:
            case "POST", "/v1/audienceMembers:ingest":
                return self._change(request, "add")
            case "POST", "/v1/audienceMembers:remove":
                return self._change(request, "remove")
            case "POST", "/v1/audienceMembers:removeAll":
                return self._clear(request)
            case "GET", "/v1/requestStatus:retrieve":
                return self._request_status(request)
        raise refused(404, "NOT_FOUND", "Method not found.")

    def _forget(self) -> None:
        for audience in self.lists.values():
            audience.forget(self.clock.now())

    # User lists

    def _user_lists(
        self, request: Request, account_type: str, account_id: str, list_id: str | None
    ) -> Response:
        if (account_type, account_id) != self._account:
            raise refused(403, "PERMISSION_DENIED", "The caller does not have permission.")
        if request.method == "POST" and list_id is None:
            return self._create(request)
        if request.method == "GET" and list_id is None:
            return self._listed(request)
        if request.method == "GET" and list_id in self.lists:
            require_query(request, ())
            return json_response(self._shown(self.lists[list_id]))
        raise refused(404, "NOT_FOUND", "Requested entity was not found.")

    def _create(self, request: Request) -> Response:
        require_query(request, ("validateOnly",))
        body = require_shape(parsed(request), USER_LIST)
        info = body.get("ingestedUserListInfo") or {}
        if not body.get("displayName"):
            raise refused(400, "REQUIRED_FIELD_MISSING", "display_name", "user_list.display_name")
        if any(body["displayName"] == other.name for other in self.lists.values()):
            raise refused(400, "DISPLAY_NAME_ALREADY_USED", "used", "user_list.display_name")
        require_key_type(info)
        kept_for = membership(body.get("membershipDuration"))
        audience = UserList(
            str(7_000_000_000 + len(self.lists)),
            body["displayName"],
            external_id=body.get("integrationCode", ""),
            details=body,
            kept_for=kept_for,
        )
        if request.args.get("validateOnly") != "true":
            self.lists[audience.audience_id] = audience
        return json_response(self._shown(audience))

    def _listed(self, request: Request) -> Response:
        require_query(request, ("filter", "pageSize", "pageToken"))
        size, start = request.args.get("pageSize", "50"), request.args.get("pageToken", "0")
        if not size.isdigit() or not 0 <= int(size) <= MAX_PAGE_SIZE:
            raise refused(400, "INVALID_ARGUMENT", "page_size", "page_size")
        if not start.isdigit():
            raise refused(400, "INVALID_PAGE_TOKEN", "page_token", "page_token")
        code = wanted_code(request.args.get("filter"))
        found = [a for a in self.lists.values() if code in (None, a.external_id)]
        end = int(start) + (int(size) or 50)
        page = {"userLists": [self._shown(a) for a in found[int(start) : end]]}
        return json_response(page | ({"nextPageToken": str(end)} if end < len(found) else {}))

    def _shown(self, audience: UserList) -> dict[str, Any]:
        account_type, account_id = self._account
        name = f"accountTypes/{account_type}/accounts/{account_id}/userLists"
        return {
            **audience.details,
            "name": f"{name}/{audience.audience_id}",
            "id": audience.audience_id,
            "membershipStatus": "OPEN",
            "sizeInfo": self._size_info(audience),
        }

    def _size_info(self, audience: UserList) -> dict[str, str]:
        """Counts as text; a zero is left out, as everywhere in the JSON of protocol buffers."""
        size = count_matched(audience.keys, self._match_rate)
        counted = ("displayNetworkMembersCount", "searchNetworkMembersCount")
        return dict.fromkeys(counted, str(size)) if size else {}

    # Members

    def _change(self, request: Request, operation: str) -> Response:
        require_query(request, ())
        self._spend_quota()
        body = parsed(request)
        members = usual_members(body)
        seen = body if members is None else {**body, "audienceMembers": []}
        require_shape(seen, INGEST if operation == "add" else REMOVE)
        audiences = self._destinations(body.get("destinations") or [])
        members = members or strict_members(body)
        require_declarations(body, operation, members.data_field)
        for audience in audiences:
            require_list_kind(audience, members.data_field)
        upload = self._upload(body, operation, members)
        if not body.get("validateOnly"):
            upload.failed, self.failing = self.failing > 0, max(0, self.failing - 1)
            for audience in audiences if not upload.failed else ():
                self._apply(audience, operation, members)
        return self._accepted(body, upload)

    def _apply(self, audience: UserList, operation: str, members: Members) -> None:
        if operation == "add":
            audience.add(members.keys, self.clock.now())
            audience.consents.update(members.consents)
        else:
            audience.remove(members.keys)

    def _clear(self, request: Request) -> Response:
        require_query(request, ())
        self._spend_quota()
        body = require_shape(parsed(request), REMOVE_ALL)
        audiences = self._destinations(body.get("destinations") or [])
        instant = as_of(body.get("removeAsOfTime"), self.clock.now())
        upload = _Upload(body["destinations"][0], "remove_all", self._polls)
        if not body.get("validateOnly"):
            upload.failed, self.failing = self.failing > 0, max(0, self.failing - 1)
            for audience in audiences if not upload.failed else ():
                audience.clear(instant)
        return self._accepted(body, upload)

    def _upload(self, body: Mapping[str, Any], operation: str, members: Members) -> _Upload:
        return _Upload(
            body["destinations"][0],
            operation,
            self._polls,
            members.data_field,
            members.records,
            len(members.keys),
            count_matched(set(members.keys), self._match_rate),
        )

    def _accepted(self, body: Mapping[str, Any], upload: _Upload) -> Response:
        request_id = uuid.uuid4().hex
        if not body.get("validateOnly"):
            self._uploads[request_id] = upload
        return json_response({"requestId": request_id})

    def _spend_quota(self) -> None:
        now = self.clock.now().timestamp()
        minute, spent = self._minute
        spent = spent + 1 if minute == int(now // 60) else 1
        self._minute = (int(now // 60), spent)
        if spent > self._per_minute:
            response = refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded.").response
            response.headers["Retry-After"] = str(60 - int(now % 60))
            raise Refused(response)

    def _destinations(self, destinations: Sequence[Mapping[str, Any]]) -> list[UserList]:
        if not 1 <= len(destinations) <= MAX_DESTINATIONS:
            raise refused(400, "TOO_MANY_DESTINATIONS", "1 to 10 destinations", "destinations")
        references = [d["reference"] for d in destinations if d.get("reference")]
        if len(set(references)) != len(references):
            raise refused(400, "DUPLICATE_DESTINATION_REFERENCE", "duplicate", "destinations")
        return [self._destination(i, d) for i, d in enumerate(destinations)]

    def _destination(self, index: int, destination: Mapping[str, Any]) -> UserList:
        account = destination.get("operatingAccount") or {}
        named = (ACCOUNT_TYPE.name(account.get("accountType", 1)), account.get("accountId"))
        where = f"destinations[{index}]"
        if named != self._account:
            raise refused(403, "PERMISSION_DENIED", "account", f"{where}.operating_account")
        audience = self.lists.get(str(destination.get("productDestinationId")))
        if audience is None:
            field = f"{where}.product_destination_id"
            raise refused(400, "INVALID_USER_LIST_ID", "no such list", field)
        return audience

    def _request_status(self, request: Request) -> Response:
        require_query(request, ("requestId",))
        upload = self._uploads.get(request.args.get("requestId", ""))
        if upload is None:
            raise refused(400, "INVALID_REQUEST_ID", "no such request", "request_id")
        final = "FAILED" if upload.failed else "SUCCESS"
        status: dict[str, Any] = {
            "destination": upload.destination,
            "requestStatus": "PROCESSING" if upload.polls_left > 0 else final,
        }
        if status["requestStatus"] == "FAILED":
            count = {"recordCount": str(upload.records), "reason": INTERNAL_ERROR}
            status["errorInfo"] = {"errorCounts": [count]}
        upload.polls_left -= 1
        if status["requestStatus"] == "SUCCESS":
            status |= _final_status(upload)
        return json_response({"requestStatusPerDestination": [status]})


def _final_status(upload: _Upload) -> dict[str, Any]:
    if upload.operation == "remove_all":
        return {"removeAllAudienceMembersStatus": {}}
    counted = {
        "userData": "userIdentifierCount",
        "mobileData": "mobileIdCount",
        "userIdData": "userIdCount",
    }[upload.data_field]
    counts = {"recordCount": str(upload.records), counted: str(upload.identifiers)}
    if upload.operation == "remove":
        inner = f"{upload.data_field}RemovalStatus"
        return {"audienceMembersRemovalStatus": {inner: counts}}
    if upload.data_field == "userData":
        counts["uploadMatchRateRange"] = _band(upload.matched / max(1, upload.identifiers))
    return {"audienceMembersIngestionStatus": {f"{upload.data_field}IngestionStatus": counts}}


def _band(rate: float) -> str:
    percent = round(rate * 100)
    if percent < 20:
        return "MATCH_RATE_RANGE_LESS_THAN_20"
    return f"MATCH_RATE_RANGE_{_BANDS[max(0, min(7, -(-percent // 10) - 3))]}"
