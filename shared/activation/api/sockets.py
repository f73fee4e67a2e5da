"""Changes of memberships over WebSockets: a small ASGI application on the same services.

A client says who he is in his first message, because browsers can set no header: an address with a
token in it would lie in logs. Programs may send the header `Authorization` instead. Nothing else
that a client sends is read, but for more than a few bytes of it he is let go.

    client  {"type": "hello", "token": "...", "last_id": "..."}      within HELLO_SECONDS
    server  {"type": "size", "id": "...", "data": {"members": 17}}
    server  {"type": "entered", "id": "...", "data": {"user_id": ..., "seq": ..., ...}}
    server  {"type": "ping", "id": "...", "data": {}}                when nothing happens
    server  {"type": "end", "id": "...", "data": {"reason": "..."}}  then it closes, with a code
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from werkzeug.datastructures import Headers

from activation import observability
from activation.api import auth
from activation.api.doors import Doors, process_doors
from activation.api.limits import READS
from activation.api.paths import SegmentPath, UserPath
from activation.api.trace import trace_id
from activation.app import App
from activation.domain.caller import Caller
from activation.errors import (
    ActivationError,
    NotFoundError,
    RateLimitedError,
    UnauthenticatedError,
    ValidationError,
)

if TYPE_CHECKING:
    from starlette.requests import Request

    from activation.services.change_feed import FeedMessage, Follower, Wake

HELLO_SECONDS = 10.0
HEARTBEAT_SECONDS = 15.0
SEND_SECONDS = 20.0
"""A client that takes nothing for so long is let go."""
MAX_HELLO_BYTES = 16 * 1024
PIECE = 100
"""Messages that he has to take in that time."""

# Codes from 4000 on are an application's own; their last digits are those of HTTP.
NORMAL, GOING_AWAY, TOO_BIG, FAILED, TRY_LATER = 1000, 1001, 1009, 1011, 1013
BAD_HELLO, NO_TOKEN, FOREIGN_ORIGIN, NOT_FOUND = 4400, 4401, 4403, 4404
NO_HELLO, TOO_SLOW, GONE, TOO_MANY = 4408, 4409, 4410, 4429
ENDS = {
    "time_over": NORMAL,
    "stopping": GOING_AWAY,
    "token_expired": NO_TOKEN,
    "gone": GONE,
    "slow": TOO_SLOW,
    "restored": TRY_LATER,
    "unavailable": TRY_LATER,
}
"""The code of each reason that a message `end` may have."""

Follow = Callable[[Caller, str | None, "Wake"], "Follower"]


class RefusedError(Exception):
    """The client is let go; the code says why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def socket_app(doors: Doors) -> Starlette:
    """The application, for the App and the callers of these doors."""
    return Starlette(
        routes=[
            WebSocketRoute("/ws/segments/{segment_id}/realtime", partial(_segment, doors)),
            WebSocketRoute("/ws/users/{user_id:path}/segments", partial(_user, doors)),
            Route("/ws/health", _health),
        ]
    )


def application() -> Starlette:
    """The application of a process of its own, by its settings: what a server calls to start."""
    return socket_app(process_doors())


