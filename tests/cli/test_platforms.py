"""`activation platforms`: accounts go in with their credentials, which never come out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from activation.cli.platforms import TYPES
from activation.domain.platform import PlatformType
from tests.cli.conftest import Program

SECRET = "EAAB-not-to-be-seen"
ADD = ("platforms", "add", "Meta", "--type", "facebook", "--setting", "ad_account_id=1001")


def test_adds_from_a_file_and_lists(program: Program, file_of: Callable[[str, str], Path]) -> None:
    path = file_of("meta.json", json.dumps({"access_token": SECRET}))
    made = program.json(*ADD, "--credentials-file", str(path))
    assert made["credentials"]["fields"] == ["access_token"]
    assert SECRET not in json.dumps(made)
    assert program.json("platforms", "list") == [made]
    listed = program.ok("platforms", "list")
    assert "Meta" in listed
    assert SECRET not in listed


def test_credentials_come_from_standard_input_too(program: Program) -> None:
    given = json.dumps({"access_token": SECRET, "app_secret": "s"})
    made = program.json(*ADD, "--credentials-file", "-", stdin=given)
    assert made["credentials"]["fields"] == ["access_token", "app_secret"]


def test_credentials_are_asked_for_without_showing_them(program: Program) -> None:
    result = program(*ADD, stdin=f"{SECRET}\n\n")
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    assert program.json("platforms", "list")[0]["credentials"]["fields"] == ["access_token"]


def test_the_key_file_of_a_service_account_may_stand_as_it_is(program: Program) -> None:
    key = {"client_email": "x@y.iam.gserviceaccount.com", "private_key": "k"}
    given = json.dumps({"service_account_json": key})
    made = program.json(
        *("platforms", "add", "Google", "--type", "google_ads", "--credentials-file", "-"),
        *("--setting", "account_id=1234567890", "--setting", "terms_accepted=true"),
        *("--setting", "membership_days=30"),
        stdin=given,
    )
    config = made["settings"]["config"]
    assert config == {"account_id": "1234567890", "terms_accepted": True, "membership_days": 30}


@pytest.mark.parametrize("text", [f'{{"access_token": "{SECRET}"', f'"{SECRET}"', "", "[1]"])
def test_bad_json_is_refused_without_repeating_it(program: Program, text: str) -> None:
    said = program.fails(2, *ADD, "--credentials-file", "-", stdin=text)
    assert "holds no JSON object" in said
    assert SECRET not in said


def test_wrong_fields_are_named(program: Program) -> None:
    add = ("platforms", "add", "Meta", "--type", "facebook", "--credentials-file", "-")
    good = json.dumps({"access_token": SECRET})
    assert "settings.ad_account_id is required" in program.fails(3, *add, stdin=good)
    bad = json.dumps({"acess_token": SECRET})
    said = program.fails(3, *ADD, "--credentials-file", "-", stdin=bad)
    assert "credentials.acess_token" in said
    assert SECRET not in said
    assert "NAME=VALUE" in program.fails(2, *add, "--setting", "ad_account_id", stdin=good)


def test_types_tell_which_fields_are_needed(program: Program) -> None:
    kinds = program.json("platforms", "types")
    assert [kind["platform_type"] for kind in kinds] == list(TYPES)
    assert "ad_account_id" in program.ok("platforms", "types")


def test_every_type_of_platform_can_be_added() -> None:
    assert tuple(PlatformType) == TYPES
