"""The twin of Microsoft's Campaign Management API v13 (REST), with its login at `/token`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.members import SHA256_HEX, TwinAudience, count_matched, member_key
from activation.twins.oauth import OAuthEndpoint
from activation.twins.shapes import ANY, Choice, Many, problem
from activation.twins.wsgi import Refused, Twin, json_response

TOKEN_PATH = "/token"  # noqa: S105 — a path
API_PATH = "/CampaignManagement/v13"
MAX_ITEMS = 1_000
MAX_LISTS = 100
MAX_NAME, MAX_DESCRIPTION, MAX_DAYS = 128, 1024, 180
SCOPES = {"https://ads.microsoft.com/msads.manage", "offline_access"}
FIRST_ID = 9_007_199_254_740_993
"""The first whole number that floating point cannot hold."""

_KINDS = {"Email": "email", "CRM": "customer_id"}
_APPLY = {
    "CustomerListUserData": {
        "ActionType": Choice({"None": 0, "Add": 1, "Remove": 2, "Replace": 3}),
        "AudienceId": str,
        "CustomerListItemSubType": Choice({"Email": 0, "CRM": 1}),
        "CustomerListItems": Many(str),
    }
}
_CREATE = {
    "Audiences": Many(
        {
            "Name": str,
            "Description": str,
            "Type": str,
            "Scope": str,
            "ParentId": str,
            "MembershipDuration": int,
        }
    )
}
_QUERY = {"AudienceIds": ANY, "Type": str, "ReturnAdditionalFields": ANY}
_ERRORS = {
    105: "InvalidCredentials",
    106: "UserIsNotAuthorized",
    116: "RequestMissingHeaders",
    117: "CallRateExceeded",
    201: "ApiInputValidationError",
    204: "OperationNotSupported",
    210: "EntityNotExistent",
    211: "NameTooLong",
}
_STATUS = {105: 401, 117: 429}


class MicrosoftAdsTwin(Twin):
    """One customer with one ad account and its customer lists.

    Sizes appear `size_delay` after a list was last changed. Assumptions: the status of a fault, the
    words for bad items and for a name that is taken, and that replacing empties a list of both
    kinds of items.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        account_id: str = "1001",
        customer_id: str = "2002",
        developer_token: str = "twin-developer",  # noqa: S107 - no platform in the world takes it
        login: OAuthEndpoint | None = None,
        match_rate: float = 0.5,
        terms_accepted: bool = True,
        size_delay: timedelta = timedelta(hours=48),
    ) -> None:
        super().__init__(clock)
        self.login = login or OAuthEndpoint(clock)
        self.lists: dict[str, TwinAudience] = {}
        self.terms_accepted = terms_accepted
        self._headers = {
            "DeveloperToken": developer_token,
            "CustomerAccountId": account_id,
            "CustomerId": customer_id,
        }
        self._match_rate = match_rate
        self._size_delay = size_delay
        self._changed: dict[str, datetime] = {}

    def contents(self) -> dict[str, Any]:
        """The customer lists."""
        return {"audiences": [audience.summary() for audience in self.lists.values()]}

    def respond(self, request: Request) -> Response:
        """Answer as Microsoft does."""
        if request.path == TOKEN_PATH:
            if set(request.form.get("scope", "").split()) != SCOPES:
                return json_response({"error": "invalid_scope"}, 400)
            return self.login.respond(request)
        self._authenticate(request)
        if request.method != "POST" or request.args:
            raise fault(204, status=404)
        match request.path.removeprefix(API_PATH):
            case "/Audiences":
                return self._create(read(request, _CREATE))
            case "/Audiences/QueryByIds":
                return self._query(read(request, _QUERY))
            case "/CustomerListUserData/Apply":
                return self._apply(read(request, _APPLY))
        raise fault(204, status=404)

    def _authenticate(self, request: Request) -> None:
        if not self.login.holds(request.headers.get("Authorization", "")):
            # The real one tells an ended token (109) from a wrong one (105).
            raise fault(105)
        given = {name: request.headers.get(name) for name in self._headers}
        if None in given.values():
            raise fault(116)
        if given["DeveloperToken"] != self._headers["DeveloperToken"]:
            raise fault(105)
        if given != self._headers:
            raise fault(106)

    # Customer lists

    def _create(self, body: Mapping[str, Any]) -> Response:
        audiences = body.get("Audiences") or []
        if not 1 <= len(audiences) <= MAX_LISTS:
            raise fault(201)
        ids: list[str | None] = []
        errors: list[dict[str, Any]] = []
        for index, audience in enumerate(audiences):
            wrong = self._wrong_with(audience)
            ids.append(None if wrong else self._made(audience))
            if wrong:
                errors.append(batch_error(index, wrong))
        return json_response({"AudienceIds": ids, "PartialErrors": errors})

    def _wrong_with(self, audience: Mapping[str, Any]) -> str:
        name, days = audience.get("Name", ""), audience.get("MembershipDuration", -1)
        if not self.terms_accepted:
            return "CustomerListTermsAndConditionsNotAccepted"
        if audience.get("Type") != "CustomerList" or audience.get("Scope") != "Customer":
            return "CampaignServiceEntityTypeNotSupported"
        if audience.get("ParentId", self._headers["CustomerId"]) != self._headers["CustomerId"]:
            return "UserIsNotAuthorized"
        if not 1 <= len(name) <= MAX_NAME:
            return "NameTooLong"
        if len(audience.get("Description", "")) > MAX_DESCRIPTION:
            return "ApiInputValidationError"
        if days != -1 and not 1 <= days <= MAX_DAYS:
            return "ApiInputValidationError"
        taken = any(name == other.name for other in self.lists.values())
        return "DuplicateAudienceName" if taken else ""

    def _made(self, audience: Mapping[str, Any]) -> str:
        list_id = str(FIRST_ID + len(self.lists))
        self.lists[list_id] = TwinAudience(
            list_id, audience["Name"], created_at=self.clock.now(), details=dict(audience)
        )
        return list_id

    def _query(self, body: Mapping[str, Any]) -> Response:
        ids = body.get("AudienceIds")
        if body.get("Type") != "CustomerList" or problem(ids or [], Many(str)):
            raise fault(201)
        if ids is not None and len(ids) > MAX_LISTS:
            raise fault(201)
        wanted = ids or list(self.lists)
        shown = [self._shown(self.lists[i]) if i in self.lists else None for i in wanted]
        errors = [batch_error(n, "EntityNotExistent") for n, one in enumerate(shown) if one is None]
        return json_response({"Audiences": shown, "PartialErrors": errors})

    def _shown(self, audience: TwinAudience) -> dict[str, Any]:
        changed = self._changed.get(audience.audience_id)
        known = changed is not None and self.clock.now() >= changed + self._size_delay
        size = str(count_matched(audience.keys, self._match_rate)) if known else None
        read_only = {"Id": audience.audience_id, "SearchSize": size, "AudienceNetworkSize": size}
        return {**audience.details, **read_only}

    # Items

    def _apply(self, body: Mapping[str, Any]) -> Response:
        data = body.get("CustomerListUserData") or {}
        items, kind = data.get("CustomerListItems") or [], data.get("CustomerListItemSubType")
        audience = self.lists.get(data.get("AudienceId", ""))
        if audience is None:
            raise fault(210)
        if data.get("ActionType") not in ("Add", "Remove", "Replace") or kind not in _KINDS:
            raise fault(201)
        if not 1 <= len(items) <= MAX_ITEMS:
            raise fault(201)
        if not self.terms_accepted:
            error = batch_error(0, "CustomerListTermsAndConditionsNotAccepted") | {"Index": None}
            return json_response({"PartialErrors": [error]})
        bad = [n for n, item in enumerate(items) if not is_good(kind, item)]
        good = [item for n, item in enumerate(items) if n not in set(bad)]
        self._change(audience, data["ActionType"], _KINDS[kind], good)
        errors = [batch_error(n, "InvalidCustomerListItem") for n in bad]
        return json_response({"PartialErrors": errors})

    def _change(self, audience: TwinAudience, action: str, kind: str, items: Sequence[str]) -> None:
        if action == "Replace":
            audience.keys.clear()
        keys = [member_key(kind, item) for item in items]
        audience.change("remove" if action == "Remove" else "add", keys)
        self._changed[audience.audience_id] = self.clock.now()


