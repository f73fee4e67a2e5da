"""The local runner with tenants of different pace: real threads, sockets and clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from activation.adapters.clock import SystemClock
from activation.domain.caller import Caller
from activation.domain.distribution import FINAL, Distribution, DistributionStatus
from activation.domain.platform import PlatformDraft
from activation.local import LocalServer
from activation.settings import Settings
from activation.twins.catalog import OFFERS
from activation.twins.faults import Fault
from activation.twins.server import serve
from tests.conftest import caller_of
from tests.services.desk import Adjusted, emails
from tests.services.support import add, audience_of

SLOW_SECONDS = 1.0
BATCHES = 40
NOISY = 10
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Town:
    """A runner at work, and receivers of two tenants, the first of whom is slow."""

    server: LocalServer
    urls: dict[str, str]

    def requested(self, caller: Caller, people: range, count: int) -> list[Distribution]:
        """Distributions to as many accounts."""
        app = self.server.app
        audience = audience_of(app, caller, f"{caller.organization_id} {people}")
        add(app, caller, audience.audience_id, emails(*people))
        app.audiences.set_status(caller, audience.audience_id, "active")
        made = []
        for number in range(count):
            account = OFFERS["webhook"].account("webhook", self.urls[caller.organization_id])
            draft = PlatformDraft.model_validate({"name": f"{people} {number}", **account})
            platform = app.platforms.create(caller, draft).entity
            made.append(_request(self.server, caller, audience.audience_id, platform.platform_id))
        return made

    def current(self, caller: Caller, job: Distribution) -> Distribution:
        return self.server.app.distributions.get(caller, job.distribution_id).entity

    def seconds_of(self, caller: Caller, people: range) -> float:
        """How long a small distribution takes from the request to its end."""
        began = time.monotonic()
        (job,) = self.requested(caller, people, 1)
        while self.current(caller, job).status not in FINAL:
            assert time.monotonic() < began + PATIENCE_SECONDS
            time.sleep(0.02)
        assert self.current(caller, job).status is DistributionStatus.COMPLETED
        return time.monotonic() - began


def _request(
    server: LocalServer, caller: Caller, audience_id: str, platform_id: str
) -> Distribution:
    from activation.domain.distribution import DistributionDraft

    draft = DistributionDraft(audience_id=audience_id, platform_id=platform_id)
    return server.app.distributions.create(caller, draft).entity


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    clock = SystemClock()
    twins = {name: OFFERS["webhook"].make(clock, 0.5) for name in ("slow", "quick")}
    twins["slow"].faults.plan(Fault("delay", seconds=SLOW_SECONDS, times=10**6))
    receivers = serve(twins)
    settings = Settings(
        data_folder=str(tmp_path / "data"), log_level="ERROR", allow_private_hosts=True
    )
    server = LocalServer(settings, port=0, tick_seconds=5.0)
    connectors = Adjusted(clock, allow_private_hosts=True)
    connectors.changes = {"max_rows": 4}
    server.app.__dict__["connectors"] = connectors
    with server.running():
        yield Town(server, {name: receivers.url_of(name) for name in twins})
    receivers.close()


def test_a_slow_tenant_does_not_slow_another_one(town: Town) -> None:
    """Ten distributions that take 40 seconds each are under way, and a small one of somebody else
    takes as long as it does without them."""
    slow, quick = caller_of("slow"), caller_of("quick")
    alone = [town.seconds_of(quick, range(n * 10, n * 10 + 5)) for n in range(3)]
    noisy = town.requested(slow, range(4 * BATCHES), NOISY)
    time.sleep(2 * SLOW_SECONDS)
    beside = [town.seconds_of(quick, range(n * 10, n * 10 + 6)) for n in range(5)]
    states = [town.current(slow, job) for job in noisy]
    for job in noisy:
        town.server.app.distributions.set_status(slow, job.distribution_id, "cancelled")
    print(f"alone {max(alone):.2f} s, beside {max(beside):.2f} s")
    assert sum(job.progress.sent > 0 for job in states) >= 4, "they are at work"
    assert not any(job.status in FINAL for job in states), "nobody waited for their end"
    assert max(beside) < max(alone) + 10 * SLOW_SECONDS
