"""How an audience is found again at a platform that keeps no id of ours: by a mark in its text."""

from __future__ import annotations

from typing import Any

from activation.domain.delivery import Delivery
from activation.errors import PlatformTransientError


def mark_of(delivery: Delivery, kind: str = "") -> str:
    """The end of a name or description of ours; `kind` tells several lists of an audience apart."""
    return f"[{delivery.external_id}/{kind}]" if kind else f"[{delivery.external_id}]"


def marked(text: str, mark: str, longest: int) -> str:
    """The text with the mark at its end, shortened to `longest` characters."""
    return f"{text[: longest - len(mark) - 1]} {mark}".strip()


def has_mark(text: Any, mark: str) -> bool:
    """Whether a platform's text is one that `marked` made."""
    return isinstance(text, str) and text.endswith(mark)


def given_id(value: Any) -> str:
    """The platform's id of an audience, as text.

    Raises PlatformTransientError when the answer has none: what was made can be looked for.
    """
    if isinstance(value, str | int) and value:
        return str(value)
    raise PlatformTransientError("The platform did not tell the id of the audience.")
