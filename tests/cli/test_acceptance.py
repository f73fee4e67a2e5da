"""`activation acceptance`, against a server that is right and against ones that are not."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from activation.cli.acceptance import doors, forged
from activation.cli.acceptance_checks import DROP, PERSON, Acceptance, Outcome
from activation.cli.acceptance_door import Door
from activation.cli.group import activation
from activation.domain.caller import Role
from activation.local import LocalServer
from activation.settings import Settings
from tests.cli.breaking import Exchange, Fault, breaking
from tests.cli.conftest import Program
from tests.e2e.server import ServerProcess

AUDIENCES = "/api/v1/audiences"
ONE = rf"{AUDIENCES}/[0-9a-f-]{{36}}"
SECONDS = 60


@dataclass(frozen=True)
class Installation:
    """A running server and the tokens of its people."""

    server: LocalServer
    url: str

    def token(self, role: Role) -> str:
        return self.server.issuer.token("acceptance", f"test-{role}", role)

    def left(self) -> list[str]:
        """The names of what lies in its store."""
        headers = {"Authorization": f"Bearer {self.token(Role.ADMIN)}"}
        lists = [httpx.get(f"{self.url}/api/v1/{k}", headers=headers) for k in KINDS]
        return [one["name"] for found in lists for one in found.json()["data"]]


KINDS = ("audiences", "platforms")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    folder = tmp_path_factory.mktemp("installation")
    settings = Settings(data_folder=str(folder), allow_private_hosts=True, log_level="ERROR")
    server = LocalServer(settings, port=0, tick_seconds=0.2)
    with server.running() as url:
        yield Installation(server, url)


def accepted(
    installation: Installation, url: str, sink: str | None = None, patience: float = SECONDS
) -> list[Outcome]:
    """What acceptance finds at `url`, through which the installation is reached."""
    admin = installation.token(Role.ADMIN)
    tokens = {
        "admin": lambda: admin,
        "viewer": lambda: installation.token(Role.VIEWER),
        "forger": lambda: forged(admin),
    }
    with httpx.Client(base_url=url, timeout=60) as http:
        door = Door(http, tokens, patience)
        soon = timedelta(seconds=0.5)
        return Acceptance(door, doors(), sink, lambda _: None, soon).run()


def failures(found: list[Outcome]) -> dict[str, str]:
    return {one.check: one.seen for one in found if one.state == "failed"}


@pytest.fixture
def sink() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver of webhooks, and what it got: headers and first line of each body."""
    got: list[dict[str, Any]] = []

    def take(exchange: Exchange) -> None:
        exchange.stopped = True
        exchange.say(204)
        got.append(exchange.headers)

    with breaking("http://127.0.0.1:9", Fault("POST", ".*", before=take)) as url:
        yield f"{url}/in", got


def test_a_server_that_is_right_passes_every_check_and_keeps_nothing(
    installation: Installation, sink: tuple[str, list[dict[str, Any]]]
) -> None:
    found = accepted(installation, installation.url, sink[0])
    assert failures(found) == {}
    assert {one.state for one in found} == {"ok"}
    assert len(sink[1]) == 1
    assert {"Webhook-Id", "Webhook-Signature"} <= sink[1][0].keys()
    assert installation.left() == []


def test_without_a_sink_it_says_what_was_not_tried(installation: Installation) -> None:
    found = accepted(installation, installation.url)
    skipped = [one.check for one in found if one.state == "skipped"]
    assert failures(found) == {}
    assert {"plan", "distribution", "distribution by the clock"} <= set(skipped)


def answer(change: Callable[[Any], None]) -> Callable[[Exchange], None]:
    """Change the JSON of an answer."""

    def after(exchange: Exchange) -> None:
        document = exchange.json()
        change(document)
        exchange.body = json.dumps(document).encode()

    return after


def says(status: int, document: Any = None) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.say(status, document)


def lets_in(exchange: Exchange) -> None:
    """Whoever asks without a token gets an empty list."""
    if "Authorization" not in exchange.headers:
        exchange.say(200, {"data": []})


def other_trace(exchange: Exchange) -> None:
    exchange.answered = {**exchange.answered, "x-trace-id": "another"}


def forgets_key(exchange: Exchange) -> None:
    exchange.headers = {n: v for n, v in exchange.headers.items() if n != "Idempotency-Key"}


def keeps(exchange: Exchange) -> None:
    """Say that it is deleted, and keep it."""
    exchange.stopped = True
    exchange.say(204)


def set_count(document: dict[str, Any]) -> None:
    document["counts"]["accepted"] = 3


def add_raw(document: dict[str, Any]) -> None:
    document["note"] = PERSON


