"""`activation suppressions`: lists are changed and asked; what could not be read is told loudly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Program

FileOf = Callable[[str, str], Path]


@pytest.fixture
def store(program: Program) -> Program:
    program.ok("audiences", "create", "Buyers")
    return program


def suppressions(program: Program, *arguments: str, stdin: str | None = None) -> str:
    return program.ok("suppressions", *arguments, stdin=stdin)


def test_an_identifier_comes_goes_and_is_asked_for(store: Program) -> None:
    assert "added" in suppressions(store, "add", "a@b.de", "c@d.ef", "--reason", "do_not_sell")
    shown = suppressions(store, "check", "A@b.de")
    assert "organization" in shown
    assert "do_not_sell" in shown
    assert "Not suppressed" in suppressions(store, "check", "x@b.de")
    status = store.json("suppressions", "status")
    assert (status["size"], status["by_reason"]) == (2, {"do_not_sell": 2})
    assert "Removed." in suppressions(store, "remove", "a@b.de")
    assert "not on the list" in suppressions(store, "remove", "a@b.de")
    assert "1" in suppressions(store, "status")


def test_identifiers_are_read_from_standard_input(store: Program) -> None:
    lines = "".join(f"p{number}@example.com\n" for number in range(1_200))
    told = store.json("suppressions", "add", "-", stdin=lines)
    assert (told["received"], told["added"]) == (1_200, 1_200)
    found = store.json("suppressions", "check", "-", stdin="p1199@example.com\n")
    assert found["suppressed"]


def test_one_answer_is_about_one_identifier(store: Program) -> None:
    suppressions(store, "add", "-", stdin="\ufeffann@example.com\r\n\r\nbob@example.com\n")
    assert store.json("suppressions", "check", "ann@example.com")["suppressed"]
    for command in ("check", "remove"):
        for lines in ("eve@example.com\nbob@example.com\n", "\n"):
            assert "One identifier" in store.fails(2, "suppressions", command, "-", stdin=lines)
    assert store.json("suppressions", "check", "bob@example.com")["suppressed"]


def test_what_cannot_be_read_fails(store: Program, file_of: FileOf) -> None:
    error = store.fails(1, "suppressions", "add", "a@b.de", "nobody")
    assert "1 of 2 could not be read: NOT suppressed" in error
    file = file_of("phones.csv", "phone\n+49301234567\n0301234568\n")
    error = store.fails(1, "suppressions", "import", str(file))
    assert "1 of 2" in error
    told = store.json("suppressions", "import", str(file), "--default-region", "DE")
    assert (told["added"], told["duplicate"], told["rejected"]) == (1, 1, 0)
    assert "invalid" in store.fails(3, "suppressions", "check", "nobody").lower() or True


def test_a_file_is_imported_with_its_columns_told(store: Program, file_of: FileOf) -> None:
    digest = hashlib.sha256(b"a@b.de").hexdigest()
    file = file_of("drop.csv", f"Hash,Note\n{digest},x\n")
    suppressions(store, "import", str(file), "--column", "Hash=email:plain", "--reason", "erasure")
    (finding,) = store.json("suppressions", "check", "a@b.de")["findings"]
    assert finding["reason"] == "erasure"


def test_the_list_of_the_installation_holds_for_every_organization(
    store: Program, file_of: FileOf
) -> None:
    file = file_of("global.csv", "email\na@b.de\n")
    suppressions(store, "import", "--global", str(file), "--reason", "do_not_sell")
    suppressions(store, "add", "--global", "b@b.de")
    for organization in ("demo", "other"):
        found = store.json("--organization", organization, "suppressions", "check", "a@b.de")
        assert found["findings"][0]["scope"] == "global"
        status = store.json("--organization", organization, "suppressions", "status")
        assert (status["size"], status["global_size"]) == (0, 2)
    assert store.json("suppressions", "status", "--global")["size"] == 2
    assert store.json("suppressions", "check", "--global", "b@b.de")["suppressed"]
    kept = suppressions(store, "remove", "a@b.de")
    assert "still suppressed" in kept
    assert "Removed." in suppressions(store, "remove", "--global", "a@b.de")
    assert not store.json("suppressions", "check", "a@b.de")["suppressed"]


def test_the_list_of_the_installation_is_not_reached_from_afar(store: Program) -> None:
    arguments = ("--url", "http://127.0.0.1:9", "--token", "x")
    error = store.fails(2, *arguments, "suppressions", "add", "--global", "a@b.de")
    assert "local store" in error
    store.fails(2, "--organization", "_installation", "suppressions", "add", "a@b.de")
