"""Storage over the API: what is stored, and a job that folds small changes."""

from __future__ import annotations

from tests.api.client import Api


def test_storage_and_compaction(api: Api) -> None:
    audience = api.audience_with_members("a@example.com", "b@example.com")
    path = f"/audiences/{audience['audience_id']}"
    info = api.get(f"{path}/storage").get_json()
    assert (info["tier"], info["storage_type"], info["size"]) == ("database", "inline", 2)
    assert sum(part["size"] for part in info["parts"]) == 2
    assert sum(part["bytes"] for part in info["parts"]) == info["bytes"]
    shown = api.get(path).get_json()["storage"]
    assert [part["checksum"] for part in shown["partitions"]] == [
        part["checksum"] for part in info["parts"]
    ]
    accepted = api.post(f"{path}/compact", {})
    assert accepted.status_code == 202
    job = accepted.get_json()
    assert (job["kind"], job["status"]) == ("compact", "queued")
    listed = api.get(f"{path}/jobs").get_json()["data"]
    assert job["job_id"] in [one["job_id"] for one in listed]