FAULTS: dict[str, tuple[Fault, set[str]]] = {
    "is ill": (Fault("GET", "/health", after=says(500)), {"health"}),
    "is not ready": (
        Fault("GET", "/ready", after=says(200, {"status": "starting"})),
        {"readiness"},
    ),
    "lets anybody in": (Fault("GET", AUDIENCES, after=lets_in), {"audiences: no token"}),
    "has a function that is down": (
        Fault("GET", "/api/v1/platforms", after=says(503)),
        {"platforms: no token", "platforms: with a token", "no platform is left"},
    ),
    "loses the trace id": (
        Fault("GET", f"{AUDIENCES}/01900000.*", after=answer(lambda x: x["error"].pop("traceId"))),
        {"unknown audience"},
    ),
    "answers with another trace": (
        Fault("GET", f"{AUDIENCES}/01900000.*", after=other_trace),
        {"unknown audience"},
    ),
    "acts twice on a repeated request": (
        Fault("POST", AUDIENCES, before=forgets_key),
        {"the same request again"},
    ),
    "miscounts an import": (
        Fault("GET", f"{ONE}/imports/[0-9a-f-]+", after=answer(set_count)),
        {"import"},
    ),
    "tells an address": (Fault("GET", f"{ONE}/members", after=answer(add_raw)), {"members"}),
    "lists a member too few": (
        Fault("GET", f"{ONE}/members", after=answer(lambda x: x["data"].pop())),
        {"members"},
    ),
    "has no versions": (
        Fault("GET", f"{ONE}/versions", after=answer(lambda x: x["data"].clear())),
        {"versions"},
    ),
    "answers in another shape": (
        Fault("GET", f"{ONE}/versions", after=answer(lambda x: x.pop("data"))),
        {"versions"},
    ),
    "fails a job": (
        Fault("GET", "/api/v1/jobs/.*", after=answer(lambda x: x.update(status="failed"))),
        {"job"},
    ),
    "sends a page": (
        Fault("GET", f"{ONE}/imports/.*/rejects", after=says(200)),
        {"rejects"},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_with_one_fault_is_caught_and_nothing_is_left(
    name: str, installation: Installation
) -> None:
    fault, expected = FAULTS[name]
    with breaking(installation.url, fault) as url:
        found = accepted(installation, url)
    assert set(failures(found)) == expected
    assert installation.left() == []


def test_a_viewer_who_may_write_is_caught_and_what_he_wrote_is_deleted(
    installation: Installation,
) -> None:
    def promote(exchange: Exchange) -> None:
        exchange.headers["Authorization"] = f"Bearer {installation.token(Role.ADMIN)}"

    with breaking(installation.url, Fault("POST", AUDIENCES, before=promote)) as url:
        found = accepted(installation, url)
    assert failures(found)["viewer who writes"] == "201, 0 members"
    assert installation.left() == []


def test_a_forged_token_that_is_believed_is_caught(installation: Installation) -> None:
    def believe(exchange: Exchange) -> None:
        if "Authorization" in exchange.headers:
            exchange.headers["Authorization"] = f"Bearer {installation.token(Role.ADMIN)}"

    with breaking(installation.url, Fault("GET", AUDIENCES, before=believe)) as url:
        assert failures(accepted(installation, url)) == {"forged token": "200"}


def test_what_no_answer_told_of_is_deleted_too(installation: Installation) -> None:
    """The audience is made, and its answer is lost on the way."""
    lost = Fault("POST", AUDIENCES, after=says(502))
    with breaking(installation.url, lost) as url:
        found = accepted(installation, url)
    assert failures(found)["audience"] == "502 without a complete envelope"
    assert failures(found)["import"] == "there is no audience"
    assert installation.left() == []


def test_what_cannot_be_deleted_is_named(installation: Installation) -> None:
    with breaking(installation.url, Fault("DELETE", ONE, before=keeps)) as url:
        found = failures(accepted(installation, url))
    assert set(found) == {"no audience is left"}
    assert "stays: DELETE 204, GET 200" in found["no audience is left"]
    assert [name.split()[0] for name in installation.left()] == ["Acceptance"]
    path = found["no audience is left"].split()[0]
    headers = {"Authorization": f"Bearer {installation.token(Role.ADMIN)}"}
    assert httpx.delete(f"{installation.url}/api/v1{path}", headers=headers).status_code == 204


def test_work_that_does_not_end_is_not_waited_for_forever(installation: Installation) -> None:
    endless = answer(lambda x: x.update(status="processing"))
    with breaking(
        installation.url, Fault("GET", f"{ONE}/imports/[0-9a-f-]+", after=endless)
    ) as url:
        found = failures(accepted(installation, url, patience=0.5))
    assert found["import"] == "processing after 0.5 s"


SENT = answer(lambda x: x["progress"].update(sent=1))
PLANNED = answer(lambda x: x.update(adds=2))
SENDING = {
    "miscounts what was sent": (
        Fault("GET", "/api/v1/distributions/[0-9a-f-]+", after=SENT),
        {"distribution", "distribution by the clock"},
    ),
    "forgets what the platform has": (
        Fault("POST", "/api/v1/distributions/plan", after=PLANNED),
        {"plan of changes"},
    ),
}


@pytest.mark.parametrize("name", SENDING)
def test_a_server_that_sends_wrongly_is_caught(name: str, installation: Installation) -> None:
    fault, expected = SENDING[name]
    with breaking(installation.url, fault) as url:
        assert set(failures(accepted(installation, url, DROP))) == expected
    assert installation.left() == []


def test_a_secret_in_an_answer_is_caught(
    installation: Installation, sink: tuple[str, list[dict[str, Any]]]
) -> None:
    def echo(exchange: Exchange) -> None:
        document = {**exchange.json(), "echo": json.loads(exchange.sent)["credentials"]}
        exchange.body = json.dumps(document).encode()

    with breaking(installation.url, Fault("POST", "/api/v1/platforms", after=echo)) as url:
        found = failures(accepted(installation, url, sink[0]))
    assert found == {"platform": "201, a secret in the answer"}


def test_a_server_that_is_not_there_fails_every_check(installation: Installation) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found = accepted(installation, f"http://127.0.0.1:{probe.getsockname()[1]}")
    assert {one.state for one in found} == {"failed", "skipped"}
    assert failures(found)["health"] == "no answer (ConnectError)"


# the command ------------------------------------------------------------------------------------


def test_the_command_tries_a_local_store(program: Program) -> None:
    said = program.ok("acceptance")
    assert "0 failed, 0 skipped" in said
    assert "completed: 2 planned, 2 sent, 0 rejected, 0 pending" in said
    assert program.json("audiences", "list") == []


def test_the_command_fails_with_one_failed_check_and_says_which(
    installation: Installation, tmp_path: Path
) -> None:
    viewer = tmp_path / "viewer.txt"
    viewer.write_text(installation.token(Role.VIEWER) + "\n")
    fault, _ = FAULTS["miscounts an import"]
    with breaking(installation.url, fault) as url:
        words = ["acceptance", "--json", "--url", url, "--token", installation.token(Role.ADMIN)]
        result = CliRunner().invoke(activation, [*words, "--viewer-token", f"@{viewer}"])
    assert result.exit_code == 1
    assert "failed: import." in result.stderr
    document = json.loads(result.stdout)
    assert document["ok"] is False
    [wrong] = [one for one in document["checks"] if one["state"] == "failed"]
    assert wrong["seen"] == wrong["expected"].replace("2 accepted", "3 accepted")


def test_the_token_of_the_proxy_goes_beside_the_token_of_the_api(
    installation: Installation,
) -> None:
    """Identity-Aware Proxy takes its token from a header of its own."""
    seen: list[str | None] = []
    watch = Fault(
        "GET",
        "/api/v1/platforms",
        before=lambda exchange: seen.append(exchange.headers.get("Proxy-Authorization")),
    )
    with breaking(installation.url, watch) as url:
        words = ["acceptance", "--url", url, "--token", installation.token(Role.ADMIN)]
        viewer = ["--viewer-token", installation.token(Role.VIEWER)]
        result = CliRunner().invoke(activation, [*words, *viewer, "--proxy-token", "let-me-by"])
    assert result.exit_code == 0, result.output
    assert set(seen) == {"Bearer let-me-by"}


def test_wrong_use_is_told(program: Program) -> None:
    remote = ("acceptance", "--url", "http://127.0.0.1:9", "--token", "x")
    assert "--viewer-token" in program.fails(2, *remote)
    assert "--region" in program.fails(2, *remote, "--viewer-token", "x", "--project", "p")


@pytest.mark.slow
def test_a_server_process_is_accepted(program: Program) -> None:
    process = ServerProcess(program.folder)
    process.start()
    try:
        tokens = [program.ok("token", "--role", role).strip() for role in ("admin", "viewer")]
        who = ("--token", tokens[0], "--viewer-token", tokens[1], "--sink", "drop")
        said = program.json("acceptance", "--url", f"http://127.0.0.1:{process.port}", *who)
    finally:
        process.kill()
    assert said["ok"] is True
    assert {one["state"] for one in said["checks"]} == {"ok"}
