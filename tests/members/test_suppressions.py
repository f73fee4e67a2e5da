"""Suppression lists: rows and parts against naive ways, and every form of an identifier found."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.adapters.embedded.documents import SqliteDocuments
from activation.domain.identifier import HASHED_TYPES, IdentifierType, Variant, in_variant
from activation.domain.manifest import Place
from activation.domain.member import MemberInput
from activation.domain.member_import import HashRule
from activation.domain.platform import PlatformType
from activation.domain.suppression import SuppressionPart, SuppressionReason
from activation.errors import StorageUnavailableError
from activation.members.delivery import Selection, plan_delivery
from activation.members.inputs import encoded_inputs
from activation.members.outgoing import outgoing_rows
from activation.members.selection import DeliveryCounts, selected
from activation.members.suppression_change import Change, addition, appended, removal
from activation.members.suppression_parts import ROW_BYTES, SuppressionParts
from activation.members.suppression_rows import (
    GONE,
    REASONS,
    Rows,
    code_of,
    joined,
    keyed,
    no_rows,
    rows_of,
    settled,
)
from activation.members.suppressions import (
    MEMBER_COLUMNS,
    Excluded,
    ListInForce,
    LoadedPart,
    SuppressionView,
)
from activation.ports import Batch, BlobKey
from tests.conftest import START
from tests.examples import examples
from tests.members.support import SMALL as SMALL_READS
from tests.members.support import Workbench, crm, csv_file
from tests.members.test_delivery import SPEC, batches_of, built
from tests.members.test_delivery import rows_of as rows_sent

EMAIL, PHONE, CUSTOMER = IdentifierType.EMAIL, IdentifierType.PHONE, IdentifierType.CUSTOMER_ID
ORGANIZATION, KEY, OTHER_KEY = "acme", b"k" * 32, b"o" * 32
NOW = 1_700_000_000_000_000


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def member(kind: IdentifierType, value: str, rule: HashRule = HashRule.RAW) -> MemberInput:
    return MemberInput(identifier_type=kind, identifier_value=value, hash_rule=rule)


def table(members: Sequence[MemberInput]) -> Any:
    encoded = encoded_inputs(members, None, START)
    assert not encoded.rejects
    return encoded.members


# rows ---------------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=32), st.sampled_from(IdentifierType), st.lists(st.binary()))
def test_forms_are_hmacs_of_the_standard_library(
    key: bytes, kind: IdentifierType, digests: list[bytes]
) -> None:
    expected = [hmac.digest(key, kind.value.encode() + b"\0" + one, "sha256") for one in digests]
    assert [row.tobytes() for row in keyed(key, kind, digests).astype(">u8")] == expected


def test_types_and_keys_have_forms_of_their_own() -> None:
    digest = bytes(32)
    forms = [
        keyed(key, kind, [digest]).tobytes() for key in (KEY, OTHER_KEY) for kind in IdentifierType
    ]
    assert len(set(forms)) == len(forms)


SMALL = st.integers(0, 3)
ROWS = st.lists(st.tuples(SMALL, SMALL, st.integers(0, 4)), max_size=8)


def as_rows(given_: Sequence[tuple[int, int, int]], at: int = 0) -> Rows:
    """Rows of (form, owner, reason); forms that are alike in their first numbers."""
    forms = np.array([[form // 2, 7, 7, form] for form, _, _ in given_], np.uint64).reshape(-1, 4)
    columns = np.array(given_, np.uint64).reshape(-1, 3)
    return Rows(
        forms, columns[:, 1], np.full(len(given_), at, np.int64), columns[:, 2].astype(np.uint8)
    )


@given(st.lists(ROWS, max_size=4), st.booleans())
def test_the_last_word_on_form_and_owner_counts(
    tables: list[list[tuple[int, int, int]]], keeps_gone: bool
) -> None:
    found = settled([as_rows(one, at) for at, one in enumerate(tables)], keeps_gone=keeps_gone)
    expected = {(form, owner): reason for one in tables for form, owner, reason in one}
    kept = {pair: reason for pair, reason in expected.items() if keeps_gone or reason != GONE}
    rows = zip(found.forms[:, 3].tolist(), found.owners.tolist(), found.reasons, strict=True)
    assert [((form, owner), int(reason)) for form, owner, reason in rows] == sorted(kept.items())


# parts --------------------------------------------------------------------------------------------


@dataclass
class Shelf:
    """A list in the making: its stored parts, and the stores."""

    store: SuppressionParts
    parts: tuple[SuppressionPart, ...] = ()

    def append(self, rows: Rows, max_parts: int = 3) -> None:
        self.parts, writes = appended(self.store, ORGANIZATION, self.parts, rows, max_parts)
        self.store.documents.commit(Batch(writes))

    def put(self, change: Change) -> None:
        if len(change.rows):
            self.append(change.rows)

    @property
    def in_force(self) -> ListInForce:
        loaded = [
            LoadedPart.of(self.store.blocks(ORGANIZATION, part), part.rows) for part in self.parts
        ]
        return ListInForce.of(loaded)


@pytest.fixture
def shelf(tmp_path: Path, clock: MovableClock) -> Iterator[Shelf]:
    documents = SqliteDocuments(tmp_path / "documents.sqlite", clock)
    yield Shelf(SuppressionParts(FileBlobs(tmp_path / "members", clock), documents))
    documents.close()


def random_rows(count: int, seed: int = 1) -> Rows:
    draw = np.random.default_rng(seed)
    forms = draw.integers(0, 2**64, (count, 4), np.uint64)
    added = np.full(count, NOW, np.int64)
    return Rows(forms, forms[:, 0], added, draw.integers(1, 5, count).astype(np.uint8))


@pytest.mark.parametrize(("count", "place"), [(100, Place.DOCUMENT), (9_000, Place.OBJECT)])
def test_a_part_is_read_as_it_was_written(shelf: Shelf, count: int, place: Place) -> None:
    rows = random_rows(count)
    shelf.append(rows)
    (part,) = shelf.parts
    assert (part.place, part.rows) == (place, count)
    assert part.bytes > ROW_BYTES * count == part.index_start
    ordered = settled([rows], keeps_gone=True)
    for found in (shelf.store.rows(ORGANIZATION, part), ordered):
        assert found.forms.tolist() == ordered.forms.tolist()
        assert found.reasons.tolist() == ordered.reasons.tolist()
        assert found.added.tolist() == ordered.added.tolist()
    some = shelf.store.rows(ORGANIZATION, part, (3, 200, 201))
    first = (ordered.forms[:, 0] >> np.uint64(56)).astype(int)
    assert some.owners.tolist() == ordered.owners[np.isin(first, (3, 200, 201))].tolist()
    codes = shelf.in_force.strongest(rows.forms, rows.owners)
    assert codes.tolist() == rows.reasons.tolist()
    assert not shelf.in_force.strongest(random_rows(50, 2).forms).any()


def test_a_damaged_or_missing_part_is_no_list(shelf: Shelf, tmp_path: Path) -> None:
    shelf.append(random_rows(9_000))
    (part,) = shelf.parts
    file = tmp_path / "members" / ORGANIZATION / part.path
    whole = file.read_bytes()
    file.chmod(0o600)
    for place in (0, part.index_start - 1, part.index_start + 3):
        octets = bytearray(whole)
        octets[place] ^= 1
        file.write_bytes(octets)
        with pytest.raises(StorageUnavailableError):
            _ = shelf.in_force
    file.write_bytes(whole[:-400])
    with pytest.raises(StorageUnavailableError):
        _ = shelf.in_force
    shelf.store.blobs.delete(BlobKey(ORGANIZATION, part.path))
    with pytest.raises(StorageUnavailableError):
        _ = shelf.in_force


def test_old_parts_are_not_rewritten_for_every_change(shelf: Shelf) -> None:
    shelf.append(random_rows(20_000))
    large = shelf.parts[0]
    for number in range(40):
        shelf.append(random_rows(10, 100 + number), max_parts=8)
        assert len(shelf.parts) <= 8
    assert shelf.parts[0] == large
    assert sum(part.rows for part in shelf.parts) == 20_400
    assert shelf.store.documents.get_many([]) == []
    for number in range(40):
        shelf.append(random_rows(3_000, 200 + number), max_parts=8)
    assert large not in shelf.parts
    assert sum(part.rows for part in shelf.parts) == 140_400
    assert shelf.in_force.strongest(random_rows(20_000).forms).all()


# a list against a model ---------------------------------------------------------------------------

PEOPLE = [
    member(EMAIL, "a.b@gmail.com"),
    member(EMAIL, "ab@gmail.com"),
    member(EMAIL, "AB+x@gmail.com"),
    member(EMAIL, sha256("a.b@gmail.com"), HashRule.PLAIN),
    member(EMAIL, sha256("ab@gmail.com"), HashRule.GOOGLE),
    member(EMAIL, "c@d.ef"),
    member(PHONE, "+49301234567"),
    member(PHONE, sha256("49301234567"), HashRule.DIGITS),
    member(CUSTOMER, "K1"),
    member(IdentifierType.COOKIE_ID, "K1"),
]
STEPS = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(
            st.tuples(st.sampled_from(PEOPLE), st.sampled_from(REASONS)), min_size=1, max_size=4
        ),
    ),
    max_size=12,
)

Pair = tuple[bytes, bytes]


@dataclass
class Model:
    """What a list should say, form by form: (form, owner) → reason."""

    said: dict[Pair, int]

    def forms(self, one: MemberInput) -> list[bytes]:
        rows = rows_of(table([one]), KEY, np.ones(1, np.uint8), 0)
        return [row.tobytes() for row in rows.forms]

    def add(self, batch: Sequence[tuple[MemberInput, SuppressionReason]]) -> tuple[int, int, int]:
        before, seen = dict(self.said), set[bytes]()
        added = updated = 0
        for one, reason in batch:
            main, *others = self.forms(one)
            level = max([code_of(reason), *(n for (_, o), n in self.said.items() if o == main)])
            for form in (main, *others):
                self.said[form, main] = level
            for pair in [pair for pair in self.said if pair[1] == main]:
                self.said[pair] = level
            seen.add(main)
        for main in seen:
            if (main, main) not in before:
                added += 1
            elif self._of(before, main) != self._of(self.said, main):
                updated += 1
        return added, updated, len(batch) - added - updated

    def remove(self, one: MemberInput) -> int:
        main = self.forms(one)[0]
        removed = (main, main) in self.said
        self.said = {pair: n for pair, n in self.said.items() if pair[1] != main}
        return int(removed)

    def _of(self, said: dict[Pair, int], main: bytes) -> dict[Pair, int]:
        return {pair: n for pair, n in said.items() if pair[1] == main}

    def strongest(self, form: bytes) -> int:
        return max((n for (one, _), n in self.said.items() if one == form), default=0)

    def by_reason(self) -> Counter[str]:
        main = Counter(n for (form, owner), n in self.said.items() if form == owner)
        return Counter({REASONS[n - 1].value: count for n, count in main.items()})


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_a_list_says_what_was_put_on_it_and_not_taken_off(shelf: Shelf, steps: Any) -> None:
    shelf.parts = ()
    model, by_reason = Model({}), Counter[str]()
    for adds, batch in steps:
        current = shelf.in_force
        members = table([one for one, _ in batch])
        codes = np.array([code_of(reason) for _, reason in batch], np.uint8)
        rows = rows_of(members, KEY, codes, NOW)
        if adds:
            change = addition(current, rows, len(batch))
            counts = (change.added, change.updated, change.duplicate)
            assert counts == model.add(batch)
            repeated = addition(current.after(change.rows), rows, len(batch))
            assert not len(repeated.rows)
        else:
            change = removal(current, rows.take(np.arange(1)), NOW)
            assert change.removed == model.remove(batch[0][0])
        by_reason.update(change.by_reason or {})
        shelf.put(change)
        assert +by_reason == model.by_reason()
        for one in PEOPLE:
            for form in model.forms(one):
                words = np.frombuffer(form, np.uint64).reshape(1, 4)
                assert shelf.in_force.strongest(words)[0] == model.strongest(form)


# every form of an identifier is found -------------------------------------------------------------


def view_of(*members: MemberInput, key: bytes = KEY, reason: str = "opt_out") -> SuppressionView:
    """A view of one list with these on it."""
    return SuppressionView("1.0", len(members), ((key, listed(members, key, reason)),), False)


def listed(members: Sequence[MemberInput], key: bytes, reason: str) -> ListInForce:
    codes = np.full(len(members), code_of(SuppressionReason(reason)), np.uint8)
    rows = settled([rows_of(table(members), key, codes, NOW)], keeps_gone=False)
    return ListInForce.of([LoadedPart.of([(0, rows)], len(rows))])


ADDRESSES = ["Ann.Lee+x@gmail.com", "ann.lee@googlemail.com", "ann@example.com", "ä@exämple.de"]
GIVEN = [
    *(member(EMAIL, one) for one in ADDRESSES),
    member(PHONE, "0049 30 1234567"),
    member(CUSTOMER, "K-1"),
    member(CUSTOMER, sha256("x")),
    member(IdentifierType.MAID, "38400000-8CF0-11BD-B23E-10B96E40000D"),
    member(IdentifierType.UID2, "A" * 43 + "="),
    member(IdentifierType.RAMP_ID, "X" * 30),
    member(IdentifierType.COOKIE_ID, "c=1"),
]
VARIANTS = {
    EMAIL: (Variant.PLAIN, Variant.GOOGLE, Variant.UID2),
    PHONE: (Variant.E164, Variant.DIGITS),
}


def sent(members: Any, kind: IdentifierType, variant: Variant) -> list[str]:
    """What goes out for members of one type in one form."""
    spec = replace(SPEC, identifiers={kind: variant})
    selected_members = selected(members, spec, Selection(), DeliveryCounts())
    rows = outgoing_rows(selected_members, spec)[0]
    if variant is Variant.RAW:
        texts: list[str] = rows.column("value").to_pylist()
        return texts
    return [digest.hex() for digest in rows.column("digest").to_pylist()]


@pytest.mark.parametrize(
    "one", GIVEN, ids=lambda one: f"{one.identifier_type}-{one.identifier_value}"
)
def test_whatever_form_goes_out_is_found(one: MemberInput) -> None:
    view, members = view_of(one), table([one])
    assert view.mask(members).tolist() == [True]
    others = table([other for other in GIVEN if other is not one])
    assert not view.mask(others).any()
    kind = one.identifier_type
    for variant in VARIANTS.get(kind, (Variant.RAW, Variant.PLAIN)):
        (value,) = sent(members, kind, variant)
        stranger = sha256("stranger") if kind in HASHED_TYPES else "stranger"
        columns: dict[IdentifierType, list[str | None]] = {
            kind: [None, stranger, value, None],
            PHONE if kind is EMAIL else EMAIL: [None] * 4,
        }
        assert view.hits(columns) == [2]
        assert view.hits({str(kind): [value]}) == [0]
        assert view.hits({f"{kind}.key": [stranger, value]}) == [1]
        assert view_of(one, key=OTHER_KEY).hits(columns) == [2]
        assert view_of(GIVEN[0] if one is not GIVEN[0] else GIVEN[2]).hits(columns) == []


@pytest.mark.parametrize(
    "spelling", ["ANNLEE@gmail.com", " ann.lee+shop@Gmail.com ", "a.n.n.lee@gmail.com"]
)
def test_another_spelling_of_a_mailbox_is_the_same_person(spelling: str) -> None:
    assert (
        view_of(member(EMAIL, "Ann.Lee+x@gmail.com")).mask(table([member(EMAIL, spelling)])).all()
    )


@pytest.mark.parametrize(
    ("rule", "text", "variant"),
    [
        (HashRule.PLAIN, "ann.lee+x@gmail.com", Variant.PLAIN),
        (HashRule.GOOGLE, "annlee@gmail.com", Variant.GOOGLE),
        (HashRule.UID2, "annlee@gmail.com", Variant.UID2),
    ],
)
def test_hashes_by_a_rule_are_found_in_members_that_came_readable(
    rule: HashRule, text: str, variant: Variant
) -> None:
    members = table([member(EMAIL, "Ann.Lee+x@gmail.com")])
    view = view_of(member(EMAIL, sha256(text), rule))
    assert view.mask(members).all()
    assert view.hits({EMAIL: sent(members, EMAIL, variant)}) == [0]
    hashed = table([member(EMAIL, sha256(in_variant("ann.lee+x@gmail.com", variant)), rule)])
    assert view_of(member(EMAIL, "Ann.Lee+x@gmail.com")).mask(hashed).all()


def test_rows_with_any_suppressed_identifier_are_hit() -> None:
    lists = (
        (KEY, listed([member(EMAIL, "a@b.de")], KEY, "list")),
        (OTHER_KEY, listed([member(CUSTOMER, "K2")], OTHER_KEY, "erasure")),
    )
    view = SuppressionView("1.1", 2, lists, True)
    columns = {
        EMAIL: [sha256("a@b.de"), sha256("b@b.de"), None, sha256("c@b.de")],
        CUSTOMER: [None, "K2", "K3", None],
    }
    assert view.hits(columns) == [0, 1]
    members = table([member(EMAIL, "a@b.de"), member(CUSTOMER, "K2"), member(CUSTOMER, "K3")])
    assert view.mask(members).tolist() == [True, True, False]
    assert view.erased(members).tolist() == [False, True, False]
    assert SuppressionView("0.0", 0).hits(columns) == []


# people -------------------------------------------------------------------------------------------


def test_with_one_identifier_the_person_stays(bench: Workbench) -> None:
    rows = [["email", "phone"], ["a@b.de", "+49301234567"], ["c@d.ef", "+49301234568"]]
    manifest = bench.imported(csv_file([*rows, ["e@f.gh", ""]]))
    view = view_of(member(PHONE, "+49301234567"))
    for multi_key in (True, False):
        spec = replace(SPEC, multi_key=multi_key)
        selection = Selection(suppressions=view.over(bench.store, manifest))
        plan = plan_delivery(bench.store, manifest, spec, selection)
        frozen = built(bench, manifest, spec, selection, f"d-{multi_key}")
        assert frozen.counts == plan.counts
        assert plan.counts.withheld == {"suppressed": 2}
        values = {value for row in rows_sent(bench, frozen) for value in row.values()}
        assert values == {sha256("c@d.ef"), sha256("e@f.gh"), sha256("49301234568")}
    alone = Selection(suppressions=view)
    assert plan_delivery(bench.store, manifest, SPEC, alone).counts.withheld == {"suppressed": 1}


def test_members_found_beforehand_are_those_found_one_by_one(bench: Workbench) -> None:
    manifest = bench.imported(crm(300), limits=SMALL_READS)
    listed_ones = [member(CUSTOMER, f"K{number}") for number in range(0, 300, 7)]
    view = view_of(*listed_ones, member(EMAIL, "ann.0@gmail.com"), member(EMAIL, "ann.4@gmail.com"))
    excluded = view.over(bench.store, manifest)
    assert isinstance(excluded, Excluded)
    again = Excluded(view, excluded.people, None)
    nobody = Excluded(view, excluded.people[:0], None)
    hit = 0
    for members in bench.store.iter_batches(manifest, MEMBER_COLUMNS):
        mask = excluded.mask(members)
        assert mask.tolist() == again.mask(members).tolist()
        assert nobody.mask(members).tolist() == view.mask(members).tolist()
        assert not (view.mask(members) & ~mask).any()
        hit += int(mask.sum())
    assert 40 < hit < manifest.size


FILE = st.lists(
    st.tuples(
        st.sampled_from(["", "a@b.de", "b.b@gmail.com", "bb@gmail.com", "c@d.ef"]),
        st.sampled_from(["", "+49301234567", "+49301234568"]),
        st.sampled_from(["", "yes", "no"]),
    ),
    min_size=1,
    max_size=10,
)
PUT = st.lists(
    st.sampled_from(
        [member(EMAIL, "a@b.de"), member(EMAIL, "bb@gmail.com"), member(PHONE, "+49301234567")]
    ),
    max_size=3,
)


EXAMPLES = itertools.count(1)
"""Equal examples may come twice, and no name is used twice."""


@pytest.mark.embedded("too many round trips")
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=FILE, put=PUT, multi_key=st.booleans(), required=st.booleans())
def test_nobody_on_the_list_is_in_a_batch_and_nobody_is_lost(
    bench: Workbench, rows: Any, put: list[MemberInput], multi_key: bool, required: bool
) -> None:
    name = f"example-{next(EXAMPLES)}"
    results = bench.read(csv_file([["email", "phone", "consent"], *rows]), prefix=f"i/{name}")
    manifest = bench.merge(results, None, name).manifest
    spec = replace(SPEC, multi_key=multi_key, platform_type=PlatformType.WEBHOOK)
    view = view_of(*put) if put else SuppressionView("0.0", 0)
    selection = Selection(suppressions=view.over(bench.store, manifest), require_consent=required)
    counts = plan_delivery(bench.store, manifest, spec, selection).counts
    frozen = built(bench, manifest, spec, selection, name)
    assert frozen.counts == counts
    assert counts.members == manifest.size == counts.identifiers + counts.withheld.total()
    for columns in batches_of(bench, frozen):
        assert view.hits(columns) == []


def test_empty_tables_are_fine() -> None:
    assert len(joined([])) == len(no_rows()) == 0
    assert (
        not view_of(member(EMAIL, "a@b.de"))
        .mask(table([member(EMAIL, "c@d.ef")]).slice(0, 0))
        .any()
    )
    assert not len(addition(ListInForce(), no_rows(), 0).rows)
