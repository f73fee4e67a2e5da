"""Traffic goes to new revisions in steps, and back when a step is not accepted."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from activation.cli.cloud_run import READY, CloudRun, CloudRunError, readiness
from activation.errors import InvalidStateError
from activation.function_manifest import functions
from functions import rollout
from tests.functions.cloud_run import CloudRunTwin, ServiceRecord, served

OLD = {(("old", 100),)}
NEW = {(("new", 100),)}


@pytest.fixture
def twin() -> CloudRunTwin:
    return CloudRunTwin.with_all()


@pytest.fixture
def cloud_run(twin: CloudRunTwin) -> Iterator[CloudRun]:
    with served(twin) as client:
        yield client


def test_pinned_traffic_stays_when_a_new_revision_comes(
    twin: CloudRunTwin, cloud_run: CloudRun
) -> None:
    state = rollout.pin(cloud_run)
    assert set(state) == {one.name for one in functions()}
    assert state["run_due"] == {"activation-run-due-00001-old": 100}
    twin.deploy()
    assert twin.shares() == OLD


def test_accepted_steps_lead_to_the_new_revisions(twin: CloudRunTwin, cloud_run: CloudRun) -> None:
    state = rollout.pin(cloud_run)
    twin.deploy()
    seen = []

    def accept() -> bool:
        seen.append(twin.shares())
        return True

    assert rollout.shift(cloud_run, state, (0, 10, 50, 100), accept)
    assert seen == [OLD, {(("new", 10), ("old", 90))}, {(("new", 50), ("old", 50))}, NEW]


@pytest.mark.parametrize("refused_at", [0, 1, 2])
def test_a_step_that_is_not_accepted_gives_all_traffic_back(
    refused_at: int, twin: CloudRunTwin, cloud_run: CloudRun
) -> None:
    state = rollout.pin(cloud_run)
    twin.deploy()
    answers = iter([True] * refused_at + [False])
    assert not rollout.shift(cloud_run, state, (10, 50, 100), lambda: next(answers))
    assert twin.shares() == OLD


def test_a_build_that_is_stopped_goes_back(twin: CloudRunTwin, cloud_run: CloudRun) -> None:
    state = rollout.pin(cloud_run)
    twin.deploy()
    assert not rollout.shift(cloud_run, state, (50,), lambda: sys.exit(1))
    assert twin.shares() == OLD


def test_a_revision_that_is_not_ready_gets_nothing(twin: CloudRunTwin, cloud_run: CloudRun) -> None:
    state = rollout.pin(cloud_run)
    twin.deploy(ready=False)
    assert not rollout.shift(cloud_run, state, (10,), lambda: True)
    assert twin.shares() == OLD


def test_a_service_that_refuses_sends_the_others_back_and_is_named(
    twin: CloudRunTwin, cloud_run: CloudRun
) -> None:
    state = rollout.pin(cloud_run)
    twin.deploy()
    twin.broken = {"activation-run-job"}
    with pytest.raises(CloudRunError, match=r"changed: run_job\."):
        rollout.shift(cloud_run, state, (10,), lambda: True)
    assert twin.shares() == OLD


def test_a_new_function_has_nothing_to_go_back_to(twin: CloudRunTwin, cloud_run: CloudRun) -> None:
    state = rollout.pin(cloud_run)
    del state["run_due"]
    twin.deploy()
    assert rollout.shift(cloud_run, state, (10,), lambda: True)
    assert twin.services["activation-run-due"].traffic == {"activation-run-due-00002-new": 100}


def test_traffic_that_a_deployment_has_moved_is_taken_back_first(
    twin: CloudRunTwin, cloud_run: CloudRun
) -> None:
    """Some versions of the provider send everything to what they deploy."""
    state = rollout.pin(cloud_run)
    twin.deploy()
    for record in twin.services.values():
        record.traffic = {record.revisions[-1]: 100}
    assert rollout.shift(cloud_run, state, (10,), lambda: True)
    assert twin.shares() == {(("new", 10), ("old", 90))}


@pytest.mark.parametrize(
    ("before", "percent", "after"),
    [
        ({}, 10, {"new": 100}),
        ({"new": 100}, 10, {"new": 100}),
        ({"old": 100}, 0, {"old": 100, "new": 0}),
        ({"a": 50, "b": 50}, 10, {"a": 45, "b": 45, "new": 10}),
        ({"a": 67, "b": 33}, 50, {"a": 34, "b": 16, "new": 50}),
        ({"a": 90, "new": 10}, 50, {"a": 50, "new": 50}),
        ({"a": 90, "b": 10}, 100, {"a": 0, "b": 0, "new": 100}),
    ],
)
def test_shares_always_add_up(before: dict[str, int], percent: int, after: dict[str, int]) -> None:
    assert rollout.blended(before, "new", percent) == after
    assert sum(after.values()) == 100


def test_readiness_names_what_is_not_ready_and_what_is_not_there(
    twin: CloudRunTwin, cloud_run: CloudRun
) -> None:
    assert set(readiness(cloud_run).values()) == {READY}
    twin.services["activation-platforms"].revisions.append("activation-platforms-00002-new")
    twin.services["activation-platforms"].ready = False
    del twin.services["activation-run-due"]
    found = {name: state for name, state in readiness(cloud_run).items() if state != READY}
    assert found == {
        "platforms": "its last change has not succeeded",
        "run_due": "not there",
    }


def test_two_installations_in_a_project_are_refused(
    twin: CloudRunTwin, cloud_run: CloudRun
) -> None:
    twin.services["other-run-due"] = ServiceRecord(["x"], {"x": 100})
    with pytest.raises(InvalidStateError, match="run_due"):
        cloud_run.services()


def test_a_refusal_of_cloud_run_is_told_without_its_words(cloud_run: CloudRun) -> None:
    stranger = CloudRun(cloud_run.http, "other", "europe-west1")
    with pytest.raises(CloudRunError, match=r"^Cloud Run answered 404\.$"):
        stranger.services()


def test_the_command_that_accepts_decides_by_its_exit_code() -> None:
    assert rollout.runs([sys.executable, "-c", "pass"])()
    assert not rollout.runs([sys.executable, "-c", "raise SystemExit(3)"])()


def test_the_page_says_how_all_functions_go_back(twin: CloudRunTwin, cloud_run: CloudRun) -> None:
    """As typed: from wherever traffic is by now to where the build had found it."""
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    (words,) = re.findall(r"^\S+ functions/rollout\.py (shift .*)$", page, re.MULTILINE)
    given = rollout.parsed(words.split())
    kept = rollout.pin(cloud_run)
    twin.deploy()
    assert rollout.shift(cloud_run, kept, (100,), lambda: True)
    assert twin.shares() == NEW
    assert not rollout.shift(cloud_run, kept, given.percent, rollout.runs(given.command))
    assert twin.shares() == OLD


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--project", "p", "--region", "r"]
    given = rollout.parsed(["shift", "s.json", *where, "--percent", "0", "10", "--", "x"])
    assert (given.state, given.percent) == (Path("s.json"), [0, 10])
    given = rollout.parsed(["shift", "s.json", *where, "--", "activation", "--project", "q"])
    assert (given.project, given.command) == ("p", ["activation", "--project", "q"])
    assert given.percent == (10, 50, 100)
    with pytest.raises(SystemExit):
        rollout.parsed(["shift", "s.json", *where])
    assert "needs --" in capsys.readouterr().err
