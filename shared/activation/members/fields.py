"""The columns of a row that are no identifiers: expiry, score, consent, segments."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from activation.domain.identifier import SPACES, Consent
from activation.domain.member import MAX_SEGMENTS, RejectReason
from activation.members.headers import Role
from activation.members.layout import CONSENTS, schema

MAX_LABEL = 100
LIST_MARK = "\0"
"""Begins and parts a list whose items may hold any other separator."""

_YES = frozenset({"granted", "true", "yes", "y", "1", "opt_in", "opt-in", "optin"})
_NO = frozenset({"denied", "false", "no", "n", "0", "opt_out", "opt-out", "optout"})
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


def consent(text: str) -> int:
    """The code of a consent, in the usual spellings. Raises ValueError."""
    word = text.lower()
    if word not in _YES | _NO:
        raise ValueError(word)
    return CONSENTS.index(Consent.GRANTED if word in _YES else Consent.DENIED)


def labels(text: str) -> list[str] | None:
    """Distinct labels, separated by | ; or comma. Raises ValueError when too many or too long."""
    parts = text.split(LIST_MARK) if text.startswith(LIST_MARK) else _SEPARATORS.split(text)
    found = [part.strip() for part in parts]
    distinct = list(dict.fromkeys(label for label in found if label))
    if len(distinct) > MAX_SEGMENTS or any(
        len(label) > MAX_LABEL or not label.isprintable() for label in distinct
    ):
        raise ValueError(text)
    return distinct or None


PARSERS: dict[Role, tuple[str, Callable[[str], Any], RejectReason]] = {
    Role.EXPIRES_AT: ("expires_at", instant, RejectReason.INVALID_TIMESTAMP),
    Role.SCORE: ("score", score, RejectReason.INVALID_SCORE),
    Role.CONSENT: ("consent", consent, RejectReason.INVALID_CONSENT),
    Role.SEGMENTS: ("segments", labels, RejectReason.INVALID_SEGMENTS),
}
"""Column of a member, parser and reason by role."""


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
