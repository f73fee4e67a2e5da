"""Merging equals a dictionary in which rows are laid over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from activation.members.changes import sorted_keys
from activation.members.deltas import without
from activation.members.layout import TYPES, schema
from activation.members.merge import merged
from tests.examples import examples

NOW = datetime(2026, 11, 21, tzinfo=UTC)
DIGESTS = [bytes(8) + bytes([n]) * 24 for n in range(3)] + [bytes([n]) * 32 for n in (0, 7, 255)]
"""The first ones collide in their leading eight bytes."""


@dataclass(frozen=True)
class Row:
    digest: bytes
    kind: int
    rule: int
    attributes: str | None
    score: float | None


ROWS = st.builds(
    Row,
    st.sampled_from(DIGESTS),
    st.integers(0, 2),
    st.integers(0, 5),
    st.sampled_from([None, '{"a":1}', '{"b":2}']),
    st.sampled_from([None, 0.5, 1.5]),
)


def table_of(rows: Sequence[Row]) -> Any:
    empty = {f.name: [None] * len(rows) for f in schema()}
    return pa.table(
        {
            **empty,
            "digest": [r.digest for r in rows],
            "identifier_type": [r.kind for r in rows],
            "hash_rule": [r.rule for r in rows],
            "attributes": [r.attributes for r in rows],
            "score": [r.score for r in rows],
            "added_at": [NOW] * len(rows),
        },
        schema=schema(),
    )


def laid_over(old: dict[tuple[bytes, int], Row], rows: Sequence[Row]) -> dict[Any, Row]:
    result = dict(old)
    for row in rows:
        before = result.get((row.digest, row.kind), row)
        result[row.digest, row.kind] = Row(
            row.digest,
            row.kind,
            max(row.rule, before.rule),
            before.attributes if row.attributes is None else row.attributes,
            before.score if row.score is None else row.score,
        )
    return result


def rows_of(table: Any) -> list[Row]:
    names = ("digest", "identifier_type", "hash_rule", "attributes", "score")
    return [Row(*(row[name] for name in names)) for row in table.to_pylist()]


@settings(max_examples=examples(200))
@given(
    st.lists(ROWS, max_size=12),
    st.lists(st.lists(ROWS, max_size=8), max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(DIGESTS)), max_size=5),
)
def test_a_merge_equals_laying_rows_over_each_other(
    start: list[Row], fresh: list[list[Row]], removals: list[tuple[int, bytes]]
) -> None:
    old = laid_over({}, start)
    first = merged(schema().empty_table(), [table_of(start)])
    assert rows_of(first.members) == [old[key] for key in sorted(old)]

    gone = sorted_keys([(TYPES[kind], digest) for kind, digest in removals])
    left = without(first.members, gone)
    kept = {k: v for k, v in old.items() if (k[1], k[0]) not in removals}
    assert rows_of(left) == [kept[key] for key in sorted(kept)]
    rows = [row for run in fresh for row in run]
    result = merged(left, [table_of(run) for run in fresh])
    expected = laid_over(kept, rows)
    assert rows_of(result.members) == [expected[key] for key in sorted(expected)]

    named = {(row.digest, row.kind) for row in rows}
    assert result.added == len(named - kept.keys())
    assert result.updated == len(named & kept.keys())
    assert result.duplicate == len(rows) - len(named)
