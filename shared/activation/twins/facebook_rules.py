"""What Meta refuses, with which words, and how it reads the rows of a payload."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson
from werkzeug.wrappers import Request

from activation.twins.members import KEY_BYTES, SHA256_HEX, hashed_keys, member_key
from activation.twins.shapes import problem
from activation.twins.wsgi import Refused, json_response

MAX_ROWS = 10_000
MAX_SAMPLES = 10
FLAGGED = 1713230

KINDS = {"EMAIL": "email", "PHONE": "phone", "MADID": "maid", "EXTERN_ID": "customer_id"}
"""Keys of a multi-key schema that the twin can hold."""
SINGLE_KINDS = {
    "EMAIL_SHA256": "email",
    "PHONE_SHA256": "phone",
    "MOBILE_ADVERTISER_ID": "maid",
}
OPTIONS = "DATA_PROCESSING_OPTIONS"
OPTION_KEYS = (OPTIONS, f"{OPTIONS}_COUNTRY", f"{OPTIONS}_STATE")
_HASHED = ("email", "phone")
_MAID = re.compile(r"[0-9a-f-]{36}|[0-9a-f]{64}")
_NOTHING = bytes(KEY_BYTES)

Key = bytes | None
"""The key of an identifier; None where a row has none."""


def refused(code: int, message: str, *, subcode: int | None = None, status: int = 400) -> Refused:
    """Meta's error body."""
    error: dict[str, Any] = {"message": f"(#{code}) {message}", "type": "OAuthException"}
    error |= {"code": code, "fbtrace_id": "twin"}
    if subcode is not None:
        error["error_subcode"] = subcode
    return Refused(json_response({"error": error}, status))


def arguments(request: Request) -> dict[str, Any]:
    """The arguments of a call: query and form with JSON in their values, or a JSON body."""
    given: dict[str, Any] = {name: _value(text) for name, text in request.args.items()}
    if request.mimetype == "application/json":
        try:
            body = orjson.loads(request.get_data())
        except orjson.JSONDecodeError:
            raise refused(100, "The body is not JSON.") from None
        if not isinstance(body, dict):
            raise refused(100, "The body is not a JSON object.")
        return given | body
    return given | {name: _value(text) for name, text in request.form.items()}


