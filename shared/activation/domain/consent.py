"""What people have said to the use of their data for advertising."""

from __future__ import annotations

from dataclasses import dataclass

from activation.domain.identifier import Consent


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


def basis_of(code: int) -> ConsentBasis:
    """The consent that a code in rosters and lists stands for."""
    del code
    return NOTHING_SAID
