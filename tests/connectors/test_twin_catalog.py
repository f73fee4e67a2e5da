"""Every twin on offer takes the account that is printed for it."""

from __future__ import annotations

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.domain.platform import PlatformType
from activation.ports import Account
from activation.twins.catalog import OFFERS
from activation.twins.server import serve
from tests.connectors.support import ADD


@pytest.mark.parametrize("name", OFFERS)
def test_an_account_from_the_catalog_works(
    registry: ConnectorRegistry, clock: MovableClock, name: str
) -> None:
    twin = OFFERS[name].make(clock, 0.5)
    running = serve({name: twin})
    try:
        offer = OFFERS[name].account(name, running.url_of(name), twin)
        kind, config = PlatformType(offer["platform_type"]), offer["settings"]["config"]
        registry.validate(kind, offer["credentials"], config)
        connector = registry.connector(kind, config)
        account = Account("platform-1", config, offer["credentials"])
        connector.check(account)
        assert connector.create_audience(account, ADD) == connector.create_audience(account, ADD)
    finally:
        running.close()
