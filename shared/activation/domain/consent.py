"""What people have said to the use of their data for advertising."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, product

from activation.domain.identifier import Consent


class Vendor(StrEnum):
    """Companies whose own bit in a TCF string counts (docs/consent.md)."""

    GOOGLE = "google"
    AMAZON = "amazon"
    THE_TRADE_DESK = "the_trade_desk"


PLATFORM_VENDORS = {
    "google_ads": Vendor.GOOGLE,
    "dv360": Vendor.GOOGLE,
    "amazon_dsp": Vendor.AMAZON,
    "the_trade_desk": Vendor.THE_TRADE_DESK,
}
"""Platform type → the vendor who gets the data there."""


# What one member carries --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MemberConsent:
    """What is known of one member; None is what nobody said, and differs from a no."""

    ad_user_data: Consent | None = None
    """To sending the data to an advertising platform."""
    ad_personalization: Consent | None = None
    """To its use for personalised advertising there."""
    limited_data_use: bool | None = None
    """Whether the person is to be treated under Limited Data Use."""
    denied_vendors: frozenset[Vendor] | None = None
    """The vendors that a TCF string does not allow; None without such a string."""

    @property
    def value(self) -> str:
        """The spelling in stored parts; `granted` and `denied` stand for both kinds at once."""
        both = self.ad_user_data
        if both is not None and self == MemberConsent(both, both):
            return both.value
        said = {
            "ad_user_data": self.ad_user_data,
            "ad_personalization": self.ad_personalization,
            "limited_data_use": _YES_NO[self.limited_data_use],
            "denied_vendors": _named(self.denied_vendors),
        }
        return ";".join(f"{name}={word}" for name, word in said.items() if word is not None)

    @property
    def parts(self) -> tuple[int, int, int, int]:
        """The four as numbers: 0 is what nobody said, and of the others a no is the largest."""
        vendors = 0 if self.denied_vendors is None else 1 + _SUBSETS.index(self.denied_vendors)
        flags = _FLAGS.index(self.ad_user_data), _FLAGS.index(self.ad_personalization)
        return (*flags, _LIMITED.index(self.limited_data_use), vendors)


_FLAGS = (None, Consent.GRANTED, Consent.DENIED)
_LIMITED = (None, False, True)
_YES_NO = {None: None, False: "no", True: "yes"}
_SUBSETS = tuple(
    frozenset(chosen) for size in range(len(Vendor) + 1) for chosen in combinations(Vendor, size)
)
VENDOR_SETS: tuple[frozenset[Vendor], ...] = (frozenset(), *_SUBSETS)
"""The vendors that each number of the last of `MemberConsent.parts` denies."""
PART_SIZES = (len(_FLAGS), len(_FLAGS), len(_LIMITED), 1 + len(_SUBSETS))
"""How many numbers each of `MemberConsent.parts` has."""
SAID_YES, SAID_NO = 1, 2
"""The first two parts as numbers; of the third, SAID_NO means that the use is limited."""


def _named(vendors: frozenset[Vendor] | None) -> str | None:
    if vendors is None:
        return None
    return "+".join(vendor for vendor in Vendor if vendor in vendors) or "none"


def _all() -> Iterator[MemberConsent]:
    """The two that parts spelled before there were others, then those."""
    first = [MemberConsent(said, said) for said in Consent]
    yield from first
    for parts in product(_FLAGS, _FLAGS, _LIMITED, (None, *_SUBSETS)):
        consent = MemberConsent(*parts)
        if consent not in first and consent != MemberConsent():
            yield consent


MEMBER_CONSENTS = tuple(_all())
"""Everything that can be said; a code is a position here. Runs hold codes: the order stays."""


# What the people of a batch have in common --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConsentBasis:
    """What a person has said, or all people of one batch; None is unknown.

    The two kinds are those of Google's Customer Match (docs/platforms.md): sending the data to a
    platform, and using it there for personalised advertising.
    """

    ad_user_data: Consent | None = None
    ad_personalization: Consent | None = None
    limited_data_use: bool = False
    """The person is to be treated under Meta's Limited Data Use."""


NOTHING_SAID = ConsentBasis()

BASIS_WEIGHTS = (1, len(_FLAGS), len(_FLAGS) ** 2)
"""What the numbers of the two flags, and a 1 for limited use, count in the code of a basis."""


def basis_of(code: int) -> ConsentBasis:
    """The basis of a code, as the column `basis` of selected members holds it; 0 says nothing."""
    rest, user_data = divmod(code, len(_FLAGS))
    limited, personalization = divmod(rest, len(_FLAGS))
    return ConsentBasis(_FLAGS[user_data], _FLAGS[personalization], bool(limited))
