"""JSON bodies, read strictly: what two parsers might read differently is refused."""

from __future__ import annotations

import re
from typing import Any

import orjson

from activation.errors import MalformedJSONError, ValidationError

MAX_DEPTH = 64
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"(\s*:)?', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def parse(data: bytes, *, judged: bool = False) -> dict[str, Any] | list[Any]:
    """The object or array that `data` holds.

    Raises MalformedJSONError for what is not JSON (RFC 8259, UTF-8 without BOM), names a field
    twice or nests deeper than MAX_DEPTH; ValidationError for other roots and control characters.
    With `judged`, depth and control characters are for the reader to judge, row by row.
    """
    try:
        root = orjson.loads(data)
    except orjson.JSONDecodeError:  # its text and `doc` quote the body
        raise MalformedJSONError("The body is not valid JSON.", reason="malformed") from None
    if not isinstance(root, dict | list):
        raise ValidationError("The body must be an object or an array.", reason="wrong_type")
    if _field_count(root, judged) != _field_count_as_sent(data):
        raise MalformedJSONError("An object has a field twice.", reason="duplicate_field")
    return root


def _field_count(root: dict[str, Any] | list[Any], judged: bool) -> int:
    """Fields of all objects; looks at every value without recursion."""
    count = 0
    open_nodes: list[tuple[Any, int]] = [(root, 1)]
    while open_nodes:
        node, depth = open_nodes.pop()
        if depth > MAX_DEPTH and not judged:
            raise MalformedJSONError("The body nests too deeply.", reason="too_deep")
        if isinstance(node, dict):
            count += len(node)
            open_nodes.extend((part, depth + 1) for item in node.items() for part in item)
        elif isinstance(node, list):
            open_nodes.extend((part, depth + 1) for part in node)
        elif isinstance(node, str) and not judged and not node.isprintable():
            _refuse_control_characters(node)
    return count


def _refuse_control_characters(text: str) -> None:
    if _CONTROL.search(text):
        raise ValidationError("Text must not hold control characters.", reason="control_character")


def _field_count_as_sent(data: bytes) -> int:
    """The same number, read from the bytes: in valid JSON a string before a colon is a name."""
    return sum(1 for found in _STRING.finditer(data) if found[1])
