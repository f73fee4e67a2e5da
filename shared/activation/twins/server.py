"""All twins behind one port, with a small control surface.

`GET /_twin/state` tells what the twins hold, `POST /_twin/faults` plans a failure
(`{"twin": "facebook", "kind": "status", "status": 429, …}`, the fields of `Fault`),
`{"twin": "facebook", "kind": "chaos", "seed": 1, "rate": 0.1, …}`, the arguments of `Chaos`, lets
failures come at random. `GET` lists the planned ones, `DELETE` forgets them all.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from activation.twins.faults import Chaos, Fault
from activation.twins.wsgi import Twin, json_response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CONTROL_PREFIX = "/_twin/"
POLL_SECONDS = 0.02
"""How long `close` waits at most for the server to notice."""


@dataclass(frozen=True)
class RunningTwins:
    """A server in a thread of this process. `url` has no slash at its end."""

    url: str
    _server: BaseWSGIServer
    _thread: threading.Thread
    _twins: Sequence[Twin]

    def url_of(self, name: str) -> str:
        """The address to use in place of the platform's."""
        return f"{self.url}/{name}" if name else self.url

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for twin in self._twins:
            twin.stop()


def serve(twins: Mapping[str, Twin], host: str = "127.0.0.1", port: int = 0) -> RunningTwins:
    """Serve each twin below `/{name}`; one named "" is served at the root. Port 0: any free one.

    An SDK that takes a host but no path needs the root. What a twin serves besides HTTP has ports
    of its own, told by its `settings`.
    """
    server = make_server(host, port, TwinServer(twins), threaded=True, request_handler=_Quiet)
    thread = threading.Thread(
        target=server.serve_forever, args=(POLL_SECONDS,), name="twins", daemon=True
    )
    thread.start()
    for twin in twins.values():
        twin.start(host)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{server.server_port}"
    return RunningTwins(url, server, thread, tuple(twins.values()))


class TwinServer:
    """The WSGI application that holds the twins and their control surface."""

    def __init__(self, twins: Mapping[str, Twin]) -> None:
        self._twins = dict(twins)
        mounts: dict[str, WSGIApplication] = {f"/{n}": twin for n, twin in twins.items() if n}
        self._platforms = DispatcherMiddleware(
            self._twins.get("", Response("No such twin.", status=404)), mounts
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request to a twin or to the control surface."""
        if not environ["PATH_INFO"].startswith(CONTROL_PREFIX):
            return self._platforms(environ, start_response)
        try:
            response = self._control(Request(environ))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            response = json_response({"error": f"{type(error).__name__}: {error}"}, 400)
        return response(environ, start_response)

    def _control(self, request: Request) -> Response:
        match request.method, request.path.removeprefix(CONTROL_PREFIX):
            case "GET", "state":
                return json_response({name: twin.state() for name, twin in self._twins.items()})
            case "GET", "faults":
                return json_response(self._planned())
            case "POST", "faults":
                fault = orjson.loads(request.get_data())
                faults = self._twins[fault.pop("twin")].faults
                if fault["kind"] == "chaos":
                    del fault["kind"]
                    faults.unleash(Chaos(**fault))
                else:
                    faults.plan(Fault(**fault))
                return json_response(self._planned(), 201)
            case "DELETE", "faults":
                for twin in self._twins.values():
                    twin.faults.clear()
                return json_response({})
        return json_response({"error": "not found"}, 404)

    def _planned(self) -> dict[str, Any]:
        return {
            name: [dataclasses.asdict(fault) for fault in twin.faults.pending()]
            for name, twin in self._twins.items()
        }


class _Quiet(WSGIRequestHandler):
    """Requests are counted by the twins; nothing is printed."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: a planned failure is no news."""
