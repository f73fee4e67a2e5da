"""What stands behind each port: the embedded back-end or Google Cloud's, built when first used."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from activation.domain.audience import Encryption

if TYPE_CHECKING:
    from activation.adapters.embedded.keys import LocalKeys
    from activation.adapters.telemetry.sending import Telemetry
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
    from activation.settings import Settings


class Backends:
    """Ports of one process."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self._given_clock = clock

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
        """The journals of suppressions and erasures: apart from what a backup brings back."""
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

    @cached_property
    def telemetry(self) -> Telemetry:
        """Where spans and metrics go."""
        from activation.adapters.telemetry.sending import Telemetry

        return Telemetry(self.settings)

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
