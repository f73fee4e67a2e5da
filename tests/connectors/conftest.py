"""Twins over real loopback sockets, and connectors that reach them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.http import ATTEMPTS
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.domain.platform import PlatformType
from activation.inspection import observed_by
from activation.ports import Connector
from activation.twins.facebook import FacebookTwin
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.server import RunningTwins, serve
from activation.twins.webhook import WebhookTwin
from tests.connectors.listening import Ear, personal
from tests.connectors.support import OLD_WEBHOOK_SECRET, WEBHOOK_SECRET


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Retries happen as often as they would, at once."""
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield


@pytest.fixture(autouse=True)
def _nothing_of_people_is_kept() -> Iterator[None]:
    """Whatever a connector says and hears, an observer of it learns no identifier and no secret."""
    ear = Ear()
    with observed_by(ear):
        yield
    assert personal(ear) == []


@pytest.fixture
def google_twin(clock: MovableClock) -> GoogleAdsTwin:
    """Google, with one advertiser account."""
    return GoogleAdsTwin(clock)


@pytest.fixture
def facebook_twin(clock: MovableClock) -> FacebookTwin:
    """Meta, with one ad account."""
    return FacebookTwin(clock)


@pytest.fixture
def webhook_twin(clock: MovableClock) -> WebhookTwin:
    """A receiver that still knows its old key."""
    return WebhookTwin(clock, secrets=[OLD_WEBHOOK_SECRET, WEBHOOK_SECRET])


@pytest.fixture
def running(
    google_twin: GoogleAdsTwin, facebook_twin: FacebookTwin, webhook_twin: WebhookTwin
) -> Iterator[RunningTwins]:
    """All twins behind one port."""
    twins = serve({"google_ads": google_twin, "facebook": facebook_twin, "webhook": webhook_twin})
    yield twins
    twins.close()


@pytest.fixture
def registry(clock: MovableClock, tmp_path: Path) -> Iterator[ConnectorRegistry]:
    """Connectors that may reach loopback and write below the test's folder."""
    registry = ConnectorRegistry(clock, allow_private_hosts=True, drop_root=tmp_path / "drops")
    yield registry
    registry.close()


@pytest.fixture
def google(registry: ConnectorRegistry) -> Connector:
    """The Google connector for contact lists."""
    return registry.connector(PlatformType.GOOGLE_ADS, {})


@pytest.fixture
def facebook(registry: ConnectorRegistry) -> Connector:
    """The Meta connector."""
    return registry.connector(PlatformType.FACEBOOK, {})


@pytest.fixture
def webhook(registry: ConnectorRegistry) -> Connector:
    """The webhook connector."""
    return registry.connector(PlatformType.WEBHOOK, {})


@pytest.fixture
def file_drop(registry: ConnectorRegistry) -> Connector:
    """The file drop connector."""
    return registry.connector(PlatformType.FILE_DROP, {})
