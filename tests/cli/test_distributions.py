"""`activation plan`, `distribute`, `platforms test` and `distributions`, against a real twin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.clock import SystemClock
from activation.app import App
from activation.settings import Settings
from activation.twins.catalog import OFFERS
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.server import serve
from tests.cli.conftest import Program
from tests.conftest import caller_of

PEOPLE = 150
PLATFORM = "Meta, Germany"


@pytest.fixture(autouse=True)
def _local_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIVATION_ALLOW_PRIVATE_HOSTS", "true")
    monkeypatch.setenv("ACTIVATION_MATCH_POLL_SECONDS", "0.1")


@pytest.fixture(scope="module")
def twin() -> Iterator[tuple[FacebookTwin, str]]:
    meta = FacebookTwin(SystemClock(), match_delay_seconds=0)
    running = serve({"facebook": meta})
    yield meta, running.url_of("facebook")
    running.close()


@pytest.fixture
def ready(program: Program, twin: tuple[FacebookTwin, str], tmp_path: Path) -> Program:
    """A store with an audience of PEOPLE and an account at the twin."""
    file = tmp_path / "people.csv"
    file.write_text("email\n" + "".join(f"p{n}@example.com\n" for n in range(PEOPLE)))
    program.ok("import", str(file), "--audience", "Buyers", "--create")
    _add(program, twin[1], dict(OFFERS["facebook"].credentials))
    return program


def _add(program: Program, url: str, credentials: dict[str, str]) -> Any:
    settings = ("--setting", "ad_account_id=1001", "--setting", f"api_url={url}")
    add = ("platforms", "add", PLATFORM, "--type", "facebook", *settings)
    return program.json(*add, "--credentials-file", "-", stdin=json.dumps(credentials))


def test_the_whole_way_to_a_platform(ready: Program, twin: tuple[FacebookTwin, str]) -> None:
    assert "The credentials work." in ready.ok("platforms", "test", PLATFORM)
    plan = ready.json("plan", "Buyers", PLATFORM)
    assert (plan["members"], plan["rows"], plan["requests"]) == (PEOPLE, PEOPLE, 1)
    assert f"rows to send {PEOPLE}" in " ".join(ready.ok("plan", "Buyers", PLATFORM).split())

    job = ready.json("distribute", "Buyers", PLATFORM, "--matches")
    progress, results = job["progress"], job["match_results"]
    assert (progress["planned"], progress["sent"]) == (PEOPLE, PEOPLE)
    assert (progress["rejected"], progress["pending"]) == (0, 0)
    assert 0 < results["matched_records"] < PEOPLE
    [held] = [a for a in twin[0].audiences.values() if a.name == "Buyers"]
    assert len(held.keys) == PEOPLE

    assert ready.json("distributions", "list") == [job]
    listed = ready.ok("distributions", "list", "--status", "completed")
    assert PLATFORM in listed
    assert job["distribution_id"] in listed
    shown = ready.ok("distributions", "show", job["distribution_id"])
    assert "completed" in shown
    assert f"{results['match_rate'] * 100:.1f} %" in shown


def test_what_went_to_an_account_that_is_gone_is_still_shown(ready: Program) -> None:
    ready.ok(
        "platforms", "add", "Drop", "--type", "file_drop", "--credentials-file", "-", stdin="{}"
    )
    job = ready.json("distribute", "Buyers", "Drop")
    with closing(App(Settings(data_folder=str(ready.folder)))) as app:
        app.platforms.delete(caller_of("demo", "operator"), job["platform_id"])
    shown = ready.ok("distributions", "show", job["distribution_id"])
    assert "completed" in shown
    assert job["distribution_id"] in ready.ok("distributions", "list")


def test_without_waiting_the_work_is_left_for_a_server(ready: Program) -> None:
    assert "scheduled" in ready.ok("distribute", "Buyers", PLATFORM, "--no-wait")
    assert ready.json("distributions", "list")[0]["status"] == "scheduled"


def test_a_platform_that_refuses_fails_the_command(
    ready: Program, twin: tuple[FacebookTwin, str]
) -> None:
    body = {"error": {"code": 100, "message": "no", "type": "OAuthException"}}
    twin[0].faults.plan(Fault("status", path="users", status=400, body=body, times=20))
    try:
        said = ready.fails(1, "distribute", "Buyers", PLATFORM)
    finally:
        twin[0].faults.clear()
    assert said.startswith("Error: ")
    assert "code 100" in said
    assert ready.json("distributions", "list")[0]["status"] == "failed"


def test_wrong_credentials_are_found_out(program: Program, twin: tuple[FacebookTwin, str]) -> None:
    _add(program, twin[1], {"access_token": "EAAB-wrong-and-secret"})
    result = program("platforms", "test", PLATFORM)
    assert result.exit_code == 1
    assert "needs_reauth" in result.stdout
    assert "EAAB-wrong-and-secret" not in result.output
    assert "needs_reauth" in program.ok("platforms", "list")


def test_what_is_not_there_is_not_found(ready: Program) -> None:
    assert "no platform 'TikTok'" in ready.fails(3, "plan", "Buyers", "TikTok")
    assert "no audience 'Sellers'" in ready.fails(3, "distribute", "Sellers", PLATFORM)
    nobody = "0198c2a0-0000-7000-8000-00000000d001"
    assert "(not_found)" in ready.fails(3, "distributions", "show", nobody)


def test_an_empty_audience_cannot_be_distributed(ready: Program) -> None:
    ready.ok("audiences", "create", "Nobody")
    assert "only an active one" in ready.fails(3, "distribute", "Nobody", PLATFORM)


def test_two_of_one_name_must_be_told_apart(ready: Program, twin: tuple[FacebookTwin, str]) -> None:
    second = _add(ready, twin[1], dict(OFFERS["facebook"].credentials))
    assert "use an id" in ready.fails(3, "plan", "Buyers", PLATFORM)
    assert ready.json("plan", "Buyers", second["platform_id"])["rows"] == PEOPLE
