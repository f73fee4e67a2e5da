"""`activation keys`: what is shown, what is replaced, and that everything works on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Program


@pytest.fixture
def store(program: Program, file_of: Callable[[str, str], Path]) -> Program:
    """A store with an account and a suppression list."""
    add = ("platforms", "add", "Drop", "--type", "file_drop", "--setting", "folder=out")
    program.ok(*add, "--credentials-file", "-", stdin="{}")
    listed = file_of("list.csv", "email\na@b.de\nc@d.ef\n")
    program.ok("suppressions", "import", str(listed))
    return program


def test_keys_are_shown_by_name_only(store: Program) -> None:
    report = store.json("keys", "list")
    assert report["credentials"] == "local, version 1"
    assert [one["known_until"] for one in report["issuer"]] == [None]
    assert "PRIVATE" not in store.ok("keys", "list")


def test_the_issuers_key_is_replaced(store: Program) -> None:
    before = store.json("keys", "list")["issuer"]
    made = store.json("keys", "rotate", "issuer", "--after", "0")
    assert made["key_id"] != before[0]["key_id"]
    assert [one["key_id"] for one in made["known"]] == [before[0]["key_id"], made["key_id"]]
    assert "signs from" in store.ok("keys", "rotate", "issuer")
    published = json.loads(store.ok("keys", "jwks"))["keys"]
    assert len(published) == 3
    assert not [one for one in published if "d" in one]


def test_the_key_of_credentials_is_replaced(store: Program) -> None:
    done = {one["kind"]: one for one in store.json("keys", "rotate", "credentials")}
    assert (done["credentials"]["rewrapped"], done["credentials"]["key_version"]) == (1, "2")
    assert done["suppression_keys"]["rewrapped"] == 1
    again = {one["kind"]: one for one in store.json("keys", "rewrap")}
    assert (again["credentials"]["rewrapped"], again["credentials"]["current"]) == (0, 1)
    assert "The credentials work." in store.ok("platforms", "test", "Drop")


def test_the_key_of_suppressions_is_replaced(store: Program) -> None:
    [done] = store.json("keys", "rotate", "suppressions")
    assert (done["organization_id"], done["size"]) == ("demo", 2)
    assert store.json("suppressions", "check", "a@b.de")["suppressed"]
    assert "(not_found)" in store.fails(3, "keys", "rotate", "suppressions", "--list", "nobody")


def test_the_key_of_evidence_is_replaced(store: Program) -> None:
    old = store.json("evidence-key")["key_id"]
    made = store.json("keys", "rotate", "signing")
    assert made["old_key_id"] == old
    assert Path(made["old_public_key"]).read_text().startswith("-----BEGIN PUBLIC KEY-----")
    assert store.json("evidence-key")["key_id"] == made["key_id"]


def test_keys_are_not_replaced_from_afar(store: Program) -> None:
    for command in ("list", "rewrap"):
        store.fails(2, "keys", command, "--url", "http://127.0.0.1:9", "--token", "x")
