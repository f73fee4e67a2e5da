"""Identifiers of people and devices: types, shapes, and the rules by which they are hashed."""

from __future__ import annotations

import re
from enum import StrEnum

from activation.errors import ValidationError

_SAFE_ID = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9._=:-]{0,254}")


def require_safe_id(field: str, value: str) -> str:
    """Return `value` when it can stand in a key or an object name of any back-end.

    Raises ValidationError for anything that could be a path, a pattern or a control sequence.
    """
    if not _SAFE_ID.fullmatch(value) or ".." in value:
        raise ValidationError(f"{field} is not a valid id.", field=field, reason="invalid_id")
    return value


class IdentifierType(StrEnum):
    """The kinds of identifier a member can be (seed 000)."""

    EMAIL = "email"
    PHONE = "phone"
    RAMP_ID = "ramp_id"
    UID2 = "uid2"
    MAID = "maid"
    COOKIE_ID = "cookie_id"
    CUSTOMER_ID = "customer_id"


HASHED_TYPES = frozenset({IdentifierType.EMAIL, IdentifierType.PHONE})
"""Types that are never stored raw; the rest are pseudonyms and stored as given."""


class Variant(StrEnum):
    """The form in which a platform wants an identifier (`connectors/facts.md` 0.2).

    A hash is SHA-256. PLAIN: trim and lower-case. GOOGLE: PLAIN, and for gmail.com and
    googlemail.com no dots and no +tag in the local part. UID2: the same for gmail.com only.
    E164: `+` and digits. DIGITS: digits without `+`. RAW: the value as stored, not hashed.
    """

    PLAIN = "plain"
    GOOGLE = "google"
    UID2 = "uid2"
    E164 = "e164"
    DIGITS = "digits"
    RAW = "raw"


STORED_VARIANT = {
    IdentifierType.EMAIL: Variant.PLAIN,
    IdentifierType.PHONE: Variant.E164,
}
"""The variant that is a member's key; types not named here are stored RAW."""


class Consent(StrEnum):
    """What a person has said to advertising use; unknown when a member carries none."""

    GRANTED = "granted"
    DENIED = "denied"
