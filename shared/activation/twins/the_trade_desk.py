"""The twin of The Trade Desk: the Data API, sizes over GraphQL, CRM drops, and an operator.

The CRM API is at `/v3`, GraphQL at `/graphql`, the operator of UID2 at `/uid2`.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from typing import Any

import orjson
from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.members import TwinAudience, is_matched
from activation.twins.trade_desk_crm import DROPS_PREFIX, CrmDesk
from activation.twins.trade_desk_rules import Change, Rules, changes, parsed
from activation.twins.uid2 import IdentityOperator
from activation.twins.wsgi import Refused, Twin, json_response

DATA_PATH = "/data/advertiser"
GRAPHQL_PATH = "/graphql"
OPERATOR_PREFIX = "/uid2"
TWIN_TOKEN = "twin-token"  # noqa: S105 - no platform in the world takes it
TWIN_SECRET = "twin-secret-key"  # noqa: S105

_TEXT = r'"(?:[^"\\]|\\.)*"'
_QUERY = re.compile(
    rf"query \{{ advertiser\(id: ({_TEXT})\) \{{ (?:id|firstPartyData\(where: "
    rf"\{{ name: \{{ contains: ({_TEXT}) \}} \}}\) \{{ nodes \{{ ([\w {{}}]+) \}} \}}) \}} \}}"
)
_NODE_FIELDS = frozenset({"name", "id", "activeUniques", "{", "}"})
_COUNTS = (
    *("householdCount", "idsConnectedTvCount", "idsCount", "idsInAppCount", "idsWebCount"),
    "personsCount",
)


class TheTradeDeskTwin(Twin):
    """One advertiser. Its data is kept by name, every identifier for as long as it was sent.

    The share `match_rate` of the identifiers was active of late. With `may_create=False` no data
    of a new name is taken. That 1,600 items are the most, and the code of each refusal, are
    assumptions of the twin.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        advertiser_id: str = "adv1001",
        api_token: str = TWIN_TOKEN,
        secret_key: str = TWIN_SECRET,
        match_rate: float = 1.0,
        rules: Rules | None = None,
        may_create: bool = True,
        operator: IdentityOperator | None = None,
    ) -> None:
        super().__init__(clock)
        self.data: dict[str, TwinAudience] = {}
        self.operator = operator or IdentityOperator(clock)
        self.crm = CrmDesk(clock, advertiser_id)
        self.rules = rules or Rules()
        self.may_create = may_create
        self._advertiser_id = advertiser_id
        self._token = api_token
        self._secret = secret_key.encode()
        self._match_rate = match_rate
        self._ends: dict[str, dict[bytes, int]] = {}

    def contents(self) -> dict[str, Any]:
        """The data by name, then the CRM segments."""
        held = [*self._live().values(), *self.crm.segments.values()]
        return {"audiences": [audience.summary() for audience in held]}

    def respond(self, request: Request) -> Response:
        """Answer as the platform does, or the operator."""
        if request.path.startswith(f"{OPERATOR_PREFIX}/"):
            request.environ["PATH_INFO"] = request.path.removeprefix(OPERATOR_PREFIX)
            return self.operator.respond(Request(request.environ))
        if request.path.startswith(DROPS_PREFIX):
            return self.crm.dropped(request)
        if (request.method, request.path) == ("POST", DATA_PATH):
            return self._ingested(request)
        self._require_token(request)
        if (request.method, request.path) == ("POST", GRAPHQL_PATH):
            return self._queried(request)
        return self.crm.respond(request)

    def _require_token(self, request: Request) -> None:
        if request.headers.get("TTD-Auth") != self._token:
            raise Refused(Response("The token is missing or wrong.", 401))

    # Data API

    def _ingested(self, request: Request) -> Response:
        body = request.get_data()
        if request.headers.get("TtdSignature") is None:
            self._require_token(request)
        elif request.headers["TtdSignature"] != self._signature(body):
            raise Refused(Response("The signature is wrong.", 401))
        if len(body) > self.rules.max_bytes:
            raise Refused(Response("The request is too large.", 413))
        items = parsed(request, self._advertiser_id, self.rules)
        if len(items) > self.rules.max_items:
            raise Refused(Response("The request has too many items.", 413))
        asked = [c for i, item in enumerate(items) for c in changes(item, i, self.rules)]
        wanted = [change for change in asked if isinstance(change, Change)]
        self._require_names(wanted)
        for change in wanted:
            self._change(change)
        lines = [line for line in asked if not isinstance(line, Change)]
        return json_response({"FailedLines": lines} if lines else {})

    def _signature(self, body: bytes) -> str:
        return base64.b64encode(hmac.digest(self._secret, body, "sha1")).decode()

    def _require_names(self, wanted: list[Change]) -> None:
        if not self.may_create and {change.name for change in wanted} - set(self.data):
            # The platform calls this text JSON.
            text = "New targeting data is not allowed for the advertiser."
            raise Refused(Response(text, 403, content_type="application/json"))

    def _change(self, change: Change) -> None:
        name = change.name
        marked = re.search(r"\(([^()]+)\)$", name)
        fresh = TwinAudience(name, name, marked[1] if marked else "", created_at=self.clock.now())
        audience, ends = self.data.setdefault(name, fresh), self._ends.setdefault(name, {})
        audience.change("add" if change.ttl_minutes else "remove", [change.key])
        if change.ttl_minutes:
            ends[change.key] = self._minute() + change.ttl_minutes
        else:
            ends.pop(change.key, None)

    def _minute(self) -> int:
        return int(self.clock.now().timestamp() // 60)

    def _live(self) -> dict[str, TwinAudience]:
        """The data without what has lapsed."""
        now = self._minute()
        for name, ends in self._ends.items():
            lapsed = [key for key, end in ends.items() if end <= now]
            self.data[name].change("remove", lapsed)
            for key in lapsed:
                del ends[key]
        return self.data

    # GraphQL

    def _queried(self, request: Request) -> Response:
        try:
            body = orjson.loads(request.get_data())
            asked = _QUERY.fullmatch(" ".join(str(body["query"]).split()))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return json_response({"errors": [{"message": "The request is no query."}]}, 400)
        if asked is None or not set((asked[3] or "id").split()) <= {*_NODE_FIELDS, *_COUNTS}:
            return json_response({"errors": [{"message": "The query is not known."}]})
        if orjson.loads(asked[1]) != self._advertiser_id:
            return json_response({"data": {"advertiser": None}})
        if asked[2] is None:
            return json_response({"data": {"advertiser": {"id": self._advertiser_id}}})
        nodes = self._nodes(orjson.loads(asked[2]))
        return json_response({"data": {"advertiser": {"firstPartyData": {"nodes": nodes}}}})

    def _nodes(self, text: str) -> list[Mapping[str, Any]]:
        held = [*self._live().values(), *self.crm.segments.values()]
        return [
            {"name": a.name, "id": str(9_000_000 + index), "activeUniques": self._uniques(a)}
            for index, a in enumerate(held)
            if text in a.name
        ]

    def _uniques(self, audience: TwinAudience) -> dict[str, int]:
        count = sum(is_matched(key, self._match_rate) for key in audience.keys)
        return dict.fromkeys(_COUNTS, count)
