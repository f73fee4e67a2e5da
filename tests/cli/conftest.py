"""The program in an empty folder, run as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from activation.cli.group import activation


@dataclass(frozen=True)
class Program:
    """`activation --data FOLDER …` in this process."""

    folder: Path

    def __call__(self, *arguments: str, stdin: str | bytes | None = None) -> Result:
        """Run it; an exception that no user should see fails the test."""
        words = ["--data", str(self.folder), *arguments]
        result = CliRunner().invoke(activation, words, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def ok(self, *arguments: str, stdin: str | bytes | None = None) -> str:
        """Run what must succeed; its standard output."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str, stdin: str | bytes | None = None) -> Any:
        """Run what must succeed with `--json`; the document it prints."""
        return json.loads(self.ok("--json", *arguments, stdin=stdin))

    def fails(self, code: int, *arguments: str, stdin: str | bytes | None = None) -> str:
        """Run what must fail with an exit code; what it says, on one line."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.stderr


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program on a store that is not there yet."""
    return Program(tmp_path / "store")


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a text file and returns its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
