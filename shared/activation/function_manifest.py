"""The function manifest: every deployable, read from `functions/manifest.json`.

Terraform, the archive builder, the local runner and the tests read the same file.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from activation.message_codec import Subscription

FOLDER = Path(__file__).parents[2] / "functions"


def _pairs(value: Any) -> Any:
    """A JSON object as pairs, which can be hashed."""
    return tuple(value.items()) if isinstance(value, dict) else value


class Function(BaseModel):
    """One deployable: what starts it, how large it is, and what it may do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    entry_point: str
    trigger: Literal["http", "topic", "schedule"]
    routes: tuple[str, ...] = ()
    """Path prefixes below `/api/v1`, of an HTTP function."""
    topic: str | None = None
    schedule: str | None = None
    """Cron text in UTC; the local runner calls such a function at every tick."""
    schedules: Annotated[tuple[tuple[str, str], ...], BeforeValidator(_pairs)] = ()
    """(name, cron text in UTC) for a function with several: it is posted `{"job": name}`."""
    memory: str
    cpu: float
    concurrency: int
    min_instances: int = 0
    max_instances: int
    timeout_seconds: int
    ack_deadline_seconds: int = Field(default=60, ge=10, le=600)
    max_attempts: int = Field(default=5, ge=5, le=100)
    min_backoff_seconds: int = Field(default=10, ge=0, le=600)
    max_backoff_seconds: int = Field(default=600, ge=0, le=600)
    roles: tuple[str, ...]
    """What its service account may do, as `resource:role`; Terraform grants exactly these."""

    @property
    def source(self) -> Path:
        """The file that functions-framework loads."""
        return FOLDER / self.name / "main.py"

    @property
    def subscription(self) -> Subscription:
        """How messages reach it."""
        return Subscription(
            self.name,
            self.max_attempts,
            self.min_backoff_seconds,
            self.max_backoff_seconds,
            self.ack_deadline_seconds,
        )


@cache
def topics() -> tuple[str, ...]:
    """Topics that no function of ours subscribes to: others may."""
    return tuple(json.loads((FOLDER / "manifest.json").read_bytes())["topics"])


@cache
def functions() -> tuple[Function, ...]:
    """All functions, in the order of the file."""
    entries = json.loads((FOLDER / "manifest.json").read_bytes())["functions"]
    return tuple(Function.model_validate(entry) for entry in entries)


def function(name: str) -> Function:
    """The function of this name; KeyError when there is none."""
    return {entry.name: entry for entry in functions()}[name]


def subscriptions() -> dict[str, list[Subscription]]:
    """Who gets the messages of which topic."""
    found: dict[str, list[Subscription]] = {topic: [] for topic in topics()}
    for entry in functions():
        if entry.topic:
            found.setdefault(entry.topic, []).append(entry.subscription)
    return found
