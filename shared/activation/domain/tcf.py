"""TCF strings (IAB Transparency and Consent Framework, version 2) as what a member has said.

Of a string the core segment counts: purposes, vendors, and what the publisher forbids.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from activation.domain.consent import MemberConsent, Vendor
from activation.domain.identifier import Consent

VENDOR_IDS = {Vendor.GOOGLE: 755, Vendor.AMAZON: 793, Vendor.THE_TRADE_DESK: 21}
"""Numbers in the Global Vendor List [?]: from memory, to be compared with the list."""

USER_DATA_PURPOSES = (1, 7)
"""What ad_user_data needs [?], as Google's consent mode reads a string: 1 is to store and read
something on a device, which every use of an identifier begins with, and 7 to measure
advertising, for which the data of a person is sent to a platform."""
PERSONALIZATION_PURPOSES = (3, 4)
"""What ad_personalization needs [?]: to make a profile for advertising, and to select by it."""
BY_INTEREST = (7,)
"""Purposes that a legitimate interest can allow; since TCF 2.2 the others need consent."""

ASKED = (*USER_DATA_PURPOSES, *PERSONALIZATION_PURPOSES)

MAX_CHARACTERS = 4096
PURPOSES = 24
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHAPE = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_FORBIDDEN, _CONSENT_ONLY = 0, 1
_SKIPPED_HEAD, _SKIPPED_POLICY, _SKIPPED_COUNTRY = 90, 20, 13
"""Bits between the fields that count: last update to the vendor list's version; policy version,
flags and special features; purpose one treatment and the publisher's country."""


@dataclass(frozen=True, slots=True)
class TcString:
    """What the core segment says of some vendors and of the purposes ASKED."""

    created: datetime
    purposes: frozenset[int]
    """Those with consent."""
    interests: frozenset[int]
    """Those for which a legitimate interest was told, and not objected to."""
    vendors: frozenset[int]
    """Those of the vendors asked about who have consent."""
    restricted: frozenset[tuple[int, int]]
    """(purpose, vendor) that the publisher does not allow."""

    def allows(self, purpose: int) -> bool:
        """Whether the person lets data be used for a purpose."""
        return purpose in self.purposes or (purpose in BY_INTEREST and purpose in self.interests)


def consent_of(text: str) -> MemberConsent:
    """What a TCF string says, in the terms of a member. ValueError for what is none."""
    said = decoded(text, VENDOR_IDS.values())
    allowed = said.vendors - {number for _, number in said.restricted}
    denied = frozenset(one for one, number in VENDOR_IDS.items() if number not in allowed)
    return MemberConsent(
        ad_user_data=_flag(said, USER_DATA_PURPOSES),
        ad_personalization=_flag(said, PERSONALIZATION_PURPOSES),
        denied_vendors=denied,
    )


def _flag(said: TcString, purposes: Collection[int]) -> Consent:
    return Consent.GRANTED if all(map(said.allows, purposes)) else Consent.DENIED


def decoded(text: str, vendors: Collection[int]) -> TcString:
    """The core segment of a TCF string of version 2. ValueError for what is none."""
    if len(text) > MAX_CHARACTERS or not _SHAPE.fullmatch(text):
        raise ValueError("shape")
    core = text.partition(".")[0]
    bits = _Bits(base64.urlsafe_b64decode(core + "=" * (-len(core) % 4)))
    if bits.take(6) != 2:
        raise ValueError("version")
    created = _EPOCH + timedelta(milliseconds=100 * bits.take(36))
    bits.take(_SKIPPED_HEAD)
    bits.take(_SKIPPED_POLICY)
    purposes, interests = _purposes(bits.take(PURPOSES)), _purposes(bits.take(PURPOSES))
    bits.take(_SKIPPED_COUNTRY)
    allowed = _vendors(bits, vendors)
    _vendors(bits, ())  # with legitimate interest
    restricted = _restricted(bits, vendors, purposes)
    return TcString(created, purposes, interests, allowed, restricted)


class _Bits:
    """The bits of a text, taken from the front. ValueError when there are not so many."""

    def __init__(self, octets: bytes) -> None:
        self._value = int.from_bytes(octets, "big")
        self._left = 8 * len(octets)

    def take(self, width: int) -> int:
        """The next bits as a number."""
        self._left -= width
        if self._left < 0:
            raise ValueError("short")
        return self._value >> self._left & ((1 << width) - 1)


def _purposes(field: int) -> frozenset[int]:
    return frozenset(n for n in ASKED if field >> (PURPOSES - n) & 1)


def _vendors(bits: _Bits, asked: Collection[int]) -> frozenset[int]:
    """The next vendor section: a bit for each vendor, or ranges of them."""
    largest = bits.take(16)
    if bits.take(1):
        ranges = list(_ranges(bits))
        return frozenset(v for v in asked if any(low <= v <= high for low, high in ranges))
    field = bits.take(largest)
    return frozenset(v for v in asked if v <= largest and field >> (largest - v) & 1)


def _ranges(bits: _Bits) -> Iterator[tuple[int, int]]:
    for _ in range(bits.take(12)):
        is_range, low = bits.take(1), bits.take(16)
        high = bits.take(16) if is_range else low
        if not 0 < low <= high:
            raise ValueError("range")
        yield low, high


def _restricted(
    bits: _Bits, asked: Collection[int], purposes: Collection[int]
) -> frozenset[tuple[int, int]]:
    """What the publisher forbids, or allows only with a consent that is not there."""
    found = set()
    for _ in range(bits.take(12)):
        purpose, kind = bits.take(6), bits.take(2)
        forbids = kind == _FORBIDDEN or (kind == _CONSENT_ONLY and purpose not in purposes)
        for low, high in _ranges(bits):
            if forbids and purpose in ASKED:
                found |= {(purpose, vendor) for vendor in asked if low <= vendor <= high}
    return frozenset(found)
