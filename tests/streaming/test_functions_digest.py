"""The real functions on Google's emulators make the same of a log as the shard worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from activation.digests.engines import embedded, timed
from activation.digests.functions import through_functions
from activation.digests.report import differences
from tests.streaming.logs import log_of_purchases, log_of_world, rows_of_world, world_of


@pytest.mark.emulator
@pytest.mark.parametrize("seed", range(4))
def test_functions_and_worker_agree_on_a_world(
    seed: int, firestore_emulator: str, pubsub_emulator: str, tmp_path: Path
) -> None:
    world = world_of(seed)
    rows = rows_of_world(world)
    bad = [(at, {**row, "user_id": ""}) for at, row in rows[:2]]
    log = log_of_world(world, [*rows, *bad, (rows[0][0], "no event")])
    reports = [
        timed(embedded, log, tmp_path / "embedded"),
        timed(through_functions, log, tmp_path / "functions"),
    ]
    print(*reports, sep="\n")
    assert differences(reports) == []
    assert reports[0].counted > 0
    assert reports[0].refused == len(bad) + 1


@pytest.mark.emulator
def test_functions_and_worker_agree_on_purchases(
    firestore_emulator: str, pubsub_emulator: str, tmp_path: Path
) -> None:
    log = log_of_purchases(customers=6, lines=30)
    reports = [embedded(log, tmp_path / "embedded"), through_functions(log, tmp_path / "functions")]
    assert differences(reports) == []
    assert reports[0].transitions > 50
