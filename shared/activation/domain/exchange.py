"""Exchanges: what was said to a platform and what it answered, with nothing left of people."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Entity, Instant, Value

KEPT = 50
"""Exchanges of a distribution that are kept: the last ones."""


class BodyKind(StrEnum):
    """What is shown of a body."""

    EMPTY = "empty"
    JSON = "json"
    """Its shape: names, numbers and known words; no text."""
    LARGE = "large"
    """Its size and SHA-256."""
    OTHER = "other"
    """Its size and content type."""


class MaskedBody(Value):
    """A body as it may be kept."""

    kind: BodyKind = BodyKind.EMPTY
    size_bytes: int = 0
    content: Any = None
    sha256: str | None = None
    content_type: str | None = None


class Exchange(Value):
    """One request and its answer; of a call to a token endpoint nothing but the status."""

    at: Instant
    batch: str | None = None
    """Which batch it was about, if any."""
    status: int | None = None
    """None when no answer came."""
    outcome: str | None = None
    """`OK`, or the code of the error it became here."""
    platform_code: str | None = None
    method: str | None = None
    host: str | None = None
    path: str | None = None
    """Without values of the query; parts that are no plain words are masked."""
    query: tuple[str, ...] = ()
    """Names of the query."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Of the answer, those that ask for patience."""
    duration_ms: int | None = None
    request: MaskedBody | None = None
    answer: MaskedBody | None = None


class ExchangeLog(Entity):
    """Some exchanges of a distribution, oldest first; a distribution has several such records."""

    distribution_id: str
    exchanges: tuple[Exchange, ...]


EVERY = 20


def is_sampled(seq: int) -> bool:
    """Whether the exchanges of a lane's batch `seq` (from 1) are kept although nothing failed:
    those of the first, and of one in EVERY after it."""
    return seq == 1 or seq % EVERY == 0
