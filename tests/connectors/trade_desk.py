"""What the tests of The Trade Desk build their cases from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from activation.domain.identifier import IdentifierType
from activation.ports import Account
from activation.twins.server import serve
from activation.twins.the_trade_desk import TWIN_SECRET, TWIN_TOKEN, TheTradeDeskTwin
from activation.twins.uid2 import TWIN_KEY, raw_id
from activation.twins.uid2 import TWIN_SECRET as TWIN_UID2_SECRET
from tests.connectors.support import Columns, digest

VECTORS: list[dict[str, Any]] = orjson.loads(
    (Path(__file__).parents[1] / "data" / "trade_desk_vectors.json").read_bytes()
)
TOKEN = {"api_token": TWIN_TOKEN}
KEY = {"advertiser_secret_key": TWIN_SECRET}
OPERATOR = {"uid2_api_key": TWIN_KEY, "uid2_client_secret": TWIN_UID2_SECRET}


@contextmanager
def serving(twin: TheTradeDeskTwin) -> Iterator[str]:
    """The address of a twin behind a port of its own."""
    running = serve({"the_trade_desk": twin})
    try:
        yield running.url_of("the_trade_desk")
    finally:
        running.close()


def account_at(url: str, credentials: dict[str, str] | None = None, **settings: Any) -> Account:
    """An account at the twin; without credentials it has the token and those at the operator."""
    addresses = {
        "data_url": url,
        "graphql_url": f"{url}/graphql",
        "api_url": f"{url}/v3",
        "uid2_url": f"{url}/uid2",
    }
    held = {**TOKEN, **OPERATOR} if credentials is None else credentials
    return Account("platform-t", {"advertiser_id": "adv1001", **addresses, **settings}, held)


def devices(count: int, start: int = 0) -> dict[str, list[str | None]]:
    """`count` rows that each carry one identifier; the four types take turns."""
    columns: dict[str, list[str | None]] = {
        str(kind): [None] * count for kind in ("maid", "cookie_id", "uid2", "ramp_id")
    }
    for row in range(count):
        number = start + row
        kind = list(columns)[number % 4]
        columns[kind][row] = {
            "maid": guid(number),
            "cookie_id": guid(number),
            "uid2": raw_id("email", digest(str(number))),
            "ramp_id": f"XY{number:047d}",
        }[kind]
    return columns


def guid(number: int) -> str:
    """A device id."""
    return f"38400000-8cf0-11bd-b23e-{number:012x}"


def emails(count: int, start: int = 0) -> dict[str, list[str | None]]:
    """`count` rows with a hashed e-mail each."""
    return {"email": [digest(f"person{n}@example.com") for n in range(start, start + count)]}


def phones(count: int) -> dict[str, list[str | None]]:
    """`count` rows with a hashed phone each."""
    return {"phone": [digest(f"+1555{n:07d}") for n in range(count)]}


def as_raw_ids(*batches: Columns, generation: int = 0) -> Columns:
    """What the operator of the twin makes of hashes."""
    kinds = (IdentifierType.EMAIL, IdentifierType.PHONE)
    return {
        "uid2": [
            raw_id(kind, value, generation=generation)
            for batch in batches
            for kind in kinds
            for value in batch.get(kind, ())
            if value is not None
        ]
    }
