"""Ledgers against plain sets: differences, lists and settlements over any history."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activation.domain.distribution import DistributionType
from activation.domain.identifier import IdentifierType, Variant, in_variant, key_digest
from activation.domain.manifest import Manifest
from activation.domain.member import MemberInput
from activation.domain.platform import ConnectorSpec, PlatformType, Replacement
from activation.domain.roster import Roster
from activation.members.batches import opened
from activation.members.delivery import Prepared, Selection, Stored, freeze, plan_delivery
from activation.members.layout import TYPES
from activation.members.rosters import RosterView, RosterWriter
from activation.members.settlement import BatchOutcome, Effect, ListOutcome, Outcome, settle
from tests.examples import examples
from tests.members.support import AUDIENCE, ORGANIZATION, Workbench, csv_file

SPEC = ConnectorSpec(
    platform_type=PlatformType.WEBHOOK,
    title="Test",
    identifiers={
        IdentifierType.EMAIL: Variant.GOOGLE,
        IdentifierType.PHONE: Variant.DIGITS,
        IdentifierType.CUSTOMER_ID: Variant.RAW,
    },
    max_rows=3,
    max_bytes=None,
    requests_per_minute=60,
    credentials=(),
    multi_key=True,
)
EMAILS = ["a@b.de", "a.b@gmail.com", "ab@gmail.com", "c@d.de", "e@f.de", "g@h.de", "i@j.de"]
PHONES = ["+49301234567", "+49301234568", "+49301234569"]
_names = itertools.count()

Key = tuple[str, bytes]


def manifest_of(bench: Workbench, people: Sequence[tuple[str, str, str]]) -> Manifest:
    name = f"m{next(_names)}"
    rows = [["email", "phone", "customer_id"], *map(list, people)]
    results = bench.read(csv_file(rows), prefix=f"imports/{name}")
    return bench.merge(results, None, name).manifest


def wanted_keys(people: Sequence[tuple[str, str, str]]) -> set[Key]:
    """What a platform should hold, by the scalar rules."""
    keys = set()
    for email, phone, customer in people:
        if email:
            keys.add(("email", key_digest(in_variant(email, Variant.GOOGLE))))
        if phone:
            keys.add(("phone", key_digest(in_variant(phone, Variant.DIGITS))))
        if customer:
            keys.add(("customer_id", key_digest(customer)))
    return keys


def keys_of(bench: Workbench, roster: Roster | None) -> dict[Key, bool]:
    """The identifiers of a roster, and whether each is in doubt."""
    found = {}
    for _, rows in RosterView(bench.store.parts, ORGANIZATION, roster).ranges():
        for row in rows.to_pylist():
            found[TYPES[row["identifier_type"]].value, row["digest"]] = row["doubt"]
    return found


def frozen(
    bench: Workbench,
    manifest: Manifest,
    spec: ConnectorSpec,
    held: Roster | None,
    kind: DistributionType,
) -> Prepared:
    name = f"d{next(_names)}"
    place = Stored(bench.store, ORGANIZATION, "ledger", name, f"lists/{name}", spec.max_rows)
    return freeze(bench.store, manifest, spec, Selection(), held, kind, place)


def sent_keys(bench: Workbench, prepared: Prepared, operation: str) -> list[list[set[Key]]]:
    """For each batch of a step, for each row, the keys."""
    batches = []
    for step in prepared.steps:
        if step.operation != operation or step.frozen is None:
            continue
        with opened(bench.blobs, step.frozen) as reader:
            for number in range(1, step.batches + 1):
                keys, at = reader.keys(number)
                rows: list[set[Key]] = [set() for _ in range(int(max(at)) + 1)]
                for row, position in zip(keys.to_pylist(), at.tolist(), strict=True):
                    kind = TYPES[row["identifier_type"]].value
                    rows[position].add((kind, row["digest"]))
                batches.append(rows)
    return batches


PERSON = st.tuples(
    st.sampled_from(["", *EMAILS]),
    st.sampled_from(["", *PHONES]),
    st.sampled_from(["", "K1", "K2"]),
)
PEOPLE = st.lists(PERSON, min_size=1, max_size=8)
FATES = st.lists(
    st.tuples(st.sampled_from(["done", "unknown", "never"]), st.integers(0, 7)),
    min_size=12,
    max_size=12,
)
"""What becomes of each batch, and a bit mask of its rejected rows."""


@pytest.mark.embedded("too many round trips")
@settings(max_examples=examples(12), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(st.tuples(PEOPLE, FATES), min_size=1, max_size=4),
    multi_key=st.booleans(),
    one_type=st.booleans(),
)
def test_incremental_runs_keep_the_ledger_true_whatever_happens(
    bench: Workbench,
    history: list[tuple[list[tuple[str, str, str]], list[tuple[str, int]]]],
    multi_key: bool,
    one_type: bool,
) -> None:
    """The platform is two sets: what it surely holds, and what it may hold."""
    spec = replace(SPEC, multi_key=multi_key and not one_type, one_type=one_type)
    sure: set[Key] = set()
    maybe: set[Key] = set()
    ledger: Roster | None = None
    for people, fates in history:
        manifest = manifest_of(bench, people)
        want = wanted_keys(people)
        kind = DistributionType.INCREMENTAL
        prepared = frozen(bench, manifest, spec, ledger, kind)
        plan = plan_delivery(bench.store, manifest, spec, Selection(), ledger, kind)
        assert (plan.adds, plan.removes, plan.kept, plan.restated) == (
            *(prepared.adds, prepared.removes, prepared.kept, prepared.restated),
        )
        assert [(s.rows, s.cuts) for s in plan.steps] == [(s.rows, s.cuts) for s in prepared.steps]
        removed = set().union(*itertools.chain(*sent_keys(bench, prepared, "remove")), set())
        added = set().union(*itertools.chain(*sent_keys(bench, prepared, "add")), set())
        assert removed == (sure | maybe) - want
        assert added >= want - sure
        assert added <= want
        assert len(added - (want - sure)) == prepared.restated
        ledger, sure, maybe = _happened(bench, spec, prepared, ledger, fates, sure, maybe)
        held = keys_of(bench, ledger)
        assert {key for key, doubt in held.items() if not doubt} == sure
        assert {key for key, doubt in held.items() if doubt} == maybe
        assert ledger.size == len(held)
        assert ledger.doubtful == len(maybe)


def _happened(
    bench: Workbench,
    spec: ConnectorSpec,
    prepared: Prepared,
    ledger: Roster | None,
    fates: Sequence[tuple[str, int]],
    sure: set[Key],
    maybe: set[Key],
) -> tuple[Roster, set[Key], set[Key]]:
    """Let the batches have their fates, on the sets and on the ledger."""
    del spec
    sure, maybe = set(sure), set(maybe)
    lists = []
    fate = iter(fates)
    for step in prepared.steps:
        outcomes = []
        for number, rows in enumerate(sent_keys(bench, prepared, step.operation), 1):
            what, mask = next(fate, ("done", 0))
            rejected = [i for i in range(len(rows)) if mask >> i & 1] if what == "done" else []
            for position, keys in enumerate(rows):
                if what == "never":
                    continue
                if what == "unknown":
                    maybe |= keys
                    sure -= keys
                elif position in rejected:
                    if step.operation == "add":
                        maybe |= keys & sure
                        sure -= keys
                elif step.operation == "add":
                    sure |= keys
                    maybe -= keys
                else:
                    sure -= keys
                    maybe -= keys
            usual = Effect.HELD if step.operation == "add" else Effect.GONE
            effect = {"done": usual, "unknown": Effect.DOUBT, "never": Effect.UNTOUCHED}[what]
            outcomes.append(BatchOutcome(number, effect, rejected))
        assert step.frozen is not None
        refused = Effect.REFUSED if step.operation == "add" else Effect.UNTOUCHED
        lists.append(ListOutcome(step.frozen, refused, outcomes))
    return (
        _settled(bench, prepared, ledger, Outcome(Effect.UNTOUCHED, Effect.UNTOUCHED, lists)),
        (sure),
        maybe,
    )


def _settled(
    bench: Workbench, prepared: Prepared, ledger: Roster | None, outcome: Outcome
) -> Roster:
    assert prepared.roster is not None
    writer = RosterWriter(
        bench.store.parts,
        *(ORGANIZATION, "ledger", f"s{next(_names)}"),
        bench.clock.now(),
        prepared.roster.partition_count,
    )
    return settle(bench.store, ORGANIZATION, writer, prepared.roster, ledger, outcome)


def test_a_clean_run_leaves_the_wanted_roster(bench: Workbench) -> None:
    first = manifest_of(bench, [("a@b.de", PHONES[0], ""), ("c@d.de", "", "K1")])
    prepared = frozen(bench, first, SPEC, None, DistributionType.INITIAL)
    settled = _settled(bench, prepared, None, Outcome(Effect.HELD, Effect.GONE))
    assert keys_of(bench, settled) == keys_of(bench, prepared.roster)


def test_who_stays_is_stated_again_when_he_loses_an_identifier(bench: Workbench) -> None:
    before = manifest_of(bench, [("a@b.de", PHONES[0], ""), ("c@d.de", "", "")])
    held = frozen(bench, before, SPEC, None, DistributionType.INITIAL).roster
    after = manifest_of(bench, [("a@b.de", PHONES[1], ""), ("c@d.de", "", "")])
    prepared = frozen(bench, after, SPEC, held, DistributionType.INCREMENTAL)
    assert (prepared.adds, prepared.removes, prepared.kept, prepared.restated) == (1, 1, 2, 1)
    ((row,),) = sent_keys(bench, prepared, "add")
    assert row == wanted_keys([("a@b.de", PHONES[1], "")])


REPLACEMENTS: Mapping[Replacement, list[str]] = {
    Replacement.NONE: ["remove", "add"],
    Replacement.AS_OF: ["remove", "add", "clear"],
    Replacement.SESSION: ["replace"],
}


@pytest.mark.parametrize("replacement", Replacement)
def test_a_refresh_goes_the_way_of_the_platform(bench: Workbench, replacement: Replacement) -> None:
    spec = replace(SPEC, replacement=replacement)
    before = manifest_of(bench, [("a@b.de", "", ""), ("c@d.de", "", "")])
    held = frozen(bench, before, spec, None, DistributionType.INITIAL).roster
    after = manifest_of(bench, [("a@b.de", "", ""), ("e@f.de", "", "")])
    prepared = frozen(bench, after, spec, held, DistributionType.REFRESH)
    assert [step.operation for step in prepared.steps] == REPLACEMENTS[replacement]
    everything = [step for step in prepared.steps if step.operation in ("add", "replace")]
    assert everything[0].rows == 2


def test_two_spellings_of_one_mailbox_are_one_identifier(bench: Workbench) -> None:
    manifest = manifest_of(bench, [("a.b@gmail.com", "", ""), ("ab@gmail.com", "", "")])
    prepared = frozen(bench, manifest, SPEC, None, DistributionType.INITIAL)
    counts = prepared.counts
    assert (counts.members, counts.identifiers) == (2, 1)
    assert counts.withheld == {"same_identifier": 1}
    one = manifest_of(bench, [("ab@gmail.com", "", "")])
    left = frozen(bench, one, SPEC, prepared.roster, DistributionType.INCREMENTAL)
    assert left.steps == [], "the mailbox is still wanted under its other spelling"


def test_large_rosters_are_cut_like_manifests(bench: Workbench) -> None:
    held: dict[str, Any] = {}
    for number in range(500):
        member = MemberInput(identifier_type="customer_id", identifier_value=f"k{number}")
        held[f"k{number}"] = member
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, list(held.values()))
    manifest = bench.store.merge(ORGANIZATION, AUDIENCE, "big", None, [run.path or ""]).manifest
    prepared = frozen(bench, manifest, SPEC, None, DistributionType.INITIAL)
    assert prepared.roster is not None
    assert prepared.roster.size == 500
    writer = RosterWriter(bench.store.parts, ORGANIZATION, "ledger", "wide", bench.clock.now(), 32)
    wide = settle(
        bench.store,
        ORGANIZATION,
        writer,
        prepared.roster,
        None,
        Outcome(Effect.HELD, Effect.GONE),
    )
    assert wide.partition_count == 32
    assert keys_of(bench, wide) == keys_of(bench, prepared.roster)
    again = frozen(bench, manifest, SPEC, wide, DistributionType.INCREMENTAL)
    assert (again.steps, again.kept) == ([], 500)
