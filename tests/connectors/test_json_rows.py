"""Batches as text against the same made of objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from activation.adapters.connectors.json_rows import rows_of_one
from activation.members.texts import HashTexts

VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
ROW = st.one_of(
    st.tuples(st.just("email"), st.binary(min_size=32, max_size=32)),
    st.tuples(st.just("phone"), st.binary(min_size=32, max_size=32)),
    st.tuples(st.just("customer_id"), VALUE),
)


def around(kind: str) -> tuple[str, str]:
    return f'{{"{kind}":"', '"}'


def columns_of(rows: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in ("email", "phone"):
        at = [i for i, row in enumerate(rows) if row[0] == kind]
        octets = np.frombuffer(b"".join(rows[i][1] for i in at), np.uint8).reshape(-1, 32)
        found[kind] = HashTexts(octets, np.array(at, np.int64), len(rows))
    found["customer_id"] = [row[1] if row[0] == "customer_id" else None for row in rows]
    return found


@given(st.lists(ROW, min_size=1, max_size=12), st.sampled_from([b",", b"\n"]))
def test_rows_are_what_objects_would_be(rows: list[tuple[str, Any]], between: bytes) -> None:
    expected = [
        orjson.dumps({kind: value.hex() if isinstance(value, bytes) else value})
        for kind, value in rows
    ]
    assert rows_of_one(columns_of(rows), around, between) == between.join(expected)


def test_rows_with_several_identifiers_or_none_are_left_to_others() -> None:
    octets = np.zeros((2, 32), np.uint8)
    both = HashTexts(octets, np.arange(2), 2)
    assert rows_of_one({"email": both, "phone": both}, around, b",") is None
    assert rows_of_one({"email": HashTexts(octets[:1], np.arange(1), 2)}, around, b",") is None
    assert rows_of_one({"customer_id": [None]}, around, b",") is None


@given(st.lists(st.none() | st.binary(min_size=32, max_size=32), max_size=8))
def test_hashes_are_a_list_of_texts(column: list[bytes | None]) -> None:
    at = [i for i, value in enumerate(column) if value is not None]
    octets = np.frombuffer(b"".join(filter(None, column)), np.uint8).reshape(-1, 32)
    texts = HashTexts(octets, np.array(at, np.int64), len(column))
    expected = [None if value is None else value.hex() for value in column]
    assert texts == expected
    assert [*texts] == [texts[i] for i in range(len(texts))] == expected
    assert texts[1:3] == expected[1:3]
