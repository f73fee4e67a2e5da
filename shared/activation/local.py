"""The local runner: every function of the manifest in one process, behind one port.

What runs is what deploys: each function is loaded by functions-framework from its own folder and
spoken to over WSGI. HTTP functions answer by path; event functions are reached in process only, by
the bus and by the clock. `kill -9` at any time is safe: all that matters is in the stores.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

from activation import observability
from activation.api import edge
from activation.api.doors import ENVIRON, Doors
from activation.api.issuer import EmbeddedIssuer
from activation.app import App
from activation.domain.schedule import schedule
from activation.errors import ActivationError, InvalidStateError, StorageUnavailableError
from activation.function_manifest import Function, functions
from activation.message_codec import push_body
from activation.ports import Clock, Message
from activation.settings import Settings

if TYPE_CHECKING:
    from types import FrameType

    from _typeshed.wsgi import StartResponse, WSGIApplication

    from activation.adapters.embedded.bus import SqliteBus

PREFIXES = ("/api/v1", "/api")
DELIVERERS = 4
"""Threads for messages of every kind."""
SENDERS = 12
"""More of them for distributions alone, which mostly wait for platforms: more than one tenant may
have at once (`lanes_per_organization`), so that no tenant waits for another one's platform."""
SENDING = ("dispatch_distribution",)
REQUEST_THREADS = 16
"""Beside those that server-sent events keep busy."""
WAITING_CONNECTIONS = 1_000
"""Open ones that ask for nothing right now."""
SOCKET_MESSAGE_BYTES = 16 * 1024
LOOK_SECONDS = 0.5
"""How often a deliverer looks for messages of other processes and for the end."""
PAUSE_SECONDS = 1.0
STOP_SECONDS = 10
KEEP_SECONDS = 60
"""How long an idle connection is kept: longer than clients do (httpx and Node: 5 seconds). The
client has to close first, or a request may go out on a connection that is just being closed."""


