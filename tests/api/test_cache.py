"""The cache over HTTP: what it did, warming it up, and answers that are never behind."""

from __future__ import annotations

import io
import uuid
from typing import Any

import pytest

from activation.local import LocalServer
from tests.api.client import Api, code


def totals(api: Api, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/cache").get_json()["totals"].get(kind, {})
    return found


def delivered(server: LocalServer) -> None:
    while server.deliver():
        pass


@pytest.fixture
def path(api: Api) -> str:
    """An audience with five members."""
    addresses = [f"p{number}@example.com" for number in range(5)]
    return f"/audiences/{api.audience_with_members(*addresses)['audience_id']}"


def test_a_patch_is_shown_at_once_and_from_the_cache(api: Api, path: str) -> None:
    api.get(path)
    assert api.patch(path, {"name": "Another name"}).status_code == 200
    before = totals(api, "metadata")
    shown = api.get(path)
    assert shown.get_json()["name"] == "Another name"
    assert sum(part["size"] for part in shown.get_json()["storage"]["partitions"]) == 5
    after = totals(api, "metadata")
    assert (after["hits"], after["misses"]) == (before["hits"] + 1, before["misses"])


def test_a_cached_answer_has_the_etag_of_the_record(api: Api, path: str) -> None:
    first, second = api.get(path), api.get(path)
    assert first.get_json() == second.get_json()
    assert first.headers["ETag"] == second.headers["ETag"]
    changed = api.patch(path, {"name": "Once"}, headers={"If-Match": second.headers["ETag"]})
    assert changed.status_code == 200
    stale = api.patch(path, {"name": "Twice"}, headers={"If-Match": second.headers["ETag"]})
    assert stale.status_code == 412


def test_pages_after_the_first_hit_too(api: Api, path: str) -> None:
    rounds = []
    for _ in range(2):
        first = api.get(f"{path}/members?limit=3").get_json()
        rest = api.get(f"{path}/members?limit=3&cursor={first['next_cursor']}").get_json()
        assert (first["total"], len(first["data"]), len(rest["data"])) == (5, 3, 2)
        assert rest["next_cursor"] is None
        rounds.append([first, rest])
    assert rounds[0] == rounds[1]
    assert (totals(api, "members")["hits"], totals(api, "members")["misses"]) == (2, 2)


def test_every_write_shows_in_the_next_answer(api: Api, server: LocalServer, path: str) -> None:
    def sizes() -> tuple[int, int, int]:
        shown = api.get(path).get_json()["size"]
        listed = len(api.get(f"{path}/members").get_json()["data"])
        return shown, listed, api.get(f"{path}/summary").get_json()["size"]

    assert sizes() == (5, 5, 5)
    one = {"members": [{"identifier_type": "email", "identifier_value": "new@example.com"}]}
    api.post(f"{path}/members", one)
    assert sizes() == (6, 6, 6)
    api.delete(f"{path}/members", json=one)
    assert sizes() == (5, 5, 5)
    file = io.BytesIO(b"email\nx@example.com\ny@example.com\n")
    assert api.post(f"{path}/imports", data=file, content_type="text/csv").status_code == 202
    delivered(server)
    assert sizes() == (7, 7, 7)
    assert api.delete(path).status_code == 204
    for gone in (path, f"{path}/members", f"{path}/summary"):
        assert code(api.get(gone)) == (404, "NOT_FOUND")


def test_warming_reports_what_failed(api: Api, server: LocalServer, path: str) -> None:
    unknown = str(uuid.uuid4())
    ids = [path.rpartition("/")[2], unknown]
    asked = api.post("/cache/warm", {"audience_ids": ids})
    assert asked.status_code == 202
    delivered(server)
    job = api.get(f"/jobs/{asked.get_json()['job_id']}").get_json()
    assert job["status"] == "completed"
    failed = [{"audience_id": unknown, "code": "NOT_FOUND"}]
    assert job["result"] == {"warmed": 1, "failed": failed}
    misses = {kind: totals(api, kind)["misses"] for kind in ("metadata", "members", "summary")}
    for read in (path, f"{path}/members?limit=100", f"{path}/summary"):
        assert api.get(read).status_code == 200
    assert misses == {kind: totals(api, kind)["misses"] for kind in misses}


@pytest.mark.parametrize(
    "ids", [[], ["nobody@example.com"], [str(uuid.uuid4())] * 101], ids=["none", "text", "many"]
)
def test_lists_to_warm_are_bounded_lists_of_ids(api: Api, ids: list[str]) -> None:
    assert code(api.post("/cache/warm", {"audience_ids": ids})) == (422, "VALIDATION_ERROR")


def test_ready_tells_of_the_cache(public: Api) -> None:
    answer = public.at("").get("/ready").get_json()
    assert answer["optional"] == {"cache": "ok"}


def test_the_summary_names_what_the_documents_promise(api: Api, path: str) -> None:
    summary = api.get(f"{path}/summary").get_json()
    assert summary["size"] == summary["unique_identifiers"] == 5
    assert summary["identifier_breakdown"] == {"email": 5}
    assert summary["top_attributes"] == {}
    assert summary["basis"] == "exact"
    assert summary["last_updated"] == api.get(path).get_json()["updated_at"]
