"""What all stored records have in common."""

from __future__ import annotations

import secrets
import threading
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
)
from pydantic.alias_generators import to_camel

from activation.errors import InvalidStateError


def _utc(value: datetime) -> datetime:
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("The instant lies outside of the years 1 to 9999, UTC.") from None


def timestamp(instant: datetime) -> str:
    """An instant as RFC 3339 text in UTC with microseconds; sorts like the instant."""
    return _utc(instant).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


Instant = Annotated[
    datetime, AfterValidator(_utc), PlainSerializer(timestamp, return_type=str, when_used="json")
]
"""A datetime that is always UTC inside and `timestamp` text in JSON."""


class _Sequence:
    """The random part of the last id, so that ids of one millisecond sort as they were made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = (0, 0)

    def next(self, milliseconds: int) -> int:
        """74 bits: random in a new millisecond, else a random step above those before."""
        with self._lock:
            before, bits = self._last
            fresh = milliseconds != before or bits >> 73
            bits = secrets.randbits(73) if fresh else bits + 1 + secrets.randbits(32)
            self._last = (milliseconds, bits)
            return bits


_sequence = _Sequence()


def new_id(now: datetime) -> str:
    """A UUID version 7 (RFC 9562, method 2): sorts by `now`, then by the order of making."""
    milliseconds = int(now.timestamp() * 1000)
    bits = _sequence.next(milliseconds)
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76 | bits >> 62 << 64 | 0b10 << 62 | bits & ((1 << 62) - 1)
    return str(uuid.UUID(int=value))


def made_at(made: str) -> datetime | None:
    """When `new_id` made an id; None for anything that it did not make."""
    try:
        value = uuid.UUID(made)
    except ValueError:
        return None
    if value.version != 7 or str(value) != made:
        return None
    return datetime.fromtimestamp((value.int >> 80) / 1000, UTC)


def first_id(since: datetime) -> str:
    """The smallest id that `new_id` can make at `since`; for queries of what is newer."""
    milliseconds = max(0, int(since.timestamp() * 1000))
    return str(uuid.UUID(int=(milliseconds & ((1 << 48) - 1)) << 80))


class Value(BaseModel):
    """A part of an entity: frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Entity(Value):
    """A stored record of one organization."""

    organization_id: str
    created_at: Instant
    updated_at: Instant

    def stored(self) -> dict[str, Any]:
        """The JSON object that the document store keeps."""
        return self.model_dump(mode="json")

    @classmethod
    def restored(cls, data: Any) -> Self:
        """The entity from its stored form."""
        return cls.model_validate(data)

    def public(self) -> dict[str, Any]:
        """The JSON object that callers see; entities with internal fields narrow it."""
        return self.model_dump(mode="json")

    def changed(self, **fields: Any) -> Self:
        """A validated copy with `fields` replaced (`model_copy` does not validate)."""
        return type(self).model_validate({**dict(self), **fields})


def require_transition(
    kind: str, allowed: dict[Any, frozenset[Any]], current: Any, wanted: Any
) -> None:
    """Raise InvalidStateError unless the state machine leads from `current` to `wanted`."""
    if wanted in allowed[current]:
        return
    choices = ", ".join(sorted(allowed[current])) or "no other state"
    raise InvalidStateError(
        f"A {kind} that is {current} cannot become {wanted}; possible: {choices}.",
        field="status",
        reason=f"{current} -> {wanted}",
    )


class Draft(BaseModel):
    """What a caller may send: unknown fields are refused, camelCase is accepted beside snake_case
    (K-11)."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=AliasGenerator(
            validation_alias=lambda name: AliasChoices(name, to_camel(name))
        ),
        str_strip_whitespace=True,
    )

    def sent(self) -> dict[str, Any]:
        """Only the fields the caller really sent, as Python values."""
        return {name: getattr(self, name) for name in self.model_fields_set}
