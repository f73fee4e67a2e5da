"""Retention of events: old days leave the archive, its objects become few, strays are swept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from activation.domain.caller import Caller
from activation.domain.event_archive import EventDay
from activation.ports import Write
from activation.services.commits import Commits
from activation.services.event_archive import EventArchive
from activation.services.event_archiver import EventArchiver

EXPIRED = "retention:events"
"""Entry of the audit log for a day of events that was let go."""


@dataclass(frozen=True, slots=True)
class EventRetention:
    """What a daily round does with the events of an organization."""

    commits: Commits
    archive: EventArchive
    archiver: EventArchiver
    kept_for: timedelta

    def run(self, caller: Caller, keep: Callable[[], None]) -> None:
        """Let go of days that are too old; an entry of the audit log counts each."""

        def let_go(day: EventDay, write: Write) -> None:
            details = {"count": day.events}
            self.commits.commit(caller, EXPIRED, [write], before=day, details=details)
            keep()

        organization_id = caller.organization_id
        self.archive.expire(organization_id, self.archive.clock.now() - self.kept_for, let_go)
        self.archiver.tidy(organization_id)
        keep()
        self.archive.sweep(organization_id)
        keep()

    def would_expire(self, organization_id: str) -> int:
        """How many events `run` would let go."""
        before = self.archive.clock.now() - self.kept_for
        return self.archive.expired(organization_id, before)
