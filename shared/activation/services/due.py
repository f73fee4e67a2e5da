"""What comes up by the clock: due distributions, silent workers, accounts to look at, the outbox,
old claims."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from activation import observability
from activation.domain.distribution import Distribution
from activation.domain.entity import new_id
from activation.domain.job import Job
from activation.domain.lane import Lane
from activation.domain.member_import import MemberImport
from activation.domain.platform import Platform
from activation.domain.schedule import own_time
from activation.domain.webhook import DeliveryStatus, WebhookDelivery
from activation.errors import ConflictError
from activation.message_codec import RELAY_GRACE
from activation.ports import OUTBOX, Batch, Clock, Document, DocumentStore, Message, Write
from activation.services.announcements import DELIVERIES, delivery_message
from activation.services.commits import Commits
from activation.services.distributions import lane_message, request_message
from activation.services.event_messages import archive_message, sweep_message
from activation.services.idempotency import COLLECTION as IDEMPOTENCY
from activation.services.imports import import_message
from activation.services.jobs import job_message
from activation.services.platforms import check_message, refresh_message
from activation.services.segment_followers import (
    FOLLOWS,
    MARKS,
    SENDS,
    follow_message,
    followed_message,
)

PAGE = 200
SHARDS, SHARD_PAGE = "segment_shards", 5_000
"""Shards are looked at every minute: all of them are found at once."""
FOLLOW_PAGE = 5_000
"""Audiences that follow segments may all come up every minute."""
ARCHIVES = "event_archives"


@dataclass(frozen=True, slots=True)
class DueService:
    """Wakes the workers of everything whose time has come; a worker decides for itself."""

    documents: DocumentStore
    commits: Commits
    clock: Clock
    disk: Path | None = None
    """A folder of the embedded stores."""

    def run(self) -> dict[str, int]:
        """One round; returns how much of each kind it found."""
        ages = {
            "outbox_age_seconds": self._age(OUTBOX, RELAY_GRACE),
            "distribution_age_seconds": self._age("distributions"),
            "import_age_seconds": self._age("imports"),
            "sweep_age_seconds": self._age(SHARDS),
            "archive_age_seconds": self._age(ARCHIVES),
            "follow_age_seconds": max(self._age(MARKS), self._age(FOLLOWS)),
        }
        found = self._found()
        free = shutil.disk_usage(self.disk).free if self.disk else None
        fields: dict[str, Any] = {**found, **ages, "disk_free_bytes": free}
        observability.event("round", **fields)
        return found

    def _age(self, collection: str, grace: timedelta = timedelta()) -> float:
        """Seconds since the oldest due document came up, with the `grace` that it had before."""
        now = self.clock.now()
        due = self.documents.due(collection, now, 1)
        if not due:
            return 0.0
        since = datetime.fromisoformat(due[0].data["due_at"]) - grace
        return round((now - since).total_seconds(), 3)

    def _found(self) -> dict[str, int]:
        return {
            "outbox": self.relay(),
            "imports": self._imports(),
            "distributions": self._distributions(),
            "lanes": self._lanes(),
            "platforms": self._platforms(),
            "jobs": self._jobs(),
            "webhook_deliveries": self._webhook_deliveries(),
            "segment_shards": self.segment_shards(),
            "event_archives": self._event_archives(),
            "segment_follows": self._follows(),
            "segment_sends": self._sends(),
            "idempotency": self._old_claims(),
        }

    def relay(self) -> int:
        """Publish what a crash left in the outbox."""
        return self.commits.relay()

    def _imports(self) -> int:
        due = self.documents.due("imports", self.clock.now(), PAGE)
        jobs = [MemberImport.restored(document.data) for document in due]
        if jobs:
            self.commits.bus.publish([import_message(job, self.clock) for job in jobs])
        return len(jobs)

    def _distributions(self) -> int:
        due = self.documents.due("distributions", self.clock.now(), PAGE)
        jobs = [Distribution.restored(document.data) for document in due]
        if jobs:
            self.commits.bus.publish([request_message(job, self.clock) for job in jobs])
        return len(jobs)

    def _lanes(self) -> int:
        due = self.documents.due("lanes", self.clock.now(), PAGE)
        lanes = [Lane.restored(document.data) for document in due]
        if lanes:
            self.commits.bus.publish([lane_message(lane, self.clock) for lane in lanes])
        return len(lanes)

    def _platforms(self) -> int:
        """Accounts whose refresh schedule, or whose credentials, are to be looked at."""
        now = self.clock.now()
        due = self.documents.due("platforms", now, PAGE)
        platforms = [Platform.restored(document.data) for document in due]
        refreshed = [one for one in platforms if one.look_at is not None and one.look_at <= now]
        if refreshed:
            self.commits.bus.publish([refresh_message(one, self.clock) for one in refreshed])
        for document, one in zip(due, platforms, strict=True):
            if one.next_check_at is not None and one.next_check_at <= now:
                self._look_at_credentials(document, one)
        return len(platforms)

    def _look_at_credentials(self, document: Document, platform: Platform) -> None:
        """Put the next daily look off to tomorrow, and have the credentials checked where that is
        worth it."""
        now = self.clock.now()
        after = platform.changed(check_at=own_time(platform.platform_id, now))
        wanted = platform.wants_check(now)
        messages = [check_message(after, self.clock, None)] if wanted else []
        write = Write(document.key, after.stored(), document.revision)
        try:
            self.documents.commit(Batch([write], messages))
        except ConflictError:
            return  # somebody has just changed it; the next round looks again
        self.commits.publish(messages)

    def _jobs(self) -> int:
        due = self.documents.due("jobs", self.clock.now(), PAGE)
        jobs = [Job.restored(document.data) for document in due]
        if jobs:
            self.commits.bus.publish([job_message(job, self.clock) for job in jobs])
        return len(jobs)

    def _webhook_deliveries(self) -> int:
        """Have those tried that wait for it, and forget those that ended long ago."""
        due = self.documents.due(DELIVERIES, self.clock.now(), PAGE)
        deliveries = [WebhookDelivery.restored(document.data) for document in due]
        waiting = [one for one in deliveries if one.status is DeliveryStatus.PENDING]
        if waiting:
            self.commits.bus.publish([delivery_message(one, self.clock) for one in waiting])
        for document, one in zip(due, deliveries, strict=True):
            if one.status is not DeliveryStatus.PENDING:
                self._forget(Write(document.key, None, document.revision))
        return len(due)

    def segment_shards(self) -> int:
        """Have the users looked at whose windows have run out. Each shard has its message, so that
        as many as there are workers go on at once."""
        due = self.documents.due(SHARDS, self.clock.now(), SHARD_PAGE)
        if due:
            self.commits.bus.publish([self._sweep_of(document) for document in due])
        return len(due)

    def _sweep_of(self, document: Document) -> Message:
        shard = int(document.data["shard"])
        return sweep_message(document.key.organization_id, shard, self.clock)

    def _event_archives(self) -> int:
        """Have counted events archived, those of all due shards of an organization together."""
        due = self.documents.due(ARCHIVES, self.clock.now(), SHARD_PAGE)
        shards: dict[str, list[int]] = {}
        for document in due:
            shards.setdefault(document.key.organization_id, []).append(int(document.data["shard"]))
        messages = [archive_message(one, sorted(mine), self.clock) for one, mine in shards.items()]
        if messages:
            self.commits.bus.publish(messages)
        return len(due)

    def _follows(self) -> int:
        """Audiences whose segment has changed, whose worker fell silent, or that are to be looked
        after."""
        now = self.clock.now()
        due = [
            one for name in (MARKS, FOLLOWS) for one in self.documents.due(name, now, FOLLOW_PAGE)
        ]
        audiences = sorted({_address(one) for one in due})
        messages = [follow_message(*one, self.clock, new_id(now)) for one in audiences]
        if messages:
            self.commits.bus.publish(messages)
        return len(messages)

    def _sends(self) -> int:
        """Audiences whose platforms are to get what followed from their segments."""
        due = self.documents.due(SENDS, self.clock.now(), FOLLOW_PAGE)
        messages = [followed_message(*_address(one), self.clock) for one in due]
        if messages:
            self.commits.bus.publish(messages)
        return len(messages)

    def _old_claims(self) -> int:
        due = self.documents.due(IDEMPOTENCY, self.clock.now(), PAGE)
        for document in due:
            self._forget(Write(document.key, None))
        return len(due)

    def _forget(self, write: Write) -> None:
        """Delete a document whose time is over, unless somebody has just changed it."""
        try:
            self.documents.commit(Batch([write]))
        except ConflictError:
            return


def _address(document: Document) -> tuple[str, str]:
    return document.key.organization_id, document.key.id
