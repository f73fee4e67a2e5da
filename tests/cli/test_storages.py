"""`activation storage` and `activation compact`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Program


@pytest.fixture
def stored(program: Program, file_of: Callable[[str, str], Path]) -> Program:
    """A store with an audience of 200 members."""
    rows = "\n".join(f"p{number}@example.com" for number in range(200))
    path = file_of("members.csv", f"email\n{rows}\n")
    program.ok("import", str(path), "--audience", "Loyal", "--create")
    return program


def test_says_how_members_are_stored(stored: Program) -> None:
    info = stored.json("storage", "Loyal")
    text = stored.ok("storage", "Loyal", "--parts")
    assert "database (inline)" in text
    assert "200" in text
    for part in info["parts"]:
        assert f"{part['number']}/16" in text
        assert part["location"] in text
        assert part["checksum"][:12] in text
    assert info["parts"][0]["location"] not in stored.ok("storage", "Loyal")


def test_compacts(stored: Program) -> None:
    job = stored.json("compact", "Loyal")
    assert (job["kind"], job["status"]) == ("compact", "completed")
    info = stored.json("storage", "Loyal")
    assert (info["deltas"], info["size"]) == (0, 200)
    assert "completed" in stored.ok("compact", "Loyal")
    waiting = stored.json("compact", "Loyal", "--no-wait")
    assert waiting["status"] == "queued"


def test_an_unknown_audience_is_not_found(stored: Program) -> None:
    assert "(not_found)" in stored.fails(3, "storage", "Nobody")
    assert "(not_found)" in stored.fails(3, "compact", "Nobody")
