"""A recovery that dies anywhere, and is run again, ends as one that nobody disturbed."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import Audience
from activation.domain.distribution import Distribution, DistributionDraft
from activation.domain.ledger import Ledger
from activation.domain.platform import PlatformDraft
from activation.domain.suppression import SuppressionReference
from activation.settings import Settings
from tests.faults.conftest import Tell
from tests.faults.flows import HELD, PEOPLE, filled, suppressed
from tests.faults.lab import Report
from tests.faults.ports import Crash, Fault, Tape, When, attach
from tests.faults.state import current_members
from tests.faults.world import ANN, all_of, settle


def store(folder: Path, clock: MovableClock) -> App:
    return App(Settings(data_folder=str(folder)), clock)


def lost_time(app: App) -> None:
    """What happens between the backup and the loss."""
    app.suppressions.add(ANN, suppressed(HELD[1:2], "erasure"))
    app.suppressions.add(ANN, suppressed(PEOPLE[10:12]))
    named = SuppressionReference.model_validate(
        {"identifier_type": "email", "identifier_value": PEOPLE[9]}
    )
    app.suppressions.remove(ANN, named)
    settle(app)


@pytest.fixture
def gone_back(tmp_path: Path) -> tuple[Path, MovableClock, datetime]:
    """A store as it was backed up, with the journal of what came after."""
    clock = MovableClock()
    app = store(tmp_path / "lost", clock)
    scene = filled(app)
    app.suppressions.add(ANN, suppressed(PEOPLE[9:10]))
    drop = {"platform_type": "file_drop", "name": "Drop", "credentials": {}}
    platform = app.platforms.create(ANN, PlatformDraft.model_validate(drop)).entity
    draft = DistributionDraft(audience_id=scene.audience_id, platform_id=platform.platform_id)
    app.distributions.create(ANN, draft)
    settle(app)
    app.distributions.create(ANN, draft)
    app.close()
    shutil.copytree(tmp_path / "lost", tmp_path / "back")
    since = clock.now()
    clock.sleep(60)
    app = store(tmp_path / "lost", clock)
    lost_time(app)
    app.close()
    shutil.rmtree(tmp_path / "back" / "journal")
    shutil.copytree(tmp_path / "lost" / "journal", tmp_path / "back" / "journal")
    return tmp_path / "back", clock, since


def seen(app: App) -> dict[str, Any]:
    """What matters after a recovery, and once what was under way has ended."""
    ledgers = [(one.active, one.uncertain_since is None) for one in all_of(app, "ledgers", Ledger)]
    settle(app)
    status = app.suppressions.status(ANN)
    jobs = all_of(app, "distributions", Distribution)
    audiences = all_of(app, "audiences", Audience)
    return {
        "ledgers": ledgers,
        "listed": (status.size, status.by_reason),
        "members": [(one.size, current_members(app, one)) for one in audiences],
        "jobs": sorted((one.status, one.progress.planned, one.progress.sent) for one in jobs),
        "ended": [one.uncertain_since for one in all_of(app, "ledgers", Ledger)],
    }


def recovered(
    gone_back: tuple[Path, MovableClock, datetime], folder: Path, fault: Fault | None
) -> tuple[dict[str, Any], Tape]:
    """The outcome of a recovery that met a fault, and of the one after it."""
    source, clock, since = gone_back
    shutil.copytree(source, folder)
    own = MovableClock(clock.now())
    tape = Tape(fault)
    app = attach(store(folder, own), tape)
    with suppress(Crash):
        app.recovery.run(since)
    app.close()
    own.sleep(30)
    app = store(folder, own)
    if fault is not None:
        app.recovery.run(since)
    found = seen(app)
    app.close()
    shutil.rmtree(folder)
    return found, tape


def test_a_recovery_that_dies_is_run_again(
    gone_back: tuple[Path, MovableClock, datetime], tmp_path: Path, tell: Tell
) -> None:
    right, tape = recovered(gone_back, tmp_path / "right", None)
    assert right["listed"] == (3, {"erasure": 1, "opt_out": 2})
    assert [one[0] for one in right["jobs"]] == ["completed"] * 2
    assert right["ledgers"] == [(None, False)]
    faults = [
        Fault(call, when)
        for call in range(1, len(tape.effects) + 1)
        for when in (When.BEFORE, When.AFTER)
    ]
    bad = []
    for fault in faults:
        found, _ = recovered(gone_back, tmp_path / "run", fault)
        bad += [
            f"{fault} ({tape.effects[fault.call - 1]}): {key}"
            for key in right
            if found[key] != right[key]
        ]
    tell(Report("recovery", len(tape.effects), len(faults), bad))
