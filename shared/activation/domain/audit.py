"""The audit log: one entry per change, in the commit that makes the change."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from activation.domain.entity import Entity


class AuditEntry(Entity):
    """Who did what to which record. `action` is `source:subject:action`, e.g.
    `api:audience:create`; before and after are digests, so that an entry never holds an
    identifier or a secret."""

    entry_id: str
    actor: str
    action: str
    target: str
    """`collection/id` of the record."""
    trace_id: str
    before_sha256: str | None = None
    after_sha256: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)
