"""`activation digest` on the shard worker: what a digest depends on, and what it does not."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.digests.engines import embedded
from activation.digests.log import MAX_BATCH, Log, log_of, read_log, read_segments
from activation.digests.report import Report, differences, history
from activation.domain.event import Event
from activation.errors import ValidationError
from activation.settings import Settings
from tests.cli.conftest import Program, file_of, program
from tests.examples import examples
from tests.segments.purchases import purchases, segments_of_purchases, told_by_recount
from tests.segments.worlds import NOON
from tests.streaming.logs import log_of_purchases, log_of_world, rows_of_world, shuffled, world_of

__all__ = ["file_of", "program"]
MINUTE = timedelta(minutes=1)


def report_of(log: Log) -> Report:
    """What the worker makes of a log."""
    with TemporaryDirectory() as folder:
        return embedded(log, Path(folder))


@settings(max_examples=examples(12))
@given(st.integers(0, 2**32), st.sampled_from([7, 60, 200]))
def test_the_state_does_not_depend_on_how_events_come_together(seed: int, seconds: int) -> None:
    """Ids that come twice with other content are left out: of those the first one counts."""
    world = world_of(seed)
    rows = list({row["event_id"]: (at, row) for at, row in rows_of_world(world)}.values())
    whole = NOON.timestamp()
    gathered = [
        (at + timedelta(seconds=-(at.timestamp() - whole) % seconds), row) for at, row in rows
    ]
    end = max(at for at, _ in gathered) + 5 * MINUTE
    one, other = (report_of(log_of(some, world.segments, end)) for some in (rows, gathered))
    assert one.state == other.state
    assert (one.counted, one.users, one.members) == (other.counted, other.users, other.members)


@settings(max_examples=examples(8))
@given(st.integers(0, 2**32))
def test_nothing_depends_on_the_order_within_an_instant(seed: int) -> None:
    world = world_of(seed)
    rows = list({row["event_id"]: (at, row) for at, row in rows_of_world(world)}.values())
    one = report_of(log_of_world(world, rows))
    other = report_of(log_of_world(world, shuffled(rows, seed)))
    assert differences([one, other]) == []


def test_a_duplicate_changes_no_digest() -> None:
    log = log_of_purchases(customers=5, lines=25)
    twice = replace(log, batches=tuple(sorted([*log.batches, *log.batches], key=lambda b: b.at)))
    assert differences([report_of(log), report_of(twice)]) == ["rows", "duplicate"]


def test_a_lost_event_and_another_rule_are_found() -> None:
    log = log_of_purchases(customers=5, lines=25)
    right = report_of(log)
    fewer = report_of(replace(log, batches=log.batches[:-1]))
    assert {"counted", "state", "memberships", "history"} <= set(differences([right, fewer]))
    rule = log.segments[2].rules[0]
    other = log.segments[2].model_copy(
        update={"rules": (rule.model_copy(update={"value": rule.value + 1}),)}
    )
    changed = replace(log, segments=(*log.segments[:2], other, *log.segments[3:]))
    assert {"transitions", "history"} <= set(differences([right, report_of(changed)]))


def test_the_history_is_that_of_a_recount(tmp_path: Path) -> None:
    """The log comes by the end of each minute, as the recount takes it."""
    lines = [
        f" 0000{n % 4} 000{n % 4} 19970{1 + n % 2}0{1 + n % 3} {n % 5} {n}.5" for n in range(24)
    ]
    events = purchases(lines)
    rows = [(_closed(event), event.model_dump(mode="json")) for event in events]
    segments = segments_of_purchases()
    end = max(at for at, _ in rows) + timedelta(days=2)
    embedded(log_of(rows, segments, end), tmp_path)
    app = App(Settings(data_folder=str(tmp_path)), MovableClock(end))
    told = sorted((one.told_at, one.user_id, one.segment_id, one.entered) for one in history(app))
    app.close()
    assert told == told_by_recount(segments, events)


def _closed(event: Event) -> datetime:
    seconds = event.timestamp.timestamp()
    return event.timestamp + timedelta(seconds=-seconds % 60)


# reading -----------------------------------------------------------------------------------------


def lines_of(*rows: Any) -> list[bytes]:
    """Lines of a log."""
    return [json.dumps(row).encode() + b"\n" for row in rows]


def click(second: int, **more: Any) -> dict[str, Any]:
    """An event of NOON and so many seconds."""
    at = (NOON + timedelta(seconds=second)).isoformat()
    return {"user_id": "ann", "event_type": "clicks", "timestamp": at, **more}


BUYERS: list[dict[str, Any]] = [
    {
        "name": "clicked",
        "rules": [{"event_type": "clicks", "operator": "GTE", "value": 1, "window_minutes": 2}],
    },
    {"name": "quiet", "expression": "NOT clicked"},
]


def test_a_line_comes_when_it_says_it_was_received() -> None:
    at = (NOON + 90 * timedelta(seconds=1)).isoformat()
    log = read_log(lines_of(click(30), click(1, received_at=at)), [])
    assert [batch.at for batch in log.batches] == [
        NOON + timedelta(seconds=30),
        NOON + timedelta(seconds=90),
    ]
    assert log.batches[1].rows == (click(1),)
    assert log.end == NOON + 2 * MINUTE


def test_what_is_received_at_one_instant_is_one_batch_unless_it_is_too_large() -> None:
    rows = [(NOON, click(n)) for n in range(MAX_BATCH + 1)]
    assert [len(batch.rows) for batch in log_of(rows, []).batches] == [MAX_BATCH, 1]


def test_what_is_no_event_goes_along_to_be_refused() -> None:
    log = read_log([*lines_of(click(1)), b"not json\n", b"\n", b"[1]\n"], [])
    assert [row for batch in log.batches for row in batch.rows] == [click(1), "not JSON", [1]]
    report = report_of(log)
    assert (report.counted, report.refused) == (1, 2)


@pytest.mark.parametrize("lines", [[], [b"not json\n"], [b'{"user_id": "ann"}\n']])
def test_a_log_without_a_time_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(ValidationError):
        read_log(lines, [])


@pytest.mark.parametrize(
    "rules",
    [
        "no json",
        "{}",
        '["text"]',
        '[{"name": "x"}]',
        '[{"name": "x", "expression": "x"}]',
        '[{"name": "x", "expression": "y"}, {"name": "x", "expression": "y"}]',
        '[{"name": "x", "rules": [{"event_type": "views"}]}]',
    ],
)
def test_rules_that_cannot_be_are_refused(rules: str) -> None:
    with pytest.raises(ValidationError):
        log_of([(NOON, click(1))], read_segments(rules.encode()))


# the command -------------------------------------------------------------------------------------


def test_the_command_prints_a_report(program: Program, file_of: Callable[[str, str], Path]) -> None:
    log = file_of("log.ndjson", b"".join(lines_of(click(1, event_id="a"), click(70))).decode())
    rules = file_of("rules.json", json.dumps(BUYERS))
    given = ("digest", str(log), "--rules", str(rules))
    found = program.json(*given, "--at", "2026-11-21T12:04Z")
    (report,) = found["reports"]
    assert (report["engine"], report["counted"], report["users"]) == ("embedded", 2, 1)
    assert (report["members"], report["transitions"]) == (1, 3)
    assert found["differences"] == []
    assert program.json(*given)["reports"][0]["members"] == 1
    assert report["digest"][:16] in program.ok(*given, "--at", "2026-11-21T12:04Z")


def test_an_engine_that_is_not_there_is_named(
    program: Program, file_of: Callable[[str, str], Path]
) -> None:
    log = file_of("log.ndjson", lines_of(click(1))[0].decode())
    rules = file_of("rules.json", json.dumps(BUYERS))
    said = program.fails(3, "digest", str(log), "--rules", str(rules), "--engine", "functions")
    assert "FIRESTORE_EMULATOR_HOST" in said


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is not None, reason="It is there.")
def test_where_apache_beam_is_not_the_command_says_where_it_is(
    program: Program, file_of: Callable[[str, str], Path]
) -> None:
    log = file_of("log.ndjson", lines_of(click(1))[0].decode())
    rules = file_of("rules.json", json.dumps(BUYERS))
    said = program.fails(3, "digest", str(log), "--rules", str(rules), "--engine", "beam")
    assert "make beam" in said
