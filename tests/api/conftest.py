"""The real functions over WSGI, on an embedded App in an empty folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock
from activation.domain.caller import Role
from activation.local import LocalServer
from activation.settings import Settings
from tests.api.client import Api, Description

MAX_BODY = 64 * 1024
ORIGIN = "https://console.example"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_folder=str(tmp_path / "data"),
        allow_private_hosts=True,
        max_body_bytes=MAX_BODY,
        cors_origins=f"{ORIGIN}, https://other.example",
    )


@pytest.fixture
def server(settings: Settings, clock: MovableClock) -> Iterator[LocalServer]:
    """Every function of the manifest; nothing runs in the background."""
    server = LocalServer(settings, clock=clock)
    yield server
    server.stop()


@pytest.fixture
def public(server: LocalServer) -> Api:
    """The API without a token."""
    anonymous = Api(server, Description({"paths": {}}), prefix="")
    document = anonymous.get("/openapi.json").get_json()
    return Api(server, Description(document))


@pytest.fixture
def api(public: Api) -> Api:
    """The admin of organization acme."""
    return public.as_()


@pytest.fixture
def viewer(public: Api) -> Api:
    return public.as_(Role.VIEWER, user="vic")


@pytest.fixture
def editor(public: Api) -> Api:
    return public.as_(Role.EDITOR, user="edd")


@pytest.fixture
def stranger(public: Api) -> Api:
    """The admin of another organization."""
    return public.as_(Role.ADMIN, org="evil-corp", user="eve")
