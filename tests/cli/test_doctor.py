"""`activation doctor`, on stores that are well and stores that are not."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.cli.conftest import Program


def checks(program: Program) -> dict[str, bool]:
    printed = json.loads(program("--json", "doctor").stdout)
    return {check["check"]: check["ok"] for check in printed["checks"]}


def test_a_good_store_passes_every_check(program: Program) -> None:
    program.ok("audiences", "create", "One")
    text = program.ok("doctor")
    assert "All is well." in text
    assert "failed" not in text
    assert set(checks(program)) == {
        *("settings", "data folder", "disk", "documents", "uploads", "members", "backup"),
        *("archive", "events", "bus", "vault", "evidence key", "token key"),
    }


def test_leaves_nothing_behind(program: Program) -> None:
    program.ok("audiences", "create", "One")
    program.ok("doctor")
    before = sorted(path for path in program.folder.rglob("*") if path.is_file())
    program.ok("doctor")
    assert sorted(path for path in program.folder.rglob("*") if path.is_file()) == before


def test_a_missing_folder_fails_with_a_hint(program: Program) -> None:
    result = program("doctor")
    assert result.exit_code == 1
    assert "failed  data folder" in result.stdout
    assert "--data" in result.stdout
    assert "checks failed" in result.stderr
    assert not program.folder.exists()


@pytest.mark.parametrize("area", ["uploads", "members", "backup", "archive", "events"])
def test_a_missing_area_is_named(program: Program, area: str) -> None:
    program.ok("audiences", "create", "One")
    program.ok("doctor")
    shutil.rmtree(program.folder / area)
    (program.folder / area).write_text("no folder")
    found = checks(program)
    assert [name for name, ok in found.items() if not ok] == [area]
    assert f"failed  {area}" in program("doctor").stdout


def test_a_key_file_that_others_may_read_fails(program: Program) -> None:
    program.ok("audiences", "create", "One")
    program.ok("doctor")
    (program.folder / "keys.json").chmod(0o644)
    found = checks(program)
    assert not found["vault"]
    assert found["documents"]
    assert found["token key"]
    assert program("doctor").exit_code == 1


def test_a_broken_token_key_fails(program: Program) -> None:
    program.ok("audiences", "create", "One")
    (program.folder / "issuer-key.pem").write_text("no key")
    assert not checks(program)["token key"]


def test_an_evidence_key_open_to_others_is_found(program: Program) -> None:
    program.ok("audiences", "create", "Buyers")
    assert checks(program)["evidence key"]
    (program.folder / "signing-key.pem").chmod(0o644)
    assert not checks(program)["evidence key"]
