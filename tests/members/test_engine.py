"""Whatever is done to an audience, in whatever tier, its members equal a dictionary."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.adapters.embedded.documents import SqliteDocuments
from activation.domain.manifest import Manifest, Place, StorageTier, TierLimits
from activation.domain.member import MemberFilter
from activation.members.layout import TYPES, schema
from activation.members.reading import members_of
from activation.members.runs import write_run
from activation.members.store import MemberStore, MergeResult
from activation.ports import Batch, BlobKey
from tests.conftest import START
from tests.examples import examples
from tests.members.support import AUDIENCE, ORGANIZATION

LIMITS = TierLimits(database=50, segmented=120)
DATABASE, SEGMENTED, EXTERNAL = StorageTier.DATABASE, StorageTier.SEGMENTED, StorageTier.EXTERNAL
Key = tuple[bytes, int]


@dataclass(frozen=True)
class Said:
    """What is known of a member; None was not said."""

    rule: int
    added_at: datetime
    attributes: str | None
    score: float | None
    expires_at: datetime | None
    segments: tuple[str, ...] | None

    def over(self, older: Said | None) -> Said:
        if older is None:
            return self
        return Said(
            max(self.rule, older.rule),
            self.added_at,
            older.attributes if self.attributes is None else self.attributes,
            older.score if self.score is None else self.score,
            older.expires_at if self.expires_at is None else self.expires_at,
            older.segments if self.segments is None else self.segments,
        )


def digest_of(number: int) -> bytes:
    """Spread over the partitions; every third one shares its first eight bytes with others."""
    lead = (number % 5 if number % 3 == 0 else number * 41) % 256
    return bytes([lead]) * 8 + number.to_bytes(4, "big") * 6


KEYS = st.tuples(st.integers(0, 160).map(digest_of), st.integers(0, 2))
SAID = st.tuples(
    st.integers(0, 5),
    st.sampled_from([None, '{"a":1}', '{"b":2}']),
    st.sampled_from([None, 0.5, 1.5]),
    st.sampled_from([None, 1, 5, 40]),
    st.sampled_from([None, (), ("x",), ("x", "y")]),
)
ROWS = st.lists(st.tuples(KEYS, SAID), max_size=12)


class Engine(RuleBasedStateMachine):
    """An audience and its model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = MovableClock(START)
        root = Path(self.folder.name)
        self.blobs = FileBlobs(root / "members", self.clock, sync=lambda _: None)
        self.documents = SqliteDocuments(root / "documents.sqlite", self.clock)
        self.store = MemberStore(
            self.blobs,
            self.documents,
            self.clock,
            LIMITS,
            rows_at_once=6,
            max_deltas=3,
            delta_from=8,
        )
        self.manifest: Manifest | None = None
        self.model: dict[Key, Said] = {}
        self.past: list[tuple[Manifest, dict[Key, Said]]] = []
        self.ids = itertools.count()

    def teardown(self) -> None:
        self.documents.close()
        self.folder.cleanup()

    # what can happen --------------------------------------------------------------------------

    @initialize(size=st.sampled_from([0, 30, 49, 50, 90, 119, 120, 150]))
    def filled(self, size: int) -> None:
        if size:
            rows = [((digest_of(n), 0), (1, None, 0.5, None, ("x",))) for n in range(size)]
            self.change([rows], [])
            assert self.tier is LIMITS.tier_for(size)

    @rule(runs=st.lists(ROWS, max_size=2), gone=st.lists(KEYS, max_size=4))
    def change(self, runs: list[list[Any]], gone: list[Key]) -> None:
        self.settle(self.merged(runs, gone), runs, gone)

    @rule(
        runs=st.lists(ROWS, min_size=1, max_size=2),
        gone=st.lists(KEYS, max_size=9),
        small=st.lists(st.tuples(ROWS, st.lists(KEYS, max_size=2)), min_size=1, max_size=3),
        compacting=st.booleans(),
    )
    def be_overtaken(
        self, runs: list[list[Any]], gone: list[Key], small: list[Any], compacting: bool
    ) -> None:
        """Others commit while a long merge or compaction is at work."""
        if self.manifest is None:
            return
        told, removals = ([], []) if compacting else (runs, gone)
        if compacting:
            result = self.store.compact(self.manifest, self.new_id())
        else:
            result = self.merged(told, removals)
        for rows, keys in small:
            self.change([rows[:3]], keys)
            rebased = result.rebase(result, self.manifest) if result.rebase else None
            if rebased is None:
                self.store.discard(result)
                result = self.merged(told, removals)
            else:
                event("rebased")
                result = rebased
        self.settle(result, told, removals)

    def merged(self, runs: list[list[Any]], gone: list[Key]) -> MergeResult:
        now = self.clock.now()
        paths = [self.run_of([(k, self.said(s, now)) for k, s in rows]) for rows in runs if rows]
        removals = [(TYPES[kind], digest) for digest, kind in gone]
        return self.store.merge(
            ORGANIZATION, AUDIENCE, self.new_id(), self.manifest, paths, removals
        )

    def settle(self, result: MergeResult, runs: list[list[Any]], gone: list[Key]) -> None:
        """Do the same to the model, compare the counts, and commit."""
        now, before = self.clock.now(), dict(self.model)
        said = [(key, self.said(told, now)) for rows in runs for key, told in rows]
        for key in gone:
            self.model.pop(key, None)
        kept = set(self.model)
        for key, row in said:
            self.model[key] = row.over(self.model.get(key))
        named = {key for key, _ in said}
        assert result.removed == len(before) - len(kept)
        assert result.added == len(named - kept)
        assert result.updated == len(named & kept)
        assert result.duplicate == len(said) - len(named)
        self.switch(result)

    @rule(data=st.data())
    def remove_many(self, data: st.DataObject) -> None:
        if self.model:
            known = st.sampled_from(sorted(self.model))
            self.change([], data.draw(st.lists(known, max_size=40)))

    @rule(count=st.integers(1, 100))
    def grow(self, count: int) -> None:
        rows = [((digest_of(500 + n), 1), (0, None, None, None, None)) for n in range(count)]
        self.change([rows], [])

    @rule(days=st.sampled_from([1, 4, 35]))
    def wait(self, days: int) -> None:
        self.clock.sleep(timedelta(days=days).total_seconds())

    @rule()
    def expire(self) -> None:
        if self.manifest is None:
            return
        now = self.clock.now()
        over = {k for k, s in self.model.items() if s.expires_at and s.expires_at <= now}
        result = self.store.without_expired(self.manifest, self.new_id(), now)
        assert (result.removed, result.added, result.updated) == (len(over), 0, 0)
        self.model = {key: said for key, said in self.model.items() if key not in over}
        self.switch(result)

    @rule(level=st.sampled_from([None, 19]))
    def compact(self, level: int | None) -> None:
        if self.manifest is None:
            return
        result = self.store.compact(self.manifest, self.new_id(), level=level)
        assert (result.removed, result.added, result.updated) == (0, 0, 0)
        assert result.manifest.deltas == ()
        assert sum(part.rows for part in result.manifest.partitions) == len(self.model)
        if level:
            assert result.manifest.compression == "zstd:19"
        self.switch(result)

    @rule()
    def give_up(self) -> None:
        """A change that is not committed leaves nothing behind."""
        if self.manifest is None:
            return
        run = self.run_of([((digest_of(3), 1), self.said((0, None, 1.0, None, None), START))])
        stored = self.stored()
        result = self.store.merge(ORGANIZATION, AUDIENCE, self.new_id(), self.manifest, [run])
        self.store.discard(result)
        assert self.stored() == stored

    # what holds -------------------------------------------------------------------------------

    @invariant()
    def counts_are_exact(self) -> None:
        if self.manifest is None:
            return
        kinds = Counter(TYPES[kind].value for _, kind in self.model)
        labels = Counter(s for said in self.model.values() for s in said.segments or ())
        assert self.manifest.size == len(self.model)
        assert self.manifest.by_type == dict(sorted(kinds.items()))
        assert self.manifest.by_segment == dict(sorted(labels.items()))

    @invariant()
    def parts_lie_in_their_tier(self) -> None:
        if self.manifest is None:
            return
        assert self.manifest.tier is LIMITS.tier_for(len(self.model))
        place = Place.DOCUMENT if self.manifest.tier is DATABASE else Place.OBJECT
        assert {part.place for part in self.manifest.parts} <= {place}
        assert len(self.manifest.deltas) <= self.store.max_deltas
        waiting = sum(part.rows for part in self.manifest.deltas)
        assert 4 * waiting <= sum(part.rows for part in self.manifest.partitions)

    @invariant()
    def every_reader_sees_the_members(self) -> None:
        if self.manifest is not None:
            self.assert_reads(self.manifest, self.model)

    @invariant()
    def old_manifests_stay_as_they_were(self) -> None:
        for manifest, model in self.past[-2:-1]:
            assert self.batches(manifest) == shown(model)

    @invariant()
    def filters_narrow(self) -> None:
        if self.manifest is None:
            return
        now = self.clock.now()
        since = now - timedelta(days=3)
        chosen = {key: said for key, said in self.model.items() if said.added_at > since}
        assert self.pages(MemberFilter(added_after=since)) == shown(chosen)
        chosen = {k: s for k, s in self.model.items() if not s.expires_at or s.expires_at > now}
        assert self.pages(MemberFilter(not_expired=True, now=now)) == shown(chosen)
        chosen = {k: s for k, s in self.model.items() if "y" in (s.segments or ())}
        assert self.pages(MemberFilter(segment="y")) == shown(chosen)
        chosen = {k: s for k, s in self.model.items() if k[1] == 1}
        assert self.pages(MemberFilter(identifier_type=TYPES[1])) == shown(chosen)

    # helpers ----------------------------------------------------------------------------------

    @property
    def tier(self) -> StorageTier:
        assert self.manifest is not None
        return self.manifest.tier

    def new_id(self) -> str:
        return f"manifest-{next(self.ids)}"

    def said(self, told: Any, now: datetime) -> Said:
        rule_code, attributes, score, days, segments = told
        expires_at = None if days is None else START + timedelta(days=days)
        return Said(rule_code, now, attributes, score, expires_at, segments)

    def run_of(self, rows: Sequence[tuple[Key, Said]]) -> str:
        path = f"audience_id={AUDIENCE}/runs/{next(self.ids)}.arrow"
        write_run(self.blobs, BlobKey(ORGANIZATION, path), table_of(rows))
        return path

    def switch(self, result: MergeResult) -> None:
        self.documents.commit(Batch(result.writes))
        self.manifest = result.manifest
        self.past.append((result.manifest, dict(self.model)))

    def stored(self) -> list[str]:
        objects = [info.key.path for info in self.blobs.list(ORGANIZATION, "")]
        return [path for path in objects if "/runs/" not in path]

    def assert_reads(self, manifest: Manifest, model: dict[Key, Said]) -> None:
        assert self.batches(manifest) == shown(model)
        assert self.pages(MemberFilter()) == shown(model)
        wanted = range(3, 200)
        table = self.store.slice(manifest, wanted, ("score", "digest"))
        assert table.schema.names == ["score", "digest"]
        held = [(s.score, k[0]) for k, s in sorted(model.items()) if k[0][0] in wanted]
        assert [tuple(row.values()) for row in table.to_pylist()] == held
        for digest, kind in [*sorted(model)[::7], (digest_of(3), 2), (digest_of(400), 0)]:
            found = self.store.find(manifest, TYPES[kind], digest)
            expected = shown(
                {(digest, kind): model[digest, kind]} if (digest, kind) in model else {}
            )
            assert ([] if found is None else [found]) == expected

    def batches(self, manifest: Manifest) -> list[Any]:
        tables = list(self.store.iter_batches(manifest))
        return [member for table in tables for member in members_of(table)]

    def pages(self, wanted: MemberFilter) -> list[Any]:
        assert self.manifest is not None
        found, after = list[Any](), None
        while True:
            page, after = self.store.page(self.manifest, wanted, after, 29)
            found += page
            if after is None:
                return found


