"""Replacing a whole Google list without a moment in which it is empty, and its size."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.google_wire import list_size
from activation.domain.delivery import Delivery, PlatformSize
from activation.domain.platform import Replacement
from activation.errors import PlatformError, PlatformTransientError
from activation.ports import Account, Connector
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.google_lists import UserList
from activation.twins.members import set_digest
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import ADD, digest_of, google_account, people, to


@pytest.fixture
def account(running: RunningTwins) -> Account:
    return google_account(running)


@pytest.fixture
def held(google: Connector, account: Account, google_twin: GoogleAdsTwin) -> UserList:
    """A list with ten people."""
    audience_id = google.create_audience(account, ADD)
    google.send(account, to(ADD, audience_id), 1, people(10))
    return google_twin.lists[audience_id]


def begun(clock: MovableClock, held: UserList, seconds: float = 60) -> Delivery:
    """A delivery to the list that begins some seconds from now."""
    clock.sleep(seconds)
    return to(ADD, held.audience_id, started_at=clock.now())


def test_what_was_not_sent_again_leaves(
    google: Connector, account: Account, held: UserList, clock: MovableClock
) -> None:
    assert google.spec.replacement is Replacement.AS_OF
    delivery = begun(clock, held)
    clock.sleep(5)
    google.send(account, delivery, 1, people(10, start=6))
    assert len(held.keys) == 15 + 15 - 6
    clock.sleep(5)
    google.clear(account, delivery)
    google.clear(account, delivery)
    assert set_digest(held.keys) == digest_of(people(10, start=6))


def test_members_of_the_very_first_instant_stay(
    google: Connector, account: Account, held: UserList, clock: MovableClock
) -> None:
    delivery = begun(clock, held)
    google.send(account, delivery, 1, people(3))
    google.clear(account, delivery)
    assert set_digest(held.keys) == digest_of(people(3))


def test_parts_of_a_second_count(
    google: Connector, account: Account, held: UserList, clock: MovableClock
) -> None:
    late = to(ADD, held.audience_id)
    clock.sleep(0.000_001)
    google.send(account, late, 1, people(2, start=20))
    delivery = begun(clock, held, seconds=0.000_001)
    google.send(account, delivery, 1, people(1))
    google.clear(account, delivery)
    assert set_digest(held.keys) == digest_of(people(1))


def test_a_member_that_left_and_came_back_is_new(
    google: Connector, account: Account, held: UserList, clock: MovableClock
) -> None:
    delivery = begun(clock, held)
    google.send(account, to(delivery, held.audience_id, operation="remove"), 1, people(1))
    clock.sleep(1)
    google.send(account, delivery, 1, people(1))
    google.clear(account, delivery)
    assert set_digest(held.keys) == digest_of(people(1))


def test_without_a_beginning_nothing_is_cleared(
    google: Connector, account: Account, held: UserList
) -> None:
    with pytest.raises(PlatformError) as caught:
        google.clear(account, to(ADD, held.audience_id))
    assert caught.value.reason == "no_start"
    assert len(held.keys) == 15


def test_a_clock_ahead_of_googles_clears_nothing(
    google: Connector, account: Account, held: UserList, clock: MovableClock
) -> None:
    ahead = to(ADD, held.audience_id, started_at=clock.now() + timedelta(seconds=1))
    with pytest.raises(PlatformError) as caught:
        google.clear(account, ahead)
    assert (caught.value.platform_code, caught.value.retryable) == (
        "INVALID_REMOVE_AS_OF_TIME",
        False,
    )
    assert len(held.keys) == 15


def test_clearing_is_tried_once_and_the_engine_may_come_back(
    google: Connector,
    account: Account,
    held: UserList,
    clock: MovableClock,
    google_twin: GoogleAdsTwin,
) -> None:
    delivery = begun(clock, held)
    google_twin.faults.plan(Fault("status", path="removeAll", status=503, times=2))
    with pytest.raises(PlatformTransientError):
        google.clear(account, delivery)
    assert len(google_twin.faults.pending()) == 1
    google_twin.faults.clear()
    google.clear(account, delivery)
    assert not held.keys


def test_four_lanes_at_a_time_lose_nothing(
    google: Connector, account: Account, google_twin: GoogleAdsTwin
) -> None:
    audience_id = google.create_audience(account, ADD)
    batches = [people(50, start=50 * number) for number in range(16)]
    lanes = google.spec.lanes
    assert lanes == 4
    with ThreadPoolExecutor(lanes) as pool:
        delivery = to(ADD, audience_id, batches=16)
        list(pool.map(lambda n: google.send(account, delivery, n + 1, batches[n]), range(16)))
    assert google_twin.lists[audience_id].summary()["digest"] == digest_of(*batches)


def test_the_size_is_what_the_networks_count(google: Connector, clock: MovableClock) -> None:
    assert google.spec.tells_size
    running = serve({"google_ads": GoogleAdsTwin(clock, match_rate=1.0)})
    try:
        account = google_account(running)
        delivery = to(ADD, google.create_audience(account, ADD))
        assert google.size(account, delivery) is None
        google.send(account, delivery, 1, people(10))
        assert google.size(account, delivery) == PlatformSize(15, 15)
    finally:
        running.close()


@pytest.mark.parametrize(
    ("shown", "size"),
    [
        ({}, None),
        ({"sizeInfo": {}}, None),
        ({"sizeInfo": {"displayNetworkMembersCount": "900"}}, PlatformSize(900, 900)),
        (
            {"sizeInfo": {"displayNetworkMembersCount": "900", "gmailMembersCount": "70"}},
            PlatformSize(70, 900),
        ),
        (
            {"sizeInfo": {"youtubeMembersCount": "9007199254740993"}},
            PlatformSize(2**53 + 1, 2**53 + 1),
        ),
    ],
)
def test_networks_count_differently(shown: dict[str, Any], size: PlatformSize | None) -> None:
    assert list_size(shown) == size
