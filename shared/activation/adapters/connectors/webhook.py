"""Batches posted to an address of the customer, signed by the Standard Webhooks scheme."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from activation.adapters.connectors import webhook_listing
from activation.adapters.connectors.config import invalid, require_choice, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.http import PlatformHTTP, Reply, http_refusal
from activation.adapters.connectors.json_rows import rows_of_one
from activation.adapters.connectors.row_limits import require_rows, rows_field, with_rows
from activation.domain.delivery import AccountCheck, Delivery, SendOutcome
from activation.domain.identifier import HASHED_TYPES, IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import PlatformError
from activation.ports import Account

IDENTIFIERS: Mapping[IdentifierType, Variant] = {
    IdentifierType.EMAIL: Variant.PLAIN,
    IdentifierType.PHONE: Variant.E164,
    IdentifierType.RAMP_ID: Variant.RAW,
    IdentifierType.UID2: Variant.RAW,
    IdentifierType.MAID: Variant.RAW,
    IdentifierType.COOKIE_ID: Variant.RAW,
    IdentifierType.CUSTOMER_ID: Variant.RAW,
}
"""A receiver of ours takes every type there is, in the form it is stored in."""

SECRET_PREFIX = "whsec_"  # noqa: S105 — a marker of the scheme, not a secret
SECRETS = ("signing_secret", "signing_secret_previous")
FORMATS = {"ndjson": "application/x-ndjson", "json": "application/json"}

USUAL_ROWS = 5_000
"""Bodies stay below a megabyte, which many web servers take and no more."""

SPEC = ConnectorSpec(
    platform_type=PlatformType.WEBHOOK,
    title="Webhook",
    identifiers=IDENTIFIERS,
    max_rows=USUAL_ROWS,
    max_bytes=None,
    requests_per_minute=600,
    credentials=(
        SettingField(SECRETS[0], "whsec_ and base64 of 24 to 64 bytes", required=True, secret=True),
        SettingField(SECRETS[1], "The key before, signed with too during a change", secret=True),
    ),
    settings=(
        SettingField("url", "Address that receives the batches", required=True, kind="url"),
        SettingField("format", " | ".join(FORMATS), default="ndjson"),
        rows_field(USUAL_ROWS),
        SettingField("list_url", "Address that tells which members the receiver holds", kind="url"),
    ),
    multi_key=True,
    reports_matches=False,
)


def spec_under(settings: Mapping[str, Any]) -> ConnectorSpec:
    """The spec by how many people go into a batch and whether the receiver tells its members."""
    return dataclasses.replace(with_rows(SPEC, settings), lists_members=bool(settings["list_url"]))


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    require_choice("settings.format", settings["format"], FORMATS)
    require_rows(settings)
    for name in SECRETS:
        try:
            size = len(signing_key(credentials[name])) if credentials.get(name) else 24
        except ValueError:
            size = 0
        if not 24 <= size <= 64:
            raise invalid(f"credentials.{name}", "must be whsec_ and base64 of 24 to 64 bytes")


class Webhook(Defaults):
    """A batch keeps its `webhook-id` through every try, so that receivers can drop repeats."""

    def __init__(self, http: PlatformHTTP, spec: ConnectorSpec = SPEC) -> None:
        self.spec = spec
        self._http = http

    def check(self, account: Account) -> AccountCheck:
        """Post a signed message of type `ping`; any 2xx will do."""
        now = self._http.clock.now()
        self._post(account, f"ping.{int(now.timestamp())}", orjson.dumps({"operation": "ping"}))
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """A receiver knows the audience by our own external id."""
        return delivery.external_id

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Post one batch; the receipt is its message id."""
        message_id = batch_id(delivery, seq)
        body = batch_body(delivery, seq, columns, resolved(SPEC, account.settings)["format"])
        self._post(account, message_id, body)
        return SendOutcome(receipt=message_id)

    def listing(self, account: Account, delivery: Delivery) -> Iterator[tuple[str, str]]:
        """What the receiver says it holds, page by page; needs the setting `list_url`."""
        list_url = resolved(SPEC, account.settings)["list_url"]
        if not list_url:
            return super().listing(account, delivery)
        audience_id = delivery.external_id

        def page(cursor: str | None) -> Reply:
            message_id = webhook_listing.message_id(audience_id, cursor)
            return self._http.call(
                "GET",
                webhook_listing.page_url(list_url, audience_id, cursor),
                headers=self._signed(account, message_id, b""),
                refusal=webhook_listing.refusal,
            )

        return webhook_listing.listed(page)

    def _post(self, account: Account, message_id: str, body: bytes) -> None:
        settings = resolved(SPEC, account.settings)
        content_type = {"Content-Type": FORMATS[settings["format"]]}
        self._http.call(
            "POST",
            settings["url"],
            headers={**content_type, **self._signed(account, message_id, body)},
            content=body,
            refusal=refusal,
        )

    def _signed(self, account: Account, message_id: str, body: bytes) -> dict[str, str]:
        """The headers of the Standard Webhooks scheme, one signature per key there is."""
        keys = [signing_key(account.credentials[n]) for n in SECRETS if account.credentials.get(n)]
        return signed(keys, message_id, self._http.clock.now(), body)


