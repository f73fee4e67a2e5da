"""The services of audiences and their members, built when first used."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from activation.domain.manifest import TierLimits
from activation.services.audiences import AudienceService
from activation.services.commits import Commits, together
from activation.services.idempotency import IdempotencyService
from activation.services.jobs import JobService
from activation.services.operator_accounts import OperatorAccounts
from activation.services.organizations import OrganizationService, OrganizationSettings
from activation.services.quotas import QuotaService
from activation.services.rate_limits import RateLimits, SharedCounter
from activation.services.suppression_imports import SuppressionImports
from activation.services.suppression_journal import SuppressionJournal
from activation.services.suppression_lists import SuppressionLists
from activation.services.suppressions import SuppressionService
from activation.wiring.backends import Backends

if TYPE_CHECKING:
    from activation.members.store import MemberStore
    from activation.services.archives import ArchiveService
    from activation.services.backups import BackupService
    from activation.services.cached import CachedValues
    from activation.services.comparisons import ComparisonService
    from activation.services.derivations import DerivationService
    from activation.services.import_worker import ImportWorker
    from activation.services.imports import ImportService
    from activation.services.key_rotation import KeyRotation
    from activation.services.member_upkeep import MemberUpkeep
    from activation.services.members import MemberService
    from activation.services.overlaps import OverlapService
    from activation.services.previews import PreviewService
    from activation.services.reads import ReadService
    from activation.services.storages import StorageService
    from activation.services.summaries import SummaryService
    from activation.services.versions import VersionService
    from activation.services.warming import WarmingService


class Audiences(Backends):
    """Services of audiences, members, imports, suppressions and versions."""

    @cached_property
    def commits(self) -> Commits:
        """The one way to change anything."""
        from activation.services.announcements import Announcements
        from activation.services.followers import Followers
        from activation.services.segment_followers import SegmentFollowers

        follow = together(
            Followers(self.documents, self.clock),
            SegmentFollowers(self.clock),
            Announcements(self.documents, self.clock),
        )
        return Commits(self.documents, self.bus, self.clock, follow)

    @cached_property
    def idempotency(self) -> IdempotencyService:
        """Idempotency keys."""
        return IdempotencyService(self.documents, self.clock)

    @cached_property
    def audiences(self) -> AudienceService:
        """Audiences."""
        return AudienceService(self.documents, self.commits, self.clock, self.quotas)

    @cached_property
    def operator_accounts(self) -> OperatorAccounts:
        """Operators who were seen."""
        return OperatorAccounts(self.documents, self.clock)

    @cached_property
    def rate_limits(self) -> RateLimits:
        """Limits of requests."""
        settings = self.settings
        limits = {
            "reads": settings.rate_reads,
            "writes": settings.rate_writes,
            "work": settings.rate_work,
        }
        counter = SharedCounter(self.documents)
        return RateLimits(counter, self.clock, limits, settings.rate_window_seconds)

    @cached_property
    def quotas(self) -> QuotaService:
        """Limits of operators and organizations."""
        return QuotaService(self.commits, self.operator_accounts, self.clock)

    @cached_property
    def organization_settings(self) -> OrganizationSettings:
        """What admins set for their organization."""
        return OrganizationSettings(self.organizations, self.commits)

    @cached_property
    def organizations(self) -> OrganizationService:
        """Records of organizations."""
        return OrganizationService(self.documents, self.clock)

    @cached_property
    def limits(self) -> TierLimits:
        """Where storage tiers begin."""
        return TierLimits(self.settings.database_threshold, self.settings.segmented_threshold)

    @cached_property
    def store(self) -> MemberStore:
        """The member engine."""
        from activation.members.store import MemberStore

        return MemberStore(self.member_blobs, self.documents, self.clock, self.limits)

    @cached_property
    def members(self) -> MemberService:
        """Members."""
        from activation.services.members import MemberService

        return MemberService(
            self.documents,
            self.commits,
            self.audiences,
            self.store,
            self.clock,
            self._encryption,
            self.suppressions,
        )

    @cached_property
    def suppressions(self) -> SuppressionService:
        """Suppression lists."""
        lists = SuppressionLists(
            self.documents,
            self.member_blobs,
            self.suppression_vault,
            self.clock,
            journal=self.journal,
        )
        return SuppressionService(self.commits, lists)

    @cached_property
    def journal(self) -> SuppressionJournal:
        """Every change of a suppression list, kept apart from the lists."""
        return SuppressionJournal(self.journal_blobs, self.clock)

    @cached_property
    def key_rotation(self) -> KeyRotation:
        """Rotation of keys at rest."""
        from activation.services.key_rotation import KeyRotation

        return KeyRotation(self.commits, self.vault, self.suppressions.lists)

    @cached_property
    def suppression_imports(self) -> SuppressionImports:
        """Files of identifiers to suppress."""
        from activation.members.formats import ReadLimits, preflight

        return SuppressionImports(
            self.commits,
            self.suppressions,
            self.jobs,
            self.uploads,
            self.clock,
            self.settings.lease_seconds,
            self.settings.max_upload_bytes,
            ReadLimits(max_unpacked_bytes=self.settings.max_unpacked_bytes),
            preflight,
        )

    @cached_property
    def cached(self) -> CachedValues:
        """Values behind the cache."""
        from activation.services.cached import CachedValues

        return CachedValues(self.cache)

    @cached_property
    def reads(self) -> ReadService:
        """Reads through the cache."""
        from activation.services.reads import ReadService

        return ReadService(self.audiences, self.members, self.cached)

    @cached_property
    def summaries(self) -> SummaryService:
        """Summaries of audiences."""
        from activation.services.summaries import SummaryService

        return SummaryService(self.audiences, self.store, self.cached)

    @cached_property
    def warming(self) -> WarmingService:
        """Warming up the cache."""
        from activation.services.warming import WarmingService

        return WarmingService(self.jobs, self.reads, self.summaries)

    @cached_property
    def comparisons(self) -> ComparisonService:
        """Comparisons of versions."""
        from activation.services.comparisons import ComparisonService

        return ComparisonService(self.documents, self.commits, self.audiences, self.store)

    @cached_property
    def overlaps(self) -> OverlapService:
        """Overlaps of audiences."""
        from activation.services.overlaps import OverlapService

        return OverlapService(self.audiences, self.store)

    @cached_property
    def derivations(self) -> DerivationService:
        """Derived audiences."""
        from activation.services.derivations import DerivationService

        return DerivationService(self.members, self.clock)

    @cached_property
    def previews(self) -> PreviewService:
        """Previews of rules."""
        from activation.services.previews import PreviewService

        return PreviewService(self.audiences, self.store, self.clock)

    @cached_property
    def member_upkeep(self) -> MemberUpkeep:
        """Expiry and compaction of members."""
        from activation.services.member_upkeep import MemberUpkeep

        return MemberUpkeep(self.members, self.clock)

    @cached_property
    def imports(self) -> ImportService:
        """Imports of files."""
        from activation.members.formats import preflight
        from activation.services.imports import ImportService

        return ImportService(
            self.commits,
            self.audiences,
            self.uploads,
            self.member_blobs,
            self.clock,
            self.settings.max_upload_bytes,
            preflight,
        )

    @cached_property
    def import_worker(self) -> ImportWorker:
        """The worker behind imports."""
        from activation.members.formats import ReadLimits
        from activation.services.import_worker import ImportWorker

        return ImportWorker(
            self.imports,
            self.members,
            self.member_blobs,
            self.clock,
            self.settings.lease_seconds,
            self.settings.work_seconds,
            self.settings.max_reject_ratio,
            ReadLimits(max_unpacked_bytes=self.settings.max_unpacked_bytes),
        )

    @cached_property
    def archives(self) -> ArchiveService:
        """Archives."""
        from activation.services.archives import ArchiveService

        return ArchiveService(self.members, self.jobs, self.archive_blobs, self.clock)

    @cached_property
    def backups(self) -> BackupService:
        """Backups of versions."""
        from activation.services.backups import BackupService

        return BackupService(self.members, self.backup_blobs, self.clock)

    @cached_property
    def versions(self) -> VersionService:
        """Versions of audiences."""
        from activation.services.versions import VersionService

        return VersionService(self.members, self.backups, self.jobs, self.clock)

    @cached_property
    def storages(self) -> StorageService:
        """What is stored of members."""
        from activation.services.storages import StorageService

        return StorageService(self.audiences, self.jobs, self.member_blobs)

    @cached_property
    def jobs(self) -> JobService:
        """Long work on audiences."""
        return JobService(self.commits, self.audiences, self.clock)
