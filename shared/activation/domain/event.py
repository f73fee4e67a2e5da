"""What a user did: its shape in every version of the schema, its limits, its id and its time.

Two forms are read. Version 1 is seed 003's: no event id. Version 2 adds `event_id` and
`schema_version`. A later version may bring fields of its own: they are passed over, while an
unknown field in a version we know is a spelling mistake and is refused.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Self

import pydantic_core
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from activation.domain.entity import Instant, Value, timestamp
from activation.domain.personal_data import MASK, is_contact_data, masked
from activation.domain.user_erasure import ERASED, is_pseudonym
from activation.errors import ValidationError

SCHEMA_VERSION = 2
"""The newest version whose fields we all know."""
MAX_SCHEMA_VERSION = 2**31 - 1
"""What the archive has room for."""
MAX_LATE = timedelta(hours=24)
MAX_AHEAD = timedelta(minutes=5)
MAX_ID_LENGTH = 256
MAX_ATTRIBUTES_BYTES = 16_384
MAX_DEPTH = 8

DECIMALS = 6
SCALE = 10**DECIMALS
MAX_VALUE = 10**9
"""The largest amount of one event, either way. Sums are whole millionths in 64 bits, so that they
are exact whatever the order; 9,223 events of this size still fit, and the next one is refused."""

NEAR = 10**8
"""Below it a float times `SCALE` is off by less than a hundredth: far from a tie, its nearest whole
number is that of the decimal."""
DOTS = frozenset({".", ".."})
"""Steps of a path: clients take them out of addresses, however they are written."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,30})?")


def is_possible_id(text: str) -> bool:
    """Whether an event may carry the text as the id of its user, of itself or of its session."""
    return len(text) <= MAX_ID_LENGTH and not _CONTROL.search(text)


class EventType(StrEnum):
    """What a user can do (seed 003)."""

    CLICKS = "clicks"
    INSTALLS = "installs"
    ORDERS = "orders"
    ADD_TO_CART = "addToCart"

    __hash__ = str.__hash__
    """That of an enumeration is slow, and every event is looked up by its type."""


class Event(Value):
    """One thing that a user did. `event_id` is always set: without one it is a digest of all else,
    so that the same event sent twice is the same event."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    user_id: str = Field(min_length=1, max_length=MAX_ID_LENGTH)
    event_type: EventType
    timestamp: Instant
    attributes: dict[str, Any] = Field(default_factory=dict)
    event_id: str = Field(default="", max_length=MAX_ID_LENGTH)
    session_id: str | None = Field(default=None, max_length=MAX_ID_LENGTH)
    device_id: str | None = Field(default=None, max_length=MAX_ID_LENGTH)
    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=MAX_SCHEMA_VERSION)

    @field_validator("user_id", "event_id", "session_id", "device_id")
    @classmethod
    def _printable(cls, text: str | None) -> str | None:
        if text is not None and _CONTROL.search(text):
            raise ValueError("control characters are not allowed")
        return text

    @field_validator("user_id")
    @classmethod
    def _somebodys(cls, user_id: str) -> str:
        if user_id in DOTS:
            raise ValueError("no address can name this user")
        if user_id.startswith(ERASED) and is_pseudonym(user_id):
            raise ValueError("this is the pseudonym of somebody who was erased")
        return user_id

    @field_validator("attributes")
    @classmethod
    def _bounded(cls, attributes: dict[str, Any]) -> dict[str, Any]:
        _require_plain(attributes)
        if len(pydantic_core.to_json(attributes)) > MAX_ATTRIBUTES_BYTES:
            raise ValueError(f"attributes take at most {MAX_ATTRIBUTES_BYTES:,} bytes")
        return attributes

    @model_validator(mode="after")
    def _identified(self) -> Self:
        if not self.event_id:
            object.__setattr__(self, "event_id", digest_of(self))
        return self


_FIELDS = frozenset(Event.model_fields)
_IDS = ("user_id", "event_id", "session_id", "device_id")
_NAMES = {alias: name for name in _FIELDS for alias in (name, to_camel(name))}


def read_event(data: Mapping[str, Any], received_at: datetime) -> Event:
    """The event of a JSON object in any version; without a timestamp it happened when it came.
    E-mail addresses and phone numbers in its attributes are masked: they are never at rest.

    Raises ValidationError with the field at fault, also for an id that is such contact data.
    """
    if not isinstance(data, Mapping):
        raise ValidationError("An event is a JSON object.", reason="not_an_object")
    version = data.get("schema_version", data.get("schemaVersion", SCHEMA_VERSION))
    later = isinstance(version, int) and version > SCHEMA_VERSION
    known = _named(data)
    unknown = sorted(set(data) - set(_NAMES))
    if unknown and not later:
        raise ValidationError("An event has no such field.", field=unknown[0][:64], reason="extra")
    known.setdefault("timestamp", received_at)
    _refuse_contact_data(known)
    known["attributes"] = masked(known.get("attributes", {}))
    try:
        return Event.model_validate(known)
    except pydantic_core.ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"][:1]) or None
        raise ValidationError(
            "The event is not valid.", field=where, reason=first["type"]
        ) from None


def _named(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that we know, by their names; one that is there in both spellings is two."""
    known: dict[str, Any] = {}
    for spelled, value in data.items():
        name = _NAMES.get(spelled)
        if name is None or value is None:
            continue
        if name in known:
            raise ValidationError("A field is there twice.", field=name, reason="twice")
        known[name] = value
    return known


