"""`activation audiences`, on a store and on an API."""

from __future__ import annotations

from pathlib import Path

from activation.local import LocalServer
from activation.settings import Settings
from tests.cli.conftest import Program


def test_creates_lists_and_shows(program: Program) -> None:
    created = program.json("audiences", "create", "Loyal customers", "--tag", "a", "--tag", "b")
    assert created["metadata"]["tags"] == ["a", "b"]
    assert program.json("audiences", "list") == [created]
    assert program.json("audiences", "show", created["audience_id"])["name"] == "Loyal customers"
    text = program.ok("audiences", "list")
    assert "Loyal customers" in text
    assert created["audience_id"] in text
    shown = program.ok("audiences", "show", "Loyal customers")
    assert "draft" in shown
    assert "first_party" in shown


def test_an_empty_list_says_so(program: Program) -> None:
    program.ok("audiences", "create", "One")
    assert program.ok("audiences", "list", "--status", "paused").strip() == "None."
    assert program.json("audiences", "list", "--status", "paused") == []


def test_an_unknown_audience_is_not_found_by_name_or_id(program: Program) -> None:
    program.ok("audiences", "create", "One")
    said = program.fails(3, "audiences", "show", "Two")
    assert said == "Error: There is no audience 'Two'. (not_found)\n"
    said = program.fails(3, "audiences", "show", "0198c2a0-0000-7000-8000-00000000a001")
    assert said == "Error: There is no such audience. (not_found)\n"


def test_refusals_keep_the_message_and_reason_of_the_api(program: Program) -> None:
    program.ok("audiences", "create", "One")
    assert "(taken)" in program.fails(3, "audiences", "create", "One")
    assert "(personal_data)" in program.fails(3, "audiences", "create", "ann@example.com")
    assert "is not one of" in program.fails(2, "audiences", "create", "Two", "--type", "stolen")


def test_another_organization_sees_nothing(program: Program) -> None:
    program.ok("audiences", "create", "One", "--organization", "acme")
    assert program.json("audiences", "list", "--organization", "other") == []
    assert len(program.json("audiences", "list", "--organization", "acme")) == 1


def test_the_same_commands_work_on_an_api(program: Program, tmp_path: Path) -> None:
    settings = Settings(data_folder=str(program.folder), log_level="ERROR")
    with LocalServer(settings, port=0).running() as url:
        token = tmp_path / "token.txt"
        token.write_text(program.ok("token"))
        remote = ("--url", url, "--token", f"@{token}")
        created = program.json("audiences", "create", "One", *remote)
        assert program.json("audiences", "list", *remote) == [created]
        assert program.json("doctor", *remote)["ok"]
        said = program.fails(3, "audiences", "list", "--url", url, "--token", "not.a.token")
        assert said == "Error: The token is not accepted. (malformed)\n"
