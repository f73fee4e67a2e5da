"""The composition root: which adapter stands behind which port, built when first used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from activation.domain.audience import Encryption
from activation.domain.job import JobKind
from activation.domain.manifest import TierLimits
from activation.ports import (
    BlobStore,
    Cache,
    Clock,
    Connectors,
    DocumentStore,
    Hooks,
    MessageBus,
    Notifier,
    Signer,
    Vault,
)
from activation.services.audiences import AudienceService
from activation.services.commits import Commits, together
from activation.services.distributions import DistributionService
from activation.services.due import DueService
from activation.services.idempotency import IdempotencyService
from activation.services.jobs import Handler, JobService, JobWorker
from activation.services.ledgers import LedgerService
from activation.services.operator_accounts import OperatorAccounts
from activation.services.organizations import OrganizationService, OrganizationSettings
from activation.services.platforms import PlatformService
from activation.services.quotas import QuotaService
from activation.services.rate_limits import RateLimits, SharedCounter
from activation.services.retention import RetentionService
from activation.services.suppression_imports import SuppressionImports
from activation.services.suppression_journal import SuppressionJournal
from activation.services.suppression_lists import SuppressionLists
from activation.services.suppressions import SuppressionService
from activation.settings import Settings, from_environment

if TYPE_CHECKING:
    from activation.adapters.embedded.keys import LocalKeys
    from activation.adapters.telemetry.sending import Telemetry
    from activation.members.store import MemberStore
    from activation.services.accounts import Accounts
    from activation.services.archives import ArchiveService
    from activation.services.backups import BackupService
    from activation.services.cached import CachedValues
    from activation.services.census import Census
    from activation.services.change_feed import ChangeHub
    from activation.services.change_pages import ChangePages
    from activation.services.comparisons import ComparisonService
    from activation.services.derivations import DerivationService
    from activation.services.dispatch import Dispatcher
    from activation.services.erasure_marks import ErasureMarks
    from activation.services.event_archive import EventArchive
    from activation.services.event_archiver import EventArchiver
    from activation.services.event_worker import EventWorker
    from activation.services.events import EventMarks, EventService
    from activation.services.evidence import EvidenceService
    from activation.services.exchanges import ExchangeLogs
    from activation.services.follow_reports import FollowReports
    from activation.services.follow_sends import FollowSends
    from activation.services.import_worker import ImportWorker
    from activation.services.imports import ImportService
    from activation.services.key_rotation import KeyRotation
    from activation.services.lanes import LaneWorker
    from activation.services.list_digests import ListDigests
    from activation.services.match_rates import MatchRates
    from activation.services.matching import Matching
    from activation.services.member_upkeep import MemberUpkeep
    from activation.services.members import MemberService
    from activation.services.memberships import MembershipService
    from activation.services.overlaps import OverlapService
    from activation.services.past_explanations import PastExplanations
    from activation.services.past_memberships import PastMemberships
    from activation.services.previews import PreviewService
    from activation.services.reads import ReadService
    from activation.services.reauth import Reauth
    from activation.services.reconciling import Reconciler, ReconcileService
    from activation.services.recovery import RecoveryService
    from activation.services.refreshing import Refreshing
    from activation.services.retention_round import RetentionWorker
    from activation.services.segment_changes import SegmentChanges
    from activation.services.segment_followers import SegmentMarking
    from activation.services.segment_following import FollowWorker
    from activation.services.segment_replay import SegmentReplay
    from activation.services.segment_retention import SegmentRetention
    from activation.services.segment_shards import ShardWorker
    from activation.services.segments import SegmentService
    from activation.services.sessions import SessionService
    from activation.services.storages import StorageService
    from activation.services.summaries import SummaryService
    from activation.services.sweep import SweepWorker
    from activation.services.told_steps import ToldSteps
    from activation.services.user_erasures import Erase, UserErasures
    from activation.services.versions import VersionService
    from activation.services.warming import WarmingService
    from activation.services.webhook_deliveries import WebhookDeliveryService
    from activation.services.webhook_sender import WebhookSender
    from activation.services.webhooks import WebhookService


MOST_DEAD_LETTERS = 100_000
"""How many dead letters of an embedded bus are looked at."""
LOCAL_CENSUS, CLOUD_CENSUS = timedelta(minutes=1), timedelta(hours=1)
"""How often everything is counted; it reads every audience and account."""


class App:
    """Ports and services of one process. `get_app()` is the one that functions share."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self._given_clock = clock

    # ports --------------------------------------------------------------------------------------

    @cached_property
    def clock(self) -> Clock:
        """Time."""
        from activation.adapters.clock import SystemClock

        return self._given_clock or SystemClock()

    @cached_property
    def documents(self) -> DocumentStore:
        """Metadata."""
        if self._embedded:
            from activation.adapters.embedded.documents import SqliteDocuments

            return SqliteDocuments(self.settings.data_path / "documents.sqlite", self.clock)
        from activation.adapters.gcp.documents import FirestoreDocuments

        return FirestoreDocuments(self.settings.project, self.settings.database, self.clock)

    @cached_property
    def uploads(self) -> BlobStore:
        """Uploaded files."""
        if self._embedded:
            return self._files("uploads", signing_key=self.local_keys.derived("uploads"))
        return self._bucket(self.settings.uploads_bucket)

    @cached_property
    def member_blobs(self) -> BlobStore:
        """Member partitions, runs of imports, frozen lists."""
        if self._embedded:
            return self._files("members")
        return self._bucket(self.settings.members_bucket)

    @cached_property
    def backup_blobs(self) -> BlobStore:
        """Copies of members of major versions."""
        return self._area("backup", self.settings.backup_bucket)

    @cached_property
    def archive_blobs(self) -> BlobStore:
        """Archives of audiences."""
        return self._area("archive", self.settings.archive_bucket)

    @cached_property
    def event_blobs(self) -> BlobStore:
        """The archive of counted events."""
        return self._area("events", self.settings.events_bucket)

    @cached_property
    def journal_blobs(self) -> BlobStore:
        """The journal of suppressions: apart from what a backup brings back."""
        if not self._embedded:
            return self._bucket(self.settings.journal_bucket or self.settings.archive_bucket)
        from activation.adapters.embedded.blobs import FileBlobs

        return FileBlobs(self.settings.journal_path, self.clock)

    @cached_property
    def bus(self) -> MessageBus:
        """Messages between functions."""
        if self._embedded:
            from activation.adapters.embedded.bus import SqliteBus
            from activation.function_manifest import subscriptions
            from activation.services.event_messages import joined

            path, joins = self.settings.data_path / "bus.sqlite", {"process_events": joined}
            return SqliteBus(path, self.clock, subscriptions(), joins)
        from activation.adapters.gcp.bus import PubSubBus

        return PubSubBus(self.settings.project, self.settings.topic_prefix)

    @cached_property
    def vault(self) -> Vault:
        """Sealed credentials."""
        return self._vault(self.settings.kms_key)

    @cached_property
    def suppression_vault(self) -> Vault:
        """Sealed keys of suppression lists: more functions open these than may open credentials."""
        return self._vault(self.settings.suppression_kms_key)

    def _vault(self, kms_key: str) -> Vault:
        from activation.adapters.envelope import EnvelopeVault

        if self._embedded:
            return EnvelopeVault(self.local_keys)
        from activation.adapters.gcp.keys import CloudKmsKeys

        return EnvelopeVault(CloudKmsKeys(kms_key))

    @cached_property
    def signer(self) -> Signer:
        """Signatures under evidence packs."""
        if self._embedded:
            from activation.adapters.embedded.signing import LocalSigner

            return LocalSigner(self.settings.data_path / "signing-key.pem")
        from activation.adapters.gcp.signing import CloudKmsSigner

        return CloudKmsSigner(self.settings.signing_key)

    @cached_property
    def connectors(self) -> Connectors:
        """Ad platforms."""
        from activation.adapters.connectors.registry import ConnectorRegistry
        from activation.services.locks import DocumentLock

        return ConnectorRegistry(
            self.clock,
            allow_private_hosts=self.settings.allow_private_hosts,
            drop_root=self.settings.data_path / "drops" if self._embedded else None,
            lock=DocumentLock(self.documents, self.clock),
        )

    @cached_property
    def notifier(self) -> Notifier | None:
        """Where reports of retention runs go, if anywhere."""
        if not self.settings.retention_webhook_url:
            return None
        from activation.adapters.connectors.notices import WebhookNotifier

        return WebhookNotifier(
            self.clock,
            self.settings.retention_webhook_url,
            self.settings.retention_webhook_secret,
            allow_private_hosts=self.settings.allow_private_hosts,
        )

    @cached_property
    def hooks(self) -> Hooks:
        """Addresses that get events."""
        from activation.adapters.connectors.hooks import HookPoster

        return HookPoster(self.clock, allow_private_hosts=self.settings.allow_private_hosts)

    @cached_property
    def cache(self) -> Cache:
        """Values that can be made again."""
        from activation.adapters.memory_cache import MemoryCache

        memory = MemoryCache(self.clock, self.settings.cache_bytes)
        if not self.settings.redis_url:
            return memory
        from activation.adapters.cache_keys import CacheKeys
        from activation.adapters.layered_cache import LayeredCache
        from activation.adapters.redis_cache import RedisCache

        keys = CacheKeys(self.documents, self.clock)
        return LayeredCache(memory, RedisCache(self.settings.redis_url, self.clock, keys.of))

    # services -----------------------------------------------------------------------------------

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
    def recovery(self) -> RecoveryService:
        """What a store has to hear after a restore."""
        from dataclasses import replace

        from activation.services.erased_members import ErasedMembers
        from activation.services.playback import Playback
        from activation.services.recovery import RecoveryService

        lists = replace(self.suppressions.lists, journal=None)
        return RecoveryService(
            self.distributions,
            Playback(self.commits, lists, self.journal, self.clock),
            ErasedMembers(self.member_upkeep, self.suppressions, self.clock),
            self.journal,
            self.clock,
        )

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
    def platforms(self) -> PlatformService:
        """Platforms."""
        return PlatformService(
            self.documents, self.commits, self.vault, self.connectors, self.clock
        )

    @cached_property
    def webhooks(self) -> WebhookService:
        """Webhooks."""
        from activation.services.webhooks import WebhookService

        return WebhookService(self.documents, self.commits, self.vault, self.hooks, self.clock)

    @cached_property
    def webhook_deliveries(self) -> WebhookDeliveryService:
        """What was sent to webhooks."""
        from activation.services.webhook_deliveries import WebhookDeliveryService

        return WebhookDeliveryService(self.documents, self.commits, self.webhooks, self.clock)

    @cached_property
    def webhook_sender(self) -> WebhookSender:
        """The worker behind webhooks."""
        from activation.services.webhook_sender import WebhookSender

        return WebhookSender(self.webhook_deliveries, self.hooks, self.vault, self.clock)

    @cached_property
    def distributions(self) -> DistributionService:
        """Distributions."""
        return DistributionService(
            self.documents,
            self.commits,
            self.audiences,
            self.platforms,
            self.ledgers,
            self.connectors,
            self.store,
            self.clock,
            self.suppressions,
        )

    @cached_property
    def ledgers(self) -> LedgerService:
        """What platforms have accepted."""
        return LedgerService(self.documents, self.commits, self.clock)

    @cached_property
    def accounts(self) -> Accounts:
        """Accounts with opened credentials; only the dispatcher's function may ask for them."""
        from activation.services.accounts import Accounts

        return Accounts(self.platforms, self.connectors, self.vault)

    @cached_property
    def matching(self) -> Matching:
        """Match results and health."""
        from activation.services.matching import Matching

        return Matching(
            self.distributions,
            self.platforms,
            self.audiences,
            self.commits,
            self.match_rates,
            self.clock,
            self.settings.match_poll_seconds,
        )

    @cached_property
    def reauth(self) -> Reauth:
        """What waits for new credentials."""
        from activation.services.reauth import Reauth

        return Reauth(self.distributions, self.matching, self.clock)

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """The worker behind distributions."""
        from activation.services.dispatch import Dispatcher
        from activation.services.settling import Settling

        lease_seconds = self.settings.lease_seconds
        return Dispatcher(
            self.distributions,
            self.platforms,
            self.accounts,
            self.matching,
            Settling(self.distributions, self.matching, self.clock, lease_seconds),
            self.reauth,
            self.exchanges,
            self.list_digests,
            self.clock,
            lease_seconds,
        )

    @cached_property
    def refreshing(self) -> Refreshing:
        """Distributions by the clock."""
        from activation.services.refreshing import Refreshing

        return Refreshing(self.distributions, self.platforms, self.organizations, self.clock)

    @cached_property
    def reconciliations(self) -> ReconcileService:
        """Comparisons of ledgers with platforms."""
        from activation.services.reconciling import ReconcileService

        return ReconcileService(self.distributions, self.clock)

    @cached_property
    def reconciler(self) -> Reconciler:
        """The worker behind them."""
        from activation.services.reconciling import Reconciler

        return Reconciler(self.distributions, self.accounts, self.clock)

    @cached_property
    def lane_worker(self) -> LaneWorker:
        """The worker behind lanes."""
        from activation.services.lanes import LaneWorker
        from activation.services.sending import Sender
        from activation.services.traffic import Traffic

        return LaneWorker(
            self.distributions,
            self.accounts,
            Traffic(self.documents, self.clock, self.settings.lanes_per_organization),
            Sender(self.suppressions),
            self.reauth,
            self.exchanges,
            self.clock,
            self.settings.lease_seconds,
            self.settings.work_seconds,
        )

    @cached_property
    def match_rates(self) -> MatchRates:
        """Match rates over time."""
        from activation.services.match_rates import MatchRates

        return MatchRates(
            self.documents,
            self.platforms,
            self.audiences,
            self.clock,
            self.settings.match_rate_fall,
        )

    @cached_property
    def exchanges(self) -> ExchangeLogs:
        """The last requests to platforms and their answers."""
        from activation.services.exchanges import ExchangeLogs

        return ExchangeLogs(self.documents, self.clock)

    @cached_property
    def list_digests(self) -> ListDigests:
        """Digests of delivery lists."""
        from activation.services.list_digests import ListDigests

        return ListDigests(self.documents, self.member_blobs, self.clock)

    @cached_property
    def evidence(self) -> EvidenceService:
        """Evidence packs of distributions."""
        from activation.services.evidence import EvidenceService

        return EvidenceService(
            self.commits,
            self.distributions,
            self.exchanges,
            self.list_digests,
            self.signer,
            self.clock,
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
            self._dead_events,
            self.clock,
        )

    def _dead_events(self) -> frozenset[str] | None:
        """Dead letters of events; on Pub/Sub they go by themselves."""
        if not self._embedded:
            return None
        letters = self.bus.dead_letters("process_events", MOST_DEAD_LETTERS)
        return frozenset(one.message.id for one in letters)

    @cached_property
    def storages(self) -> StorageService:
        """What is stored of members."""
        from activation.services.storages import StorageService

        return StorageService(self.audiences, self.jobs, self.member_blobs)

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
            self.clock,
        )

    @cached_property
    def jobs(self) -> JobService:
        """Long work on audiences."""
        return JobService(self.commits, self.audiences, self.clock)

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
    def shards(self) -> ShardWorker:
        """The evaluation of segments. Its objects lie beside the members."""
        from activation.services.rule_books import RuleBooks
        from activation.services.segment_shards import ShardWorker
        from activation.services.shard_states import ShardStates

        archive = self.event_archive
        parcels = archive.log.parcels
        books = RuleBooks(self.documents, parcels)
        states = ShardStates(self.documents, self.member_blobs, books, parcels, self.clock)
        return ShardWorker(
            self.documents,
            self.commits,
            books,
            states,
            parcels,
            self.clock,
            archive=archive,
            marks=self.erasure_marks,
        )

    @cached_property
    def event_archive(self) -> EventArchive:
        """Counted events of the past."""
        from activation.services.event_archive import EventArchive
        from activation.services.event_log import EventLog
        from activation.services.event_objects import EventObjects
        from activation.services.parcels import Parcels

        log = EventLog(self.documents, Parcels(self.member_blobs))
        return EventArchive(self.documents, EventObjects(self.event_blobs), log, self.clock)

    @cached_property
    def sessions(self) -> SessionService:
        """Sessions of users."""
        from activation.services.sessions import SessionService

        return SessionService(self.event_archive, self.shards.states, self.cached, self.clock)

    @cached_property
    def event_archiver(self) -> EventArchiver:
        """Brings counted events into the archive."""
        from activation.services.event_archiver import EventArchiver

        return EventArchiver(self.event_archive)

    @cached_property
    def told_steps(self) -> ToldSteps:
        """What shards have told."""
        from activation.services.told_steps import ToldSteps

        return ToldSteps(self.documents, self.shards.parcels)

    @cached_property
    def erasure_marks(self) -> ErasureMarks:
        """Who was erased."""
        from activation.services.erasure_marks import ErasureMarks

        return ErasureMarks(self.documents, self.suppression_vault, self.clock)

    @cached_property
    def user_erasures(self) -> UserErasures:
        """Erasures of users."""
        from activation.services.user_erasures import UserErasures

        return UserErasures(
            self.commits, self.jobs, self.erasure_marks, self._stores_of_users, self.clock
        )

    def _stores_of_users(self) -> list[tuple[str, Erase]]:
        """Every store that knows users by name, in the order in which an erasure goes through
        them."""
        from activation.services.shard_erasure import ShardEraser

        eraser = ShardEraser(self.shards, self.erasure_marks, self.event_archive)
        return [
            ("memberships", eraser.memberships),
            ("history", eraser.history),
            ("events", eraser.events),
            ("objects", eraser.objects),
        ]

    @cached_property
    def segment_replay(self) -> SegmentReplay:
        """Compares shards with the events they have counted."""
        from activation.services.segment_replay import SegmentReplay

        return SegmentReplay(self.shards, self.event_archive)

    @cached_property
    def segments(self) -> SegmentService:
        """Definitions of segments."""
        from activation.services.segment_rules import SegmentRules
        from activation.services.segments import SegmentService

        rules = SegmentRules(self.documents, self.shards.books)
        return SegmentService(self.documents, self.commits, rules, self.clock)

    @cached_property
    def segment_marking(self) -> SegmentMarking:
        """Marks of audiences whose segment has changed."""
        from activation.services.parcels import Parcels
        from activation.services.segment_followers import SegmentMarking

        parcels = Parcels(self.member_blobs)
        return SegmentMarking(self.documents, self.commits, parcels, self.clock)

    @cached_property
    def follow_worker(self) -> FollowWorker:
        """The worker that brings audiences in step with segments."""
        from activation.services.segment_following import FollowWorker

        return FollowWorker(
            self.members,
            self.shards,
            self.clock,
            self.settings.lease_seconds,
            timedelta(seconds=self.settings.follow_seconds),
        )

    @cached_property
    def follow_sends(self) -> FollowSends:
        """What platforms get when a segment has changed an audience."""
        from activation.services.follow_sends import FollowSends

        return FollowSends(self.refreshing, self.clock)

    @cached_property
    def follow_reports(self) -> FollowReports:
        """How far audiences follow their segments."""
        from activation.services.follow_reports import FollowReports

        return FollowReports(self.documents)

    @cached_property
    def memberships(self) -> MembershipService:
        """Who is in which segment, and why."""
        from activation.services.memberships import MembershipService

        return MembershipService(self.segments, self.shards, self.cached, self.clock)

    @cached_property
    def past_memberships(self) -> PastMemberships:
        """Who was in which segment."""
        from activation.services.past_memberships import PastMemberships

        return PastMemberships(self.segments, self.shards, self.told_steps, self.clock)

    @cached_property
    def past_explanations(self) -> PastExplanations:
        """Why users were in segments."""
        from activation.services.past_explanations import PastExplanations

        kept_for = timedelta(days=self.settings.event_days)
        return PastExplanations(
            self.segments, self.shards, self.event_archive, kept_for, self.clock
        )

    @cached_property
    def segment_changes(self) -> SegmentChanges:
        """Changes of memberships, step by step."""
        from activation.services.segment_changes import SegmentChanges

        return SegmentChanges(self.told_steps, self.clock)

    @cached_property
    def change_pages(self) -> ChangePages:
        """Changes of memberships by pages."""
        from activation.services.change_pages import ChangePages

        return ChangePages(self.segment_changes, self.memberships)

    @cached_property
    def change_hub(self) -> ChangeHub:
        """Those who follow changes of memberships as they happen."""
        from activation.services.change_feed import ChangeHub

        settings = self.settings
        return ChangeHub(
            self.segment_changes,
            self.memberships,
            settings.realtime_connections,
            settings.realtime_room,
            settings.realtime_poll_seconds,
        )

    @cached_property
    def event_marks(self) -> EventMarks:
        """When events were last accepted and evaluated."""
        from activation.services.events import EventMarks

        return EventMarks(self.documents, self.clock)

    @cached_property
    def events(self) -> EventService:
        """Acceptance of events."""
        from activation.services.events import EventService

        return EventService(self.documents, self.bus, self.event_marks, self.clock)

    @cached_property
    def event_worker(self) -> EventWorker:
        """The worker behind topic user-events."""
        from activation.services.event_worker import EventWorker

        return EventWorker(
            self.documents,
            self.bus,
            self.shards,
            self.segments.rules,
            self.event_marks,
            self.clock,
            lambda: self.event_archiver,
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

    @cached_property
    def telemetry(self) -> Telemetry:
        """Where spans and metrics go."""
        from activation.adapters.telemetry.sending import Telemetry

        return Telemetry(self.settings)

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

    # which back-end -----------------------------------------------------------------------------

    @property
    def _embedded(self) -> bool:
        return self.settings.backend == "embedded"

    @property
    def local_keys(self) -> LocalKeys:
        """The key file of the embedded back-end."""
        from activation.adapters.embedded.keys import LocalKeys

        return LocalKeys(self.settings.data_path / "keys.json")

    @property
    def _encryption(self) -> Encryption | None:
        if self._embedded:
            return None
        return Encryption(algorithm="AES256 (CMEK)", key_reference=self.settings.kms_key)

    def _area(self, area: str, bucket: str) -> BlobStore:
        return self._files(area) if self._embedded else self._bucket(bucket)

    def _files(self, area: str, **options: Any) -> BlobStore:
        from activation.adapters.embedded.blobs import FileBlobs

        return FileBlobs(self.settings.data_path / area, self.clock, **options)

    def _bucket(self, bucket: str) -> BlobStore:
        from activation.adapters.gcp.blobs import CloudStorageBlobs

        return CloudStorageBlobs(bucket, self.clock)


_lock = threading.Lock()
_app: App | None = None


def get_app() -> App:
    """The process's App, built at the first request from the environment."""
    global _app
    with _lock:
        if _app is None:
            _app = App(from_environment())
        return _app
