"""The App on Google's services, fast enough for every test of a use case.

Documents lie in a project of the Firestore emulator that no other test uses, objects in new
buckets of the Cloud Storage server, keys in the KMS server. The bus is the embedded one: how
messages travel is the matter of `tests/contracts` and `tests/e2e`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.cloud.storage import Client

from activation.adapters.embedded.bus import SqliteBus
from activation.adapters.envelope import EnvelopeVault
from activation.adapters.gcp.blobs import CloudStorageBlobs
from activation.adapters.gcp.documents import FirestoreDocuments
from activation.adapters.gcp.keys import CloudKmsKeys
from activation.adapters.gcp.signing import CloudKmsSigner
from activation.app import App
from activation.function_manifest import subscriptions
from activation.ports import Clock
from activation.settings import Settings
from tests.wire.buckets import Buckets
from tests.wire.cloud_kms import KEY_NAME, SIGNING_KEY

AREAS = ("uploads", "member_blobs", "backup_blobs", "archive_blobs", "event_blobs", "journal_blobs")
"""Ports of the App that are buckets."""


@dataclass(frozen=True)
class GoogleServices:
    """Servers that run as long as the tests."""

    buckets: Buckets
    storage: Client
    keys: Any

    @contextmanager
    def app(self, project: str, folder: Path, clock: Clock) -> Iterator[App]:
        """An App in a project and buckets of its own; `folder` holds the bus."""
        names = {port: f"{project}-{port.replace('_', '-')}" for port in AREAS}
        settings = Settings(
            backend="google",
            data_folder=str(folder),
            project=project,
            uploads_bucket=names["uploads"],
            members_bucket=names["member_blobs"],
            backup_bucket=names["backup_blobs"],
            archive_bucket=names["archive_blobs"],
            events_bucket=names["event_blobs"],
            journal_bucket=names["journal_blobs"],
            kms_key=KEY_NAME,
            signing_key=SIGNING_KEY,
            suppression_kms_key=KEY_NAME,
            allow_private_hosts=True,
        )
        app = App(settings, clock)
        folder.mkdir()
        for port, bucket in names.items():
            self.buckets.made(bucket, clock)
            app.__dict__[port] = CloudStorageBlobs(bucket, clock, self.storage)
        app.__dict__.update(
            documents=FirestoreDocuments(project, "(default)", clock),
            bus=SqliteBus(folder / "bus.sqlite", clock, subscriptions()),
            signer=CloudKmsSigner(SIGNING_KEY, client=self.keys),
            vault=EnvelopeVault(CloudKmsKeys(KEY_NAME, client=self.keys)),
            suppression_vault=EnvelopeVault(CloudKmsKeys(KEY_NAME, client=self.keys)),
        )
        try:
            yield app
        finally:
            app.close()
