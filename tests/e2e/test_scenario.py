"""The main job over HTTP and messages: one story, told on every back-end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from activation.adapters.clock import SystemClock
from activation.domain.caller import Role
from activation.local import LocalServer
from activation.settings import Settings
from activation.twins.facebook import FacebookTwin
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.server import RunningTwins, serve
from tests.e2e.google import running_on_google, use_google
from tests.google_emulators import firestore_emulator, google_project, pubsub_emulator
from tests.wire.fixtures import KmsServer, StorageServer, kms_server, storage_server

__all__ = [
    "firestore_emulator",
    "google_project",
    "kms_server",
    "pubsub_emulator",
    "storage_server",
]

PEOPLE = 2_000
BROKEN = 40


@dataclass(frozen=True)
class Story:
    """A running system and two callers of different organizations."""

    url: str
    server: LocalServer
    twins: RunningTwins

    def caller(self, organization: str) -> httpx.Client:
        token = self.server.issuer.token(organization, "ann", Role.ADMIN)
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=60)


def settings(folder: Path) -> Settings:
    """Quick match results, twins on loopback."""
    return Settings(
        data_folder=str(folder), allow_private_hosts=True, match_poll_seconds=0.5, lease_seconds=20
    )


@pytest.fixture(scope="module")
def twins() -> Iterator[RunningTwins]:
    clock = SystemClock()
    running = serve(
        {
            "google_ads": GoogleAdsTwin(clock),
            "facebook": FacebookTwin(clock, match_delay_seconds=0.1),
        }
    )
    yield running
    running.close()


@pytest.fixture
def embedded(tmp_path: Path, twins: RunningTwins) -> Iterator[Story]:
    server = LocalServer(settings(tmp_path), port=0, tick_seconds=0.3)
    with server.running() as url:
        yield Story(url, server, twins)


@pytest.fixture
def on_google(
    tmp_path: Path,
    twins: RunningTwins,
    firestore_emulator: str,
    pubsub_emulator: str,
    google_project: str,
    storage_server: StorageServer,
    kms_server: KmsServer,
) -> Iterator[Story]:
    server = LocalServer(settings(tmp_path), port=0)
    bus = use_google(server.app, google_project, storage_server, kms_server)
    with running_on_google(server, bus) as url:
        yield Story(url, server, twins)


def export() -> bytes:
    """People with an address and every third a phone; some rows broken, some repeated."""
    lines = ["E-Mail,Mobile,City"]
    for number in range(PEOPLE):
        phone = f"+49170{number:07d}" if number % 3 == 0 else ""
        lines.append(f"p{number}@example.com,{phone},Ulm")
    lines += ["nobody at example,,Ulm"] * BROKEN
    lines += [f" P{number}@EXAMPLE.com ,,Ulm" for number in range(BROKEN)]
    return "\n".join(lines).encode()


def ok(response: httpx.Response) -> Any:
    assert response.status_code < 300, response.text
    return response.json()


def settled(client: httpx.Client, path: str, done: Any, seconds: float = 60) -> Any:
    """Poll until `done` says so."""
    deadline = time.monotonic() + seconds
    found = None
    while time.monotonic() < deadline:
        found = ok(client.get(path))
        if done(found):
            return found
        time.sleep(0.1)
    raise TimeoutError(f"{path}: {found}")


def main_job(story: Story) -> None:
    """Define, import, seal, plan, distribute, see the result; another tenant sees nothing."""
    with story.caller("acme") as acme, story.caller("rival") as rival:
        audience = ok(acme.post("/audiences", json={"name": "Buyers", "type": "1st-party"}))
        path = f"/audiences/{audience['audience_id']}"
        members = _import(acme, path)
        for kind, config, credentials in _accounts(story.twins):
            platform = _platform(acme, kind, config, credentials)
            wanted = {
                "audience_id": audience["audience_id"],
                "platform_id": platform["platform_id"],
            }
            plan = ok(acme.post("/distributions/plan", json=wanted))
            assert plan["members"] == members
            assert plan["identifiers"] == members
            assert plan["rows"] == PEOPLE, "e-mail and phone of a person go in one row"
            done = _distribute(acme, wanted)
            assert done["progress"]["planned"] == plan["rows"] == done["progress"]["sent"]
            assert (done["progress"]["rejected"], done["progress"]["pending"]) == (0, 0)
        assert rival.get(path).status_code == 404
        assert ok(rival.get("/audiences"))["total"] == 0
        assert ok(rival.get("/distributions"))["data"] == []
    state = httpx.get(f"{story.twins.url}/_twin/state").json()
    for twin in ("google_ads", "facebook"):
        held = [a["members"] for a in state[twin]["audiences"] if a["name"] == "Buyers"]
        assert members in held, state[twin]


def _import(acme: httpx.Client, path: str) -> int:
    key = {"Idempotency-Key": "import-1", "Content-Type": "text/csv"}
    job = ok(acme.post(f"{path}/imports", content=export(), headers=key))
    again = acme.post(f"{path}/imports", content=export(), headers=key)
    assert ok(again)["import_id"] == job["import_id"]
    done = settled(
        acme,
        f"{path}/imports/{job['import_id']}",
        lambda found: found["status"] in ("completed", "failed"),
    )
    counts = done["counts"]
    phones = len(range(0, PEOPLE, 3))
    assert done["status"] == "completed", done["error"]
    assert counts["added"] == PEOPLE + phones
    assert counts["duplicate"] == BROKEN
    assert counts["rejected_by_reason"] == {"invalid_email": BROKEN}
    assert counts["received"] == counts["accepted"] + counts["duplicate"] + counts["rejected"]
    rejects = acme.get(f"{path}/imports/{job['import_id']}/rejects").text.splitlines()
    assert rejects[:2] == ["row,column,reason", f"{PEOPLE + 2},E-Mail,invalid_email"]
    assert len(rejects) == BROKEN + 1
    audience = ok(acme.get(path))
    assert (audience["size"], audience["status"]) == (PEOPLE + phones, "active")
    wanted = {"identifier_type": "email", "identifier_value": "P7@example.com"}
    assert ok(acme.post(f"{path}/members/lookup", json=wanted))["attributes"] == {"City": "Ulm"}
    return PEOPLE + phones


def _accounts(twins: RunningTwins) -> list[tuple[str, dict[str, Any], dict[str, str]]]:
    google = twins.url_of("google_ads")
    return [
        (
            "facebook",
            {"ad_account_id": "1001", "api_url": twins.url_of("facebook")},
            {"access_token": "twin-token"},
        ),
        (
            "google_ads",
            {
                "account_id": "1234567890",
                "terms_accepted": True,
                "api_url": google,
                "token_url": f"{google}/token",
            },
            {
                "client_id": "twin-client",
                "client_secret": "twin-secret",
                "refresh_token": "twin-refresh",
            },
        ),
    ]


def _platform(
    acme: httpx.Client, kind: str, config: dict[str, Any], credentials: dict[str, str]
) -> Any:
    body = {
        "platform_type": kind,
        "name": f"{kind} account",
        "credentials": credentials,
        "settings": {"config": config},
    }
    platform = ok(acme.post("/platforms", json=body))
    ok(acme.post(f"/platforms/{platform['platform_id']}/test"))
    tested = settled(
        acme,
        f"/platforms/{platform['platform_id']}",
        lambda found: found["health"]["status"] != "checking",
    )
    assert tested["health"]["status"] == "ok"
    return platform


def _distribute(acme: httpx.Client, wanted: dict[str, str]) -> Any:
    requested = ok(acme.post("/distributions", json=wanted))
    return settled(
        acme,
        f"/distributions/{requested['distribution_id']}",
        lambda found: (
            found["status"] in ("completed", "partial", "failed")
            and found["match_results"]["final"]
        ),
    )


def test_the_main_job_on_the_embedded_back_ends(embedded: Story) -> None:
    main_job(embedded)


@pytest.mark.emulator
def test_the_main_job_on_google_services(on_google: Story) -> None:
    main_job(on_google)
