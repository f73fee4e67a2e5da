"""The member engine on files."""

from __future__ import annotations

from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.members.store import MemberStore
from tests.members.support import Workbench


@pytest.fixture
def bench(tmp_path: Path, clock: MovableClock) -> Workbench:
    blobs = FileBlobs(tmp_path / "members", clock)
    return Workbench(blobs, MemberStore(blobs, clock, rows_at_once=5), clock)
