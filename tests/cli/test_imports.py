"""`activation import`: a file goes in, the numbers are right, and mistakes are told."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from activation.cli.api import Api, http_client
from activation.cli.progress import watched
from activation.demo.generator import Contents, write_export
from activation.domain.caller import Role
from activation.local import LocalServer
from activation.settings import Settings
from tests.cli.conftest import Program

ROWS = 2_000
FileOf = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents]:
    path = tmp_path_factory.mktemp("export") / "crm.csv"
    return path, write_export(path, ROWS)


@pytest.fixture(scope="module")
def imported(
    export: tuple[Path, Contents], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Program, str]:
    """A store with the export in it, and what the command printed."""
    program = Program(tmp_path_factory.mktemp("imported") / "store")
    command = ("import", str(export[0]), "--audience", "Demo", "--create")
    return program, program.ok(*command, "--default-region", "DE")


def test_prints_what_became_of_every_value(
    imported: tuple[Program, str], export: tuple[Path, Contents]
) -> None:
    text, contents = imported[1], export[1]
    for name in ("received", "accepted", "duplicate", "rejected"):
        assert f"{name} " in text
        assert f"{getattr(contents, name):,}" in text
    for reason, count in contents.rejected_by_reason.items():
        assert any(reason in line and f"{count:,}" in line for line in text.splitlines())
    assert "Importing 100%" in text
    assert f"{ROWS:,} rows" in text


def test_lists_the_rejected_rows_without_their_values(export: tuple[Path, Contents]) -> None:
    path = export[0].with_name("crm.csv.rejects.csv")
    with path.open(newline="") as file:
        header, *rejects = csv.reader(file)
    assert header == ["row", "column", "reason"]
    assert len(rejects) == export[1].rejected
    assert {reason for _, _, reason in rejects} == set(export[1].rejected_by_reason)
    assert "@" not in path.read_text()


def test_the_audience_holds_the_members_and_is_active(
    imported: tuple[Program, str], export: tuple[Path, Contents]
) -> None:
    audience = imported[0].json("audiences", "show", "Demo")
    assert (audience["size"], audience["status"]) == (export[1].accepted, "active")
    shown = imported[0].ok("audiences", "show", "Demo")
    assert f"{export[1].accepted:,}" in shown
    assert "bytes per member" in shown


def test_imports_are_listed_and_shown(imported: tuple[Program, str]) -> None:
    program = imported[0]
    [job] = program.json("imports", "list", "--audience", "Demo")
    assert job["status"] == "completed"
    assert "crm.csv" in program.ok("imports", "list", "--audience", "Demo")
    shown = program.json("imports", "show", job["import_id"], "--audience", "Demo")
    assert shown == job
    assert "completed" in program.ok("imports", "show", job["import_id"], "--audience", "Demo")


def test_with_json_only_the_job_goes_to_standard_output(program: Program, file_of: FileOf) -> None:
    file = file_of("one.csv", "email\nann@example.com\nnobody\nbob@example.com\n")
    result = program("--json", "import", str(file), "--audience", "A", "--create")
    job = json.loads(result.stdout)
    assert job["counts"]["rows"] == 3
    assert job["rejects_file"] == f"{file}.rejects.csv"
    assert "Importing 100%" in result.stderr


def test_columns_may_be_told(program: Program, file_of: FileOf) -> None:
    file = file_of("told.csv", "contact,notes\nann@example.com,call +49 151 1234567\n")
    told = ("--column", "contact=email", "--column", "notes=ignore", "--format", "csv")
    job = program.json("import", str(file), "--audience", "A", "--create", *told)
    assert job["counts"]["accepted"] == 1
    assert job["rejects_file"] is None


def test_a_column_that_cannot_be_meant_is_wrong_usage(program: Program, file_of: FileOf) -> None:
    file = str(file_of("one.csv", "email\nann@example.com\n"))
    said = program.fails(2, "import", file, "--audience", "A", "--column", "email")
    assert "COLUMN=MEANING[:RULE]" in said


def test_a_file_that_is_not_there_is_wrong_usage(program: Program, tmp_path: Path) -> None:
    said = program.fails(2, "import", str(tmp_path / "none.csv"), "--audience", "A", "--create")
    assert "does not exist" in said
    assert not program.folder.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty_file"),
        ("name,city\nAnn,Ulm\n", "no_identifier_column"),
        ("email,email\na@example.com,b@example.com\n", "duplicate_header"),
    ],
)
def test_a_file_that_cannot_be_an_import_is_refused(
    program: Program, file_of: FileOf, text: str, reason: str
) -> None:
    file = file_of("bad.csv", text)
    said = program.fails(3, "import", str(file), "--audience", "A", "--create")
    assert f"({reason})" in said


def test_an_import_that_rejects_too_much_fails(program: Program, file_of: FileOf) -> None:
    file = file_of("bad.csv", "email\nann@example.com\n" + "nobody\n" * 9)
    result = program("import", str(file), "--audience", "A", "--create")
    assert result.exit_code == 1
    assert "too_many_rejects" in result.stderr
    assert "10 rows\n" in result.stdout


def test_a_reject_file_that_cannot_be_written_hides_no_result(
    program: Program, file_of: FileOf, tmp_path: Path
) -> None:
    file = file_of("people.csv", "email\nann@example.com\nbob@example.com\nnobody\n")
    nowhere = str(tmp_path / "no" / "rejects.csv")
    result = program("import", str(file), "--audience", "A", "--create", "--rejects", nowhere)
    assert result.exit_code == 1
    assert "invalid_email" in result.stdout
    assert nowhere not in result.stdout
    assert nowhere in result.stderr


def test_an_unknown_audience_is_not_made_unasked(program: Program, file_of: FileOf) -> None:
    file = str(file_of("one.csv", "email\nann@example.com\n"))
    program.ok("audiences", "create", "A")
    assert "There is no audience 'B'" in program.fails(3, "import", file, "--audience", "B")
    assert [a["name"] for a in program.json("audiences", "list")] == ["A"]


@pytest.fixture
def through_an_address(tmp_path: Path) -> Iterator[Api]:
    """An API whose front door takes no file at all."""
    settings = Settings(data_folder=str(tmp_path / "served"), log_level="ERROR")
    server = LocalServer(settings, port=0)
    with server.running() as url:
        token = server.issuer.token("acme", "ann", Role.ADMIN)
        with http_client(url, lambda: token) as http:
            yield Api(http, direct_bytes=0)


def test_a_large_file_goes_to_an_address_of_its_own(
    through_an_address: Api, file_of: FileOf
) -> None:
    api, sent = through_an_address, list[int]()
    audience_id = api.post("/audiences", {"name": "A", "data_type": "first_party"})["audience_id"]
    file = file_of("one.csv", "email\nann@example.com\n")
    with file.open("rb") as stream:
        size = file.stat().st_size
        import_id = api.import_file(audience_id, {"file_name": "x"}, stream, size, sent.append)
    assert sum(sent) == size
    path = f"/audiences/{audience_id}/imports/{import_id}"
    job = watched(lambda: api.get(path), lambda seen: seen["completed_at"] is not None)
    assert (job["status"], job["counts"]["accepted"], job["file_name"]) == ("completed", 1, "x")
