"""The Display & Video 360 connector against Google's twin with an advertiser of that product."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.domain.identifier import IdentifierType
from activation.domain.platform import PlatformType, Replacement
from activation.errors import PlatformError
from activation.ports import Account, Connector
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.members import set_digest
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import ADD, MAID, digest_of, google_account, people, to


@pytest.fixture
def twin(clock: MovableClock) -> GoogleAdsTwin:
    return GoogleAdsTwin(clock, account_type="DISPLAY_VIDEO_ADVERTISER")


@pytest.fixture
def advertisers(twin: GoogleAdsTwin) -> Iterator[RunningTwins]:
    running = serve({"dv360": twin})
    yield running
    running.close()


@pytest.fixture
def dv360(registry: ConnectorRegistry) -> Connector:
    return registry.connector(PlatformType.DV360, {})


@pytest.fixture
def account(advertisers: RunningTwins) -> Account:
    return google_account(advertisers, "dv360")


def test_an_advertiser_owns_the_list_and_what_is_in_it(
    dv360: Connector, account: Account, twin: GoogleAdsTwin, clock: MovableClock
) -> None:
    dv360.check(account)
    audience_id = dv360.create_audience(account, ADD)
    assert dv360.create_audience(account, ADD) == audience_id
    delivery = to(ADD, audience_id, started_at=clock.now())
    dv360.send(account, delivery, 1, people(6))
    dv360.send(account, to(delivery, audience_id, operation="remove"), 1, people(2))
    assert set_digest(twin.lists[audience_id].keys) == digest_of(people(4, start=2))
    clock.sleep(1)
    dv360.clear(account, to(delivery, audience_id, started_at=clock.now()))
    assert not twin.lists[audience_id].keys
    assert dv360.match_results(account, delivery, []).final
    assert dv360.size(account, delivery) is None


def test_devices_are_the_other_kind_of_list(
    registry: ConnectorRegistry, advertisers: RunningTwins, twin: GoogleAdsTwin
) -> None:
    settings = {"upload_key_type": "MOBILE_ID", "mobile_key_space": "IOS", "mobile_app_id": "7"}
    dv360 = registry.connector(PlatformType.DV360, settings)
    assert set(dv360.spec.identifiers) == {IdentifierType.MAID}
    account = google_account(advertisers, "dv360", **settings)
    audience_id = dv360.create_audience(account, ADD)
    dv360.send(account, to(ADD, audience_id), 1, {"maid": [MAID]})
    assert set_digest(twin.lists[audience_id].keys) == digest_of({"maid": [MAID]})


def test_it_is_googles_interface_with_settings_of_its_own(
    registry: ConnectorRegistry, dv360: Connector
) -> None:
    google = registry.connector(PlatformType.GOOGLE_ADS, {}).spec
    names = {field.name for field in google.settings}
    assert names - {field.name for field in dv360.spec.settings} == {"account_type"}
    defaults = {field.name: field.default for field in dv360.spec.settings}
    assert defaults["login_account_type"] == "DISPLAY_VIDEO_PARTNER"
    assert dv360.spec.replacement is Replacement.AS_OF
    assert (dv360.spec.lanes, dv360.spec.carries_consent) == (google.lanes, True)
    assert (dv360.spec.max_rows, dv360.spec.tells_size) == (google.max_rows, True)


def test_google_ads_reaches_an_advertiser_by_its_account_type(
    google: Connector, advertisers: RunningTwins, twin: GoogleAdsTwin
) -> None:
    account = google_account(advertisers, "dv360", account_type="DISPLAY_VIDEO_ADVERTISER")
    google.send(account, to(ADD, google.create_audience(account, ADD)), 1, people(1))
    assert [len(held.keys) for held in twin.lists.values()] == [1]


def test_an_advertiser_is_not_an_account_of_google_ads(
    dv360: Connector, running: RunningTwins
) -> None:
    with pytest.raises(PlatformError) as caught:
        dv360.check(google_account(running))
    assert caught.value.platform_code == "PERMISSION_DENIED"
