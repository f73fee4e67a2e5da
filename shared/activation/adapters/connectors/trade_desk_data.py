"""The Trade Desk's Data API: one item per identifier, under the name of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from activation.adapters.connectors.http import PlatformHTTP, Refusal, Reply
from activation.adapters.connectors.trade_desk_graph import ADVERTISER, TradeDesk, token_header
from activation.adapters.connectors.trade_desk_wire import (
    DATA_PATH,
    SIGNATURE_HEADER,
    Item,
    data_name,
    data_refusal,
    items_of,
    probe_refusal,
    rejects,
    request_body,
    signature,
)
from activation.adapters.connectors.uid2 import (
    KINDS,
    OPTED_OUT,
    Hashed,
    Identity,
    IdentityMap,
    Operator,
)
from activation.domain.delivery import AccountCheck, Delivery, Operation, SendOutcome
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.platform import ConnectorSpec
from activation.errors import PlatformError, PlatformRowsError
from activation.ports import Account

NOBODY: Hashed = (IdentifierType.EMAIL, key_digest("nobody@example.com").hex())
"""Asked for to see whether an operator takes the credentials."""

Columns = Mapping[str, Sequence[Any]]


class DataApi(TradeDesk):
    """Data comes to life under a name of ours when it first arrives; there is nothing to create.

    Calls are signed with the advertiser's secret key where the account has one, else they carry
    the token.
    """

    kind = ""

    def __init__(self, http: PlatformHTTP, identities: IdentityMap, spec: ConnectorSpec) -> None:
        super().__init__(http, spec)
        self._identities = identities

    def check(self, account: Account) -> AccountCheck:
        """Read the advertiser with the token, send no items with the key, map nobody's hash."""
        if account.credentials.get("api_token"):
            self._advertiser(account, ADVERTISER)
        if account.credentials.get("advertiser_secret_key"):
            self._post(account, request_body(self._settings(account), "", 0, []), probe_refusal)
        if self._settings(account)["resolve_with"] != "none":
            self._identities.resolved(self._operator(account), [NOBODY])
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the name of the data: the one it already has, also after a renaming, or a new one.

        Where the delivery does not tell it, data is found by our mark if the account has a token.
        """
        if delivery.platform_audience_id:
            return delivery.platform_audience_id
        for node in self._data(account, delivery):
            return str(node["name"])
        return data_name(delivery, self._mark(delivery))

    def send(self, account: Account, delivery: Delivery, seq: int, columns: Columns) -> SendOutcome:
        """Add the identifiers with the account's time to live, or remove them with none.

        Hashes go as the raw ids they are mapped to; who has no raw id is rejected. To take out who
        has opted out of the ids altogether nothing is left to do.
        """
        if delivery.operation == Operation.REPLACE:
            raise PlatformError("The Data API cannot replace an audience.", reason="unsupported")
        items, rejected = self._items(account, delivery, columns)
        for start in range(0, len(items), self.spec.max_rows):
            chunk = items[start : start + self.spec.max_rows]
            for row, reason in self._sent(account, delivery, chunk).items():
                rejected.setdefault(row, reason)
        return SendOutcome(rejected)

    def _items(
        self, account: Account, delivery: Delivery, columns: Columns
    ) -> tuple[list[Item], dict[int, str]]:
        items = list(items_of(columns))
        rejected: dict[int, str] = {}
        field = self._settings(account)["resolve_with"].upper()
        for row, identity in self._resolved(account, columns):
            if identity.reason == OPTED_OUT and delivery.operation == Operation.REMOVE:
                continue
            if identity.reason is not None:
                rejected[row] = identity.reason
                continue
            items.append(Item(row, field, identity.raw))
            if delivery.operation == Operation.REMOVE and identity.previous:
                # It was added under the raw id that was in force then.
                items.append(Item(row, field, identity.previous))
        return items, rejected

    def _resolved(self, account: Account, columns: Columns) -> Iterator[tuple[int, Identity]]:
        hashed = [
            (row, (kind, value))
            for kind in KINDS
            for row, value in enumerate(columns.get(kind, ()))
            if value is not None
        ]
        if hashed:
            wanted = [hash_ for _, hash_ in hashed]
            identities = self._identities.resolved(self._operator(account), wanted)
            yield from zip((row for row, _ in hashed), identities, strict=True)

    def _sent(self, account: Account, delivery: Delivery, items: Sequence[Item]) -> dict[int, str]:
        """Send one request; returns rejected rows by reason."""
        settings = self._settings(account)
        ttl_minutes = 0 if delivery.operation == Operation.REMOVE else settings["ttl_minutes"]
        body = request_body(settings, str(delivery.platform_audience_id), ttl_minutes, items)
        try:
            reply = self._post(account, body, data_refusal(len(items)))
        except PlatformRowsError as error:
            rows = sorted({items[position].row for position in error.rows})
            raise PlatformRowsError(
                error.message, rows=rows, platform_code=error.platform_code
            ) from None
        return rejects(reply, items)

    def _post(self, account: Account, body: bytes, refusal: Refusal) -> Reply:
        secret = account.credentials.get("advertiser_secret_key")
        proof = {SIGNATURE_HEADER: signature(secret, body)} if secret else token_header(account)
        return self._http.call(
            "POST",
            self._settings(account)["data_url"].rstrip("/") + DATA_PATH,
            headers={"Content-Type": "application/json", **proof},
            content=body,
            refusal=refusal,
        )

    def _operator(self, account: Account) -> Operator:
        credentials = account.credentials
        return Operator(
            self._settings(account)["uid2_url"],
            credentials.get("uid2_api_key", ""),
            credentials.get("uid2_client_secret", ""),
        )
