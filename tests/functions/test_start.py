"""A function as the platform starts it: alone in a process, told by its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ASK = """
import json, sys
from activation.function_manifest import function
from activation.local import loaded
from werkzeug.test import Client
response = Client(loaded(function("audiences"))).get(sys.argv[1])
print(json.dumps([response.status_code, response.get_json(), response.headers["X-Trace-Id"]]))
"""


def asked(path: str, **environment: str) -> tuple[int, dict[str, Any], str, str]:
    """Status, body and trace id of the first answer of a fresh process, and what it logged."""
    found = subprocess.run(
        [sys.executable, "-c", ASK, path],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, **environment},
    )
    status, body, trace_id = json.loads(found.stdout)
    return status, body, trace_id, found.stderr


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    folder = str(tmp_path / "data")
    status, body, trace_id, log = asked("/ready", ACTIVATION_DATA_FOLDER=folder)
    assert (status, body["status"]) == (200, "ready")
    assert (tmp_path / "data" / "documents.sqlite").exists()
    lines = map(json.loads, log.splitlines())
    line = next(line for line in lines if line["message"] == "request")
    assert (line["function"], line["status"], line["trace"]) == ("audiences", 200, trace_id)


def test_wrong_settings_are_our_fault_and_told_in_the_log_only() -> None:
    status, body, trace_id, log = asked("/health", ACTIVATION_BACKEND="cloudy")
    assert (status, body["error"]["code"]) == (500, "INTERNAL")
    assert body["error"]["traceId"] == trace_id
    assert "BACKEND" not in json.dumps(body)
    assert "ACTIVATION_BACKEND" in log
