"""The bill of materials names what is locked; the audit fails for what is known to be unsafe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "shared/requirements.txt").read_text()


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""


@contextmanager
def vulnerabilities(unsafe: str, *, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A vulnerability service in the protocol of OSV that knows one unsafe package; its address,
    and what it was asked about."""
    asked: list[str] = []

    @Request.application
    def answer(request: Request) -> Response:
        query = json.loads(request.get_data())
        asked.append(query["package"]["name"])
        known = {"id": "OSV-0000-1", "summary": "planted", "affected": []}
        found = {"vulns": [known]} if asked[-1] == unsafe else {}
        return Response(json.dumps(found), status, content_type="application/json")

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def audited(url: str, out: Path) -> subprocess.CompletedProcess[str]:
    """Run the audit against a service."""
    service = [
        "--vulnerability-service",
        "osv",
        "--osv-url",
        url,
        "--cache-dir",
        str(out / "cache"),
    ]
    return subprocess.run(
        [str(ROOT / ".ci/audit"), *service],
        env={**os.environ, "BIN": str(Path(sys.executable).parent), "OUT": str(out)},
        capture_output=True,
        check=False,
        text=True,
    )


def locked() -> set[str]:
    """The packages of the lock that this Python installs."""
    entries = re.findall(r"^([a-z0-9._-]+)==\S+( ; [^\\]*)?", LOCK, re.MULTILINE)
    return {name for name, marker in entries if not marker or "<" not in marker}


@pytest.mark.slow
def test_everything_that_is_locked_is_looked_up_and_listed(tmp_path: Path) -> None:
    with vulnerabilities("nothing") as (url, asked):
        done = audited(url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert locked() <= set(asked)
    bill = json.loads((tmp_path / "sbom.json").read_bytes())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "audience-activation"
    listed = {one["name"] for one in bill["components"]}
    assert listed == set(re.findall(r"^([a-z0-9._-]+)==", LOCK, re.MULTILINE))


def test_one_unsafe_package_fails_the_audit(tmp_path: Path) -> None:
    with vulnerabilities("pyjwt") as (url, _):
        done = audited(url, tmp_path)
    assert done.returncode == 1
    assert not (tmp_path / "sbom.json").exists()
    assert "OSV-0000-1" in done.stdout


@pytest.mark.parametrize("status", [404, 503])
def test_a_service_that_does_not_answer_fails_the_audit(status: int, tmp_path: Path) -> None:
    with vulnerabilities("nothing", status=status) as (url, _):
        assert audited(url, tmp_path).returncode != 0
