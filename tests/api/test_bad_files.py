"""Files on purpose: each is refused at the door with a clear 4xx, and nothing of it is kept."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from activation.domain.caller import Role
from activation.local import LocalServer
from activation.settings import Settings
from tests.api.client import Api

LINES = b"person@example.com,Ulm\n"
HEADER = b"email,city\n"

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "gzip bomb": (lambda: gzip.compress(HEADER + LINES * 3_000_000), "compression_ratio"),
    "truncated gzip": (lambda: gzip.compress(HEADER + LINES * 1000)[:-9], "truncated"),
    "utf-16": (lambda: (HEADER + LINES).decode().encode("utf-16"), "unsupported_encoding"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(500), "unsupported_format"),
    "deep json": (lambda: b'{"email":' + b"[" * 60_000 + b"]" * 60_000 + b"}", "line_too_long"),
    "too many columns": (lambda: b",".join(b"c%d" % n for n in range(60)), "too_many_columns"),
    "no identifier": (lambda: b"city,zip\nUlm,89073\n", "no_identifier_column"),
    "empty": (lambda: b"", "empty_file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_import_gets_a_clear_answer(api: Api, name: str) -> None:
    make, reason = REFUSED[name]
    audience = f"/audiences/{api.audience()['audience_id']}"
    kind = "application/octet-stream"
    response = api.post(f"{audience}/imports", data=make(), content_type=kind)
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (422, "UPLOAD_REFUSED"), error
    assert error["details"]["reason"] == reason
    assert error["traceId"] == response.headers["X-Trace-Id"]
    assert list(api.server.app.uploads.list("acme")) == []
    assert api.get(f"{audience}/imports").get_json()["data"] == []
    assert api.get(audience).get_json()["status"] == "draft"


def test_deeply_nested_attributes_are_a_reject(api: Api) -> None:
    audience = f"/audiences/{api.audience()['audience_id']}"
    nested = '{""a"":' * 400 + "1" + "}" * 400
    body = f'email,attributes\na@example.com,"{nested}"\nb@example.com,\n'.encode()
    job = api.post(f"{audience}/imports", data=body, content_type="text/csv")
    while api.server.deliver():
        pass
    found = api.get(f"{audience}/imports/{job.get_json()['import_id']}").get_json()
    assert found["status"] == "completed", found
    assert found["counts"]["rejected_by_reason"] == {"invalid_attributes": 1}


def test_odd_rows_are_rejected_and_good_ones_kept(api: Api) -> None:
    audience = f"/audiences/{api.audience()['audience_id']}"
    rows: list[Any] = [
        {"email": "a@example.com", "surprise": {"deep": [1, [2, [3]]]}},
        {"email": "b@example.com"},
    ]
    lines = [json.dumps(row) for row in rows]
    lines += ['{"email": NaN}', '{"email": "c@example.com", "x": ' + "[" * 600 + "]" * 600 + "}"]
    body = "\n".join(lines).encode()
    job = api.post(f"{audience}/imports", data=body, content_type="application/x-ndjson")
    assert job.status_code == 202, job.get_json()
    while api.server.deliver():
        pass
    found = api.get(f"{audience}/imports/{job.get_json()['import_id']}").get_json()
    counts = found["counts"]
    assert found["status"] == "completed", found["error"]
    assert counts["received"] == counts["accepted"] + counts["duplicate"] + counts["rejected"] == 4
    assert counts["rejected_by_reason"]["malformed_json"] >= 1
    assert counts["accepted"] >= 2


@pytest.mark.slow
def test_a_line_of_two_gigabytes_is_refused_with_bounded_memory(tmp_path: Any) -> None:
    settings = Settings(data_folder=str(tmp_path))
    server = LocalServer(settings, port=0)

    def line() -> Iterator[bytes]:
        yield b"email\n"
        yield from itertools.repeat(b"x" * (1 << 20), 2048)

    with server.running() as url:
        token = server.issuer.token("acme", "ann", Role.ADMIN)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/csv"}
        with httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=300) as client:
            made = client.post("/audiences", json={"name": "A", "type": "first_party"},
                               headers={"Content-Type": "application/json"})  # fmt: skip
            path = f"/audiences/{made.json()['audience_id']}/imports"
            length = str(6 + (2048 << 20))
            before = _peak_mib()
            answer = client.post(path, content=line(), headers={"Content-Length": length})
    assert answer.status_code == 422
    assert answer.json()["error"]["details"]["reason"] == "line_too_long"
    assert _peak_mib() - before < 256
    assert list(server.app.uploads.list("acme")) == []


def _peak_mib() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
