"""What of a request or an answer may be kept: its shape, never its texts.

A text stays only where it cannot be about a person: an upper-case word under a name such as
`status`, `code` or `type`. Numbers of ten digits and more are masked too: they may be phone
numbers. Names and parts of paths stay when they consist of plain words; a digest or a token does
not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import orjson

from activation.domain.exchange import BodyKind, MaskedBody

MAX_BODY_BYTES = 64 * 1024
"""Larger bodies are not looked into."""
MAX_SHOWN_BYTES = 6 * 1024
"""Of one masked body, so that KEPT exchanges fit into one document."""
MAX_ELEMENTS = 2
MAX_NAMES = 60
MAX_DEPTH = 12
MAX_NUMBER = 10**9

_NAME = re.compile(r"@?[A-Za-z][a-z]{1,19}(?:_?[A-Z][a-z]{1,19}|_[a-z]{2,19}|_[A-Z]{2,19}){0,6}")
_UPPER_NAME = re.compile(r"[A-Z]{2,20}(?:_[A-Z]{2,20}){0,5}")
_VERSION = re.compile(r"v\d{1,3}(?:\.\d{1,3})?(?:(?:alpha|beta)\d?)?")
_WORD = re.compile(r"[A-Z]{2,20}(?:_(?:[A-Z]{1,20}|\d{1,3}|[A-Z]{1,6}\d{1,3})){0,9}")
_TELLING = re.compile(
    r"(?:status|reason|code|type|state|stage|operation|action|encoding|level|kind|range|source"
    r"|format|space|schema)s?\Z",
    re.IGNORECASE,
)
"""Names under which APIs put words of their own, not texts of their users."""
_PATIENCE = re.compile(r"retry-after|(?:x-)?rate-?limit(?:-(?:limit|remaining|reset|used))?")
_PATIENT_VALUE = re.compile(
    r"\d{1,9}(?:\.\d{1,6})?|[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
)
_NUMBER = re.compile(r"\d{1,7}")
CONTENT_TYPES = frozenset(
    {
        "application/gzip",
        "application/json",
        "application/octet-stream",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
        "application/xml",
        "multipart/form-data",
        "text/csv",
        "text/html",
        "text/plain",
        "text/xml",
    }
)


def masked_body(content: bytes, content_type: str | None) -> MaskedBody:
    """A body as it may be kept."""
    size = len(content)
    if not content:
        return MaskedBody()
    if size > MAX_BODY_BYTES:
        digest = hashlib.sha256(content).hexdigest()
        return MaskedBody(kind=BodyKind.LARGE, size_bytes=size, sha256=digest)
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        kind = masked_type(content_type)
        return MaskedBody(kind=BodyKind.OTHER, size_bytes=size, content_type=kind)
    shown = masked_json(parsed)
    if len(orjson.dumps(shown)) > MAX_SHOWN_BYTES:
        shown = _hidden("too much to show")
    return MaskedBody(kind=BodyKind.JSON, size_bytes=size, content=shown)


def masked_json(value: Any, name: str = "", depth: int = 0) -> Any:
    """A JSON value without its texts; `name` is what it stands under."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) and _TELLING.search(name) else _length(value)
    if isinstance(value, int | float):
        return _masked_number(value)
    if depth == MAX_DEPTH:
        return _hidden("too deep")
    if isinstance(value, dict):
        return dict(_masked_fields(value, depth + 1))
    shown = [masked_json(one, name, depth + 1) for one in value[:MAX_ELEMENTS]]
    return shown if len(value) <= MAX_ELEMENTS else [*shown, _hidden(f"{len(value)} elements")]


def _masked_fields(fields: Mapping[str, Any], depth: int) -> Iterator[tuple[str, Any]]:
    for number, (name, value) in enumerate(islice(fields.items(), MAX_NAMES), 1):
        shown = name if is_plain(name) else f"{_length(name)} #{number}"
        yield shown, masked_json(value, shown, depth)
    if len(fields) > MAX_NAMES:
        yield _hidden("more"), len(fields) - MAX_NAMES


def _masked_number(value: float) -> float | str:
    text = str(value)
    return value if abs(value) < MAX_NUMBER and len(text) <= 12 else _length(text)


def masked_path(path: str) -> str:
    """A path whose parts are plain words, versions, or masked."""
    return "/".join(map(_masked_part, path.split("/")))


def _masked_part(part: str) -> str:
    plain = all(is_plain(word) for word in part.split(":")) or _VERSION.fullmatch(part)
    return part if not part or plain else _length(part)


def masked_names(names: Iterator[str]) -> tuple[str, ...]:
    """Names of a query."""
    return tuple(name if is_plain(name) else _length(name) for name in islice(names, MAX_NAMES))


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that ask for patience, where they hold a number or a date."""
    return {
        name: value
        for name, value in headers.items()
        if _PATIENCE.fullmatch(name) and _PATIENT_VALUE.fullmatch(value)
    }


def masked_type(content_type: str | None) -> str | None:
    """A content type without parameters; `other` when it is none that everybody knows."""
    if content_type is None:
        return None
    kind = content_type.partition(";")[0].strip().lower()
    return kind if kind in CONTENT_TYPES else "other"


def masked_code(code: str | None) -> str | None:
    """A platform's error code: a number, or words."""
    known = code is None or _WORD.fullmatch(code) or _NUMBER.fullmatch(code) or is_plain(code)
    return code if known else _length(code or "")


def is_plain(name: str) -> bool:
    """Whether a name consists of words, as APIs name their fields."""
    return len(name) <= 40 and bool(_NAME.fullmatch(name) or _UPPER_NAME.fullmatch(name))


def _length(text: str) -> str:
    return _hidden(f"{len(text)} chars")


def _hidden(what: str) -> str:
    return f"‹{what}›"
