"""The trace id that ties an answer to its log lines and messages."""

from __future__ import annotations

import re
import secrets

from werkzeug.datastructures import Headers

_SOURCES = (
    ("traceparent", re.compile(r"00-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")),
    ("X-Cloud-Trace-Context", re.compile(r"([0-9a-f]{32})(?:/\d{1,20})?(?:;o=\d)?")),
    ("X-Trace-Id", re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})")),
)


def trace_id(headers: Headers) -> str:
    """The caller's trace id when he sent a well-formed one, else a fresh one."""
    for name, shape in _SOURCES:
        found = shape.fullmatch(headers.get(name, ""))
        if found:
            return found[1]
    return secrets.token_hex(16)
