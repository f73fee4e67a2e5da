"""Made-up people: everything about a person follows from seed and number.

Local parts hold `.demo` and the number, phone numbers the number padded to eight digits: no two
people share an identifier, and none can be taken for a real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from activation.demo.draws import Draws

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_PEOPLE = 100_000_000
PHONE_DIGITS = 8


class Kind(IntEnum):
    """What is the matter with a person's rows."""

    WRONG_COLUMN_COUNT = 0
    NO_IDENTIFIER = 1
    BAD_EMAIL = 2
    BAD_PHONE = 3
    NO_EMAIL = 4
    NO_PHONE = 5
    COMPLETE = 6


_KIND_LIMITS = (0.005, 0.010, 0.024, 0.038, 0.090, 0.240)
"""Upper ends of the shares of all kinds but COMPLETE."""

FIRST_NAMES = (
    ("Anna", "anna"),
    ("Björn", "bjoern"),
    ("Chloé", "chloe"),
    ("Dörte", "doerte"),
    ("Emre", "emre"),
    ("François", "francois"),
    ("Grace", "grace"),
    ("Håkon", "hakon"),
    ("Ines", "ines"),
    ("Jürgen", "juergen"),
    ("Karen", "karen"),
    ("Łukasz", "lukasz"),
    ("Mia, Dr.", "mia"),
    ("Noël", "noel"),
    ('Otto "Otti"', "otto"),
    ("Pilar", "pilar"),
    ("美咲", "misaki"),
    ("子轩", "zixuan"),
    ("Zoë", "zoe"),
    ("서연", "seoyeon"),
)
MAIL_DOMAINS = (
    "example.com",
    "example.org",
    "example.net",
    "mail.example",
    "gmail.com",
    "gmail.com",
    "googlemail.com",
)
FIRST_GOOGLE_DOMAIN = 4
"""From here on, MAIL_DOMAINS are Google's: dots and +tags make no other mailbox."""
TIERS = ("", "Bronze", "Silver", "Gold")


@dataclass(frozen=True, slots=True)
class Country:
    """Where a person lives; mobile numbers are `mobile` and eight digits."""

    code: str
    calling_code: str
    mobile: str
    cities: tuple[str, ...]


COUNTRIES = (
    Country("DE", "49", "151", ("Berlin", "München", "Köln\nDeutz", "Frankfurt, Main")),
    Country("DE", "49", "160", ("Hamburg", "Gießen", "Halle (Saale)", "Würzburg")),
    Country("GB", "44", "77", ("London", "Bristol", "Leeds", "Kingston upon Hull, City of")),
    Country("US", "1", "55", ("New York", "Austin, TX", "Portland", "Winston-Salem")),
    Country("FR", "33", "6", ("Paris", "Besançon", "L'Haÿ-les-Roses", "Lyon")),
    Country("JP", "81", "90", ("東京", "大阪", "札幌", "Kyōto")),
)
UNITED_STATES = 3
HOME = "DE"
"""The export's own country: some of its phone numbers are written the national way."""


class Purpose(IntEnum):
    """What a draw decides."""

    KIND = 1
    FAULT = 2
    NAME = 3
    DOMAIN = 4
    COUNTRY = 5
    CITY = 6
    TIER = 7
    VALUE = 8
    LAST_ORDER = 9
    REPEATED = 10
    ORIGINAL = 11
    MAIL_STYLE = 12
    PHONE_STYLE = 13


def kinds(draws: Draws, people: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The Kind of each person."""
    import numpy as np

    shares = draws.shares(people, Purpose.KIND)
    return np.searchsorted(np.array(_KIND_LIMITS), shares, side="right").astype(np.int64)


def mailboxes(draws: Draws, people: NDArray[np.uint64]) -> tuple[Any, Any, NDArray[np.bool_]]:
    """Local parts and domains as Arrow text, and which domains are Google's."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array([ascii_form for _, ascii_form in FIRST_NAMES])
    name = names.take(pa.array(draws.picks(people, Purpose.NAME, len(FIRST_NAMES))))
    domain = draws.picks(people, Purpose.DOMAIN, len(MAIL_DOMAINS))
    number = pc.cast(pa.array(people), pa.string())
    local = pc.binary_join_element_wise(name, number, ".demo")
    return local, pa.array(MAIL_DOMAINS).take(pa.array(domain)), domain >= FIRST_GOOGLE_DOMAIN


def digits(people: NDArray[np.uint64]) -> Any:
    """The eight digits that only this person's phone number ends with, as Arrow text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.utf8_lpad(pc.cast(pa.array(people), pa.string()), PHONE_DIGITS, "0")
