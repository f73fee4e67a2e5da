"""The member engine on files, and on Google's stores.

A test that looks at files carries `@pytest.mark.embedded(reason)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.adapters.embedded.documents import SqliteDocuments
from activation.domain.manifest import TierLimits
from activation.members.store import MemberStore
from tests.google_emulators import firestore_emulator, google_project
from tests.google_services import google_services, on_both
from tests.members.support import Workbench

if TYPE_CHECKING:
    from tests.services.google import GoogleServices

__all__ = ["firestore_emulator", "google_project", "google_services"]

LIMITS = TierLimits(database=0)
"""Members of every size lie in objects."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a bench on both back-ends."""
    on_both(metafunc, "bench")


@pytest.fixture
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, clock: MovableClock
) -> Iterator[Workbench]:
    """An empty store."""
    if request.param == "google":
        services: GoogleServices = request.getfixturevalue("google_services")
        project: str = request.getfixturevalue("google_project")
        with services.app(project, tmp_path / "data", clock) as app:
            store = MemberStore(app.member_blobs, app.documents, clock, LIMITS, rows_at_once=5)
            yield Workbench(app.member_blobs, store, clock)
        return
    blobs = FileBlobs(tmp_path / "members", clock)
    documents = SqliteDocuments(tmp_path / "documents.sqlite", clock)
    yield Workbench(blobs, MemberStore(blobs, documents, clock, LIMITS, rows_at_once=5), clock)
    documents.close()