def is_good(kind: str, item: str) -> bool:
    """Whether an item is a digest of an e-mail, or an id that is not one."""
    if kind == "Email":
        return SHA256_HEX.fullmatch(item) is not None
    return bool(item) and "@" not in item


def fault(code: int, *, status: int | None = None) -> Refused:
    """A request that is refused as a whole."""
    word = _ERRORS[code]
    error = {"Code": code, "ErrorCode": word, "Message": f"{word}.", "Detail": None}
    body = {"Errors": [error], "TrackingId": "twin", "Type": "AdApiFaultDetail"}
    return Refused(json_response(body, status or _STATUS.get(code, 400)))


def batch_error(index: int, word: str) -> dict[str, Any]:
    """One thing of several that is refused."""
    code = next((number for number, name in _ERRORS.items() if name == word), 8_000)
    return {
        "Code": code,
        "Details": None,
        "ErrorCode": word,
        "FieldPath": None,
        "ForwardCompatibilityMap": None,
        "Index": index,
        "Message": f"{word}.",
        "Type": "BatchError",
    }


def read(request: Request, shape: dict[str, Any]) -> dict[str, Any]:
    """The body, when it is JSON of this shape and nothing more."""
    try:
        body = orjson.loads(request.get_data())
    except orjson.JSONDecodeError:
        body = None
    if request.mimetype != "application/json" or problem(body, shape) is not None:
        raise fault(201)
    return dict(body)
