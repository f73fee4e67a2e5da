"""The columns of a row that are no identifiers: expiry, score, what was consented to, segments."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from activation.domain.consent import MemberConsent
from activation.domain.identifier import SPACES, Consent
from activation.domain.member import MAX_SEGMENTS, RejectReason
from activation.domain.personal_data import is_contact_data
from activation.domain.tcf import consent_of
from activation.members.headers import Role
from activation.members.layout import CONSENTS, schema

MAX_LABEL = 100
LIST_MARK = "\0"
"""Begins and parts a list whose items may hold any other separator."""

_YES = frozenset({"granted", "true", "yes", "y", "1", "opt_in", "opt-in", "optin"})
_NO = frozenset({"denied", "false", "no", "n", "0", "opt_out", "opt-out", "optout"})
_UNKNOWN = frozenset({"unknown", "unspecified"})
_GOOGLE_MARK = re.compile(r"^consent_(?:status_)?")
"""Google's APIs say CONSENT_GRANTED and CONSENT_STATUS_GRANTED."""
_CODES = {consent: code for code, consent in enumerate(CONSENTS)}
_SEPARATORS = re.compile(r"[|;,]")


def instant(text: str) -> datetime:
    """An ISO 8601 date or instant; UTC unless it says otherwise. Raises ValueError."""
    value = datetime.fromisoformat(text)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def score(text: str) -> float:
    """A finite number. Raises ValueError."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _answer(text: str) -> Consent | None:
    """A yes or a no in the usual spellings, None for what says that nothing is known."""
    word = _GOOGLE_MARK.sub("", text.lower())
    if word in _UNKNOWN:
        return None
    if word not in _YES | _NO:
        raise ValueError(word)
    return Consent.GRANTED if word in _YES else Consent.DENIED


def consent(text: str) -> int | None:
    """The code of a consent to both kinds of use. Raises ValueError."""
    said = _answer(text)
    return _CODES.get(MemberConsent(said, said))


def ad_user_data(text: str) -> int | None:
    """The code of a consent to sending the data alone. Raises ValueError."""
    return _CODES.get(MemberConsent(ad_user_data=_answer(text)))


def ad_personalization(text: str) -> int | None:
    """The code of a consent to personalised advertising alone. Raises ValueError."""
    return _CODES.get(MemberConsent(ad_personalization=_answer(text)))


def limited_data_use(text: str) -> int | None:
    """The code of a flag: yes or no, or the list that Meta takes, `["LDU"]` or `[]`. Raises
    ValueError."""
    word = text.lower().strip(f' "[]{LIST_MARK}')
    if word in ("ldu", ""):
        return _CODES[MemberConsent(limited_data_use=word == "ldu")]
    said = _answer(word)
    limited = None if said is None else said is Consent.GRANTED
    return _CODES.get(MemberConsent(limited_data_use=limited))


def tcf(text: str) -> int:
    """The code of what a TCF string says. Raises ValueError."""
    return _CODES[consent_of(text)]


def labels(text: str) -> list[str] | None:
    """Distinct labels, separated by | ; or comma. Raises ValueError when there are too many, or one
    is too long or holds contact data."""
    parts = text.split(LIST_MARK) if text.startswith(LIST_MARK) else _SEPARATORS.split(text)
    found = [part.strip() for part in parts]
    distinct = list(dict.fromkeys(label for label in found if label))
    if len(distinct) > MAX_SEGMENTS or any(
        len(label) > MAX_LABEL or not label.isprintable() or is_contact_data(label)
        for label in distinct
    ):
        raise ValueError(text)
    return distinct or None


PARSERS: dict[Role, tuple[str, Callable[[str], Any], RejectReason]] = {
    Role.EXPIRES_AT: ("expires_at", instant, RejectReason.INVALID_TIMESTAMP),
    Role.SCORE: ("score", score, RejectReason.INVALID_SCORE),
    Role.CONSENT: ("consent", consent, RejectReason.INVALID_CONSENT),
    Role.AD_USER_DATA: ("consent", ad_user_data, RejectReason.INVALID_CONSENT),
    Role.AD_PERSONALIZATION: ("consent", ad_personalization, RejectReason.INVALID_CONSENT),
    Role.LIMITED_DATA_USE: ("consent", limited_data_use, RejectReason.INVALID_CONSENT),
    Role.TCF: ("consent", tcf, RejectReason.INVALID_TCF),
    Role.SEGMENTS: ("segments", labels, RejectReason.INVALID_SEGMENTS),
}
"""Column of a member, parser and reason by role; several roles may say something in one column."""


def parsed_column(role: Role, cells: Any) -> tuple[Any, Any]:
    """Values of the member's column (null where absent or bad), and a mask of the bad cells.

    Every distinct text is parsed once.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    name, parse, _ = PARSERS[role]
    distinct = pc.ascii_trim(pc.fill_null(cells, ""), characters=SPACES).dictionary_encode()
    values, bad = [], []
    for text in distinct.dictionary.to_pylist():
        try:
            values.append(parse(text) if text else None)
            bad.append(False)
        except (ValueError, OverflowError):
            values.append(None)
            bad.append(True)
    indices = distinct.indices
    column = pa.array(values, schema().field(name).type).take(indices)
    return column, np.array(bad, bool)[indices.to_numpy()]