class LocalServer:
    """All functions on the embedded back-ends; `tick_seconds` is the pace of the clock's jobs, and
    `sockets` a bound socket for WebSockets, which are served while the server runs."""

    def __init__(
        self,
        settings: Settings,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        clock: Clock | None = None,
        tick_seconds: float = 60.0,
        sockets: socket.socket | None = None,
    ) -> None:
        if settings.backend != "embedded":
            raise InvalidStateError("The local runner runs on the embedded back-end.")
        self.host, self.port, self.tick_seconds = host, port, tick_seconds
        self.app = App(settings, clock)
        self._doors = Doors.of(self.app)
        self._functions = {function.name: loaded(function) for function in functions()}
        self._rung: dict[tuple[str, str], datetime] = {}
        self._listening = sockets
        self._sockets: SocketServer | None = None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    @cached_property
    def issuer(self) -> EmbeddedIssuer:
        """Mints the tokens that this server accepts."""
        assert self._doors.issuer is not None
        return self._doors.issuer

    # requests ---------------------------------------------------------------------------------

    def wsgi(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer by the function whose route it is; what is nobody's, the runner answers."""
        environ[ENVIRON] = self._doors
        return self._mounted(edge.path_of(environ))(environ, start_response)

    def _mounted(self, path: str) -> WSGIApplication:
        for route, name in _routes():
            if _is_below(path, route):
                return self._functions[name]
        return _own_routes

    def post(self, function: str, body: Mapping[str, Any]) -> tuple[int, float | None]:
        """Hand a message or a tick to an event function; its status and Retry-After."""
        from werkzeug.test import Client

        response = Client(self._functions[function]).post(
            "/",
            json=dict(body),
            headers={"Authorization": f"Bearer {self.issuer.service_token(function)}"},
            environ_overrides={ENVIRON: self._doors},
        )
        return response.status_code, response.headers.get("Retry-After", type=float)

    # background -------------------------------------------------------------------------------

    def deliver(self, limit: int = 100, only: Sequence[str] = ()) -> int:
        """Hand out up to `limit` messages that are ready (of `only` these functions); returns how
        many there were."""
        return self._bus.deliver_due(self._hand_over, limit, only)

    def tick(self) -> None:
        """Do the jobs of the clock: what runs every minute, and each slot of a schedule that has
        come since the last tick. After a start, the latest slot of each counts as come."""
        for function in functions():
            if function.schedule:
                self.post(function.name, {})
            for name, text in function.schedules:
                self._ring(function, name, schedule(text).last(self.app.clock.now()))

    def _ring(self, function: Function, name: str, slot: datetime | None) -> None:
        """Call a function for a slot, once; a call that fails is made again at the next tick."""
        if slot is not None and self._rung.get((function.name, name)) != slot:
            status, _ = self.post(function.name, {"job": name})
            if status < 300:
                self._rung[function.name, name] = slot

    def start(self) -> None:
        """Start delivering messages and doing the clock's jobs, in threads."""
        observability.configure(self.app.settings.log_level)
        self.app.telemetry.start(serves_metrics=True)
        self._stop.clear()
        deliver, send = self._deliver_or_wait, partial(self._deliver_or_wait, SENDING)
        jobs = [*[deliver] * DELIVERERS, *[send] * SENDERS, self._tick_and_wait]
        for number, job in enumerate(jobs):
            thread = threading.Thread(
                target=self._repeat, args=(job,), name=f"activation-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        if self._listening is not None:
            self._sockets = SocketServer(self._doors, self._listening)

    def release(self) -> None:
        """Let go those who follow something: their connections would last for an hour."""
        hub = self.app.__dict__.get("change_hub")
        if hub is not None:
            hub.close()

    def stop(self) -> None:
        """Let running work end, then close the stores; what remains is taken up again later."""
        self._stop.set()
        self.release()
        if self._sockets is not None:
            self._sockets.stop()
        for thread in self._threads:
            thread.join(STOP_SECONDS)
        self._threads.clear()
        self.app.close()

    @cached_property
    def _bus(self) -> SqliteBus:
        from activation.adapters.embedded.bus import SqliteBus

        assert isinstance(self.app.bus, SqliteBus)
        return self.app.bus

    def _hand_over(self, subscription: str, message: Message, attempt: int) -> None:
        status, wait = self.post(subscription, push_body(message, subscription, attempt))
        if not 200 <= status < 300:
            raise StorageUnavailableError(
                f"{subscription} answered {status}.", retry_after_seconds=wait
            )

    def _deliver_or_wait(self, only: Sequence[str] = ()) -> None:
        """One message at a time: a long import holds up one deliverer, not the others."""
        if not self.deliver(1, only):
            self._bus.wait(LOOK_SECONDS, only)

    def _tick_and_wait(self) -> None:
        self.tick()
        self._stop.wait(self.tick_seconds)

    def _repeat(self, job: Callable[[], None]) -> None:
        """Do `job` over and over until the server stops; whatever fails is waited out."""
        while not self._stop.is_set():
            try:
                job()
                continue
            except ActivationError as error:
                observability.event("background work waits", level=logging.WARNING, code=error.code)
            except Exception as error:  # noqa: BLE001 - without this thread nothing is delivered
                observability.failure("background work failed", error)
            self._stop.wait(PAUSE_SECONDS)

    # serving ----------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve from threads of this process, on a free port when `port` is 0: at the address."""
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            """The edge writes the log line of a request."""

            def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
                """Nothing."""

        server = make_server(self.host, self.port, self.wsgi, threaded=True, request_handler=Quiet)
        serving = threading.Thread(
            target=server.serve_forever, args=(0.05,), name="activation-http", daemon=True
        )
        serving.start()
        self.start()
        try:
            yield f"http://{self.host}:{server.server_port}"
        finally:
            server.shutdown()
            serving.join(STOP_SECONDS)
            server.server_close()
            self.stop()


class SocketServer:
    """WebSockets on a port of their own, in a thread: gunicorn's threads know none."""

    def __init__(self, doors: Doors, listening: socket.socket) -> None:
        import uvicorn

        from activation.api.sockets import socket_app

        config = uvicorn.Config(
            socket_app(doors),
            loop="asyncio",
            ws="websockets-sansio",
            ws_max_size=SOCKET_MESSAGE_BYTES,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=STOP_SECONDS // 2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="activation-sockets", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close every connection, then the port."""
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS)


def listening_on(host: str, port: int | None, beside: int = 0) -> socket.socket:
    """A bound socket: on `port`, or without one beside another port, or on any that is free.

    Raises InvalidStateError when somebody else has `port`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in (beside + 1, 0) if port is None else (port,):
        with suppress(OSError, OverflowError):
            return socket.create_server((host, wanted), family=family, backlog=128)
    raise InvalidStateError(f"Port {port} is taken; choose another one.", reason="port_taken")


def run(
    settings: Settings,
    host: str,
    port: int,
    *,
    socket_port: int | None = None,
    tick_seconds: float = 60.0,
) -> None:
    """Serve until a signal ends the process: one gunicorn worker with threads, and WebSockets on
    `socket_port`, by default the next one.

    The server is made in the worker, after the fork, because neither threads nor connections
    survive one.
    """
    from gunicorn.app.base import BaseApplication

    class Runner(BaseApplication):  # type: ignore[misc]
        """gunicorn, told everything by us and nothing by files or the environment."""

        def load_config(self) -> None:
            for name, value in _gunicorn_options(settings, host, port, sockets_at).items():
                self.cfg.set(name, value)

        def load(self) -> WSGIApplication:
            server = LocalServer(settings, host, port, tick_seconds=tick_seconds, sockets=bound)
            self.cfg.set("worker_exit", lambda _server, _worker: server.stop())
            _released_at_the_end(server)
            server.start()
            return server.wsgi

    bound = listening_on(host, socket_port, port)
    sockets_at = bound.getsockname()[1]
    Runner().run()


def _released_at_the_end(server: LocalServer) -> None:
    """Let streams end as soon as the worker is told to: it waits for them."""
    given = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=server.release, name="activation-release", daemon=True).start()
        if callable(given):
            given(number, frame)

    signal.signal(signal.SIGTERM, end)


def _gunicorn_options(settings: Settings, host: str, port: int, socket_port: int) -> dict[str, Any]:
    def announce(_server: Any) -> None:
        text = (
            f"Serving on http://{host}:{port}/docs\n"
            f"A token: activation token --data {settings.data_folder} --role admin\n"
            f"WebSockets: ws://{host}:{socket_port}/ws/\n"
        )
        sys.stdout.write(text)
        sys.stdout.flush()

    return {
        "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "workers": 1,
        "worker_class": "gthread",
        "threads": REQUEST_THREADS + settings.realtime_room,
        "worker_connections": WAITING_CONNECTIONS + REQUEST_THREADS + settings.realtime_room,
        "graceful_timeout": STOP_SECONDS,
        "keepalive": KEEP_SECONDS,
        "limit_request_line": 0,  # the edge answers 414 in our shape
        "loglevel": "warning",
        "when_ready": announce,
    }


@cache
def loaded(function: Function) -> WSGIApplication:
    """The function as functions-framework runs it; it holds no state, so one serves everybody."""
    import functions_framework

    app: WSGIApplication = functions_framework.create_app(
        target=function.entry_point, source=str(function.source)
    )
    return app


@cache
def _routes() -> list[tuple[str, str]]:
    """Every route with its function; the longer one counts where two fit."""
    found = [(route, function.name) for function in functions() for route in function.routes]
    return sorted(found, key=lambda one: -one[0].count("/"))


def _is_below(path: str, route: str) -> bool:
    """Whether a route leads here; a `*` in it stands for one part of the path."""
    parts = path.split("/")
    for prefix in PREFIXES:
        wanted = (prefix + route).split("/")
        pairs = zip(wanted, parts, strict=False)
        if len(parts) >= len(wanted) and all(one in ("*", part) for one, part in pairs):
            return True
    return False


def _own_routes(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Health, the description of all resources, upload addresses; 404 for the rest."""
    import flask

    from activation.api.catalog import LOCAL

    return edge.serve(LOCAL, flask.Request(environ))(environ, start_response)
