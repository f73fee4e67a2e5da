"""Cloud Run as deployments see it: which revision of a function is ready, and which gets traffic.

The functions are Cloud Run services named `{prefix}-{function}`, with dashes; a project holds one
installation. Calls its Admin API (v2) with the credentials of the environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.adapters.clock import SystemClock
from activation.errors import ActivationError, InvalidStateError
from activation.function_manifest import functions

if TYPE_CHECKING:
    import httpx

URL = "https://run.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
BY_REVISION = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
READY = "ready"
PAGE = 100
POLL_SECONDS = 1.0
OPERATION_SECONDS = 600.0

Shares = Mapping[str, int]
"""Percent of the traffic by revision."""


class CloudRunError(ActivationError):
    """Cloud Run refused, or did not end what it was asked for."""

    code, status = "CLOUD_RUN", 502


@dataclass(frozen=True, slots=True)
class Service:
    """The service of a function."""

    path: str
    newest: str
    """The revision that was made last, ready or not."""
    ready: str
    """The newest revision that is ready."""
    settled: bool
    shares: Shares
    """What each revision gets now."""

    @property
    def state(self) -> str:
        """READY, or what is not."""
        if not self.settled:
            return "its last change has not succeeded"
        return READY if self.newest == self.ready else f"{self.newest} is not ready"


@dataclass(frozen=True, slots=True)
class CloudRun:
    """The services of a region of a project. Raises CloudRunError for any refusal."""

    http: httpx.Client
    project: str
    region: str
    poll_seconds: float = POLL_SECONDS

    def services(self) -> dict[str, Service]:
        """Every function's service by the function's name; those of nobody are left out."""
        found: dict[str, Service] = {}
        for record in self._records():
            function = _function_of(record["name"].rsplit("/", 1)[1])
            if function is None:
                continue
            if function in found:
                raise InvalidStateError(f"Two services are called …-{function}.")
            found[function] = _service(record)
        return found

    def send(self, wanted: Mapping[str, tuple[Service, Shares]]) -> None:
        """Give the revisions of services, by function, these shares of their traffic, and wait
        until they have them. All are tried before CloudRunError names those that failed."""
        operations: dict[str, dict[str, Any]] = {}
        failed = []
        for name, (service, shares) in wanted.items():
            try:
                operations[name] = self._started(service, shares)
            except CloudRunError:
                failed.append(name)
        failed += [name for name, operation in operations.items() if not self._succeeds(operation)]
        if failed:
            raise CloudRunError(f"Traffic could not be changed: {', '.join(sorted(failed))}.")

    def _started(self, service: Service, shares: Shares) -> dict[str, Any]:
        targets = [
            {"type": BY_REVISION, "revision": revision, "percent": percent}
            for revision, percent in shares.items()
            if percent
        ]
        body = {"name": service.path, "traffic": targets}
        return self._call("PATCH", service.path, params={"updateMask": "traffic"}, json=body)

    def _succeeds(self, operation: dict[str, Any]) -> bool:
        clock = SystemClock()
        deadline = clock.monotonic() + OPERATION_SECONDS
        try:
            while not operation.get("done") and clock.monotonic() < deadline:
                clock.sleep(self.poll_seconds)
                operation = self._call("GET", operation["name"])
        except CloudRunError:
            return False
        return bool(operation.get("done")) and "error" not in operation

    def _records(self) -> Iterator[dict[str, Any]]:
        query: dict[str, Any] = {"pageSize": PAGE}
        while True:
            path = f"projects/{self.project}/locations/{self.region}/services"
            page = self._call("GET", path, params=query)
            yield from page.get("services", [])
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        import httpx

        try:
            response = self.http.request(method, f"/v2/{path}", **arguments)
        except httpx.HTTPError as error:
            raise CloudRunError(f"Cloud Run cannot be reached ({type(error).__name__}).") from error
        if response.is_error:
            raise CloudRunError(f"Cloud Run answered {response.status_code}.")
        answer: dict[str, Any] = response.json()
        return answer


def _function_of(service: str) -> str | None:
    """The function whose service has this name; `…-process-events` is not that of `events`."""
    names = [one.name for one in functions()]
    fitting = [name for name in names if service.endswith(f"-{name.replace('_', '-')}")]
    return max(fitting, key=len, default=None)


def _service(record: Mapping[str, Any]) -> Service:
    ready = _last(record.get("latestReadyRevision", ""))
    shares: dict[str, int] = {}
    for target in record.get("trafficStatuses", []):
        revision = target.get("revision") or ready
        shares[revision] = shares.get(revision, 0) + target.get("percent", 0)
    settled = record.get("terminalCondition", {}).get("state") == "CONDITION_SUCCEEDED"
    newest = _last(record.get("latestCreatedRevision", ""))
    return Service(
        record["name"], newest, ready, settled and not record.get("reconciling", False), shares
    )


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def readiness(cloud_run: CloudRun) -> dict[str, str]:
    """READY or what is wrong, for every function of the manifest."""
    there = cloud_run.services()
    return {
        one.name: there[one.name].state if one.name in there else "not there" for one in functions()
    }


@contextmanager
def connected(project: str, region: str) -> Iterator[CloudRun]:
    """Cloud Run with the credentials of the environment. Raises CloudRunError without any."""
    import google.auth
    import google.auth.exceptions
    import google.auth.transport.requests
    import httpx

    try:
        credentials, _ = google.auth.default(scopes=[SCOPE])
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise CloudRunError("There are no Google credentials in the environment.") from error

    def signed(request: httpx.Request) -> httpx.Request:
        if not credentials.valid:
            credentials.refresh(google.auth.transport.requests.Request())
        request.headers["Authorization"] = f"Bearer {credentials.token}"
        return request

    with httpx.Client(base_url=URL, auth=signed, timeout=60.0) as http:
        yield CloudRun(http, project, region)
