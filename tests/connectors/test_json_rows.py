"""Batches as text against the same made of objects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from activation.adapters.connectors import facebook_wire, google_wire
from activation.adapters.connectors.config import resolved
from activation.adapters.connectors.google_ads import spec_for_key_type
from activation.adapters.connectors.json_rows import rows_of_one
from activation.domain.consent import ConsentBasis
from activation.members.texts import HashTexts, PlainTexts
from tests.connectors.support import ADD

VALUE = st.one_of(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
)
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
    texts = [row[1] if row[0] == "customer_id" else None for row in rows]
    found["customer_id"] = plain(["before", *texts, "behind"], len(rows))
    return found


def plain(texts: list[str | None], rows: int) -> PlainTexts:
    """A column that lies in the middle of an Arrow array, as that of a batch does."""
    values = pa.array([text for text in texts if text is not None])
    at = [i for i, text in enumerate(texts[1:-1]) if text is not None]
    return PlainTexts(values[1:-1], np.array(at, np.int64), rows)


@given(st.lists(ROW, min_size=1, max_size=12), st.sampled_from([b",", b"\n"]))
def test_rows_are_what_objects_would_be(rows: list[tuple[str, Any]], between: bytes) -> None:
    expected = [
        orjson.dumps({kind: value.hex() if isinstance(value, bytes) else value})
        for kind, value in rows
    ]
    text = rows_of_one(columns_of(rows), around, between)
    assert text is not None
    assert bytes(text) == between.join(expected)


def test_rows_with_several_identifiers_or_none_are_left_to_others() -> None:
    octets = np.zeros((2, 32), np.uint8)
    both = HashTexts(octets, np.arange(2), 2)
    assert rows_of_one({"email": both, "phone": both}, around, b",") is None
    assert rows_of_one({"email": HashTexts(octets[:1], np.arange(1), 2)}, around, b",") is None
    assert rows_of_one({"customer_id": plain(["", None, ""], 1)}, around, b",") is None
    assert rows_of_one({"customer_id": ["1"]}, around, b",") is None


@given(st.lists(st.none() | st.binary(min_size=32, max_size=32), max_size=8))
def test_hashes_are_a_list_of_texts(column: list[bytes | None]) -> None:
    at = [i for i, value in enumerate(column) if value is not None]
    octets = np.frombuffer(b"".join(filter(None, column)), np.uint8).reshape(-1, 32)
    texts = HashTexts(octets, np.array(at, np.int64), len(column))
    expected = [None if value is None else value.hex() for value in column]
    assert texts == expected
    assert [*texts] == [texts[i] for i in range(len(texts))] == expected
    assert texts[1:3] == expected[1:3]


@given(st.lists(st.none() | VALUE, max_size=8))
def test_plain_values_are_a_list_of_texts(column: list[str | None]) -> None:
    assert plain(["", *column, ""], len(column)) == column


HASH = st.binary(min_size=32, max_size=32)
CONTACTS = st.lists(st.tuples(st.sampled_from(["email", "phone"]), HASH), min_size=1, max_size=8)
TO_META = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["email", "phone"]), HASH),
        st.tuples(st.just("customer_id"), VALUE),
    ),
    min_size=1,
    max_size=8,
)


@given(CONTACTS)
def test_google_is_sent_the_same_whichever_way_a_batch_comes(rows: list[tuple[str, Any]]) -> None:
    columns = {kind: column for kind, column in columns_of(rows).items() if kind != "customer_id"}
    settings = resolved(spec_for_key_type("CONTACT_ID"), {"account_id": "1234567890"})
    body = google_wire.request_body(settings, ADD, columns)
    other = google_wire.request_body(settings, ADD, listed(columns))
    assert orjson.dumps(body) == orjson.dumps(other)


@given(TO_META, st.booleans())
def test_meta_is_sent_the_same_whichever_way_a_batch_comes(
    rows: list[tuple[str, Any]], limited: bool
) -> None:
    settings = {"ldu_country": 1, "ldu_state": 1000}
    delivery = replace(ADD, consent=ConsentBasis(limited_data_use=limited))
    columns = columns_of(rows)
    body = facebook_wire.request_body(settings, delivery, 1, columns)
    other = facebook_wire.request_body(settings, delivery, 1, listed(columns))
    assert orjson.dumps(body) == orjson.dumps(other)


def listed(columns: dict[str, Any]) -> dict[str, list[str | None]]:
    """The same columns as lists of texts."""
    return {kind: list(column) for kind, column in columns.items()}
