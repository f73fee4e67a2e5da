"""The one client of the commands: the public API over HTTP, remote or of this very process.

A local store is reached through the local runner in this process: the same functions, checks and
workers as everywhere, and no second client to keep in step.
"""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import click

from activation.errors import ActivationError, InvalidStateError, NotFoundError

if TYPE_CHECKING:
    import httpx

    from activation.cli.options import Options
    from activation.local import LocalServer

PREFIX = "/api/v1"
PAGE = 200
PIECE_BYTES = 1024 * 1024
TIMEOUT_SECONDS = 60.0
LOCAL_TICK_SECONDS = 1.0
DIRECT_BYTES = 24 * 1024 * 1024
"""Largest file in the body of a request to a remote API: Cloud Run takes 32 MiB."""

OnBytes = Callable[[int], None]


class RefusedError(ActivationError):
    """The API refused; message and reason are those of its envelope."""

    code, status = "REFUSED", 400


class ServerFailedError(ActivationError):
    """The API failed; message and reason are those of its envelope."""

    code, status = "SERVER_FAILED", 502


class UnreachableError(ActivationError):
    """No answer came."""

    code, status, retryable = "UNREACHABLE", 503, True


class Api:
    """Calls to `/api/v1`. Raises RefusedError or ServerFailedError for an error answer,
    UnreachableError for none."""

    def __init__(self, http: httpx.Client, direct_bytes: float = DIRECT_BYTES) -> None:
        self._http = http
        self._direct_bytes = direct_bytes

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """The JSON object at a path."""
        return self._json("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a body; a repetition by the network acts once."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._json("POST", path, json=body, headers=headers)

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a body that replaces what was there."""
        return self._json("PUT", path, json=body)

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Take away what is at a path, or what `body` names of it; the answer, if there is one."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        with _reached():
            response = _checked(
                self._http.request("DELETE", PREFIX + path, json=body, headers=headers)
            )
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer

    def all(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Every record of a list, newest first, page by page."""
        following: dict[str, str] = {}
        while True:
            page = self.get(path, limit=PAGE, **query, **following)
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            following = {"cursor": page["next_cursor"]}

    def import_file(
        self, audience_id: str, draft: Mapping[str, Any], file: IO[bytes], size: int, sent: OnBytes
    ) -> str:
        """Hand in a file of `size` bytes for import; returns the import's id.

        `sent` hears of every piece. What the front door cannot take goes to an address of its own.
        """
        path, pieces = f"/audiences/{audience_id}/imports", _pieces(file, sent)
        if size > self._direct_bytes:
            created = self.post(path, draft)
            self._put(created["upload"], size, pieces)
            return str(created["import"]["import_id"])
        return str(self._post_file(path, draft, size, pieces)["import_id"])

    def suppress_file(
        self, draft: Mapping[str, Any], file: IO[bytes], size: int, sent: OnBytes
    ) -> dict[str, Any]:
        """Hand in a file of `size` bytes of identifiers to suppress, as `import_file` does; returns
        the job."""
        pieces = _pieces(file, sent)
        if size <= self._direct_bytes:
            return self._post_file("/suppressions/imports", draft, size, pieces)
        created = self.post("/suppressions/uploads")
        self._put(created["upload"], size, pieces)
        return self.post("/suppressions/imports", {**draft, "upload_id": created["upload_id"]})

    def _post_file(
        self, path: str, draft: Mapping[str, Any], size: int, pieces: Iterator[bytes]
    ) -> dict[str, Any]:
        """The answer to a file as a body, with its options in the query."""
        columns = {"columns": json.dumps(draft["columns"])} if "columns" in draft else {}
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size),
            "Idempotency-Key": str(uuid.uuid4()),
        }
        query = {**draft, **columns}
        return self._json("POST", path, params=query, content=pieces, headers=headers)

    def _put(self, target: Mapping[str, Any], size: int, pieces: Iterator[bytes]) -> None:
        """Put a file at its address, which carries its own right: our token stays here."""
        import httpx

        headers = {**target["headers"], "Content-Length": str(size)}
        address = self._http.base_url.join(target["url"])
        with _reached(), httpx.Client(timeout=TIMEOUT_SECONDS) as http:
            response = http.request(target["method"], address, headers=headers, content=pieces)
        _checked(response)

    def download(self, path: str) -> tuple[int, bytes]:
        """Status and bytes of what is at a path."""
        with _reached():
            response = _checked(self._http.get(PREFIX + path))
        return response.status_code, response.content

    def lines(self, path: str, last_id: str | None) -> Iterator[str]:
        """The lines of a stream of events, from an id on, until it ends."""
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        with _reached(), self._http.stream("GET", PREFIX + path, headers=headers) as response:
            if response.is_error:
                response.read()
            yield from _checked(response).iter_lines()

    def save(self, path: str, target: Path) -> None:
        """Write a file of the API to `target`, piece by piece.

        Raises click.FileError when `target` cannot be written.
        """
        try:
            self._save(path, target)
        except OSError as error:
            raise click.FileError(str(target), error.strerror) from error

    def _save(self, path: str, target: Path) -> None:
        with _reached(), self._http.stream("GET", PREFIX + path) as response:
            if response.is_error:
                response.read()
            _checked(response)
            with target.open("wb") as file:
                for piece in response.iter_bytes(PIECE_BYTES):
                    file.write(piece)

    def plain(self, path: str) -> dict[str, Any]:
        """The JSON object at a path outside `/api/v1`, e.g. `/ready`."""
        with _reached():
            response = self._http.get(path)
        answer: dict[str, Any] = _checked(response).json()
        return answer

    def find(self, path: str, kind: str, id_or_name: str) -> dict[str, Any]:
        """The record with this id or, failing that, this name.

        Raises NotFoundError without one, InvalidStateError when several have the name.
        """
        if _is_id(id_or_name):
            return self.get(f"{path}/{id_or_name}")
        found = [record for record in self.all(path) if record["name"] == id_or_name]
        if not found:
            raise NotFoundError(f"There is no {kind} {id_or_name!r}.", reason="not_found")
        if len(found) > 1:
            raise InvalidStateError(f"{len(found)} have the name {id_or_name!r}; use an id.")
        return found[0]

    def _json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        with _reached():
            response = self._http.request(method, PREFIX + path, **arguments)
        answer: dict[str, Any] = _checked(response).json()
        return answer


