"""kill -9 while it works: counts add up, no member is lost or doubled, the platform agrees."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.clock import SystemClock
from activation.twins.facebook import FacebookTwin
from activation.twins.members import member_key, set_digest
from activation.twins.server import RunningTwins, serve
from tests.e2e.server import ServerProcess

PEOPLE = 600_000
BROKEN = 5_000
REPEATED = 10_000
KILLS = [
    pytest.param(seed, marks=pytest.mark.slow if seed < 3 else pytest.mark.nightly)
    for seed in range(10)
]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of PEOPLE different addresses, some of them twice, and some broken rows."""
    path = tmp_path_factory.mktemp("export") / "people.csv"
    with path.open("w") as file:
        file.write("email,city\n")
        for number in range(PEOPLE):
            file.write(f"person{number}@example.com,Ulm\n")
            if number % (PEOPLE // BROKEN) == 0:
                file.write("not an address,Ulm\n")
            if number % (PEOPLE // REPEATED) == 0:
                file.write(f" PERSON{number}@Example.com,Ulm\n")
    return path


@pytest.fixture(scope="module")
def expected() -> str:
    """The digest of what the platform must hold in the end."""
    return set_digest(
        member_key("email", hashlib.sha256(f"person{n}@example.com".encode()).hexdigest())
        for n in range(PEOPLE)
    )


@pytest.fixture(scope="module")
def facebook() -> FacebookTwin:
    """The platform; it lives outside of what is killed."""
    return FacebookTwin(SystemClock(), match_delay_seconds=0.1)


@pytest.fixture(scope="module")
def twins(facebook: FacebookTwin) -> Iterator[RunningTwins]:
    """The platform's address."""
    running = serve({"facebook": facebook})
    yield running
    running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server process with a data folder that outlives it."""
    process = ServerProcess(tmp_path_factory.mktemp("data") / "store")
    process.start()
    yield process
    process.kill()


def imported(server: ServerProcess, export: Path, name: str) -> tuple[str, str]:
    """Ids of a new audience and of a running import into it."""
    audience = server.call("POST", "/audiences", json={"name": name, "type": "first_party"})
    audience_id = audience["audience_id"]
    with export.open("rb") as file:
        job = server.call(
            "POST",
            f"/audiences/{audience_id}/imports",
            content=file.read(),
            headers={"Content-Type": "text/csv"},
        )
    return audience_id, job["import_id"]


def checked(job: dict[str, Any]) -> None:
    counts = job["counts"]
    assert counts["received"] == PEOPLE + BROKEN + REPEATED
    assert counts["added"] == PEOPLE
    assert counts["duplicate"] == REPEATED
    assert counts["rejected"] == BROKEN
    assert counts["received"] == counts["accepted"] + counts["duplicate"] + counts["rejected"]


@pytest.mark.parametrize("seed", KILLS)
def test_a_killed_import_ends_as_if_nothing_had_happened(
    server: ServerProcess, export: Path, seed: int
) -> None:
    audience_id, import_id = imported(server, export, f"Killed import {seed}")
    time.sleep(random.Random(seed).uniform(0.0, 2.5))
    server.kill()
    server.start()
    path = f"/audiences/{audience_id}/imports/{import_id}"
    job = server.wait_for(path, {"completed", "failed", "cancelled"})
    assert job["status"] == "completed", job["error"]
    checked(job)
    audience = server.call("GET", f"/audiences/{audience_id}")
    assert audience["size"] == PEOPLE
    assert sum(part["size"] for part in audience["storage"]["partitions"]) == PEOPLE
    assert audience["status"] == "active"


@pytest.fixture(scope="module")
def ready(server: ServerProcess, export: Path, twins: RunningTwins) -> dict[str, str]:
    """An imported audience and an account at the twin."""
    audience_id, import_id = imported(server, export, "To be distributed")
    job = server.wait_for(f"/audiences/{audience_id}/imports/{import_id}", {"completed"})
    checked(job)
    platform = server.call(
        "POST",
        "/platforms",
        json={
            "platform_type": "facebook",
            "name": "Twin",
            "credentials": {"access_token": "twin-token"},
            "settings": {
                "config": {"ad_account_id": "1001", "api_url": twins.url_of("facebook")},
                "requests_per_minute": 6_000,
            },
        },
    )
    return {"audience_id": audience_id, "platform_id": platform["platform_id"]}


@pytest.mark.parametrize("seed", KILLS)
def test_a_killed_distribution_leaves_the_platform_with_exactly_the_audience(
    server: ServerProcess,
    ready: dict[str, str],
    facebook: FacebookTwin,
    expected: str,
    seed: int,
) -> None:
    for audience in facebook.audiences.values():
        audience.keys.clear()
    distribution = server.call("POST", "/distributions", json=ready)
    time.sleep(random.Random(100 + seed).uniform(0.0, 3.0))
    server.kill()
    server.start()
    path = f"/distributions/{distribution['distribution_id']}"
    done = server.wait_for(path, {"completed", "partial", "failed", "cancelled"}, seconds=180)
    assert done["status"] == "completed", done["error_details"]
    progress = done["progress"]
    assert progress["planned"] == PEOPLE
    assert progress["sent"] + progress["rejected"] + progress["pending"] == PEOPLE
    assert (progress["sent"], progress["pending"]) == (PEOPLE, 0)
    (held,) = facebook.contents()["audiences"]
    assert held["members"] == PEOPLE
    assert held["digest"] == expected