def batch_id(delivery: Delivery, seq: int) -> str:
    """The message id of a batch, equal for every try of it; removals count for themselves."""
    part = "" if delivery.operation == "add" else f".{delivery.operation}"
    return f"{delivery.distribution_id}{part}.{seq}"


def batch_body(
    delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]], form: str
) -> bytes:
    """One JSON object, or a line that describes the batch and then a line per person."""
    head: dict[str, Any] = {
        "distribution_id": delivery.distribution_id,
        "audience_id": delivery.external_id,
        "audience_name": delivery.audience_name,
        "operation": delivery.operation,
        "batch_seq": seq,
        "last": seq == delivery.batches,
        "rows": len(next(iter(columns.values()))),
    }
    if form == "json":
        members = _members(columns, b",")
        return orjson.dumps({**head, "members": orjson.Fragment(b"".join([b"[", members, b"]"]))})
    return b"".join([orjson.dumps(head), b"\n", _members(columns, b"\n"), b"\n"])


def _members(columns: Mapping[str, Sequence[Any]], between: bytes) -> bytes | memoryview:
    """People as JSON objects."""
    alone = rows_of_one(columns, lambda kind: (f'{{"{kind}":"', '"}'), between)
    if alone is not None:
        return alone
    return b"{%b}" % f"}}{between.decode()}{{".join(_people(columns)).encode()


def _people(columns: Mapping[str, Sequence[Any]]) -> Iterable[str]:
    """Each person as the inside of a JSON object: a dictionary for each of them is slow."""
    given = [_fields(IdentifierType(kind), values) for kind, values in columns.items()]
    if len(given) == 1:
        return given[0]
    return (",".join(filter(None, fields)) for fields in zip(*given, strict=True))


def _fields(kind: IdentifierType, values: Sequence[str | None]) -> list[str]:
    """Names and values as JSON text; hexadecimal digits need no escapes."""
    if kind in HASHED_TYPES:
        return [f'"{kind}":"{value}"' if value else "" for value in values]
    texts = (orjson.dumps(value).decode() if value else "" for value in values)
    return [f'"{kind}":{text}' if text else "" for text in texts]


def signing_key(secret: str) -> bytes:
    """The bytes of a `whsec_` secret; raises ValueError when it is not one."""
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None


def signed(keys: Sequence[bytes], message_id: str, now: datetime, body: bytes) -> dict[str, str]:
    """The headers of a message, signed with each of `keys`."""
    timestamp = int(now.timestamp())
    signatures = (signature(key, message_id, timestamp, body) for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One entry of the `webhook-signature` header."""
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode(), hashlib.sha256)
    digest.update(body)
    return "v1," + base64.b64encode(digest.digest()).decode()


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """410 is the receiver's wish to be left alone; the rest is plain HTTP."""
    if reply.status == 410:
        return PlatformError(
            "The receiver no longer wants messages.", platform_code="410", reason="gone"
        )
    return http_refusal(reply, now)
