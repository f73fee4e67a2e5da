"""Requests as a server meets them: made from the API description, then spoiled by chance."""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode

from tests.fuzz.schemas import Sampler

JSON = "application/json"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "X-Y", "")
KINDS = (
    "text/csv", "text/plain", "application/x-ndjson", "application/gzip", "application/zstd",
    "application/vnd.apache.parquet", "application/octet-stream", "application/xml", "",
    "multipart/form-data; boundary=x", "application/x-www-form-urlencoded",
    "application/json; charset=utf-16", "application/json;", "APPLICATION/JSON", "a/b/c", "é/ü",
)  # fmt: skip
MAX_DEPTH, MAX_ITEMS = 12, 12
"""How far into a body places are looked for."""
RAW = "@raw:"
"""A text with this before it is written into the body as it is, without quotes."""
NUMBERS = ("NaN", "Infinity", "-Infinity", "1e400", "-0", "01", "1.", ".5", "0x10", "1" * 5000)
WORDS = (
    "", " ", "\x00", "a\x00b", "\u202egnp", "\ud800", "\udfff\ud800", "é" * 300, "x" * 20_000,
    "../../etc/passwd", "..%2f..%2f", "' OR 1=1 --", "{{7*7}}", "${jndi:ldap://x}", "=1+1",
    "<script>alert(1)</script>", "a\r\nSet-Cookie: a=b", "__proto__", "__name__", "`", "%s%n",
    "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "0000-00-00", "2026-02-30",
    "1969-12-31T23:59:59-99:99", "2026-11-21T09:00:00", "10000-01-01T00:00:00Z", "1e400", "-1",
    "null", "true", "\ufeff", "\uffff", "😀" * 50, "-" * 64, "00000000-0000-0000-0000-000000000000",
    "http://[::1", "http://a:99999999/", "//", "file:///etc/passwd", "http://127.0.0.1:9\\@x/",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30, 1e308, 0.1,
    -0.0, 5e-324, [], {}, [[]], [None], {"": ""}, {"$ref": "#"}, {"a": {"b": {"c": {}}}},
    *(RAW + one for one in NUMBERS), *WORDS,
)  # fmt: skip
HEADERS = (
    ("Idempotency-Key", ""), ("Idempotency-Key", "x" * 300), ("Idempotency-Key", "é"),
    ("Idempotency-Key", "same"), ("Idempotency-Key", "\x01"), ("If-Match", "*"),
    ("If-Match", '"1"'), ("If-Match", 'W/"1"'), ("If-Match", '"'), ("If-Match", '"a", "b"'),
    ("If-Match", "é"),
    ("If-Match", '"' + "9" * 5000 + '"'), ("X-Trace-Id", "x" * 500), ("X-Trace-Id", "\x01é"),
    ("X-Trace-Id", "a\tb"), ("Traceparent", "00-zz-zz-zz"), ("Traceparent", "é" * 99),
    ("X-Cloud-Trace-Context", "x/y;o=z"), ("Origin", "null"), ("Origin", "https://evil.example"),
    ("Origin", "é"), ("Range", "bytes=0-1"), ("Range", "bytes=-"), ("Accept", "text/html"),
    ("Accept", "\x00"), ("Accept-Encoding", "gzip;q=x"), ("Content-Encoding", "gzip"),
    ("Content-Encoding", "x"), ("Expect", "100-continue"), ("Cookie", "a=b; =; ;;é"),
    ("Host", "evil.example"), ("Host", "é"), ("Host", ""), ("Forwarded", "for=x"),
    ("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "x"), ("X-Original-Url", "/x"),
    ("X-HTTP-Method-Override", "DELETE"), ("X-Org-Id", "evil"), ("Content-Length", "-1"),
    ("Content-Length", "abc"), ("Content-Length", "99999999999999999999"), ("Content-Length", "5"),
    ("Transfer-Encoding", "chunked"), ("Authorization", ""), ("Authorization", "Bearer é"),
    ("Authorization", "Bearer " + "a." * 9000), ("Authorization", "Bearer a.b.c"),
    ("Authorization", "Basic dTpw"), ("If-None-Match", "*"), ("If-Modified-Since", "x"),
    ("Content-Md5", "x"), ("Date", "x"), ("User-Agent", "x" * 9000),
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One request: the path and the query as they stand on the line, and the bytes of the body."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    kind: str = ""

    def environ(self) -> dict[str, Any]:
        """As gunicorn hands it to an application."""
        given: dict[str, Any] = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(self.path).decode("latin-1"),
            "RAW_URI": self.path + (f"?{self.query}" if self.query else ""),
            "QUERY_STRING": self.query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(self.body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if self.kind:
            given["CONTENT_TYPE"] = self.kind
        if self.body:
            given["CONTENT_LENGTH"] = str(len(self.body))
        for name, value in self.headers.items():
            self._put(given, name, value)
        return given

    @staticmethod
    def _put(given: dict[str, Any], name: str, value: str) -> None:
        if name == "Transfer-Encoding":
            given.pop("CONTENT_LENGTH", None)
            given["wsgi.input_terminated"] = True
        name = name.upper().replace("-", "_")
        plain = name in ("CONTENT_LENGTH", "CONTENT_TYPE")
        given[name if plain else f"HTTP_{name}"] = value.encode().decode("latin-1")


@dataclass(frozen=True)
class Maker:
    """Makes requests of every operation; `token` is the Authorization header."""

    sampler: Sampler
    operations: list[tuple[str, str, dict[str, Any]]]
    token: str

    @property
    def chance(self) -> random.Random:
        """Where all chance comes from."""
        return self.sampler.chance

    def good(self) -> Request:
        """A request that fits the description of an operation chosen by chance."""
        method, path, operation = self.chance.choice(self.operations)
        query = []
        for parameter in operation.get("parameters", ()):
            if "$ref" in parameter:
                continue
            name = parameter["name"]
            value = self.sampler.value(parameter.get("schema", {}), name)
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
            elif parameter.get("required") or self.chance.random() < 0.3:
                query.append((name, value if isinstance(value, str) else json.dumps(value)))
        content = operation.get("requestBody", {}).get("content", {})
        headers = {"Authorization": self.token}
        request = Request(method, path, urlencode(query), headers)
        if JSON not in content:
            return request
        body = self.sampler.value(content[JSON]["schema"])
        return replace(request, body=written(body), kind=JSON)

    def spoiled(self) -> Request:
        """A good request with one to three things wrong."""
        request = self.good()
        for _ in range(self.chance.choice((1, 1, 2, 3))):
            request = self.chance.choice(SPOILS)(request, self.chance)
        return request


def written(body: Any) -> bytes:
    """A value as JSON, with what is marked as raw in it."""
    text = json.dumps(body)
    if RAW in text:
        for number in NUMBERS:
            text = text.replace(f'"{RAW}{number}"', number)
    return text.encode()


def _tree(request: Request) -> Any:
    try:
        return json.loads(request.body)
    except (ValueError, RecursionError):
        return {}


def _places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at]
    if isinstance(node, dict | list) and len(at) < MAX_DEPTH:
        for name, part in node.items() if isinstance(node, dict) else enumerate(node[:MAX_ITEMS]):
            found += _places(part, (*at, name))
    return found


def _with(node: Any, at: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not at:
        return change(node)
    kept = dict(node) if isinstance(node, dict) else list(node)
    kept[at[0]] = _with(kept[at[0]], at[1:], change)
    return kept


def _changed(request: Request, chance: random.Random, change: Callable[[Any], Any]) -> Request:
    tree = _tree(request)
    made = written(_with(tree, chance.choice(_places(tree)), change))
    return replace(request, body=made, kind=request.kind or JSON)


def other_value(request: Request, chance: random.Random) -> Request:
    """Another value somewhere in the body."""
    return _changed(request, chance, lambda _: chance.choice(VALUES))


def more_fields(request: Request, chance: random.Random) -> Request:
    """A field nobody asked for, or one of ours that nobody may set."""
    names = ("organization_id", "status", "size", "version", "approved_by", "key", "x", "\x00", "")
    name = chance.choice((*names, *WORDS))
    value = chance.choice(VALUES)
    return _changed(
        request, chance, lambda old: {**(old if isinstance(old, dict) else {}), name: value}
    )


def fewer_fields(request: Request, chance: random.Random) -> Request:
    """Something left out."""

    def without(old: Any) -> Any:
        if isinstance(old, dict | list) and old:
            names = list(old) if isinstance(old, dict) else list(range(len(old)))
            gone = chance.choice(names)
            kept = [(k, old[k]) for k in names if k != gone]
            return dict(kept) if isinstance(old, dict) else [value for _, value in kept]
        return None

    return _changed(request, chance, without)


def many(request: Request, chance: random.Random) -> Request:
    """A list of a thousand, or a value in lists in lists."""
    if chance.random() < 0.5:
        return _changed(request, chance, lambda old: [old] * 1001)

    def nested(old: Any) -> Any:
        for _ in range(chance.choice((5, 63, 64, 65, 200))):
            old = [old] if chance.random() < 0.5 else {"a": old}
        return old

    return _changed(request, chance, nested)


def field_twice(request: Request, _chance: random.Random) -> Request:
    """The first field of the body once more."""
    text = request.body.decode("utf-8", "replace")
    first = text[1:].split(":", 1)[0]
    return replace(request, body=f"{{{first}:1,{text[1:]}".encode(), kind=request.kind or JSON)


def other_bytes(request: Request, chance: random.Random) -> Request:
    """Cut off, flipped, filled up, packed, or in another encoding."""
    body = request.body or b'{"name":"x"}'
    at = chance.randrange(len(body))
    junk = bytes(chance.randrange(256) for _ in range(chance.choice((1, 3, 30))))
    made = chance.choice(
        (
            body[:at], body[:at] + junk + body[at:], body[:at] + junk + body[at + len(junk) :],
            b"\xef\xbb\xbf" + body, body.decode("utf-8", "replace").encode("utf-16"), body * 2,
            gzip.compress(body, 1), b"[" * 100_000, b'{"a":' * 20_000, b"", b" " * 70_000, b"null",
            b'"x"', b"7", junk, body + b"\x00", b"\xff" + body, body.replace(b'"', b"'"),
        )
    )  # fmt: skip
    return replace(request, body=made, kind=request.kind or JSON)


def other_kind(request: Request, chance: random.Random) -> Request:
    """Another content type."""
    return replace(request, kind=chance.choice(KINDS))


def odd_header(request: Request, chance: random.Random) -> Request:
    """A header that should not matter, or that is wrong."""
    name, value = chance.choice(HEADERS)
    return replace(request, headers={**request.headers, name: value})


def other_method(request: Request, chance: random.Random) -> Request:
    """Another verb."""
    return replace(request, method=chance.choice(METHODS))


def other_path(request: Request, chance: random.Random) -> Request:
    """An address that is not quite one of ours."""
    parts = request.path.split("/")
    at = chance.randrange(1, len(parts))
    word = chance.choice(WORDS).encode("utf-8", "surrogatepass")
    choice = chance.randrange(7)
    if choice < 3:
        parts[at] = quote(word[: 3000 if choice else 9000], safe="")
    elif choice == 3:
        parts.insert(at, chance.choice(("", ".", "..", "%2e%2e", "%00", "%ff", "%", ";x=1")))
    elif choice == 4:
        parts.append(chance.choice(("", "x", "%0d%0aSet-Cookie:a=b", "status")))
    elif choice == 5:
        parts[at] = chance.choice((parts[at].upper(), parts[at] + "%20", "%C0%AF" + parts[at]))
    else:
        return replace(request, path=request.path.replace("/api/v1", chance.choice(("/api", ""))))
    return replace(request, path="/".join(parts))


def other_query(request: Request, chance: random.Random) -> Request:
    """Parameters that are wrong, twice there, unknown, or no parameters at all."""
    word = chance.choice((*WORDS, *NUMBERS)).encode("utf-8", "surrogatepass")
    name = chance.choice(
        ("limit", "cursor", "status", "as_of", "version", "from", "to", "ids", "x", "since", "tag",
         "created_after", "exact", "verify", "audience_id", "columns", "delimiter", "format", "")
    )  # fmt: skip
    one = f"{name}={quote(word, safe='')}"
    made = chance.choice(
        (one, f"{one}&{one}", f"{request.query}&{one}", f"{request.query}&{request.query}",
         "%", "&&&=", "%ff=%fe", "a[]=1&a[b]=2", "limit=1;cursor=x", "x=" + "y" * 9000)
    )  # fmt: skip
    return replace(request, query=made)


SPOILS: tuple[Callable[[Request, random.Random], Request], ...] = (
    other_value, other_value, other_value, more_fields, fewer_fields, many, field_twice,
    other_bytes, other_bytes, other_kind, odd_header, odd_header, other_method, other_path,
    other_path, other_query, other_query,
)  # fmt: skip
