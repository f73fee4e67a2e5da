"""JSON bodies: what two parsers might read differently is refused, and nothing raises anything
that is not ours."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.api.body import MAX_DEPTH, parse
from activation.errors import ActivationError, MalformedJSONError, ValidationError

MALFORMED = {
    "nothing": b"",
    "deep arrays": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "closed but too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "too large a number": b'{"a":1e400}',
    "5,000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "lone surrogate": b'{"a":"\\ud800"}',
    "not UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"a":1}',
    "same field twice": b'{"a":1,"a":2}',
    "same field twice, escaped": b'{"a":1,"\\u0061":2}',
    "same field twice, inside": b'{"a":[{"b":"x:","b":1}]}',
    "trailing comma": b'{"a":1,}',
    "trailing text": b'{"a":1} {"a":2}',
    "comment": b'{"a":1}//',
    "single quotes": b"{'a':1}",
    "bare control character": b'{"a":"\x01"}',
}

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.just('":{"'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_malformed_body_is_refused(name: str) -> None:
    with pytest.raises(MalformedJSONError) as caught:
        parse(MALFORMED[name])
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("data", [b'"text"', b"7", b"null", b"true"])
def test_root_must_be_object_or_array(data: bytes) -> None:
    with pytest.raises(ValidationError):
        parse(data)


@pytest.mark.parametrize("data", [b'{"a":"\\u0000"}', b'{"\\u001b[0m":1}', b'["\\u007f"]'])
def test_control_characters_are_refused(data: bytes) -> None:
    with pytest.raises(ValidationError):
        parse(data)


def test_line_breaks_and_tabs_are_text() -> None:
    assert parse(b'{"notes":"a\\r\\n\\tb"}') == {"notes": "a\r\n\tb"}


@given(st.dictionaries(st.text(), values, max_size=4))
def test_what_is_json_is_read_as_json(document: dict[str, object]) -> None:
    data = json.dumps(document).encode(errors="surrogatepass")
    try:
        read = parse(data)
    except ActivationError as error:
        assert error.reason in ("control_character", "malformed")  # noqa: PT017 - both are right
    else:
        assert read == document


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        parse(data)
    except ActivationError as error:
        assert error.status in (400, 422)  # noqa: PT017 - any refusal is one of ours
