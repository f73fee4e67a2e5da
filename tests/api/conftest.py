"""The real functions over WSGI, on an embedded App in an empty folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.test import Client

from activation.adapters.clock import MovableClock, SystemClock
from activation.api.issuer import KEY_FILE, EmbeddedIssuer
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


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An issuer key; making one takes longer than most tests."""
    folder = tmp_path_factory.mktemp("issuer")
    assert EmbeddedIssuer(folder, SystemClock()).key_id
    return folder / KEY_FILE


@pytest.fixture
def server(settings: Settings, clock: MovableClock, key_file: Path) -> Iterator[LocalServer]:
    """Every function of the manifest; nothing runs in the background."""
    settings.data_path.mkdir(parents=True)
    shutil.copy2(key_file, settings.data_path)
    server = LocalServer(settings, clock=clock)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def description(tmp_path_factory: pytest.TempPathFactory) -> Description:
    """The API as the running system describes it."""
    settings = Settings(data_folder=str(tmp_path_factory.mktemp("described")))
    document = Client(LocalServer(settings).wsgi).get("/openapi.json").get_json()
    return Description(document)


@pytest.fixture
def public(server: LocalServer, description: Description) -> Api:
    """The API without a token."""
    return Api(server, description)


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
