"""The program as a whole: help, options, exit codes, one line per failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from activation.cli.api import http_client
from activation.cli.group import COMMANDS, activation
from activation.cli.options import Options
from tests.cli.conftest import Program

HEAVY = ("rich", "httpx", "flask", "pyarrow", "numpy", "cryptography", "grpc", "jwt", "pydantic")


def test_the_help_names_every_command_and_loads_nothing_heavy() -> None:
    program = (
        "import sys; from activation.cli.group import activation as a;"
        "a(['--help'], standalone_mode=False);"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(  # our own code
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(activation, [command, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_shows_its_version() -> None:
    assert "activation, version" in CliRunner().invoke(activation, ["--version"]).output


def test_shared_options_may_stand_before_or_after_the_command(tmp_path: Path) -> None:
    program = Program(tmp_path / "one")
    program.ok("audiences", "create", "Before")
    other = str(tmp_path / "two")
    assert "Created" in program.ok("audiences", "create", "After", "--data", other)
    assert [a["name"] for a in program.json("audiences", "list")] == ["Before"]
    assert [a["name"] for a in program.json("audiences", "list", "--data", other)] == ["After"]


def test_unknown_words_are_wrong_usage(program: Program) -> None:
    assert "No such command" in program.fails(2, "nonsense")
    assert "No such option" in program.fails(2, "audiences", "list", "--nonsense")


@pytest.mark.parametrize("command", [("token",), ("audiences", "list")])
@pytest.mark.parametrize(
    "names", [("--organization", "Acme Inc"), ("--organization", "Acme"), ("--user", "Ann Lee")]
)
def test_names_that_no_token_carries_are_refused(
    program: Program, command: tuple[str, ...], names: tuple[str, str]
) -> None:
    program.ok("audiences", "create", "One")
    for words in ((*names, *command), (*command, *names)):
        assert f"'{names[0]}': 1 to " in program.fails(2, *words)


def test_a_store_that_is_not_there_is_not_made_by_looking(program: Program) -> None:
    said = program.fails(3, "audiences", "list")
    assert said == f"Error: There is no store in {program.folder}. (no_store)\n"
    assert not program.folder.exists()


def test_a_proxy_gets_a_token_of_its_own(tmp_path: Path) -> None:
    """Identity-Aware Proxy reads this header and hands the other one on."""
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200, json={})

    file = tmp_path / "proxy.txt"
    file.write_text("for-the-proxy\n")
    given = Options(token="for-the-api", proxy_token=f"@{file}")
    transport = httpx.MockTransport(answer)
    for proxy_token in (given.proxy_bearer, Options().proxy_bearer):
        with http_client("http://x", given.bearer, transport, proxy_token) as http:
            http.get("/")
    assert [one["authorization"] for one in seen] == ["Bearer for-the-api"] * 2
    assert [one.get("proxy-authorization") for one in seen] == ["Bearer for-the-proxy", None]


def test_an_unknown_setting_in_the_environment_is_refused(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIVATION_COLOUR", "red")
    assert "Unknown settings: ACTIVATION_COLOUR." in program.fails(3, "audiences", "list")


def test_a_remote_api_needs_a_token(program: Program, tmp_path: Path) -> None:
    url = ("--url", "http://127.0.0.1:9")
    assert "--url needs --token" in program.fails(2, "audiences", "list", *url)
    missing = f"@{tmp_path / 'none.txt'}"
    said = program.fails(2, "audiences", "list", *url, "--token", missing)
    assert "The token file cannot be read" in said


def test_an_api_that_does_not_answer_is_said_so(program: Program) -> None:
    said = program.fails(1, "audiences", "list", "--url", "http://127.0.0.1:9", "--token", "x")
    assert said == "Error: The API cannot be reached. (ConnectError)\n"


@pytest.mark.parametrize("command", ["serve", "token", "demo", "dead-letters list"])
def test_what_works_on_a_store_refuses_an_address(program: Program, command: str) -> None:
    said = program.fails(2, *command.split(), "--url", "http://127.0.0.1:9", "--token", "x")
    assert "works on a local store" in said
