"""Personal data has no place in definitions (seed 002): names, notes and queries are checked. In
events, contact data is masked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from activation.errors import ValidationError

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_PHONE = re.compile(r"(?<![\w+])\+\d[\d ()./-]{6,18}\d(?!\w)")
MAX_DEPTH = 16
MASK = "[contact data]"
"""What stands where an e-mail address or a phone number was."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def refuse_personal_data(fields: Mapping[str, Any]) -> None:
    """Raise ValidationError naming the field that holds an e-mail address or a phone number.

    Control characters are refused as well: they have no use in text that people read.
    """
    for path, text in _texts("", fields):
        if _CONTROL.search(text):
            raise ValidationError(
                f"{path} holds control characters.", field=path, reason="control_characters"
            )
        if _EMAIL.search(text) or _PHONE.search(text):
            raise ValidationError(
                f"{path} seems to hold an e-mail address or a phone number; definitions must not.",
                field=path,
                reason="personal_data",
            )


def is_contact_data(text: str) -> bool:
    """Whether a text holds an e-mail address, or a phone number with its country code."""
    return ("@" in text or "+" in text) and bool(_EMAIL.search(text) or _PHONE.search(text))


def masked(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A JSON value with each e-mail address and phone number in its texts and names masked; the
    very same object when there is none. What nests deeper than `depth` is masked as a whole."""
    if isinstance(value, str):
        return _PHONE.sub(MASK, _EMAIL.sub(MASK, value)) if is_contact_data(value) else value
    if not isinstance(value, dict | list):
        return value
    if not depth:
        return MASK
    if isinstance(value, dict):
        changed = {masked(key): masked(item, depth - 1) for key, item in value.items()}
        same = all(changed.get(key, MASK) is item for key, item in value.items())
        return value if same else changed
    items = [masked(item, depth - 1) for item in value]
    same = all(new is old for new, old in zip(items, value, strict=True))
    return value if same else items


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(f"{path}.{key}" if path else str(key), item)
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _texts(f"{path}[{position}]", item)
