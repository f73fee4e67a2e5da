"""What can be said of consent, and how it is spelled in stored parts."""

from __future__ import annotations

import re

from activation.domain.consent import (
    BASIS_WEIGHTS,
    MEMBER_CONSENTS,
    NOTHING_SAID,
    PLATFORM_VENDORS,
    ConsentBasis,
    MemberConsent,
    Vendor,
    basis_of,
)
from activation.domain.identifier import Consent

GRANTED, DENIED = Consent.GRANTED, Consent.DENIED


def test_the_two_old_words_keep_place_and_meaning() -> None:
    assert MEMBER_CONSENTS[0] == MemberConsent(GRANTED, GRANTED)
    assert MEMBER_CONSENTS[1] == MemberConsent(DENIED, DENIED)
    assert [one.value for one in MEMBER_CONSENTS[:2]] == ["granted", "denied"]


def test_every_state_has_a_spelling_and_numbers_of_its_own() -> None:
    assert len(MEMBER_CONSENTS) == 3 * 3 * 3 * 9 - 1 < 256
    assert len({one.value for one in MEMBER_CONSENTS}) == len(MEMBER_CONSENTS)
    assert len({one.parts for one in MEMBER_CONSENTS}) == len(MEMBER_CONSENTS)
    assert MemberConsent() not in MEMBER_CONSENTS
    assert all(re.fullmatch(r"[a-z_=;+]+", one.value) for one in MEMBER_CONSENTS)


def test_the_order_of_codes_is_the_one_that_was_released() -> None:
    """Runs of imports hold codes: a worker of a new release reads those of the old one."""
    spelled = [one.value for one in MEMBER_CONSENTS]
    assert spelled[2:5] == [
        "denied_vendors=none",
        "denied_vendors=google",
        "denied_vendors=amazon",
    ]
    assert spelled[100] == "ad_user_data=granted;limited_data_use=yes"
    assert spelled[-1] == (
        "ad_user_data=denied;ad_personalization=denied;limited_data_use=yes;"
        "denied_vendors=google+amazon+the_trade_desk"
    )


def test_a_basis_and_its_code_belong_together() -> None:
    flags = (None, GRANTED, DENIED)
    for first, user_data in enumerate(flags):
        for second, personalization in enumerate(flags):
            for limited in (False, True):
                places = (first, second, int(limited))
                code = sum(n * weight for n, weight in zip(places, BASIS_WEIGHTS, strict=True))
                assert basis_of(code) == ConsentBasis(user_data, personalization, limited)
    assert basis_of(0) == NOTHING_SAID


def test_every_vendor_has_a_platform() -> None:
    assert set(PLATFORM_VENDORS.values()) == set(Vendor)
