"""A running server with a segment, and clients that follow it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from activation.adapters.clock import SystemClock
from activation.api.issuer import KEY_FILE, EmbeddedIssuer
from activation.domain.caller import Role
from activation.local import LocalServer, listening_on
from activation.settings import Settings
from tests.realtime.following import SECONDS, Site


@pytest.fixture(scope="session")
def issuer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an issuer's key; making one takes longer than most tests."""
    folder = tmp_path_factory.mktemp("issuer")
    assert EmbeddedIssuer(folder, SystemClock()).key_id
    return folder


@pytest.fixture
def site(tmp_path: Path, issuer_folder: Path) -> Iterator[Site]:
    """A server of this process, with its workers, on the real clock."""
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy2(issuer_folder / KEY_FILE, folder)
    settings = Settings(
        data_folder=str(folder),
        log_level="ERROR",
        realtime_connections=8,
        cors_origins="https://console.example",
    )
    sockets = listening_on("127.0.0.1", 0)
    address = f"ws://127.0.0.1:{sockets.getsockname()[1]}"
    server = LocalServer(settings, port=0, tick_seconds=0.2, sockets=sockets)
    with server.running() as url, httpx.Client(base_url=url, timeout=SECONDS) as http:

        def mint(org: str, user: str, role: str, seconds: int = 600) -> str:
            return server.issuer.token(org, user, Role(role), timedelta(seconds=seconds))

        yield Site(url, address, http, mint)