@contextmanager
def connected(options: Options, *, create: bool = False, works: bool = False) -> Iterator[Api]:
    """The API at `--url`, or that of the local store; `create` allows a store that is not there.

    With `works` the store's workers run in this process while the context is open, for commands
    that wait for them; without, nothing is started and answers come at once.
    """
    if options.url is not None:
        with http_client(options.url, options.bearer, proxy_token=options.proxy_bearer) as http:
            yield Api(http)
        return
    from activation.local import LocalServer

    settings = options.settings(log_level="ERROR")
    if settings.backend != "embedded":
        raise click.UsageError(f"The back-end is {settings.backend}: name its API with --url.")
    if not create and not settings.data_path.is_dir():
        raise NotFoundError(f"There is no store in {settings.data_folder}.", reason="no_store")
    server = LocalServer(settings, port=0, tick_seconds=LOCAL_TICK_SECONDS)
    reached = served if works else in_process
    with reached(server, options.organization, options.user) as api:
        yield api


@contextmanager
def served(server: LocalServer, organization: str, user: str) -> Iterator[Api]:
    """The API of a local runner, with its workers, as long as the context is open."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print every request
    token = _tokens(server, organization, user)
    with server.running() as url, http_client(url, token) as http:
        yield Api(http, direct_bytes=math.inf)


@contextmanager
def in_process(server: LocalServer, organization: str, user: str) -> Iterator[Api]:
    """The API of a local runner that is called without a port, and does no work of its own."""
    token = _tokens(server, organization, user)
    try:
        with http_client("http://localhost", token, _plain_transport(server)) as http:
            yield Api(http)
    finally:
        server.stop()


def _plain_transport(server: LocalServer) -> httpx.BaseTransport:
    """Calls the runner in this process, which sees addresses as they were written."""
    import httpx

    written = ""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        path = unquote_to_bytes(written.partition("?")[0]).decode("latin-1")
        return server.wsgi({**environ, "PATH_INFO": path, "RAW_URI": written}, start_response)

    class Transport(httpx.WSGITransport):
        """One request after the other."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal written
            written = request.url.raw_path.decode("ascii")
            return super().handle_request(request)

    return Transport(app=application)


def _tokens(server: LocalServer, organization: str, user: str) -> Callable[[], str]:
    from activation.domain.caller import Role

    return lambda: server.issuer.token(organization, user, Role.ADMIN)


@contextmanager
def http_client(
    url: str,
    token: Callable[[], str],
    transport: httpx.BaseTransport | None = None,
    proxy_token: Callable[[], str | None] = lambda: None,
) -> Iterator[httpx.Client]:
    """A client that asks for its tokens at every call, so that a long job outlives one of them."""
    import httpx

    def signed(request: httpx.Request) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {token()}"
        if passing := proxy_token():
            request.headers["Proxy-Authorization"] = f"Bearer {passing}"
        return request

    with httpx.Client(
        base_url=url, auth=signed, transport=transport, timeout=TIMEOUT_SECONDS
    ) as client:
        yield client


@contextmanager
def _reached() -> Iterator[None]:
    import httpx

    try:
        yield
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise UnreachableError("The API cannot be reached.", reason=type(error).__name__) from error


def _checked(response: httpx.Response) -> httpx.Response:
    if not response.is_error:
        return response
    try:
        envelope = response.json()["error"]
        message, reason = envelope["message"], envelope["details"]["reason"] or envelope["code"]
    except (ValueError, KeyError, TypeError):  # not one of our answers
        message, reason = f"The API answered with status {response.status_code}.", None
    kind = RefusedError if response.is_client_error else ServerFailedError
    raise kind(message, reason=reason)


def _pieces(file: IO[bytes], sent: OnBytes) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece
        sent(len(piece))


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
