"""`activation backup`, as an operator uses it: exit codes, what it prints, what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Program

PEOPLE = "email\n" + "".join(f"p{number}@example.com\n" for number in range(20))


@pytest.fixture
def filled(program: Program, file_of: Callable[[str, str], Path]) -> Program:
    """A store with an audience, and one who has opted out."""
    program.ok("import", str(file_of("people.csv", PEOPLE)), "--audience", "Buyers", "--create")
    program.ok("suppressions", "add", "p1@example.com")
    return program


def at(program: Program, name: str) -> str:
    return str(program.folder.with_name(name))


def listed(program: Program) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = program.json("backup", "list", "--from", at(program, "bk"))[
        "backups"
    ]
    return found


def test_there_and_back(filled: Program) -> None:
    to, keys = at(filled, "bk"), at(filled, "keys")
    said = filled.ok("backup", "make", "--to", to)
    assert "The keys are NOT in this backup." in said
    Path(keys).mkdir()
    shutil.copy(filled.folder / "keys.json", keys)
    filled.ok("suppressions", "add", "p2@example.com")
    shutil.copytree(filled.folder / "journal", at(filled, "journal"))
    shutil.rmtree(filled.folder)
    checked = filled.json("backup", "verify", "--from", to)
    assert (checked["ok"], checked["missing"]) == (True, 0)
    options = ("--keys-from", keys, "--journal", at(filled, "journal"))
    told = filled.json("backup", "restore", "--from", to, *options)
    assert told["recovery"]["suppressed"] == 1
    assert filled.json("audiences", "show", "Buyers")["size"] == 20
    for number, code in ((1, True), (2, True), (3, False)):
        checked = filled.json("suppressions", "check", f"p{number}@example.com")
        assert checked["suppressed"] is code
    assert "All is well." in filled.ok("doctor")
    since = told["backup"]["taken_at"]
    again = filled.json("backup", "reapply", "--since", since)
    assert (again["again"], again["suppressed"]) == (True, 0)


def test_keys_under_a_passphrase(filled: Program, file_of: Callable[[str, str], Path]) -> None:
    to, secret = at(filled, "bk"), str(file_of("passphrase", "correct horse battery\n"))
    said = filled.ok("backup", "make", "--to", to, "--passphrase-file", secret)
    assert "sealed in it" in said
    assert "NOT" not in said
    wrong = str(file_of("other", "wrong horse battery\n"))
    restore = ("backup", "restore", "--from", to, "--data", at(filled, "new"))
    assert "keys of the store are needed" in filled.fails(3, *restore)
    assert "does not open" in filled.fails(3, *restore, "--passphrase-file", wrong)
    assert not Path(at(filled, "new")).exists()
    filled.ok(*restore, "--passphrase-file", secret)
    assert "not empty" in filled.fails(3, *restore, "--passphrase-file", secret)


def test_what_is_refused(filled: Program, tmp_path: Path) -> None:
    assert "no backups" in filled.fails(3, "backup", "list", "--from", str(tmp_path))
    assert "no backup" in filled.fails(3, "backup", "make", "--to", str(tmp_path))
    elsewhere = ("--data", at(filled, "nowhere"))
    assert "no store" in filled.fails(3, "backup", "make", "--to", at(filled, "bk"), *elsewhere)
    filled.ok("backup", "make", "--to", at(filled, "bk"))
    filled.ok("audiences", "create", "Mine", "--data", at(filled, "another"))
    other = ("--data", at(filled, "another"))
    assert "another store" in filled.fails(3, "backup", "make", "--to", at(filled, "bk"), *other)
    assert "time zone" in filled.fails(2, "backup", "reapply", "--since", "2026-11-28T11:20:00")
    assert "no instant" in filled.fails(2, "backup", "reapply", "--since", "yesterday")
    remote = ("--url", "http://127.0.0.1:1", "--token", "x")
    assert "local store" in filled.fails(2, "backup", "make", "--to", at(filled, "bk"), *remote)


def test_pruning_and_damage(filled: Program) -> None:
    to = at(filled, "bk")
    for number in range(4):
        filled.ok("suppressions", "add", f"q{number}@example.com")
        filled.ok("backup", "make", "--to", to)
    options = ("--last", "2", "--hours", "0", "--days", "0")
    counts = filled.json("backup", "prune", "--from", to, *options)
    assert (counts["kept"], counts["deleted"]) == (2, 2)
    assert len(listed(filled)) == 2
    newest = listed(filled)[0]["backup_id"]
    file = Path(to) / "backups" / newest / "documents.sqlite.zst"
    file.write_bytes(file.read_bytes()[:-9])
    assert "damaged" in filled.fails(1, "backup", "verify", "--from", to)
    (file.parent / "manifest.json").write_text("{}")
    assert newest in filled.ok("backup", "list", "--from", to)
    assert [one["backup_id"] for one in listed(filled)] != [newest]
