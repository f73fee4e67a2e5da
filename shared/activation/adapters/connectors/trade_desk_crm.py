"""The Trade Desk's CRM data: e-mail lists, dropped as text files at addresses it gives."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from activation.adapters.connectors.http import ATTEMPTS, Reply, json_refusal
from activation.adapters.connectors.trade_desk_graph import TradeDesk, token_header
from activation.adapters.connectors.trade_desk_wire import data_name
from activation.domain.delivery import AccountCheck, Delivery, Operation, SendOutcome
from activation.domain.identifier import IdentifierType
from activation.errors import PlatformError
from activation.ports import Account

SEGMENTS = "crmdata/segment"
CREATE = "crmdata/targeting/segment"
PII_TYPE = "EmailHashedUnifiedId2"
MAX_PAGES = 1_000
BELOW_MINIMUM = "drop_below_minimum"
"""Why the rows of a small drop are rejected: the platform would build nothing of them."""


class CrmDrop(TradeDesk):
    """Every batch is a drop of its own. Segments are found again by our mark in their name."""

    kind = "crm "

    def check(self, account: Account) -> AccountCheck:
        """List the first of the advertiser's segments."""
        self._call(account, "GET", self._advertiser_path(account))
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the id of the segment with our mark, made when there is none."""
        mark = self._mark(delivery)
        for segment in self._segments(account):
            if str(segment.get("SegmentName")).endswith(mark):
                return str(segment["CrmDataId"])
        settings = self._settings(account)
        body = {
            "AdvertiserId": settings["advertiser_id"],
            "SegmentName": data_name(delivery, mark),
            "Region": settings["crm_region"],
        }
        return _told(self._call(account, "POST", CREATE, body=body, attempts=1), "CrmDataId")

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Drop one file; the receipt is its reference.

        The first batch of a replacement takes the place of what is there, the others are added.
        Raises PlatformError when the first is too small: who is there would stay.
        """
        hashes = columns[IdentifierType.EMAIL]
        settings = self._settings(account)
        if len(hashes) < settings["crm_minimum_rows"]:
            if delivery.operation == Operation.REPLACE and seq == 1:
                raise PlatformError(
                    "The Trade Desk would ignore so small a drop: nobody is replaced.",
                    reason=BELOW_MINIMUM,
                )
            return SendOutcome(dict.fromkeys(range(len(hashes)), BELOW_MINIMUM))
        crm_data_id = quote(str(delivery.platform_audience_id), safe="")
        path = f"{self._advertiser_path(account)}/{crm_data_id}"
        drop = self._call(account, "POST", path, body=drop_body(settings, delivery, seq))
        # The address is signed, and the store behind it refuses any other login.
        self._http.call(
            "PUT", _told(drop, "Url"), headers={"Content-Type": "text/plain"}, content=lines(hashes)
        )
        return SendOutcome(receipt=_told(drop, "ReferenceId"))

    def _segments(self, account: Account) -> Iterator[dict[str, Any]]:
        params: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            page = self._call(account, "GET", self._advertiser_path(account), params=params)
            segments, after = page.get("Segments"), page.get("PagingToken")
            yield from segments or ()
            if not segments or not after:
                return
            params = {"pagingToken": str(after)}
        raise PlatformError("The advertiser has too many segments to look through.")

    def _advertiser_path(self, account: Account) -> str:
        return f"{SEGMENTS}/{quote(self._settings(account)['advertiser_id'], safe='')}"

    def _call(
        self,
        account: Account,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        attempts: int = ATTEMPTS,
    ) -> dict[str, Any]:
        kind = {"Content-Type": "application/json"} if body is not None else {}
        reply: Reply = self._http.call(
            method,
            f"{self._settings(account)['api_url'].rstrip('/')}/{path}",
            headers={**token_header(account), **kind},
            params=params,
            content=orjson.dumps(body) if body is not None else b"",
            refusal=json_refusal,
            attempts=attempts,
        )
        return reply.object()


def _told(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise PlatformError(f"The Trade Desk's answer has no {name}.", reason="unexpected_answer")
    return value


def drop_body(settings: Mapping[str, Any], delivery: Delivery, seq: int) -> dict[str, Any]:
    """What is to become of a drop; PlatformError for a removal, which there is not."""
    if delivery.operation not in (Operation.ADD, Operation.REPLACE):
        raise PlatformError("A drop cannot take people out.", reason="unsupported")
    first = delivery.operation == Operation.REPLACE and seq == 1
    body: dict[str, Any] = {"PiiType": PII_TYPE, "MergeMode": "Replace" if first else "Add"}
    if settings["crm_retention"] is not None:
        body["RetentionEnabled"] = settings["crm_retention"]
    if settings["crm_ttl_minutes"] is not None:
        body["TtlInMinutes"] = settings["crm_ttl_minutes"]
    return body


def lines(hashes: Sequence[str]) -> bytes:
    """The file: base64 of one digest per line."""
    return b"".join(map(binascii.b2a_base64, map(bytes.fromhex, hashes)))
