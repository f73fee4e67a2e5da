"""Tokens for an acceptance come from the issuer, and are for the owner's eyes."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from werkzeug.wrappers import Request, Response

from functions import tokens

CLIENTS = {
    "token_url": "http://localhost/oauth/token",
    "audience": "audience-activation",
    "admin": {"client_id": "a", "client_secret": "s1"},
    "viewer": {"client_id": "v", "client_secret": "s2"},
}


@Request.application
def issuer(request: Request) -> Response:
    """Gives a token to whoever knows the secret of a client."""
    form = request.form
    secrets = {"a": "s1", "v": "s2"}
    wanted = (form["grant_type"], form["audience"]) == ("client_credentials", CLIENTS["audience"])
    if request.path != "/oauth/token" or not wanted:
        return Response(status=400)
    if secrets.get(form["client_id"]) != form["client_secret"]:
        return Response(json.dumps({"error": form["client_secret"]}), 401)
    return Response(json.dumps({"access_token": f"token-of-{form['client_id']}"}))


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.WSGITransport(app=issuer)) as client:
        yield client


def test_writes_a_token_for_each_role_and_for_the_proxy(http: httpx.Client, tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    for _ in range(2):  # once more over those that are there
        tokens.write(http, CLIENTS, folder, "proxy-1", lambda audience: f"identity-for-{audience}")
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found == {
        "admin": "token-of-a",
        "viewer": "token-of-v",
        "proxy": "identity-for-proxy-1",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_without_a_proxy_there_is_no_token_for_it(http: httpx.Client, tmp_path: Path) -> None:
    tokens.write(http, CLIENTS, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"admin", "viewer"}


def test_an_issuer_that_refuses_is_told_without_its_words(
    http: httpx.Client, tmp_path: Path
) -> None:
    wrong: dict[str, Any] = {**CLIENTS, "viewer": {"client_id": "v", "client_secret": "wrong"}}
    with pytest.raises(RuntimeError, match=r"^The issuer answered 401 for the viewer\.$"):
        tokens.write(http, wrong, tmp_path)
