"""Limits of requests: never past their bound, whoever asks at the same time, and cheap."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.errors import ConflictError, RateLimitedError, StorageUnavailableError
from activation.ports import Batch, Document, DocumentStore, Key, Revision
from activation.services.rate_limits import (
    CHUNKS,
    COLLECTION,
    FREE_PARTS,
    RateLimits,
    SharedCounter,
    Standing,
)
from activation.settings import Settings

LIMIT = 400
FREE = LIMIT // FREE_PARTS


@dataclass
class Watched:
    """A store that counts commits, and can be down or contended."""

    documents: DocumentStore
    commits: int = 0
    trouble: list[Exception] = field(default_factory=list)

    def get(self, key: Key) -> Document | None:
        return self.documents.get(key)

    def commit(self, batch: Batch) -> Sequence[Revision]:
        if self.trouble:
            raise self.trouble[0]
        self.commits += 1
        return self.documents.commit(batch)


@pytest.fixture
def watched(app: App) -> Watched:
    return Watched(app.documents)


def limits(watched: Watched, clock: MovableClock, limit: int = LIMIT) -> RateLimits:
    counter = SharedCounter(watched)  # type: ignore[arg-type]
    return RateLimits(counter, clock, {"reads": limit, "writes": 0}, 60)


def asked(rates: RateLimits, times: int, organization: str = "acme") -> list[Standing]:
    found = [rates.admitted(organization, "reads") for _ in range(times)]
    return [one for one in found if one is not None]


def passed(standings: list[Standing]) -> int:
    return sum(one.allowed for one in standings)


def test_little_traffic_writes_nothing(watched: Watched, clock: MovableClock) -> None:
    assert passed(asked(limits(watched, clock), FREE)) == FREE
    assert watched.commits == 0
    assert watched.documents.get(Key("acme", COLLECTION, "reads")) is None


def test_a_whole_limit_costs_ten_writes_and_refusals_none(
    watched: Watched, clock: MovableClock
) -> None:
    assert passed(asked(limits(watched, clock), 5 * LIMIT)) == LIMIT + FREE
    assert watched.commits == CHUNKS


def test_a_new_window_begins_anew(watched: Watched, clock: MovableClock) -> None:
    rates = limits(watched, clock)
    last = asked(rates, 2 * LIMIT)[-1]
    assert (last.allowed, last.remaining, last.limit, last.window_seconds) == (False, 0, LIMIT, 60)
    with pytest.raises(RateLimitedError) as caught:
        last.require_allowed()
    assert caught.value.retry_after_seconds == last.resets_in_seconds
    clock.sleep(last.resets_in_seconds)
    assert passed(asked(rates, 2 * LIMIT)) == LIMIT + FREE


def test_what_remains_goes_down_to_nothing(watched: Watched, clock: MovableClock) -> None:
    told = [one.remaining for one in asked(limits(watched, clock), LIMIT + FREE)]
    assert told[0] == LIMIT
    assert told[-1] == 0
    assert told == sorted(told, reverse=True)


def test_organizations_and_classes_do_not_touch_each_other(
    watched: Watched, clock: MovableClock
) -> None:
    rates = limits(watched, clock)
    asked(rates, 2 * LIMIT)
    assert passed(asked(rates, 2 * LIMIT, "other")) == LIMIT + FREE
    assert rates.admitted("acme", "writes") is None
    assert rates.admitted("acme", "unheard-of") is None


def test_a_small_limit_holds(watched: Watched, clock: MovableClock) -> None:
    assert passed(asked(limits(watched, clock, 3), 10)) == 3


def test_a_clock_that_is_behind_opens_no_second_window(
    watched: Watched, clock: MovableClock
) -> None:
    behind = MovableClock(clock.now())
    clock.sleep(60)
    asked(limits(watched, clock), 2 * LIMIT)
    assert passed(asked(limits(watched, behind), 2 * LIMIT)) == FREE


def test_while_the_counter_is_down_nobody_is_refused(watched: Watched, clock: MovableClock) -> None:
    rates = limits(watched, clock)
    watched.trouble = [StorageUnavailableError("Down.")]
    assert passed(asked(rates, 3 * LIMIT)) == 3 * LIMIT
    watched.trouble = []
    assert passed(asked(rates, 3 * LIMIT)) <= LIMIT + LIMIT // CHUNKS


def test_whoever_never_gets_at_the_counter_is_refused(
    watched: Watched, clock: MovableClock
) -> None:
    """Others take so much at that moment that letting him pass would break the bound."""
    rates = limits(watched, clock)
    watched.trouble = [ConflictError("Taken.")]
    standings = asked(rates, LIMIT)
    assert (passed(standings), standings[-1].retry_in_seconds) == (FREE, 1)
    watched.trouble = []
    assert passed(asked(rates, 1)) == 1


@pytest.fixture
def processes(tmp_path: Path, clock: MovableClock) -> Iterator[list[App]]:
    """Two processes on one store."""
    settings = Settings(data_folder=str(tmp_path / "data"), rate_reads=LIMIT)
    apps = [App(settings, clock), App(settings, clock)]
    yield apps
    for app in apps:
        app.close()


@pytest.mark.embedded(reason="opens the stores of one folder twice")
def test_callers_at_once_on_two_processes_stay_within_the_bound(processes: list[App]) -> None:
    """The limit, and a free share for each process: not one more, and not one less."""
    standings: list[Standing] = []
    gate = threading.Barrier(16)

    def caller(rates: RateLimits) -> None:
        gate.wait()
        standings.extend(asked(rates, LIMIT // 4))

    threads = [
        threading.Thread(target=caller, args=(processes[number % 2].rate_limits,))
        for number in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(standings) == 4 * LIMIT
    assert passed(standings) == LIMIT + 2 * FREE
