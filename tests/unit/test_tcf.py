"""TCF strings: what our bit reader finds is what an independent encoder has put in."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.domain.consent import MemberConsent, Vendor
from activation.domain.identifier import Consent
from activation.domain.tcf import VENDOR_IDS, consent_of, decoded

CREATED = datetime(2026, 3, 4, 5, 6, 7, 800_000, tzinfo=UTC)
ALL = (1, 3, 4, 7)
OURS = tuple(VENDOR_IDS.values())


@dataclass
class Writer:
    """Bits one after the other, as the specification lists the fields."""

    text: str = ""

    def put(self, value: int, width: int) -> None:
        assert 0 <= value < 2**width
        self.text += format(value, f"0{width}b")

    def flags(self, chosen: Collection[int], count: int) -> None:
        self.text += "".join("1" if n in chosen else "0" for n in range(1, count + 1))

    def encoded(self) -> str:
        filled = self.text + "0" * (-len(self.text) % 8)
        octets = bytes(int(filled[i : i + 8], 2) for i in range(0, len(filled), 8))
        return base64.urlsafe_b64encode(octets).decode().rstrip("=")


Ranges = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Fields:
    """What a string shall say."""

    purposes: Collection[int] = ALL
    interests: Collection[int] = ()
    vendors: Collection[int] = OURS
    by_range: bool = False
    restrictions: Sequence[tuple[int, int, Ranges]] = field(default=())
    """(purpose, kind, vendors)"""
    version: int = 2

    def bits(self) -> Writer:
        writer = Writer()
        writer.put(self.version, 6)
        for _ in range(2):  # created, last updated
            writer.put(round(CREATED.timestamp() * 10), 36)
        for width in (12, 12, 6, 6, 6, 12, 6, 1, 1):
            writer.put(1, width)
        writer.flags((2,), 12)  # special features
        writer.flags(self.purposes, 24)
        writer.flags(self.interests, 24)
        writer.put(0, 1)
        for _ in "DE":
            writer.put(3, 6)
        put_vendors(writer, self.vendors, self.by_range)
        put_vendors(writer, (1, 2), not self.by_range)
        writer.put(len(self.restrictions), 12)
        for purpose, kind, ranges in self.restrictions:
            writer.put(purpose, 6)
            writer.put(kind, 2)
            put_ranges(writer, ranges)
        return writer

    def encoded(self) -> str:
        return self.bits().encoded()


def put_vendors(writer: Writer, vendors: Collection[int], by_range: bool) -> None:
    largest = max(vendors, default=0)
    writer.put(largest, 16)
    writer.put(int(by_range), 1)
    if not by_range:
        writer.flags(vendors, largest)
        return
    ranges: list[list[int]] = []
    for vendor in sorted(vendors):
        if ranges and ranges[-1][1] == vendor - 1:
            ranges[-1][1] = vendor
        else:
            ranges.append([vendor, vendor])
    put_ranges(writer, [(low, high) for low, high in ranges])


def put_ranges(writer: Writer, ranges: Ranges) -> None:
    writer.put(len(ranges), 12)
    for low, high in ranges:
        writer.put(int(low != high), 1)
        writer.put(low, 16)
        if low != high:
            writer.put(high, 16)


@given(
    purposes=st.sets(st.integers(1, 24)),
    interests=st.sets(st.integers(1, 24)),
    vendors=st.sets(st.integers(1, 900), max_size=40) | st.just(set(range(15, 800))),
    by_range=st.booleans(),
)
def test_what_was_put_in_is_found(
    purposes: set[int], interests: set[int], vendors: set[int], by_range: bool
) -> None:
    text = Fields(purposes, interests, vendors, by_range).encoded()
    for whole in (text, f"{text}.IAAA", f"{text}.IAAA.YAAA"):
        found = decoded(whole, range(1, 901))
        assert found.created == CREATED
        assert found.purposes == purposes & set(ALL)
        assert found.interests == interests & set(ALL)
        assert found.vendors == vendors


def test_a_string_of_the_published_documentation() -> None:
    """Made by other people's code: created on 2020-02-20, vendors 2, 6 and 8."""
    found = decoded(
        "COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA.IFoEUQQgAIQwgIwQABAEAAAAOI", range(99)
    )
    assert found.created - datetime(2020, 2, 20, tzinfo=UTC) < timedelta(days=1)
    assert found.vendors == {2, 6, 8}


GRANTED, DENIED = Consent.GRANTED, Consent.DENIED


@pytest.mark.parametrize(
    ("purposes", "interests", "user_data", "personalization"),
    [
        ((1, 3, 4, 7), (), GRANTED, GRANTED),
        ((1, 7), (), GRANTED, DENIED),
        ((1,), (7,), GRANTED, DENIED),
        ((7,), (1,), DENIED, DENIED),
        ((3, 4), (), DENIED, GRANTED),
        ((1, 3), (4, 7), GRANTED, DENIED),
        ((), (), DENIED, DENIED),
    ],
)
def test_purposes_become_the_two_kinds_of_consent(
    purposes: tuple[int, ...],
    interests: tuple[int, ...],
    user_data: Consent,
    personalization: Consent,
) -> None:
    said = consent_of(Fields(purposes, interests).encoded())
    assert (said.ad_user_data, said.ad_personalization) == (user_data, personalization)
    assert said.denied_vendors == frozenset()


@pytest.mark.parametrize("by_range", [True, False])
@pytest.mark.parametrize("vendor", list(Vendor))
def test_a_vendor_without_his_bit_is_denied(vendor: Vendor, by_range: bool) -> None:
    allowed = [number for one, number in VENDOR_IDS.items() if one is not vendor]
    said = consent_of(Fields(vendors=allowed, by_range=by_range).encoded())
    assert said.denied_vendors == frozenset({vendor})


FORBIDDEN, CONSENT_ONLY, INTEREST_ONLY = range(3)


@pytest.mark.parametrize(
    ("purpose", "kind", "interests", "denied"),
    [
        (1, FORBIDDEN, (), {Vendor.GOOGLE}),
        (7, CONSENT_ONLY, (7,), {Vendor.GOOGLE}),
        (1, CONSENT_ONLY, (), set()),
        (1, INTEREST_ONLY, (), set()),
        (2, FORBIDDEN, (), set()),
    ],
)
def test_what_the_publisher_forbids_counts(
    purpose: int, kind: int, interests: tuple[int, ...], denied: set[Vendor]
) -> None:
    purposes = (1, 3, 4) if interests else ALL
    restrictions = [(purpose, kind, [(700, 760)])]
    text = Fields(purposes, interests, restrictions=restrictions).encoded()
    assert consent_of(text).denied_vendors == frozenset(denied)


GOOD = Fields().encoded()
BACKWARDS = Fields(restrictions=[(1, 0, [(9, 3)])]).encoded()
NOBODY = Fields(restrictions=[(1, 0, [(0, 0)])]).encoded()


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "granted",
            "=",
            f" {GOOD}",
            f"{GOOD}.",
            f"{GOOD}\n",
            GOOD + "=",
            GOOD[:60],
            GOOD[:-4],
        ),
        *(Fields(version=1).encoded(), Fields(version=3).encoded(), BACKWARDS, NOBODY),
        *("C" * 5000, GOOD.replace("A", "ä", 1), GOOD.replace("A", "+", 1)),
    ],
)
def test_what_is_no_string_of_version_two_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — the parser's contract
        consent_of(text)


@given(st.text("ABCDEFGHabcdefgh0123456789-_.", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        said = consent_of(text)
    except ValueError:
        return
    assert isinstance(said, MemberConsent)
