"""A server with the objects of an organization, one of every kind, for hostile requests."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from activation.adapters.clock import MovableClock
from activation.api.issuer import KEY_FILE
from activation.local import LocalServer
from activation.settings import Settings
from tests.api.client import Api
from tests.conftest import START

MAX_BODY = 64 * 1024
SAFE_FUNCTIONS = ("import_members", "process_events", "follow_segments", "run_job")
"""Event functions that reach nothing outside of the stores."""
UNLIMITED = {"max_audiences": None, "max_distributions_per_month": None}
CSV = b"email,tier\na@example.com,gold\nnobody,none\nb@example.com,\n"


class WatchedServer(LocalServer):
    """Every function; remembers what event functions answered."""

    def __init__(self, folder: Path, key_file: Path, **settings: Any) -> None:
        folder.mkdir(parents=True)
        shutil.copy2(key_file, folder / KEY_FILE)
        unlimited = {"rate_reads": 0, "rate_writes": 0, "rate_work": 0}
        limits = {"max_body_bytes": MAX_BODY, "realtime_stream_seconds": 0, **unlimited}
        given = {**limits, "allow_private_hosts": True, **settings}
        super().__init__(Settings(data_folder=str(folder), **given), clock=MovableClock(START))
        self.failed: list[str] = []

    def post(self, function: str, body: Mapping[str, Any]) -> tuple[int, float | None]:
        """As ever; a status of our own fault is kept."""
        status, wait = super().post(function, body)
        if status >= 500 and status != 503:
            self.failed.append(f"{function} answered {status}")
        return status, wait

    def work(self) -> None:
        """Let imports and jobs run that requests have asked for."""
        self.deliver(200, SAFE_FUNCTIONS)


@dataclass(frozen=True)
class Objects:
    """What an organization has: ids by the name that paths give them, and what else tells of it."""

    ids: dict[str, list[str]]
    canaries: list[str]
    keys: dict[str, str] = field(default_factory=dict)
    """An Idempotency-Key that was used, by the route that it was used for."""
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The body it was used with."""
    etags: list[str] = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)

    @cached_property
    def every(self) -> list[tuple[str, str]]:
        """(name, id) of every id."""
        return [(name, one) for name, found in self.ids.items() for one in found]


def furnished(api: Api, mark: str) -> Objects:
    """Give the organization of `api` one of everything, with `mark` in every text of it."""
    audiences = [_audience(api, f"{mark}-name-{number}", mark) for number in (1, 2)]
    audience_id = audiences[0]["audience_id"]
    path = f"/audiences/{audience_id}"
    job = _imported(api, path, mark)
    api.server.deliver(200)
    drop = _posted(
        api,
        "/platforms",
        {
            "platform_type": "file_drop",
            "name": f"{mark}-drop",
            "credentials": {"account_id": f"{mark}-account"},
            "settings": {"config": {"folder": mark.lower()}},
        },
    )
    hook = api.platform(f"{mark}-hook")
    distribution = _posted(
        api, "/distributions", {"audience_id": audience_id, "platform_id": drop["platform_id"]}
    )
    webhook = api.webhook(description=f"{mark}-webhook")
    spare = api.webhook(description=f"{mark}-spare")
    api.put("/quotas/" + (user := f"{mark}-user"), UNLIMITED)
    _posted(api, f"{path}/versions", {"description": f"{mark}-version"})
    compact = _posted(api, f"{path}/compact", None)
    run = _posted(api, "/retention/runs", {"dry_run": True})
    api.post(
        "/suppressions",
        {"suppressions": [{"identifier_type": "email", "identifier_value": f"{mark}@example.com"}]},
    )
    segments = [_segment(api, f"{mark}-segment-{number}") for number in (1, 2)]
    visit = {"session_id": f"{mark}-session", "device_id": f"{mark}-device"}
    _posted(api, "/events/single", {"user_id": user, "event_type": "orders", **visit})
    api.server.deliver(200)
    webhook_id = webhook["webhook_id"]
    ping = api.post(f"/webhooks/{webhook_id}/test").get_json()
    key, body = f"{mark}-key", {"name": f"{mark}-keyed", "type": "first_party"}
    keyed = api.post("/audiences", body, headers={"Idempotency-Key": key}).get_json()
    return Objects(
        ids={
            "audience_id": [*(one["audience_id"] for one in audiences), keyed["audience_id"]],
            "import_id": [job["import_id"]],
            "job_id": [compact["job_id"]],
            "platform_id": [drop["platform_id"], hook["platform_id"]],
            "distribution_id": [distribution["distribution_id"]],
            "webhook_id": [webhook_id, spare["webhook_id"]],
            "delivery_id": [ping["delivery_id"]],
            "run_id": [run["run_id"]],
            "segment_id": segments,
            "user_id": [user],
            "session_id": [visit["session_id"]],
        },
        canaries=[mark, mark.lower(), webhook["secret"], spare["secret"]],
        keys={"/audiences": key},
        bodies={"/audiences": body},
        etags=[api.get(path).headers["ETag"]],
        cursors=[api.get("/audiences?limit=1").get_json()["next_cursor"]],
    )


def _audience(api: Api, name: str, mark: str) -> dict[str, Any]:
    tags = {"tags": [f"{mark}-tag"]}
    audience = api.audience(name, metadata=tags, description=f"{mark}-description")
    path = f"/audiences/{audience['audience_id']}"
    members = [
        {
            "identifier_type": "email",
            "identifier_value": f"{mark}-{number}@example.com",
            "attributes": {"note": f"{mark}-attribute"},
            "segments": [f"{mark}-label"],
        }
        for number in range(5)
    ]
    assert api.post(f"{path}/members", {"members": members}).status_code == 200
    active: dict[str, Any] = api.put(f"{path}/status", {"status": "active"}).get_json()
    return active


def _segment(api: Api, name: str) -> str:
    rule = {"event_type": "orders", "operator": "GT", "value": 0, "window_minutes": 60}
    made = _posted(api, "/segments", {"name": name, "type": "INDEPENDENT", "rules": [rule]})
    return str(made["segment_id"])


def _imported(api: Api, path: str, mark: str) -> dict[str, Any]:
    address = f"{path}/imports?file_name={mark}-file.csv"
    answer = api.post(address, data=CSV, content_type="text/csv")
    assert answer.status_code == 202, answer.get_json()
    job: dict[str, Any] = answer.get_json()
    return job


def _posted(api: Api, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    answer = api.post(path, body)
    assert answer.status_code in (200, 201, 202), (path, answer.get_json())
    made: dict[str, Any] = answer.get_json()
    return made