def _refuse_contact_data(fields: Mapping[str, Any]) -> None:
    """Refuse ids that are, or were before they were set aside, contact data: whose ids are all
    masked the same way is not one user."""
    for name in _IDS:
        value = fields.get(name)
        if isinstance(value, str) and (MASK in value or is_contact_data(value)):
            raise ValidationError(
                "An id is no e-mail address and no phone number: send a hash of it.",
                field=name,
                reason="personal_data",
            )


def require_timely(event: Event, received_at: datetime) -> None:
    """Raise ValidationError when the event came more than 24 hours late or 5 minutes early.

    Time is counted to when it was received, not to when it is worked on: a full queue loses
    nothing.
    """
    if event.timestamp < received_at - MAX_LATE:
        raise ValidationError(
            "The event is older than 24 hours.", field="timestamp", reason="too_late"
        )
    if event.timestamp > received_at + MAX_AHEAD:
        raise ValidationError(
            "The event lies more than 5 minutes ahead.", field="timestamp", reason="ahead_of_time"
        )


def digest_of(event: Event) -> str:
    """A stable id of an event that brought none: the same content gives the same id."""
    content = [
        event.user_id,
        event.event_type.value,
        timestamp(event.timestamp),
        _sorted(event.attributes),
        event.session_id,
        event.device_id,
    ]
    return "sha256:" + hashlib.sha256(pydantic_core.to_json(content)).hexdigest()[:32]


# numbers ------------------------------------------------------------------------------------------


def scaled(value: Any) -> int | None:
    """A number as whole millionths, rounded half to even; None for what is no number.

    Numbers and decimal text are read; a float is what its shortest decimal form says, so that 0.1
    is a tenth. Raises ValidationError above `MAX_VALUE`.
    """
    if type(value) is int and -NEAR < value < NEAR:
        whole: int = value * SCALE
        return whole
    if type(value) is float and -NEAR < value < NEAR:
        product: float = value * SCALE
        nearest = round(product)
        if abs(product - nearest) < 0.25:
            return nearest
    exact = _decimal(value)
    if exact is None:
        return None
    if abs(exact) > MAX_VALUE:
        raise ValidationError(
            f"A number of an event is at most {MAX_VALUE:,}.",
            field="attributes",
            reason="value_out_of_range",
        )
    return int(exact.scaleb(DECIMALS).to_integral_value(ROUND_HALF_EVEN))


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return value if value.is_finite() else None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        try:
            return Decimal(value.strip())
        except InvalidOperation:
            return None
    return None


def amount_in(attributes: Mapping[str, Any], field: str) -> int | None:
    """The number under a name or dotted path of an event's attributes, in millionths; None
    without one."""
    found: Any = attributes.get(field)
    if found is None and "." in field:
        found = attributes
        for step in field.split("."):
            found = found.get(step) if isinstance(found, dict) else None
    return None if found is None else scaled(found)


def _require_plain(value: Any) -> None:
    """Raise ValueError for what nests too deep, and for numbers that are none."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if any(isinstance(one, float) and not math.isfinite(one) for one in level):
            raise ValueError("numbers are finite")
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError(f"attributes nest at most {MAX_DEPTH} deep")


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