def _value(text: str) -> Any:
    if not text.startswith(("{", "[")):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def require_known(given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse an argument that the edge does not have."""
    for name in given:
        if name not in known:
            raise refused(100, f"Unknown parameter {name}.")


def require_shape(given: Any, shape: dict[str, Any]) -> None:
    """Refuse unknown properties and wrong types."""
    found = problem(given, shape)
    if found is not None:
        raise refused(100, f"Invalid parameter {found.path} ({found.kind}).")


@dataclass(frozen=True, slots=True)
class Payload:
    """The rows of one request."""

    rows: Sequence[Any]
    columns: Sequence[Sequence[Key]]
    """The key of each row's identifier, by key of the schema."""
    bad: frozenset[int]
    """Positions of the rows with a value that is not what it should be, or with none."""
    digest: bytes
    """Of all that the rows say."""
    limited: bool = False
    """Whether any row is under Limited Data Use."""

    def keys(self) -> Iterator[bytes]:
        """The keys of the good rows."""
        for column in self.columns:
            if self.bad:
                yield from (k for row, k in enumerate(column) if k and row not in self.bad)
            else:
                yield from filter(None, column)

    def samples(self, count: int, *, whole_rows: bool) -> dict[str, str]:
        """Some bad rows, or what is bad in them, by a number: Meta's map of texts."""
        chosen = sorted(self.bad)[:count]
        return {str(row): _sample(self.rows[row], whole_rows=whole_rows) for row in chosen}


def read_payload(payload: Any) -> Payload:
    """What a payload says; raises Refused where Meta takes none of it."""
    if not isinstance(payload, dict) or not isinstance(payload.get("data"), list):
        raise refused(100, "payload needs schema and data.")
    require_known(payload, ("schema", "data", "is_raw", "app_ids"))
    rows, schema = payload["data"], payload.get("schema")
    if not 1 <= len(rows) <= MAX_ROWS:
        raise refused(100, f"payload must have 1 to {MAX_ROWS} rows.")
    if isinstance(schema, str) and schema in SINGLE_KINDS:
        return _read([SINGLE_KINDS[schema]], rows, [rows], {})
    names = _known_schema(schema)
    columns = dict(zip(names, _columns(rows, len(names)), strict=True))
    options = {name: columns.pop(name) for name in OPTION_KEYS if name in columns}
    return _read([KINDS[name] for name in columns], rows, list(columns.values()), options)


def _known_schema(schema: Any) -> list[str]:
    if not isinstance(schema, list) or any(k not in (*KINDS, *OPTION_KEYS) for k in schema):
        raise refused(100, "Unknown schema.")
    if len(set(schema)) != len(schema) or not set(schema) & set(KINDS):
        raise refused(100, "Unknown schema.")
    return schema


def _columns(rows: Sequence[Any], width: int) -> list[list[Any]]:
    if set(map(type, rows)) != {list} or set(map(len, rows)) != {width}:
        raise refused(100, "Every row must have one value per key of the schema.")
    # Not zip(*rows): ten thousand iterators at once would wake the garbage collector.
    cells = list(chain.from_iterable(rows))
    return [cells[start::width] for start in range(width)]


def _read(
    kinds: Sequence[str],
    rows: Sequence[Any],
    columns: Sequence[Sequence[Any]],
    options: Mapping[str, Sequence[Any]],
) -> Payload:
    limited = _require_options(options)
    keys: list[list[Key]] = []
    bad: set[int] = set()
    for kind, column in zip(kinds, columns, strict=True):
        found, wrong = _column_keys(kind, column)
        keys.append(found)
        bad |= wrong
    if all(None in column for column in keys):
        bad.update(row for row, found in enumerate(zip(*keys, strict=True)) if not any(found))
    said = hashlib.blake2b(repr((kinds, sorted(options), limited)).encode())
    for column in keys:
        said.update(b"".join([key or _NOTHING for key in column]))
    return Payload(rows, keys, frozenset(bad), said.digest(), limited)


def _require_options(options: Mapping[str, Sequence[Any]]) -> bool:
    """Refuse Limited Data Use that is not said as Meta wants it; whether a row is under it."""
    if not options:
        return False
    said = options.get(OPTIONS)
    if said is None or any(value not in ([], ["LDU"]) for value in said):
        raise refused(100, f'{OPTIONS} must be [] or ["LDU"].')
    for name in OPTION_KEYS[1:]:
        if any(type(value) is not int or value < 0 for value in options.get(name, ())):
            raise refused(100, f"{name} must be a number.")
    return ["LDU"] in said


def _column_keys(kind: str, column: Sequence[Any]) -> tuple[list[Key], set[int]]:
    """The key of each value that is there, and the rows whose value is not what it should be."""
    if set(map(type, column)) != {str}:
        raise refused(100, "A value is not hashed.")
    whole = hashed_keys(kind, column) if kind in _HASHED else None
    if whole is not None:
        if len(whole) == len(column):
            return list(whole), set()
        found = iter(whole)
        return [next(found) if value else None for value in column], set()
    if any("@" in value for value in column):
        raise refused(100, "A value is not hashed.")
    bad = {row for row, value in enumerate(column) if value and not _is_good(kind, value)}
    return [member_key(kind, value) if value else None for value in column], bad


def _is_good(kind: str, value: str) -> bool:
    if kind in _HASHED:
        return SHA256_HEX.fullmatch(value) is not None
    return kind != "maid" or _MAID.fullmatch(value) is not None


def _sample(row: Any, *, whole_rows: bool) -> str:
    if whole_rows or not isinstance(row, list):
        return orjson.dumps(row).decode()
    return next((v for v in row if isinstance(v, str) and not SHA256_HEX.fullmatch(v)), "")
