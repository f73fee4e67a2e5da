"""Where the worlds of the crash lab lie, and the table of its runs at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.lab import Lab, Report

RAM_DISK = Path("/dev/shm")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab on the RAM disk, where there is one."""
    folder = Path(tempfile.mkdtemp(dir=RAM_DISK if RAM_DISK.is_dir() else None))
    yield Lab(folder)
    shutil.rmtree(folder)


Tell = Callable[[Report], None]


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Tell:
    """Puts a report into the table at the end."""

    def noted(report: Report) -> None:
        record_property("faults", [report.name, report.calls, report.runs, len(report.bad)])

    return noted


@pytest.fixture
def tell(note: Tell) -> Tell:
    """Puts a report into the table at the end, and fails if a run was bad."""

    def told(report: Report) -> None:
        note(report)
        assert not report.bad, "\n".join(report.bad[:20])

    return told


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was tried, and what came of it."""
    rows = [
        row
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, row in report.user_properties
        if name == "faults"
    ]
    if rows:
        terminalreporter.section("crash lab")
        terminalreporter.line(f"{'flow':48} {'calls':>6} {'runs':>6} {'bad':>5}")
        for name, calls, runs, bad in sorted(rows):
            terminalreporter.line(f"{name:48} {calls:6} {runs:6} {bad:5}")
