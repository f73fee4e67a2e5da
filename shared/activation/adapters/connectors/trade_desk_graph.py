"""What The Trade Desk tells of an advertiser's data, over GraphQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from activation.adapters.connectors.config import resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.http import PlatformHTTP, Reply, json_refusal
from activation.domain.delivery import Delivery, PlatformSize
from activation.domain.platform import ConnectorSpec
from activation.errors import PlatformError
from activation.ports import Account

ADVERTISER = "query {{ advertiser(id: {id}) {{ id }} }}"
FIRST_PARTY_DATA = (
    "query {{ advertiser(id: {id}) {{ firstPartyData(where: {{ name: {{ contains: {text} }} }}) "
    "{{ nodes {{ name id activeUniques {{ idsCount personsCount }} }} }} }} }}"
)


class TradeDesk(Defaults):
    """What both products share: an account's settings and token, and its data by our mark.

    `kind` keeps the data of one product from being taken for that of the other.
    """

    kind: str

    def __init__(self, http: PlatformHTTP, spec: ConnectorSpec) -> None:
        self.spec = spec
        self._http = http

    def size(self, account: Account, delivery: Delivery) -> PlatformSize | None:
        """The persons that were active of late; None without a token, or before there are any."""
        for node in self._data(account, delivery):
            persons = (node.get("activeUniques") or {}).get("personsCount")
            if type(persons) is int:
                return PlatformSize(persons, persons)
        return None

    def _mark(self, delivery: Delivery) -> str:
        """The end of a name by which data is found again."""
        return f"({self.kind}{delivery.external_id})"

    def _settings(self, account: Account) -> dict[str, Any]:
        return resolved(self.spec, account.settings)

    def _data(self, account: Account, delivery: Delivery) -> list[dict[str, Any]]:
        """The advertiser's data whose name ends with our mark; none without a token."""
        mark = self._mark(delivery)
        if not account.credentials.get("api_token"):
            return []
        advertiser = self._advertiser(account, FIRST_PARTY_DATA, text=literal(mark))
        nodes = (advertiser.get("firstPartyData") or {}).get("nodes") or []
        return [node for node in nodes if str(node.get("name")).endswith(mark)]

    def _advertiser(self, account: Account, query: str, **values: str) -> Mapping[str, Any]:
        settings = self._settings(account)
        text = query.format(id=literal(settings["advertiser_id"]), **values)
        reply = self._http.call(
            "POST",
            settings["graphql_url"],
            headers={"Content-Type": "application/json", **token_header(account)},
            content=orjson.dumps({"query": text, "variables": {}}),
            refusal=graph_refusal,
        )
        advertiser = (reply.object().get("data") or {}).get("advertiser")
        if not isinstance(advertiser, dict):
            raise PlatformError("The token does not reach the advertiser.", reason="no_advertiser")
        return advertiser


def token_header(account: Account) -> dict[str, str]:
    """The header that carries the platform API token."""
    return {"TTD-Auth": account.credentials.get("api_token", "")}


def literal(text: str) -> str:
    """A GraphQL string; its escapes are those of JSON."""
    return orjson.dumps(text).decode()


def graph_refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply; GraphQL tells of errors in HTTP 200 too."""
    error = json_refusal(reply, now)
    if error is None and reply.object().get("errors"):
        return PlatformError("The Trade Desk refused the query.", reason="query_refused")
    return error
