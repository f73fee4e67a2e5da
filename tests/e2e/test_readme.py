"""The commands of the README's section "Use it", run one after the other as they stand there."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from activation.cli.group import activation

README = (Path(__file__).parents[2] / "README.md").read_text()
PROGRAM = ".venv/bin/activation "
PEOPLE = 30
MEMBERS = 2 * PEOPLE


def commands() -> list[list[str]]:
    section = README.partition("\n## Use it\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith(PROGRAM) for line in lines)
    found = [shlex.split(line, comments=True)[1:] for line in lines]
    return [words for words in found if words != ["serve"]]  # runs until it is stopped


def run(*words: str) -> Result:
    result = CliRunner().invoke(activation, list(words))
    assert result.exit_code == 0, (words, result.output)
    return result


def people(first: int) -> str:
    rows = [
        f"p{n}@example.com,(030) 1234{n:03d},{'DE' if n % 2 else 'AT'}"
        for n in range(first, first + PEOPLE)
    ]
    return "\n".join(["email,phone,country", *rows, ""])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with the files, the account and the second audience that the README speaks of."""
    (tmp_path / "customers.csv").write_text(people(0))
    (tmp_path / "changes.csv").write_text(people(PEOPLE))
    (tmp_path / "news.csv").write_text(people(20))
    (tmp_path / "none.json").write_text("{}")
    with contextlib.chdir(tmp_path):
        _found()
        yield tmp_path


def _found() -> None:
    run("import", "news.csv", "--audience", "Newsletter", "--create", "--default-region", "DE")
    account = ("PLATFORM", "--type", "file_drop", "--credentials-file", "none.json")
    run("platforms", "add", *account)


def test_the_commands_of_the_readme_do_what_it_says(place: Path) -> None:
    said = {" ".join(words): run(*words).stdout for words in commands()}
    flat = {command: " ".join(text.split()) for command, text in said.items()}
    assert f"accepted {MEMBERS} " in next(t for c, t in flat.items() if c.startswith("import cust"))
    assert f"{MEMBERS} to {2 * MEMBERS} (+100.0 %)" in flat["compare Buyers 2026 --from 2 --to 3"]
    assert f"as version 5: {MEMBERS} members" in flat["restore Buyers 2026 2"]
    assert f"{MEMBERS // 3} (33.3 %)" in flat["overlap Buyers 2026 Newsletter"]
    assert f"chosen {MEMBERS // 2} " in flat["preview Buyers 2026 --rule country EQ DE"]
    assert f"members {MEMBERS} " in flat["summary Buyers 2026"]
    assert "completed" in flat["archive Buyers 2026"]
    assert f"members {MEMBERS} " in flat["unarchive Buyers 2026"]
    assert "dry run" in flat["retention run --dry-run"]
    shown = json.loads(run("--json", "audiences", "show", "Buyers 2026").stdout)
    assert (shown["size"], shown["status"]) == (MEMBERS, "active")
