"""How a receiver of webhooks tells which members it holds: pages of NDJSON, by a cursor.

The protocol is ours; docs/platforms.md describes it to those who write receivers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import orjson

from activation.adapters.connectors.http import Reply, http_refusal
from activation.domain.identifier import HASHED_TYPES, MAX_IDENTIFIER, IdentifierType
from activation.errors import PlatformError, PlatformTransientError

MAX_PAGES = 1_000_000
UNREADABLE = "unreadable_listing"
_CURSOR = re.compile(r"[!-~]{1,512}")
_HASH, _TEXT = re.compile(r"[0-9a-f]{64}"), re.compile(rf"[!-~]{{1,{MAX_IDENTIFIER}}}")
_SHAPES = {str(k): _HASH if k in HASHED_TYPES else _TEXT for k in IdentifierType}

Member = tuple[str, str]


def listed(page: Callable[[str | None], Reply]) -> Iterator[Member]:
    """Type and value of every member; `page` asks for the page at a cursor.

    Raises PlatformError when a page is not what it should be.
    """
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        *members, end = _objects(page(cursor))
        yield from map(_member, members)
        before, cursor = cursor, _next(end)
        if cursor is None:
            return
        if cursor == before:
            raise PlatformError("The receiver's listing does not go on.", reason=UNREADABLE)
    raise PlatformError("The receiver's listing has too many pages.", reason=UNREADABLE)


def message_id(audience_id: str, cursor: str | None) -> str:
    """The id of a request for a page; through it the signature covers what is asked for."""
    return ".".join(filter(None, ("list", audience_id, cursor)))


def page_url(list_url: str, audience_id: str, cursor: str | None) -> str:
    """The address of a page; a query that the setting has of its own stays."""
    asked = {"audience_id": audience_id, **({} if cursor is None else {"cursor": cursor})}
    return f"{list_url}{'&' if '?' in list_url else '?'}{urlencode(asked)}"


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """A page without its last line is half a page, and can be asked for again."""
    error = http_refusal(reply, now)
    if error is not None:
        return error
    try:
        objects = _objects(reply)
    except orjson.JSONDecodeError:
        objects = []
    if not objects or not isinstance(objects[-1], dict) or "next" not in objects[-1]:
        return PlatformTransientError(
            "The receiver's page is not whole.", platform_code=str(reply.status)
        )
    return None


def _objects(reply: Reply) -> list[Any]:
    return [orjson.loads(line) for line in reply.content.split(b"\n") if line]


def _member(line: Any) -> Member:
    if not isinstance(line, dict) or set(line) != {"type", "value"}:
        raise PlatformError("A line of the receiver's listing is no member.", reason=UNREADABLE)
    kind, value = line["type"], line["value"]
    known = isinstance(kind, str) and kind in _SHAPES and isinstance(value, str)
    if not known or not _SHAPES[kind].fullmatch(value):
        raise PlatformError("A line of the receiver's listing is no member.", reason=UNREADABLE)
    return kind, value


def _next(end: dict[str, Any]) -> str | None:
    cursor = end["next"]
    if cursor is None:
        return None
    if not isinstance(cursor, str) or not _CURSOR.fullmatch(cursor):
        raise PlatformError("The receiver's cursor cannot be used.", reason=UNREADABLE)
    return cursor
