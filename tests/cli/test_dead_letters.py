"""`activation dead-letters`: messages that a function gave up on, seen and sent again."""

from __future__ import annotations

from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.bus import SqliteBus
from activation.app import App
from activation.ports import Message
from activation.settings import Settings
from tests.cli.conftest import Program
from tests.conftest import START

FUNCTION = "dispatch_distribution"
MESSAGE = Message("distribution-requests", "acme", "message-1", {"distribution_id": "gone"})


@pytest.fixture
def with_letter(program: Program) -> Program:
    """A store in which a message failed as often as it may."""
    clock = MovableClock(START)
    app = App(Settings(data_folder=str(program.folder)), clock)
    program.folder.mkdir()
    bus = app.bus
    assert isinstance(bus, SqliteBus)
    bus.publish([MESSAGE])

    def failing(subscription: str, message: Message, attempt: int) -> None:
        raise ValueError

    while not bus.dead_letters(FUNCTION):
        bus.deliver_due(failing, 10)
        clock.sleep(700)
    app.close()
    return program


def test_lists_and_redrives(with_letter: Program) -> None:
    [letter] = with_letter.json("dead-letters", "list")
    assert letter["message_id"] == "message-1"
    assert letter["organization_id"] == "acme"
    assert letter["attempts"] >= 5
    assert "message-1" in with_letter.ok("dead-letters", "list", "--function", FUNCTION)
    assert with_letter.json("dead-letters", "redrive", FUNCTION)["redriven"] == 1
    assert with_letter.json("dead-letters", "list") == []


def test_the_doctor_points_at_them(with_letter: Program) -> None:
    result = with_letter("doctor")
    assert result.exit_code == 1
    assert "failed  bus" in result.stdout
    assert "dead-letters list" in result.stdout


def test_an_unknown_function_is_not_found(with_letter: Program) -> None:
    said = with_letter.fails(3, "dead-letters", "redrive", "nonsense")
    assert "No function 'nonsense' takes messages" in said


def test_a_store_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert "(no_store)" in Program(tmp_path / "none").fails(3, "dead-letters", "list")
