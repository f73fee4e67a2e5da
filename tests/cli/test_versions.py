"""`activation versions`, `restore`, `archive`, `unarchive`, `jobs`: on a store in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Program

FileOf = Callable[[str, str], Path]


@pytest.fixture
def filled(program: Program, file_of: FileOf) -> Program:
    """An audience `Loyal` with two members as of version 2, four as of version 3."""
    first = file_of("one.csv", "email\na@example.com\nb@example.com\n")
    program.ok("import", str(first), "--audience", "Loyal", "--create")
    second = file_of("two.csv", "email\nc@example.com\nd@example.com\n")
    program.ok("import", str(second), "--audience", "Loyal")
    return program


def test_versions_are_a_table(filled: Program) -> None:
    shown = filled.ok("versions", "Loyal")
    assert "Import one.csv" in shown
    assert "Initial creation" in shown
    assert "+2 " in shown
    found = filled.json("versions", "Loyal")
    assert [(version["version"], version["size"]) for version in found] == [(3, 4), (2, 2), (1, 0)]
    one = filled.ok("versions", "Loyal", "--show", "3")
    assert "members before" in one
    assert "email" in one
    then = filled.json("versions", "Loyal", "--as-of", found[2]["created_at"])
    assert [version["version"] for version in then] == [1]
    assert "is no instant such as" in filled.fails(2, "versions", "Loyal", "--as-of", "yesterday")
    assert "no such version" in filled.fails(3, "versions", "Loyal", "--show", "9")


def test_a_restore_tells_what_it_did(filled: Program) -> None:
    said = filled.ok("restore", "Loyal", "2")
    assert "Restored version 2 as version 5: 2 members." in said
    assert "version 4" in said
    assert filled.json("audiences", "show", "Loyal")["size"] == 2
    only = filled.json("restore", "Loyal", "3", "--definition-only", "--keep-name")
    assert (only["members"], only["size"]) == ("none", 2)


def test_into_the_archive_and_back(filled: Program) -> None:
    queued = filled.json("archive", "Loyal", "--no-wait")
    shown = filled.json("jobs", "show", queued["job_id"])
    assert (shown["kind"], shown["status"]) == ("archive", "queued")
    archived = filled.ok("archive", "Loyal")
    assert "completed" in archived
    assert filled.json("audiences", "show", "Loyal")["archive"]["members"] == 4
    assert "archived" in filled.fails(3, "restore", "Loyal", "1")
    assert "completed" in filled.ok("unarchive", "Loyal")
    assert filled.json("audiences", "show", "Loyal")["size"] == 4
    kinds = [job["kind"] for job in filled.json("jobs", "list", "Loyal")]
    assert kinds.count("archive") == 2
    assert "unarchive" in filled.ok("jobs", "list", "Loyal")
    assert "not archived" in filled.fails(3, "unarchive", "Loyal")
