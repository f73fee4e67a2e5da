"""Fixtures of the contracts: Google services as servers of this process, and emulators."""

from __future__ import annotations

from tests.google_emulators import firestore_emulator, google_project, pubsub_emulator
from tests.redis_server import _redis, redis_server
from tests.wire.fixtures import kms_server, storage_server

__all__ = [
    "_redis",
    "firestore_emulator",
    "google_project",
    "kms_server",
    "pubsub_emulator",
    "redis_server",
    "storage_server",
]
