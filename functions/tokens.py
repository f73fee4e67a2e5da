"""Tokens for an acceptance: of an admin and of a viewer, from the issuer, and one for the proxy.

    python functions/tokens.py --out FOLDER [--proxy-audience AUDIENCE] < CLIENTS

CLIENTS is a JSON object: the issuer's `token_url`, the `audience` to ask for, and `client_id` and
`client_secret` below `admin` and `viewer` (OAuth client credentials). Writes FOLDER/admin,
FOLDER/viewer and, of the environment's own Google identity, FOLDER/proxy, for the owner's eyes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

ROLES = ("admin", "viewer")
Identity = Callable[[str], str]
"""The environment's own identity for an audience."""


def asked(http: httpx.Client, clients: Mapping[str, Any], role: str) -> str:
    """The token of a role; RuntimeError when the issuer gives none."""
    form = {"grant_type": "client_credentials", "audience": clients["audience"], **clients[role]}
    response = http.post(clients["token_url"], data=form)
    if response.status_code != 200:
        raise RuntimeError(f"The issuer answered {response.status_code} for the {role}.")
    return str(response.json()["access_token"])


def keep(folder: Path, name: str, token: str) -> None:
    """Write a token that nobody else can read."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token)


def google_identity(audience: str) -> str:
    """An ID token of whoever runs this, from Google's metadata server or a key."""
    import google.auth.transport.requests
    import google.oauth2.id_token

    request = google.auth.transport.requests.Request()
    token: str = google.oauth2.id_token.fetch_id_token(request, audience)
    return token


def write(
    http: httpx.Client,
    clients: Mapping[str, Any],
    folder: Path,
    proxy_audience: str | None = None,
    identity: Identity = google_identity,
) -> None:
    """Write all tokens."""
    for role in ROLES:
        keep(folder, role, asked(http, clients, role))
    if proxy_audience is not None:
        keep(folder, "proxy", identity(proxy_audience))


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Fetch the tokens for an acceptance.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--proxy-audience", metavar="AUDIENCE")
    given = parser.parse_args()
    with httpx.Client(timeout=30.0) as http:
        write(http, json.load(sys.stdin), given.out, given.proxy_audience)


if __name__ == "__main__":
    main()
