"""The composition root: all services of one process, and the one that functions share."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from activation.domain.job import JobKind
from activation.services.due import DueService
from activation.services.jobs import Handler, JobWorker
from activation.services.retention import RetentionService
from activation.settings import from_environment
from activation.wiring.segments import Segments

if TYPE_CHECKING:
    from collections.abc import Callable

    from activation.services.census import Census
    from activation.services.recovery import RecoveryService
    from activation.services.retention_round import RetentionWorker
    from activation.services.segment_retention import SegmentRetention
    from activation.services.sweep import SweepWorker


MOST_DEAD_LETTERS = 100_000
"""How many dead letters of an embedded bus are looked at."""
LOCAL_CENSUS, CLOUD_CENSUS = timedelta(minutes=1), timedelta(hours=1)
"""How often everything is counted; it reads every audience and account."""


class App(Segments):
    """Ports and services of one process. `get_app()` is the one that functions share."""

    @cached_property
    def retention(self) -> RetentionService:
        """Retention policies, holds and runs."""
        return RetentionService(
            self.commits, self.audiences, self.organizations, self.jobs, self.clock
        )

    @cached_property
    def retention_worker(self) -> RetentionWorker:
        """The worker behind retention runs."""
        from activation.services.distribution_archive import DistributionArchive
        from activation.services.event_retention import EventRetention
        from activation.services.retention_round import GuardLimits, RetentionWorker
        from activation.services.upkeep import Upkeep

        return RetentionWorker(
            self.retention,
            Upkeep(self.retention, self.members, self.member_upkeep, self.archives),
            DistributionArchive(self.commits, self.archive_blobs, self.clock),
            self.segment_retention,
            GuardLimits(self.settings.retention_max_share, self.settings.retention_free_count),
            self.notifier,
            self.clock,
            events=EventRetention(
                self.commits,
                self.event_archive,
                self.event_archiver,
                timedelta(days=self.settings.event_days),
            ),
        )

    @cached_property
    def segment_retention(self) -> SegmentRetention:
        """Retention of what segments leave behind."""
        from activation.services.segment_retention import SegmentRetention

        return SegmentRetention(
            self.commits,
            self.shards,
            self.told_steps,
            self.settings.membership_days,
            self._dead_letters,
            self.dead_events,
            self.clock,
        )

    def _dead_letters(self) -> frozenset[str] | None:
        """Dead letters of events; on Pub/Sub they go by themselves."""
        if not self._embedded:
            return None
        letters = self.bus.dead_letters("process_events", MOST_DEAD_LETTERS)
        return frozenset(one.message.id for one in letters)

    @cached_property
    def sweep_worker(self) -> SweepWorker:
        """The worker behind sweeps."""
        from activation.services.audience_sweep import Areas, KeptFor
        from activation.services.parcels import Parcels
        from activation.services.sweep import SweepWorker

        return SweepWorker(
            self.commits,
            Areas(self.member_blobs, self.uploads, self.archive_blobs, self.backup_blobs),
            KeptFor(
                timedelta(days=self.settings.version_days),
                timedelta(days=self.settings.backup_days),
            ),
            self.suppressions.lists,
            Parcels(self.member_blobs),
            self.erasure_journal,
            self.clock,
        )

    @cached_property
    def job_worker(self) -> JobWorker:
        """The worker behind jobs."""
        return JobWorker(
            self.jobs, self.job_handlers, self.settings.lease_seconds, self.settings.work_seconds
        )

    @property
    def job_handlers(self) -> dict[JobKind, Callable[[], Handler]]:
        """What does the work of each kind of job; built when a job of the kind comes."""
        return {
            JobKind.ARCHIVE: lambda: self.archives.run_archive,
            JobKind.UNARCHIVE: lambda: self.archives.run_unarchive,
            JobKind.DERIVE: lambda: self.derivations.run,
            JobKind.ERASE_USER: lambda: self.user_erasures.run,
            JobKind.COMPACT: lambda: self.member_upkeep.run_compact,
            JobKind.BACKUP: lambda: self.backups.run,
            JobKind.RESTORE: lambda: self.versions.run_restore,
            JobKind.RETENTION: lambda: self.retention_worker.run,
            JobKind.SUPPRESS: lambda: self.suppression_imports.run,
            JobKind.SWEEP: lambda: self.sweep_worker.run,
            JobKind.WARM: lambda: self.warming.run,
        }

    @cached_property
    def recovery(self) -> RecoveryService:
        """What a store has to hear after a restore."""
        from dataclasses import replace

        from activation.services.erased_members import ErasedMembers
        from activation.services.erasure_playback import ErasurePlayback
        from activation.services.playback import Playback
        from activation.services.recovery import RecoveryService
        from activation.services.shard_recovery import ShardRecovery

        lists = replace(self.suppressions.lists, journal=None)
        return RecoveryService(
            self.distributions,
            Playback(self.commits, lists, self.journal, self.clock),
            ErasedMembers(self.member_upkeep, self.suppressions, self.clock),
            self.journal,
            ErasurePlayback(self.user_erasures, self.erasure_journal, self.job_worker, self.clock),
            ShardRecovery(self.segment_replay, self.clock),
            self.clock,
        )

    @cached_property
    def due(self) -> DueService:
        """What comes up by the clock."""
        disk = self.settings.data_path if self._embedded else None
        return DueService(self.documents, self.commits, self.clock, disk)

    @cached_property
    def census(self) -> Census:
        """Counts of what there is."""
        from activation.services.census import Census

        pause = LOCAL_CENSUS if self._embedded else CLOUD_CENSUS
        return Census(self.documents, self.clock, pause)

    def close(self) -> None:
        """Close what was opened; the App cannot be used afterwards."""
        for port in (
            "change_hub",
            "documents",
            "bus",
            "connectors",
            "cache",
            "notifier",
            "hooks",
            "telemetry",
        ):
            closing = getattr(self.__dict__.get(port), "close", None)
            if closing is not None:
                closing()


_lock = threading.Lock()
_app: App | None = None


def get_app() -> App:
    """The process's App, built at the first request from the environment."""
    global _app
    with _lock:
        if _app is None:
            _app = App(from_environment())
        return _app
