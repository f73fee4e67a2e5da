"""Members as text: everything comes back, and nothing else is taken for members."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activation.errors import StorageUnavailableError
from activation.members import member_text
from activation.members.layout import CONSENTS, RULES, TYPES, schema
from tests.examples import examples

INSTANTS = st.integers(0, 2**52).map(lambda us: datetime.fromtimestamp(us / 2**20, UTC))
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
MEMBERS = st.fixed_dictionaries(
    {
        "digest": st.binary(min_size=32, max_size=32),
        "identifier_type": st.integers(0, len(TYPES) - 1),
        "value": st.none() | TEXTS,
        "alternate": st.none() | st.binary(min_size=32, max_size=32),
        "uid2_alternate": st.none() | st.booleans(),
        "hash_rule": st.integers(0, len(RULES) - 1),
        "attributes": st.none() | TEXTS,
        "added_at": INSTANTS,
        "expires_at": st.none() | INSTANTS,
        "score": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "consent": st.none() | st.integers(0, len(CONSENTS) - 1),
        "person": st.none() | st.binary(min_size=8, max_size=8),
        "segments": st.none() | st.lists(TEXTS, max_size=3),
    }
)


def table(rows: list[dict[str, Any]]) -> Any:
    return pa.Table.from_pylist(rows, schema=schema())


@settings(max_examples=examples(300))
@given(st.lists(MEMBERS, max_size=6), st.integers(0, 3))
def test_whatever_a_member_holds_comes_back(rows: list[dict[str, Any]], skipped: int) -> None:
    members = table(rows).slice(skipped)
    text = member_text.text_of(members)
    assert text.count(b"\n") == members.num_rows
    assert member_text.table_of(text).equals(members)


def member(**fields: Any) -> dict[str, Any]:
    at = datetime(2026, 11, 21, 9, 0, 0, 123456, tzinfo=UTC)
    empty = dict.fromkeys(schema().names)
    known = {"digest": b"\xab" * 32, "identifier_type": 0, "hash_rule": 1, "added_at": at}
    return {**empty, **known, **fields}


def test_a_line_is_readable_json() -> None:
    later = datetime(2026, 11, 21, 9, tzinfo=UTC) + timedelta(days=1)
    row = member(attributes='{"city": "Bonn"}', expires_at=later, score=0.1, segments=["a", 'b"'])
    line = orjson.loads(member_text.text_of(table([row])))
    assert line == {
        "digest": "ab" * 32,
        "identifier_type": TYPES[0].value,
        "hash_rule": RULES[1].value,
        "attributes": '{"city": "Bonn"}',
        "added_at": "2026-11-21T09:00:00.123456Z",
        "expires_at": "2026-11-22T09:00:00.000000Z",
        "score": 0.1,
        "segments": ["a", 'b"'],
    }


def test_text_is_read_in_pieces_of_whole_lines() -> None:
    rows = [member(value=f"K{number}" * 50) for number in range(30_000)]
    members = table(rows)
    text = member_text.text_of(members)
    assert len(text) > 2 * member_text.PIECE_BYTES
    found = list(member_text.batches_of(member_text.tables_in(io.BytesIO(text))))
    assert [part.num_rows for part in found] == [10_000, 10_000, 10_000]
    assert pa.concat_tables(found).equals(members)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "ab" * 31},
        {"digest": "AB" * 32},
        {"digest": None},
        {"identifier_type": "fax"},
        {"hash_rule": None},
        {"added_at": "2026-11-21T09:00:00"},
        {"added_at": "yesterdayZ"},
        {"score": "much"},
        {"person": "ab"},
        {"segments": "a"},
        {"colour": "red"},
    ],
)
def test_other_text_is_refused_without_being_quoted(change: dict[str, Any]) -> None:
    line = orjson.loads(member_text.text_of(table([member(value="secret-id")])))
    changed = {key: value for key, value in {**line, **change}.items() if value is not None}
    with pytest.raises(StorageUnavailableError) as caught:
        member_text.table_of(orjson.dumps(changed) + b"\n")
    shown = repr(caught.value) + repr(caught.value.__context__) + repr(caught.value.__cause__)
    assert "secret-id" not in shown
    assert "ab" * 20 not in shown


def test_torn_text_is_refused() -> None:
    text = member_text.text_of(table([member()]))
    with pytest.raises(StorageUnavailableError):
        member_text.table_of(text[:-20])
