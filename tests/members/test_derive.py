"""Chosen members: the same rows whether all are looked at, or only those that deltas name."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.domain.audience import AudienceRule
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.manifest import Manifest
from activation.domain.member import MemberInput
from activation.members.archive import write_runs
from activation.members.derive import Changes, chosen, differing, ranges_of, rechosen
from activation.members.store import MemberStore, MergeResult
from tests.members.support import AUDIENCE, ORGANIZATION, Workbench

RULES = [
    AudienceRule(id="r", order=0, variable_id="n", operator="GTE", value=50),
    AudienceRule(id="r", order=1, variable_id="member.segments", operator="NOT_IN", value=["out"]),
]
KINDS = (IdentifierType.COOKIE_ID, IdentifierType.CUSTOMER_ID)
Rows = dict[tuple[int, bytes], Mapping[str, Any]]


def rows_of(store: MemberStore, manifest: Manifest | None) -> Rows:
    """All that is stored, by key."""
    if manifest is None:
        return {}
    rows = [row for table in store.iter_batches(manifest) for row in table.to_pylist()]
    found = {(row["identifier_type"], row["digest"]): row for row in rows}
    assert len(found) == len(rows) == manifest.size
    return found


def wanted(rows: Rows) -> Rows:
    """What RULES choose, written down a second time."""
    return {
        key: row
        for key, row in rows.items()
        if orjson.loads(row["attributes"] or "{}").get("n", 0) >= 50
        and "out" not in (row["segments"] or [])
    }


class Pair:
    """A source and the members derived from it."""

    def __init__(self, store: MemberStore) -> None:
        self.store = store
        self.source: Manifest | None = None
        self.derived: Manifest | None = None
        self.steps = 0
        self.ways: list[str] = []

    def name(self, what: str) -> str:
        self.steps += 1
        return f"{what}-{self.steps}"

    def change(self, members: Sequence[MemberInput], gone: Sequence[tuple[Any, bytes]]) -> None:
        """Change the source, then bring the derived members in step."""
        run = self.store.run_of(ORGANIZATION, AUDIENCE, members)
        runs = [run.path] if run.path else []
        before = self.source
        self.source = self.store.merge(
            ORGANIZATION, AUDIENCE, self.name("source"), before, runs, gone
        ).manifest
        expected = wanted(rows_of(self.store, self.source))
        held = rows_of(self.store, self.derived)
        changes = self.follow(before)
        assert rows_of(self.store, self.derived) == expected
        both = expected.keys() & held.keys()
        assert changes == Changes(
            added=len(expected.keys() - held.keys()),
            updated=sum(expected[key] != held[key] for key in both),
            removed=len(held.keys() - expected.keys()),
            size=len(expected),
        )

    def follow(self, before: Manifest | None) -> Changes:
        assert self.source is not None
        changed = before and self.derived and differing(before, self.source)
        changes, removals = Changes(), list[tuple[IdentifierType, bytes]]()
        if changed and self.derived:
            self.ways.append("few")
            tables = rechosen(
                self.store, self.source, RULES, self.derived, changed, changes, removals
            )
        else:
            self.ways.append("all")
            ranges = ranges_of(self.source, self.derived)
            tables = chosen(self.store, self.source, RULES, self.derived, changes, ranges)
        runs = write_runs(self.store.blobs, ORGANIZATION, "derived", tables, lambda: None)
        self.derived = self._merged(runs, removals, self.derived if changed else None).manifest
        return changes

    def _merged(
        self, runs: Sequence[str], removals: Sequence[Any], parent: Manifest | None
    ) -> MergeResult:
        return self.store.merge(
            ORGANIZATION, "derived", self.name("derived"), parent, runs, removals
        )


def drawn(draw: random.Random, count: int) -> list[MemberInput]:
    """Members that say now this, now that, and keep quiet about the rest."""
    return [
        MemberInput(
            identifier_type=draw.choice(KINDS),
            identifier_value=f"p{draw.randrange(120)}x",
            attributes=draw.choice([None, {"city": "Rome"}, *({"n": n} for n in (40, 60, 70, 80))]),
            segments=draw.choice([(), (), ("in",), ("in",), ("in", "out")]),
            score=draw.choice([None, 1.5]),
        )
        for _ in range(count)
    ]


def stored_digest(member: MemberInput) -> bytes:
    return key_digest(member.identifier_value)


@pytest.mark.embedded("too many round trips")
@pytest.mark.parametrize("seed", range(3))
def test_the_derived_members_follow_every_change(
    bench: Workbench, clock: MovableClock, seed: int
) -> None:
    draw = random.Random(seed)
    pair = Pair(dataclasses.replace(bench.store, delta_from=8, max_deltas=4, rows_at_once=40))
    pair.change(drawn(draw, 150), [])
    for _ in range(15):
        clock.sleep(timedelta(hours=1).total_seconds())
        members = drawn(draw, draw.choice([0, 1, 3, 5, 40]))
        gone = drawn(draw, draw.randrange(3)) + members[:3]  # the latter come anew
        pair.change(members, [(one.identifier_type, stored_digest(one)) for one in gone])
    assert {"few", "all"} == set(pair.ways)
    assert pair.ways.count("few") > 5


def test_a_rewritten_source_is_looked_at_as_a_whole(bench: Workbench) -> None:
    store = dataclasses.replace(bench.store, delta_from=8)
    pair = Pair(store)
    pair.change(drawn(random.Random(1), 100), [])
    before = pair.source
    assert before is not None
    after = store.compact(before, "compacted", level=9).manifest
    assert differing(before, after) is None
    same = differing(before, before)
    assert same is not None
    assert same.deltas == ()


def test_nothing_old_stays_of_a_member_that_comes_anew(bench: Workbench) -> None:
    def person(number: int, **fields: Any) -> MemberInput:
        given = {"identifier_type": KINDS[1], "identifier_value": f"K{number}", **fields}
        return MemberInput.model_validate({"attributes": {"n": 60}, **given})

    pair = Pair(dataclasses.replace(bench.store, delta_from=8))
    pair.change([person(number, score=1.5, segments=["in"]) for number in range(100)], [])
    again = person(3)
    pair.change([again], [(again.identifier_type, stored_digest(again))])
    assert pair.ways == ["all", "few"]
    pair.change([person(4, attributes={"n": 1})], [])
    pair.change([person(4)], [])
    assert pair.ways == ["all", "few", "few", "few"]
