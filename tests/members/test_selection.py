"""Who is withheld for what he said, and on which basis the others are sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.domain.consent import (
    MEMBER_CONSENTS,
    NOTHING_SAID,
    PLATFORM_VENDORS,
    ConsentBasis,
    MemberConsent,
    Vendor,
    basis_of,
)
from activation.domain.identifier import Consent, IdentifierType, Variant
from activation.domain.member_import import HashRule
from activation.domain.platform import ConnectorSpec, PlatformType
from activation.members.layout import RULES, TYPES, schema
from activation.members.selection import DeliveryCounts, Selection, selected

GRANTED, DENIED = Consent.GRANTED, Consent.DENIED
SPEC = ConnectorSpec(
    platform_type=PlatformType.WEBHOOK,
    title="Test",
    identifiers={IdentifierType.EMAIL: Variant.PLAIN},
    max_rows=50,
    max_bytes=None,
    requests_per_minute=60,
    credentials=(),
)
GOOGLE = replace(SPEC, platform_type=PlatformType.GOOGLE_ADS, carries_consent=True)
META = replace(SPEC, platform_type=PlatformType.FACEBOOK, carries_consent=True)
SPECS = [SPEC, GOOGLE, META, *(replace(one, carries_consent=False) for one in (GOOGLE, META))]


def table_of(consents: list[MemberConsent], kinds: list[IdentifierType] | None = None) -> Any:
    """Members who differ in what they said."""
    count = len(consents)
    known = {consent: code for code, consent in enumerate(MEMBER_CONSENTS)}
    kinds = kinds or [IdentifierType.EMAIL] * count
    columns = {
        "digest": pa.array([bytes([i % 256]) * 32 for i in range(count)], pa.binary(32)),
        "identifier_type": pa.array([TYPES.index(kind) for kind in kinds], pa.uint8()),
        "hash_rule": pa.array([RULES.index(HashRule.RAW)] * count, pa.uint8()),
        "consent": pa.array([known.get(one) for one in consents], pa.uint8()),
        "person": pa.nulls(count, pa.binary(8)),
    }
    names = ["digest", "identifier_type", "hash_rule", "consent", "person"]
    return pa.table(columns, schema=pa.schema([schema().field(name) for name in names]))


def outcome(
    consent: MemberConsent, spec: ConnectorSpec, *, require_consent: bool = False
) -> str | ConsentBasis:
    """The reason why a member stays, or the basis on which it is sent."""
    counts = DeliveryCounts()
    selection = Selection(require_consent=require_consent)
    chosen = selected(table_of([consent]), spec, selection, counts)
    if chosen.num_rows:
        return basis_of(chosen.column("basis")[0].as_py())
    (reason,) = counts.withheld
    return reason


@pytest.mark.parametrize(
    ("consent", "spec", "required", "expected"),
    [
        (MemberConsent(), SPEC, False, NOTHING_SAID),
        (MemberConsent(), SPEC, True, "consent_missing"),
        (MemberConsent(GRANTED), SPEC, True, "consent_missing"),
        (MemberConsent(GRANTED, GRANTED), SPEC, True, NOTHING_SAID),
        (MemberConsent(GRANTED, GRANTED), GOOGLE, True, ConsentBasis(GRANTED, GRANTED)),
        (MemberConsent(GRANTED), GOOGLE, False, ConsentBasis(GRANTED, None)),
        (MemberConsent(DENIED), SPEC, False, "consent_denied"),
        (MemberConsent(DENIED, GRANTED), GOOGLE, False, "consent_denied"),
        (MemberConsent(GRANTED, DENIED), SPEC, False, "consent_denied"),
        (MemberConsent(GRANTED, DENIED), META, False, "consent_denied"),
        (MemberConsent(GRANTED, DENIED), GOOGLE, True, ConsentBasis(GRANTED, DENIED)),
        (MemberConsent(limited_data_use=True), SPEC, False, "limited_data_use"),
        (MemberConsent(limited_data_use=True), GOOGLE, False, "limited_data_use"),
        (MemberConsent(limited_data_use=True), META, False, ConsentBasis(None, None, True)),
        (MemberConsent(limited_data_use=False), META, False, NOTHING_SAID),
        (MemberConsent(denied_vendors=frozenset({Vendor.GOOGLE})), GOOGLE, False, "vendor_denied"),
        (MemberConsent(denied_vendors=frozenset({Vendor.GOOGLE})), META, False, NOTHING_SAID),
        (MemberConsent(denied_vendors=frozenset({Vendor.AMAZON})), GOOGLE, False, NOTHING_SAID),
        (MemberConsent(denied_vendors=frozenset()), GOOGLE, False, NOTHING_SAID),
    ],
)
def test_what_was_said_decides(
    consent: MemberConsent,
    spec: ConnectorSpec,
    required: bool,
    expected: str | ConsentBasis,
) -> None:
    assert outcome(consent, spec, require_consent=required) == expected


def naive(one: MemberConsent, spec: ConnectorSpec, required: bool) -> str | ConsentBasis:
    """The rules of docs/consent.md, member by member."""
    vendor = PLATFORM_VENDORS.get(spec.platform_type)
    flags = (one.ad_user_data, one.ad_personalization)
    is_meta = spec.platform_type is PlatformType.FACEBOOK
    limits = spec.carries_consent and is_meta
    says = spec.carries_consent and not is_meta
    if flags[0] is DENIED or (flags[1] is DENIED and not says):
        return "consent_denied"
    if vendor in (one.denied_vendors or ()):
        return "vendor_denied"
    if required and None in flags:
        return "consent_missing"
    if one.limited_data_use and not limits:
        return "limited_data_use"
    return ConsentBasis(*(flags if says else (None, None)), bool(one.limited_data_use and limits))


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("spec", SPECS)
def test_every_state_goes_by_the_rules(spec: ConnectorSpec, required: bool) -> None:
    for one in (MemberConsent(), *MEMBER_CONSENTS):
        assert outcome(one, spec, require_consent=required) == naive(one, spec, required), one


@given(
    members=st.lists(
        st.tuples(
            st.sampled_from([MemberConsent(), *MEMBER_CONSENTS]), st.sampled_from(IdentifierType)
        )
    ),
    spec=st.sampled_from(SPECS),
    required=st.booleans(),
)
def test_every_member_is_sent_or_withheld_for_one_reason(
    members: list[tuple[MemberConsent, IdentifierType]], spec: ConnectorSpec, required: bool
) -> None:
    counts = DeliveryCounts()
    table = table_of([one for one, _ in members], [kind for _, kind in members])
    chosen = selected(table, spec, Selection(require_consent=required), counts)
    expected = [naive(one, spec, required) for one, _ in members]
    bases = [
        basis
        for basis, (_, kind) in zip(expected, members, strict=True)
        if isinstance(basis, ConsentBasis) and kind in spec.identifiers
    ]
    assert [basis_of(code) for code in chosen.column("basis").to_pylist()] == bases
    assert counts.members == len(members) == counts.identifiers + counts.withheld.total()
    assert counts.identifiers == chosen.num_rows == len(bases)
