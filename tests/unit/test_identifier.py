"""Identifiers: published vectors of the ad platforms, and what is no identifier."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from activation.domain.identifier import (
    MAX_IDENTIFIER,
    IdentifierType,
    Variant,
    digest_from,
    in_variant,
    key_digest,
    lacks_region,
    normalised,
)
from activation.domain.member import RejectReason, reject_reason

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "data" / "identifier_vectors.json").read_text()
)


@pytest.mark.parametrize(
    "vector", VECTORS, ids=lambda v: "{platform} {identifier_type}: {raw!r}".format(**v)
)
def test_a_value_takes_the_form_the_platform_publishes(vector: dict[str, Any]) -> None:
    kind, variant = IdentifierType(vector["identifier_type"]), Variant(vector["variant"])
    stored = normalised(kind, vector["raw"], vector.get("region"))
    if vector["normalised"] is None:
        assert stored is None
        return
    assert stored is not None
    form = in_variant(stored, variant)
    assert form == vector["normalised"]
    if vector["sha256_hex"] is not None:
        assert hashlib.sha256(form.encode()).hexdigest() == vector["sha256_hex"]


NO_DEVICE = "00000000-0000-0000-0000-000000000000"
NO_ADDRESSES = [
    *("", "quinn", "a@b", "a@@b.c", "a b@c.de", "a@b .c", "a@.de", "a@b..de", "a@b.de."),
    *("...@gmail.com", "+x@gmail.com", "a\x00@b.de", "a\u200b@b.de", "a\u00a0b@c.de"),
    *("<a@b.de>", "a@b.de,c@d.ef", '"a b"@c.de', "a@b.de" + "x" * MAX_IDENTIFIER),
]


@pytest.mark.parametrize("value", NO_ADDRESSES)
def test_what_is_no_address_is_refused(value: str) -> None:
    assert normalised(IdentifierType.EMAIL, value) is None


@pytest.mark.parametrize("value", ["Zoë@Exämple.de", "\u00a0zoë@exämple.de\u00a0"])
def test_addresses_beyond_ascii_are_lower_cased(value: str) -> None:
    assert normalised(IdentifierType.EMAIL, value) == "zoë@exämple.de"


@pytest.mark.parametrize(
    ("value", "region", "stored"),
    [
        ("4915112345678", "DE", "+4915112345678"),
        ("49 1511 2345678", "DE", "+4915112345678"),
        ("0491 5112345", "DE", "+494915112345"),
        ("33612345678", "FR", "+33612345678"),
        ("4915112345678.0", "DE", "+4915112345678"),
        ("15112345678.0", "DE", "+4915112345678"),
        ("5551234567.0", "US", "+15551234567"),
        ("+49 (0)30 1234567", None, "+49301234567"),
        ("(+49) 30/1234567", None, "+49301234567"),
        ("0049-30-1234567", "US", "+49301234567"),
        ("030 1234567", "DE", "+49301234567"),
        ("(212) 555-0100", "US", "+12125550100"),
        ("030 1234567", None, None),
        ("+0301234567", "DE", None),
        ("+1234567", None, None),
        ("12", "DE", None),
        ("+49 30 1234567 x12", None, None),
        ("030 1234567", "ZZ", None),
        ("\u0661\u0662\u0663\u0664\u0665\u0666\u0667", "DE", None),
    ],
)
def test_phones_become_e164_or_nothing(value: str, region: str | None, stored: str | None) -> None:
    assert normalised(IdentifierType.PHONE, value, region) == stored


def test_a_number_without_country_says_that_it_needs_one() -> None:
    assert lacks_region("030/1234567")
    reason = reject_reason(IdentifierType.PHONE, "030/1234567")
    assert reason is RejectReason.PHONE_NEEDS_REGION
    assert reject_reason(IdentifierType.PHONE, "ask her") is RejectReason.INVALID_PHONE


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (IdentifierType.MAID, "38400000-8CF0-11BD-B23E-10B96E40000D", "38400000-8CF0"),
        (IdentifierType.MAID, "38400000-8cf0-11bd-b23e-10b96e40000d", NO_DEVICE),
        (IdentifierType.UID2, "A" * 43 + "=", "A" * 44),
        (IdentifierType.RAMP_ID, "Xi1" + "a" * 40, "short"),
        (IdentifierType.COOKIE_ID, "c-1:a", "two words"),
        (IdentifierType.CUSTOMER_ID, "K-1", "ann@example.com"),
        (IdentifierType.CUSTOMER_ID, "4915112345", "+4915112345"),
    ],
)
def test_pseudonyms_have_shapes(kind: IdentifierType, good: str, bad: str) -> None:
    assert normalised(kind, good) is not None
    assert normalised(kind, bad) is None


def test_digests_are_read_as_hex_in_either_case_and_as_base64() -> None:
    digest = key_digest("a@b.de")
    base64_text = base64.b64encode(digest).decode()
    assert digest_from(digest.hex()) == digest_from(f" {digest.hex().upper()} ") == digest
    assert digest_from(base64_text) == digest
    assert digest_from("a@b.de") is None
    assert digest_from(digest.hex()[:-1]) is None
