"""The pipeline makes the same of a log as the shard worker, to the last transition."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activation.digests.engines import embedded
from activation.digests.log import Log
from activation.digests.report import Report, differences
from tests.cli.conftest import Program, file_of, program
from tests.streaming.beam_gate import require_beam
from tests.streaming.logs import (
    log_of_purchases,
    log_of_world,
    rows_of_world,
    shuffled,
    world_of,
)
from tests.streaming.test_digest import BUYERS, click, lines_of

require_beam()

from activation.digests.beam import through_beam  # noqa: E402

__all__ = ["file_of", "program"]
AS_DRAWN = (HealthCheck.too_slow,)
MINUTE = timedelta(minutes=1)


def both(log: Log, other: Log | None = None) -> list[Report]:
    """A log through the worker, and it or another one through the pipeline."""
    with TemporaryDirectory() as folder:
        return [
            embedded(log, Path(folder) / "embedded"),
            through_beam(other or log, Path(folder) / "beam"),
        ]


@settings(max_examples=8, deadline=None, suppress_health_check=AS_DRAWN)
@given(st.integers(0, 2**32))
def test_pipeline_and_worker_agree_on_a_world(seed: int) -> None:
    reports = both(log_of_world(world_of(seed)))
    assert differences(reports) == []
    assert reports[0].counted > 0


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=AS_DRAWN)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_pipeline_and_worker_agree_on_more_worlds(seed: int, users: int) -> None:
    assert differences(both(log_of_world(world_of(seed, users)))) == []


def test_pipeline_and_worker_agree_on_purchases() -> None:
    reports = both(log_of_purchases(customers=15, lines=60))
    print(*reports, sep="\n")
    assert differences(reports) == []
    assert reports[0].transitions > 150
    assert reports[0].members > 0


@pytest.mark.parametrize("seed", [2, 4, 10])
def test_the_order_in_which_a_runner_brings_a_log_changes_nothing(seed: int) -> None:
    world = world_of(seed)
    log = log_of_world(world)
    backwards = replace(log, batches=tuple(reversed(log.batches)))
    moved = log_of_world(world, shuffled(rows_of_world(world), seed))
    assert differences(both(log, backwards)) == []
    assert differences(both(moved)) == []


def test_what_is_no_event_is_refused_by_both() -> None:
    world = world_of(4)
    rows = rows_of_world(world)
    at, row = rows[0]
    bad = [
        (at, "words"),
        (at, {**row, "event_id": "late", "timestamp": "2020-01-01T00:00:00Z"}),
        (at, {**row, "event_id": "absurd", "attributes": {"amount": 10**12}}),
    ]
    reports = both(log_of_world(world, [*rows, *bad]))
    assert differences(reports) == []
    assert reports[0].refused >= 2


def test_a_lost_event_is_found() -> None:
    log = log_of_purchases(customers=5, lines=20)
    batch = log.batches[7]
    fewer = replace(log, batches=tuple(one for one in log.batches if one is not batch))
    assert {"rows", "counted", "history"} <= set(differences(both(log, fewer)))
    fewer = replace(log, batches=log.batches[:-1])
    assert {"rows", "counted", "state", "memberships"} <= set(differences(both(log, fewer)))


def test_an_event_at_another_minute_is_found() -> None:
    log = log_of_purchases(customers=5, lines=20)
    batch = log.batches[7]
    (row,) = batch.rows
    earlier = datetime.fromisoformat(row["timestamp"]) - MINUTE
    moved = replace(batch, rows=({**row, "timestamp": earlier.isoformat()},))
    batches = tuple(moved if one is batch else one for one in log.batches)
    found = differences(both(log, replace(log, batches=batches)))
    assert found == ["history"]


def test_another_rule_is_found() -> None:
    log = log_of_purchases(customers=5, lines=20)
    first = log.segments[0]
    (rule,) = first.rules
    other = first.model_copy(
        update={"rules": (rule.model_copy(update={"window_minutes": rule.window_minutes - 1}),)}
    )
    changed = replace(log, segments=(other, *log.segments[1:]))
    found = differences(both(log, changed))
    assert "history" in found
    assert "counted" not in found


def test_the_command_has_the_pipeline_where_apache_beam_is(
    program: Program, file_of: Callable[[str, str], Path]
) -> None:
    log = file_of("log.ndjson", lines_of(click(1), click(70))[0].decode())
    rules = file_of("rules.json", json.dumps(BUYERS))
    given = ("digest", str(log), "--rules", str(rules), "--at", "2026-11-21T12:04Z")
    here = program.json(*given)["reports"][0]
    (there,) = program.json(*given, "--engine", "beam")["reports"]
    assert (there["engine"], there["digest"]) == ("beam", here["digest"])


@pytest.mark.emulator
def test_all_engines_agree(
    program: Program,
    file_of: Callable[[str, str], Path],
    firestore_emulator: str,
    pubsub_emulator: str,
) -> None:
    log = log_of_purchases(customers=5, lines=25)
    lines = [
        json.dumps({**row, "received_at": batch.at.isoformat()}) + "\n"
        for batch in log.batches
        for row in batch.rows
    ]
    rules = [one.model_dump(mode="json", exclude_none=True) for one in log.segments]
    found = program.json(
        "digest",
        str(file_of("log.ndjson", "".join(lines))),
        "--rules",
        str(file_of("rules.json", json.dumps(rules))),
        "--engine",
        "all",
    )
    print(json.dumps(found, indent=1))
    assert found["differences"] == []
    assert [one["engine"] for one in found["reports"]] == ["embedded", "functions", "beam"]
    assert found["reports"][0]["transitions"] > 50
