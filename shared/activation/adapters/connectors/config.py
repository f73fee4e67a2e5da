"""A connector's own fields: filled with their defaults, and checked before they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from activation.domain.platform import ConnectorSpec, SettingField
from activation.errors import ValidationError

MAX_TEXT_LENGTH = 16_384
_KINDS: Mapping[str, type] = {"string": str, "url": str, "integer": int, "boolean": bool}


def resolved(spec: ConnectorSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an account with the spec's defaults for those not given."""
    absent = (None, "")
    return {
        f.name: f.default if settings.get(f.name) in absent else settings[f.name]
        for f in spec.settings
    }


def require_fields(
    where: str,
    fields: Iterable[SettingField],
    given: Mapping[str, Any],
    require_url: Callable[[str, str], None],
) -> None:
    """Raise ValidationError for an unknown, missing or mistyped field, named `where.name`."""
    known = {field.name: field for field in fields}
    for name in given:
        if name not in known:
            raise invalid(f"{where}.{name}", "is not a field of this platform type", "unknown")
    for name, field in known.items():
        value = given.get(name)
        if value is None or value == "":
            if field.required:
                raise invalid(f"{where}.{name}", "is required", "missing")
            continue
        _require_kind(f"{where}.{name}", field, value)
        if field.kind == "url":
            require_url(value, f"{where}.{name}")


def require_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise ValidationError unless `value` is one of `choices`."""
    allowed = tuple(choices)
    if value not in allowed:
        raise invalid(name, f"must be one of {', '.join(allowed)}", "unknown_value")


def invalid(name: str, problem: str, reason: str = "invalid") -> ValidationError:
    """The error about one field; its text never holds the value."""
    return ValidationError(f"{name} {problem}.", field=name, reason=reason)


def _require_kind(name: str, field: SettingField, value: Any) -> None:
    wanted = _KINDS[field.kind]
    if type(value) is not wanted:
        raise invalid(name, f"must be a {field.kind}", "wrong_type")
    if isinstance(value, str) and (len(value) > MAX_TEXT_LENGTH or "\0" in value):
        raise invalid(name, f"must be text of at most {MAX_TEXT_LENGTH} characters", "too_long")
