"""`activation serve`, `token` and `twin` as processes of their own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import jwt
import pytest

from activation.demo.twins import COMMAND, twin_processes
from activation.twins.catalog import OFFERS
from tests.cli.conftest import Program
from tests.free_ports import free_port

SECONDS = 60.0


def answering(url: str) -> httpx.Response:
    """The first answer of a server that is just starting."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            return httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"{url} does not answer.")


def keeps_an_idle_connection(port: int) -> bool:
    """Whether one connection takes a second request, longer after the first than gunicorn waits by
    itself."""
    with closing(HTTPConnection("127.0.0.1", port, SECONDS)) as connection:
        used = []
        for seconds in (3, 0):
            connection.request("GET", "/health")
            connection.getresponse().read()
            used.append(connection.sock)
            time.sleep(seconds)
        return used[0] is not None and used[0] is used[1]


def test_serves_the_api_until_it_is_told_to_stop(program: Program, tmp_path: Path) -> None:
    port = free_port()
    command = (sys.executable, "-m", "activation.cli", "serve", "--data", str(program.folder))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen((*command, f"--port={port}"), stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            assert answering(f"{url}/health").json() == {"status": "ok"}
            remote = ("--url", url, "--token", program.ok("token").strip())
            created = program.json("audiences", "create", "Served", *remote)
            assert created["name"] == "Served"
            assert "swagger-ui" in httpx.get(f"{url}/docs").text
            assert keeps_an_idle_connection(port)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
    assert [a["name"] for a in program.json("audiences", "list")] == ["Served"]


def test_a_token_says_who_and_for_how_long(program: Program) -> None:
    whom = ("--organization", "acme", "--user", "ann", "--role", "viewer", "--minutes", "5")
    minted = program.json("token", *whom)
    claims = jwt.decode(minted["token"], options={"verify_signature": False})
    assert (claims["org"], claims["sub"], claims["role"]) == ("acme", "ann", "viewer")
    assert claims["exp"] - claims["iat"] == 300
    assert program.ok("token", *whom).count(".") == 2


@pytest.mark.parametrize("minutes", ["0", "61"])
def test_no_token_lives_over_an_hour(program: Program, minutes: str) -> None:
    assert "is not in the range" in program.fails(2, "token", "--minutes", minutes)


def test_every_twin_tells_how_to_reach_it() -> None:
    """LiveRamp's has a port for SFTP of its own, and a key to be known by."""
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        text = b""
        while not text.endswith(b"\n}\n"):
            text += process.stdout.readline()
        offered = {p["platform_type"]: p for p in json.loads(text)["platforms"]}
        assert set(offered) == set(OFFERS)
        config = offered["liveramp"]["settings"]["config"]
        with socket.create_connection((config["sftp_host"], config["sftp_port"])) as probe:
            assert probe.recv(4) == b"SSH-"
        assert config["host_key"].startswith("SHA256:")
        process.stdin.close()
        assert process.wait(SECONDS) == 0


def test_twins_tell_where_they_are_and_end_with_their_starter() -> None:
    with twin_processes() as twins:
        assert [twin.account["platform_type"] for twin in twins] == ["google_ads", "facebook"]
        assert all(twin.holdings() == {} for twin in twins)
        urls = [twin.url for twin in twins]
    for url in urls:
        with pytest.raises(httpx.TransportError):
            httpx.get(url)
