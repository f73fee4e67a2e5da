"""Identifiers of people and devices: types, shapes, and the rules by which they are hashed."""

from __future__ import annotations

import base64
import hashlib
import re
from enum import StrEnum
from typing import TYPE_CHECKING

from activation.errors import ValidationError

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

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
    """The form in which a platform wants an identifier (docs/platforms.md).

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


class Consent(StrEnum):
    """What a person has said to advertising use; unknown when a member carries none."""

    GRANTED = "granted"
    DENIED = "denied"


# How values are brought into the one form that is hashed ------------------------------------------
#
# These scalar functions are the specification; `activation.members.normalise` does the same to
# whole columns, and a property test holds the two together.

MAX_IDENTIFIER = 254
"""Longest identifier, in characters after trimming; the limit of an e-mail address."""

SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
"""What is trimmed from both ends, next to non-ASCII white space."""

UNREADABLE = "\ufffd"
"""Stands in text for what was not UTF-8, and for values without a text form."""

GOOGLE_DOMAINS = ("gmail.com", "googlemail.com")
UID2_DOMAINS = ("gmail.com",)

_EMAIL = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~.\u0080-\U0010ffff-]+"
    r"@[a-z0-9_\u0080-\U0010ffff-]+(?:\.[a-z0-9_\u0080-\U0010ffff-]+)+"
)
_PHONE_NOISE = re.compile(r"[\s().\-/\u2010-\u2015\u2212]+")
FLOAT = r"^([1-9][0-9]{6,14})\.0+$"
"""Digits of a phone number that some program took for a number with a fraction."""
_FLOAT = re.compile(FLOAT)
_E164 = re.compile(r"\+[1-9][0-9]{7,14}")
_NATIONAL = re.compile(r"[0-9]{4,15}")
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NO_GUID = "00000000-0000-0000-0000-000000000000"
_PSEUDONYM = {
    IdentifierType.RAMP_ID: re.compile(r"[A-Za-z0-9_-]{20,254}"),
    IdentifierType.UID2: re.compile(r"[A-Za-z0-9+/]{43}="),
    IdentifierType.COOKIE_ID: re.compile(r"(?!\+[0-9]+\Z)[!-?A-~]{1,254}"),
    IdentifierType.CUSTOMER_ID: re.compile(r"(?!\+[0-9]+\Z)[!-?A-~]{1,254}"),
}
"""Shapes of identifiers stored as given. None may hold an e-mail or an international phone."""


def email_plain(value: str) -> str | None:
    """The PLAIN form: trimmed, lower case; None when this is no address.

    One @, a dot in the domain, no inner white space, control character or quoting; of a Google
    mailbox something must remain when dots and +tag are gone.
    """
    plain = value.strip(SPACES).strip().lower()
    if len(plain) > MAX_IDENTIFIER or not plain.isprintable() or not _EMAIL.fullmatch(plain):
        return None
    if UNREADABLE in plain or any(character.isspace() for character in plain):
        return None
    return None if folded(plain, GOOGLE_DOMAINS).startswith("@") else plain


def folded(plain: str, domains: tuple[str, ...]) -> str:
    """`plain` without dots and +tag in the local part, when its domain is one of `domains`."""
    local, _, domain = plain.partition("@")
    if domain not in domains:
        return plain
    return local.partition("+")[0].replace(".", "") + "@" + domain


def phone_e164(value: str, region: str | None = None) -> str | None:
    """The E164 form; None when this is no phone number.

    International numbers start with + or 00. Any other is read as one of `region` (ISO 3166)
    and must be possible there; without a region it has no E164 form. What a spreadsheet or a data
    frame made a float of ("4915112345678.0") are the digits before the point.
    """
    number = _dialled(value)
    if number.startswith("+"):
        return number if _E164.fullmatch(number) else None
    if region is None or not _NATIONAL.fullmatch(number):
        return None
    return _national(number, region)


def lacks_region(value: str) -> bool:
    """Whether `value` looks like a phone number that only a default region can complete."""
    return _NATIONAL.fullmatch(_dialled(value)) is not None


def _dialled(value: str) -> str:
    number = _FLOAT.sub(r"\1", value.strip(SPACES).strip())
    if number.startswith(("+", "00")):
        number = number.replace("(0)", "", 1)
    number = _PHONE_NOISE.sub("", number)
    return "+" + number[2:] if number.startswith("00") else number


def _national(number: str, region: str) -> str | None:
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
    if str(parsed.national_number) == number and number.startswith(str(parsed.country_code)):
        parsed = _of_country(number, parsed)
    if not phonenumbers.is_possible_number(parsed):
        return None
    formatted: str = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    return formatted if _E164.fullmatch(formatted) else None


def _of_country(number: str, parsed: PhoneNumber) -> PhoneNumber:
    """`number`, which begins with the country code of its region: a mobile phone with this code
    (Germany: 49 1511 ...), unless it is one without; else as `parsed`."""
    import phonenumbers

    mobile = phonenumbers.PhoneNumberType.MOBILE
    coded = phonenumbers.parse("+" + number)
    if phonenumbers.number_type(coded) == mobile != phonenumbers.number_type(parsed):
        return coded
    return parsed


def device_id(value: str) -> str | None:
    """A mobile advertising id as lower-case GUID; None for other shapes and the opted-out zero."""
    guid = value.strip(SPACES).lower()
    return guid if _GUID.fullmatch(guid) and guid != _NO_GUID else None


def normalised(kind: IdentifierType, value: str, region: str | None = None) -> str | None:
    """The stored form of a raw value (what the key digest is made of); None when it is invalid."""
    if kind is IdentifierType.EMAIL:
        return email_plain(value)
    if kind is IdentifierType.PHONE:
        return phone_e164(value, region)
    if kind is IdentifierType.MAID:
        return device_id(value)
    stored = value.strip(SPACES)
    return stored if _PSEUDONYM[kind].fullmatch(stored) else None


def in_variant(stored: str, variant: Variant) -> str:
    """The text that a platform wants hashed (or raw), from the stored form."""
    if variant is Variant.GOOGLE:
        return folded(stored, GOOGLE_DOMAINS)
    if variant is Variant.UID2:
        return folded(stored, UID2_DOMAINS)
    return stored.removeprefix("+") if variant is Variant.DIGITS else stored


def key_digest(stored: str) -> bytes:
    """The 32 bytes that identify a member among those of its type: SHA-256 of the stored form."""
    return hashlib.sha256(stored.encode()).digest()


def digest_from(text: str) -> bytes | None:
    """The digest that `text` spells as 64 hex digits or as base64; None when it is neither."""
    cleaned = text.strip(SPACES)
    if _HEX_DIGEST.fullmatch(cleaned):
        return bytes.fromhex(cleaned)
    if _BASE64_DIGEST.fullmatch(cleaned):
        return base64.b64decode(cleaned)
    return None


_HEX_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_BASE64_DIGEST = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