async def _health(_request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def _segment(doors: Doors, socket: WebSocket) -> None:
    def follow(caller: Caller, after: str | None, wake: Wake) -> Follower:
        path = SegmentPath(segment_id=socket.path_params["segment_id"])
        return doors.app.change_hub.segment(caller, path.segment_id, after, wake)

    await Connection(doors, socket, follow).run()


async def _user(doors: Doors, socket: WebSocket) -> None:
    def follow(caller: Caller, after: str | None, wake: Wake) -> Follower:
        path = UserPath(user_id=socket.path_params["user_id"])
        return doors.app.change_hub.user(caller, path.user_id, after, wake)

    await Connection(doors, socket, follow).run()


@dataclass(eq=False)
class Connection:
    """One client, from his first message to the last one."""

    doors: Doors
    socket: WebSocket
    follow: Follow
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    left_at: float = 0.0
    ends_as: str = "time_over"

    @property
    def app(self) -> App:
        """The App behind the doors."""
        return self.doors.app

    async def run(self) -> None:
        """Let the client in, tell him what happens, and close with a code that says why."""
        trace = trace_id(Headers(self.socket.headers.items()))
        with observability.lines_about(function="sockets", trace=trace):
            try:
                await self._let_in(trace)
            except WebSocketDisconnect:
                return
            except RefusedError as error:
                await self._close(error.code, error.reason)
            except ActivationError as error:
                await self._close(_code_of(error), error.reason or error.code.lower())
            except Exception as error:  # noqa: BLE001 - a client hears that it was our fault
                observability.failure("realtime connection failed", error)
                await self._close(FAILED, "internal")

    async def _let_in(self, trace: str) -> None:
        if not _is_ours(self.socket, self.app.settings.cors_origins):
            await self.socket.close(FOREIGN_ORIGIN)
            return
        await self.socket.accept()
        hello = await self._hello()
        caller, seconds = await run_in_threadpool(_caller, self.doors, hello["token"], trace)
        observability.note(organization=caller.organization_id)
        observability.event("socket opened")
        self._set_end(seconds)
        follower = await run_in_threadpool(self.follow, caller, hello.get("last_id"), self._wake())
        try:
            await self._tell(follower)
        finally:
            await run_in_threadpool(self.app.change_hub.leave, follower)

    async def _hello(self) -> dict[str, Any]:
        """The token and the last id: of the header, or of the first message."""
        header = self.socket.headers.get("Authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer":
                raise RefusedError(NO_TOKEN, "missing")
            return {"token": token, "last_id": self.socket.query_params.get("last_id")}
        try:
            text = await asyncio.wait_for(self.socket.receive_text(), HELLO_SECONDS)
        except TimeoutError:
            raise RefusedError(NO_HELLO, "no_hello") from None
        except KeyError:
            raise RefusedError(BAD_HELLO, "no_text") from None
        return _hello(text)

    def _set_end(self, seconds: float) -> None:
        stream_seconds = float(self.app.settings.realtime_stream_seconds)
        self.ends_as = "time_over" if stream_seconds <= seconds else "token_expired"
        self.left_at = self.app.clock.monotonic() + min(seconds, stream_seconds)

    def _wake(self) -> Wake:
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # the server has stopped
                loop.call_soon_threadsafe(self.woken.set)

        return wake

    async def _tell(self, follower: Follower) -> None:
        """Send until it ends. What the client sends is read to notice that he has gone."""
        gone = asyncio.create_task(self._drain())
        try:
            reason = await self._send_all(follower, gone)
        finally:
            gone.cancel()
        if not gone.done() or gone.cancelled():
            last = await run_in_threadpool(follower.last, reason)
            await self._send([last])
            await self._close(ENDS[reason], reason)

    async def _send_all(self, follower: Follower, gone: asyncio.Task[None]) -> str:
        beginning = follower.beginning()
        while (messages := await run_in_threadpool(_next, beginning)) is not None:
            await self._send(messages)
        beat = self.app.clock.monotonic()
        while (left := self.left_at - self.app.clock.monotonic()) > 0 and not gone.done():
            await self._woken(min(HEARTBEAT_SECONDS, left), gone)
            messages = await run_in_threadpool(follower.taken)
            await self._send(messages)
            quiet = self.app.clock.monotonic() - beat >= HEARTBEAT_SECONDS
            if quiet:
                beat = self.app.clock.monotonic()
                await run_in_threadpool(follower.check)
                await self._send_texts([_text("ping", follower.id(), b"{}")])
            if follower.ended is not None:
                return follower.ended
        return self.ends_as

    async def _woken(self, seconds: float, gone: asyncio.Task[None]) -> None:
        """Wait until something has come, the client has gone, or so long."""
        waiting = asyncio.create_task(self.woken.wait())
        await asyncio.wait({waiting, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self.woken.clear()

    async def _drain(self) -> None:
        """Read and forget until the client has gone."""
        with suppress(WebSocketDisconnect, RuntimeError):
            while (await self.socket.receive())["type"] != "websocket.disconnect":
                pass

    async def _send(self, messages: Sequence[FeedMessage]) -> None:
        texts = [_text(one.kind, one.id, one.json()) for one in messages]
        for start in range(0, len(texts), PIECE):
            await self._send_texts(texts[start : start + PIECE])

    async def _send_texts(self, texts: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                for text in texts:
                    await self.socket.send_text(text)
        except TimeoutError:
            raise RefusedError(TOO_SLOW, "slow") from None
        except RuntimeError:  # closed meanwhile
            raise WebSocketDisconnect from None

    async def _close(self, code: int, reason: str) -> None:
        if self.socket.application_state is not WebSocketState.DISCONNECTED:
            with suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                await asyncio.wait_for(self.socket.close(code, reason), SEND_SECONDS)


def _hello(text: str) -> dict[str, Any]:
    try:
        hello = orjson.loads(text) if len(text) <= MAX_HELLO_BYTES else None
    except ValueError:
        hello = None
    if not isinstance(hello, dict) or not hello.keys() <= {"type", "token", "last_id"}:
        raise RefusedError(BAD_HELLO, "hello")
    if hello.get("type") != "hello" or not isinstance(hello.get("token"), str):
        raise RefusedError(BAD_HELLO, "hello")
    if not hello["token"].isprintable():
        raise RefusedError(NO_TOKEN, "malformed")
    if not isinstance(hello.get("last_id"), str | None):
        raise RefusedError(BAD_HELLO, "last_id")
    return hello


def _caller(doors: Doors, token: str, trace: str) -> tuple[Caller, float]:
    """The operator that a token is of, and how many seconds it is still good; a connection counts
    as a request that reads."""
    headers = Headers([("Authorization", f"Bearer {token}")])
    caller = auth.operator(doors.operators, headers, trace)
    standing = doors.app.rate_limits.admitted(caller.organization_id, READS)
    if standing is not None:
        standing.require_allowed()
    doors.app.operator_accounts.seen(caller)
    return caller, auth.seconds_left(doors.operators, headers)


def _next(beginning: Iterator[list[FeedMessage]]) -> list[FeedMessage] | None:
    return next(beginning, None)


def _text(kind: str, id_: str, data: bytes) -> str:
    return f'{{"type":"{kind}","id":"{id_}","data":{data.decode()}}}'


def _is_ours(socket: WebSocket, origins: str) -> bool:
    """Whether no page of others opened the connection: programs send no origin."""
    origin = socket.headers.get("Origin")
    allowed = {one.strip() for one in origins.split(",") if one.strip()}
    own = {f"{scheme}://{socket.headers.get('Host', '')}" for scheme in ("http", "https")}
    return origin is None or origin in allowed | own


def _code_of(error: ActivationError) -> int:
    codes: dict[type[ActivationError], int] = {
        UnauthenticatedError: NO_TOKEN,
        NotFoundError: NOT_FOUND,
        ValidationError: BAD_HELLO,
        RateLimitedError: TOO_MANY,
    }
    for kind, code in codes.items():
        if isinstance(error, kind):
            return code
    return TRY_LATER if error.status == 503 else FAILED
