"""Cloud Run's Admin API as far as deployments use it, strict.

Fields and behaviour follow the published reference of version 2: traffic is changed by PATCH with
the update mask `traffic`, must add up to 100 over revisions that exist, and takes an operation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from werkzeug.wrappers import Request, Response

from activation.cli.cloud_run import BY_REVISION, CloudRun
from activation.function_manifest import functions

PARENT = "projects/example/locations/europe-west1"
PAGE = 3


@dataclass
class ServiceRecord:
    """One service: its revisions in order, and who gets what."""

    revisions: list[str]
    traffic: dict[str, int]
    ready: bool = True


@dataclass
class CloudRunTwin:
    """All services of a project; `broken` names those whose traffic cannot be changed."""

    services: dict[str, ServiceRecord] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    history: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    _open: dict[str, int] = field(default_factory=dict)

    @classmethod
    def with_all(cls) -> CloudRunTwin:
        """Every function at its first revision."""
        names = [f"activation-{one.name.replace('_', '-')}" for one in functions()]
        first = {name: f"{name}-00001-old" for name in names}
        return cls({name: ServiceRecord([r], {r: 100}) for name, r in first.items()})

    def deploy(self, *, ready: bool = True) -> None:
        """A new revision everywhere; pinned traffic stays where it is."""
        for name, record in self.services.items():
            record.revisions.append(f"{name}-00002-new")
            record.ready = ready

    def shares(self) -> set[tuple[tuple[str, int], ...]]:
        """The shares of all services, by the last part of their revisions."""
        return {
            tuple(sorted((name.rsplit("-", 1)[1], n) for name, n in one.traffic.items()))
            for one in self.services.values()
        }

    def respond(self, request: Request) -> Response:
        path = request.path.removeprefix("/v2/")
        if request.method == "GET" and path == f"{PARENT}/services":
            return self._listed(int(request.args.get("pageToken", 0)))
        if request.method == "GET" and path in self._open:
            self._open[path] -= 1
            return said({"name": path, "done": self._open[path] <= 0})
        name = path.removeprefix(f"{PARENT}/services/")
        if request.method == "PATCH" and name in self.services:
            return self._patched(name, request)
        return said({"error": {"code": 404}}, 404)

    def _listed(self, start: int) -> Response:
        names = sorted(self.services)
        page = {"services": [self._record(name) for name in names[start : start + PAGE]]}
        more = {"nextPageToken": str(start + PAGE)} if start + PAGE < len(names) else {}
        return said({**page, **more})

    def _record(self, name: str) -> dict[str, Any]:
        record = self.services[name]
        path = f"{PARENT}/services/{name}"
        state = "CONDITION_SUCCEEDED" if record.ready else "CONDITION_FAILED"
        ready = record.revisions[-1] if record.ready else record.revisions[-2]
        return {
            "name": path,
            "latestCreatedRevision": f"{path}/revisions/{record.revisions[-1]}",
            "latestReadyRevision": f"{path}/revisions/{ready}",
            "trafficStatuses": [
                {"type": BY_REVISION, "revision": revision, "percent": percent}
                for revision, percent in record.traffic.items()
            ],
            "terminalCondition": {"type": "Ready", "state": state},
        }

    def _patched(self, name: str, request: Request) -> Response:
        body, record = json.loads(request.get_data()), self.services[name]
        traffic = {one["revision"]: one["percent"] for one in body["traffic"]}
        wrong = (
            request.args.get("updateMask") != "traffic"
            or any(one["type"] != BY_REVISION for one in body["traffic"])
            or sum(traffic.values()) != 100
            or not set(traffic) <= set(record.revisions)
        )
        if wrong or name in self.broken:
            return said({"error": {"code": 400, "message": "traffic"}}, 400)
        record.traffic = traffic
        self.history.append((name, traffic))
        operation = f"{PARENT}/operations/{len(self.history)}"
        self._open[operation] = 2
        return said({"name": operation, "done": False})


def said(document: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(document), status, content_type="application/json")


@contextmanager
def served(twin: CloudRunTwin) -> Iterator[CloudRun]:
    """A client of the twin."""
    transport = httpx.WSGITransport(app=Request.application(twin.respond))
    with httpx.Client(base_url="http://localhost", transport=transport) as http:
        yield CloudRun(http, "example", "europe-west1", poll_seconds=0.001)
