"""The member engine on files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.adapters.embedded.documents import SqliteDocuments
from activation.domain.manifest import TierLimits
from activation.members.store import MemberStore
from tests.members.support import Workbench


@pytest.fixture
def bench(tmp_path: Path, clock: MovableClock) -> Iterator[Workbench]:
    """Members of every size lie in objects."""
    blobs = FileBlobs(tmp_path / "members", clock)
    documents = SqliteDocuments(tmp_path / "documents.sqlite", clock)
    limits = TierLimits(database=0)
    yield Workbench(blobs, MemberStore(blobs, documents, clock, limits, rows_at_once=5), clock)
    documents.close()