def table_of(rows: Iterable[tuple[Key, Said]]) -> Any:
    listed = list(rows)
    empty = {f.name: [None] * len(listed) for f in schema()}
    said = [said for _, said in listed]
    return pa.table(
        {
            **empty,
            "digest": [key[0] for key, _ in listed],
            "identifier_type": [key[1] for key, _ in listed],
            "hash_rule": [s.rule for s in said],
            "attributes": [s.attributes for s in said],
            "score": [s.score for s in said],
            "added_at": [s.added_at for s in said],
            "expires_at": [s.expires_at for s in said],
            "segments": [None if s.segments is None else list(s.segments) for s in said],
        },
        schema=schema(),
    )


def shown(model: dict[Key, Said]) -> list[Any]:
    """The members of a model in their order."""
    return members_of(table_of(sorted(model.items())))


def lives(usual: int) -> settings:
    """So many lives of an audience, of ten steps each."""
    return settings(
        max_examples=examples(usual),
        stateful_step_count=10,
        suppress_health_check=list(HealthCheck),
    )


TestEngine = Engine.TestCase
TestEngine.settings = lives(6)


class BusyEngine(Engine):
    """The same, for more lives."""


TestBusyEngine = pytest.mark.nightly(BusyEngine.TestCase)
TestBusyEngine.settings = lives(40)
