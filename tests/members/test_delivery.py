"""Delivery lists: the plan is the run, every member is accounted for, people share rows."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activation.domain.distribution import DistributionType
from activation.domain.identifier import IdentifierType, Variant, in_variant, normalised
from activation.domain.manifest import Manifest
from activation.domain.member import MemberInput
from activation.domain.platform import ConnectorSpec, PlatformType
from activation.errors import ConflictError, StorageUnavailableError
from activation.members.batches import DeliveryList, opened
from activation.members.delivery import Prepared, Selection, Stored, freeze, plan_delivery
from tests.examples import examples
from tests.members.support import AUDIENCE, ORGANIZATION, SMALL, Workbench, crm, csv_file

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
SPEC = ConnectorSpec(
    platform_type=PlatformType.WEBHOOK,
    title="Test",
    identifiers={
        IdentifierType.EMAIL: Variant.GOOGLE,
        IdentifierType.PHONE: Variant.DIGITS,
        IdentifierType.CUSTOMER_ID: Variant.RAW,
    },
    max_rows=50,
    max_bytes=None,
    requests_per_minute=60,
    credentials=(),
    multi_key=True,
)
ALL = Selection()


def built(
    bench: Workbench,
    manifest: Manifest,
    spec: ConnectorSpec,
    selection: Selection = ALL,
    name: str = "d1",
) -> Prepared:
    place = Stored(
        bench.store, ORGANIZATION, "ledger", name, f"distributions/{name}", spec.max_rows
    )
    return freeze(bench.store, manifest, spec, selection, None, DistributionType.INITIAL, place)


def list_of(prepared: Prepared) -> DeliveryList:
    """The one list of an initial delivery."""
    (step,) = prepared.steps
    assert step.frozen is not None
    return step.frozen


def batches_of(bench: Workbench, prepared: Prepared) -> list[dict[str, Sequence[str | None]]]:
    if not prepared.steps:
        return []
    with opened(bench.blobs, list_of(prepared)) as reader:
        return [reader.columns(seq) for seq in range(1, prepared.steps[0].batches + 1)]


def rows_of(bench: Workbench, prepared: Prepared) -> list[dict[str, str]]:
    rows = []
    for columns in batches_of(bench, prepared):
        for values in zip(*columns.values(), strict=True):
            pairs = zip(columns, values, strict=True)
            rows.append({name: value for name, value in pairs if value is not None})
    return rows


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def manifest(bench: Workbench) -> Manifest:
    return bench.imported(crm(600), limits=SMALL)


@pytest.mark.parametrize("multi_key", [True, False])
def test_the_list_is_what_was_planned(
    bench: Workbench, manifest: Manifest, multi_key: bool
) -> None:
    spec = replace(SPEC, multi_key=multi_key)
    plan = plan_delivery(bench.store, manifest, spec, ALL)
    frozen = built(bench, manifest, spec)
    rows = rows_of(bench, frozen)
    assert _said(frozen) == _said(plan)
    counts = plan.counts
    assert counts.members == manifest.size
    assert counts.members == counts.identifiers + sum(counts.withheld.values())
    assert len(rows) == frozen.steps[0].rows == plan.steps[0].rows
    assert plan.steps[0].batches == -(-plan.steps[0].rows // 50)
    assert Counter(kind for row in rows for kind in row) == counts.by_type
    assert (plan.steps[0].rows < counts.identifiers) is multi_key


def _said(prepared: Prepared) -> tuple[object, ...]:
    """All that a plan tells."""
    steps = [(s.operation, s.rows, s.batches, s.identifiers, s.cuts) for s in prepared.steps]
    numbers = (prepared.held, prepared.kept, prepared.adds, prepared.removes, prepared.restated)
    return prepared.counts, numbers, steps


def test_batches_have_exactly_the_size_the_platform_takes(
    bench: Workbench, manifest: Manifest
) -> None:
    frozen = built(bench, manifest, SPEC)
    sizes = [len(next(iter(columns.values()))) for columns in batches_of(bench, frozen)]
    assert set(sizes[:-1]) == {50}
    assert sum(sizes) == frozen.steps[0].rows


def test_the_same_manifest_gives_the_same_list(bench: Workbench, manifest: Manifest) -> None:
    first = built(bench, manifest, SPEC)
    second = built(bench, manifest, SPEC, name="d2")
    assert list_of(first).sha256 == list_of(second).sha256
    with pytest.raises(ConflictError):
        built(bench, manifest, SPEC)


def test_nothing_set_aside_stays(bench: Workbench, manifest: Manifest) -> None:
    plan_delivery(bench.store, manifest, SPEC, ALL)
    built(bench, manifest, SPEC)
    paths = [info.key.path for info in bench.blobs.list(ORGANIZATION, "")]
    assert not [path for path in paths if path.startswith("scratch")]


PERSON = ["Ann.Lee+x@gmail.com", "+49 151 1234567", "K1"]
FORMS = [
    (Variant.PLAIN, Variant.E164),
    (Variant.GOOGLE, Variant.DIGITS),
    (Variant.UID2, Variant.E164),
]


@pytest.mark.parametrize(("email", "phone"), FORMS)
@pytest.mark.parametrize("address", ["Ann.Lee+x@gmail.com", "Ann.Lee@googlemail.com", "a@b.de"])
def test_each_platform_gets_its_own_form(
    bench: Workbench, email: Variant, phone: Variant, address: str
) -> None:
    rows = [["email", "phone", "customer_id"], [address, *PERSON[1:]]]
    manifest = bench.imported(csv_file(rows))
    forms = {IdentifierType.EMAIL: email, IdentifierType.PHONE: phone}
    spec = replace(SPEC, identifiers={**SPEC.identifiers, **forms})
    (row,) = rows_of(bench, built(bench, manifest, spec))
    plain = normalised(IdentifierType.EMAIL, address)
    assert plain is not None
    assert row == {
        "email": sha256(in_variant(plain, email)),
        "phone": sha256(in_variant("+491511234567", phone)),
        "customer_id": "K1",
    }


def test_a_second_address_of_a_person_takes_a_row_of_its_own(bench: Workbench) -> None:
    rows = [["email", "email_2", "phone"], ["a@b.de", "c@d.ef", "+49301234567"]]
    manifest = bench.imported(csv_file(rows))
    found = rows_of(bench, built(bench, manifest, SPEC))
    assert sorted(map(len, found)) == [1, 2]
    assert sorted(r["email"] for r in found) == sorted(map(sha256, ["a@b.de", "c@d.ef"]))


def member(value: str, **fields: Any) -> MemberInput:
    return MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value=value, **fields)


def stored(bench: Workbench, members: Sequence[MemberInput]) -> Manifest:
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, members)
    return bench.store.merge(ORGANIZATION, AUDIENCE, "m", None, [run.path or ""]).manifest


def test_every_member_withheld_has_one_reason(bench: Workbench) -> None:
    digest = sha256("x@gmail.com")
    past = NOW - timedelta(days=1)
    manifest = stored(
        bench,
        [
            member("a@b.de", segments=("vip",)),
            member("b@b.de", segments=("other",)),
            member("c@b.de"),
            member("d@b.de", segments=("vip", "x"), expires_at=past, consent="denied"),
            member("e@b.de", segments=("vip",), consent="denied"),
            member("f@b.de", segments=("vip",), consent="granted", expires_at=NOW + timedelta(1)),
            member(digest, segments=("vip",), hash_rule="plain"),
            member(sha256("y@gmail.com"), segments=("vip",), hash_rule="google"),
            MemberInput(
                identifier_type=IdentifierType.COOKIE_ID, identifier_value="c", segments=("vip",)
            ),
        ],
    )
    plan = plan_delivery(bench.store, manifest, SPEC, Selection(segments=["vip"], now=NOW))
    assert plan.counts.withheld == {
        "not_selected": 2,
        "expired": 1,
        "consent_denied": 1,
        "hash_rule_mismatch": 1,
        "unsupported_identifier": 1,
    }
    counts = plan.counts
    assert (counts.members, counts.identifiers, counts.by_type) == (9, 3, {"email": 3})


@pytest.mark.embedded("looks at files")
def test_a_damaged_batch_is_not_sent(bench: Workbench, manifest: Manifest, tmp_path: Path) -> None:
    frozen = built(bench, manifest, SPEC)
    file = tmp_path / "members" / ORGANIZATION / list_of(frozen).path
    octets = bytearray(file.read_bytes())
    octets[200] ^= 1
    file.chmod(0o600)
    file.write_bytes(octets)
    with pytest.raises(StorageUnavailableError):
        batches_of(bench, frozen)


def test_an_empty_selection_makes_an_empty_list(bench: Workbench, manifest: Manifest) -> None:
    frozen = built(bench, manifest, SPEC, Selection(segments=["nobody has this"]))
    assert frozen.steps == []
    assert frozen.counts.withheld == {"not_selected": manifest.size}


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["", "a@b.de", "b@b.de", "c@gmail.com", "bad"]),
        st.sampled_from(["", "d@b.de", "e@b.de"]),
        st.sampled_from(["", "+49301234567", "+49301234568"]),
        st.sampled_from(["", "yes", "no"]),
        st.sampled_from(["", "2020-01-01", "2030-01-01"]),
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.embedded("too many round trips")
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, multi_key=st.booleans(), max_rows=st.integers(1, 5))
def test_plan_and_list_agree_and_lose_nobody(
    bench: Workbench, rows: list[tuple[str, ...]], multi_key: bool, max_rows: int
) -> None:
    header = ["email", "email2", "phone", "consent", "expires_at"]
    name = hashlib.sha256(repr((rows, multi_key, max_rows)).encode()).hexdigest()
    results = bench.read(csv_file([header, *rows]), prefix=f"imports/{name}")
    manifest = bench.merge(results, None, name).manifest
    spec = replace(SPEC, multi_key=multi_key, max_rows=max_rows)
    selection = Selection(now=NOW)
    plan = plan_delivery(bench.store, manifest, spec, selection)
    frozen = built(bench, manifest, spec, selection, name)
    assert _said(frozen) == _said(plan)
    found = rows_of(bench, frozen)
    assert len(found) == sum(step.rows for step in plan.steps)
    per_type = defaultdict(list)
    for row in found:
        for kind, value in row.items():
            per_type[kind].append(value)
    counts = plan.counts
    assert {kind: len(values) for kind, values in per_type.items()} == counts.by_type
    assert all(len(set(values)) == len(values) for values in per_type.values())
    assert counts.members == manifest.size == counts.identifiers + sum(counts.withheld.values())
