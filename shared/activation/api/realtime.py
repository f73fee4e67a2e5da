"""Changes of memberships as they happen, as server-sent events.

A stream ends by itself: before the function's time or the token's is over, when the client does not
keep up, when what it follows is gone. Its last id is where the next one goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import flask
from pydantic import Field

from activation import observability
from activation.api import auth
from activation.api.listing import Query
from activation.api.paths import SegmentPath, UserPath
from activation.api.routes import Ask, Resource
from activation.app import App
from activation.domain.caller import Role
from activation.domain.change_position import MAX_CHARACTERS
from activation.errors import ActivationError

if TYPE_CHECKING:
    from activation.services.change_feed import FeedMessage, Follower, Wake

realtime = Resource("realtime", "Who enters and leaves, as it happens.")

EVENT_STREAM = "text/event-stream"
RETRY_MILLISECONDS = 2_000
HEARTBEAT_SECONDS = 15.0
SEND_SECONDS = 30.0
"""A client that takes nothing for so long is let go."""
PIECE = 500
"""Messages that are sent in one piece."""
SOCKETS = ("gunicorn.socket", "werkzeug.socket")
TIME_OVER, TOKEN_EXPIRED, UNAVAILABLE = "time_over", "token_expired", "unavailable"


class FollowQuery(Query):
    """Where to go on."""

    last_event_id: str | None = Field(
        default=None,
        max_length=MAX_CHARACTERS,
        description="The last id that was read; the header Last-Event-ID says the same.",
    )


@realtime.route("GET", "/segments/<segment_id>/realtime", role=Role.VIEWER, answer=None)
def follow_segment(ask: Ask, path: SegmentPath, query: FollowQuery) -> flask.Response:
    """Follow a segment: its size, and who enters and leaves."""
    hub = ask.app.change_hub
    return _stream(
        ask, query, lambda after, wake: hub.segment(ask.caller, path.segment_id, after, wake)
    )


@realtime.route("GET", "/users/<user_id>/segments/realtime", role=Role.VIEWER, answer=None)
def follow_user(ask: Ask, path: UserPath, query: FollowQuery) -> flask.Response:
    """Follow a user: the segments that he is in, enters and leaves."""
    hub = ask.app.change_hub
    return _stream(ask, query, lambda after, wake: hub.user(ask.caller, path.user_id, after, wake))


def _stream(
    ask: Ask, query: FollowQuery, follow: Callable[[str | None, Wake], Follower]
) -> flask.Response:
    after = flask.request.headers.get("Last-Event-ID") or query.last_event_id
    seconds = auth.seconds_left(flask.g.doors.operators, flask.request.headers)
    woken = threading.Event()
    stream = EventStream(ask.app, follow(after, woken.set), woken, seconds)
    if flask.request.method == "GET":
        stream.begin(flask.request.environ)
    return flask.Response(
        stream, content_type=f"{EVENT_STREAM}; charset=utf-8", headers={"X-Accel-Buffering": "no"}
    )


@dataclass(eq=False)
class EventStream:
    """The body of one answer; `close` gives its place back, whether anybody has read it or not."""

    app: App
    follower: Follower
    woken: threading.Event
    token_seconds: float
    _pieces: Iterator[bytes] = field(default_factory=lambda: iter(()))

    def begin(self, environ: dict[str, Any]) -> None:
        """Read the beginning, so that what fails is answered as an error."""
        for name in SOCKETS:
            if name in environ:
                environ[name].settimeout(SEND_SECONDS)
        beginning = self.follower.beginning()
        try:
            first = next(beginning)
        except BaseException:
            self.close()
            raise
        self._pieces = self._all(first, beginning)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Follow no more."""
        self.app.change_hub.leave(self.follower)

    def _all(
        self, first: list[FeedMessage], beginning: Iterator[list[FeedMessage]]
    ) -> Iterator[bytes]:
        yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
        reason: str | None = None
        try:
            yield from _encoded(first)
            for messages in beginning:
                yield from _encoded(messages)
            reason = yield from self._live()
        except ActivationError as error:
            observability.event("realtime stream fails", code=error.code)
            reason = UNAVAILABLE
        except Exception as error:  # noqa: BLE001 - the client is told that it has to come again
            observability.failure("realtime stream failed", error)
            reason = UNAVAILABLE
        yield from _encoded([self.follower.last(reason)])

    def _live(self) -> Generator[bytes, None, str]:
        """What comes, until it ends; returns why."""
        clock = self.app.clock
        began = beat = clock.monotonic()
        stream_seconds = self.app.settings.realtime_stream_seconds
        seconds = min(self.token_seconds, stream_seconds)
        while (left := began + seconds - clock.monotonic()) > 0:
            self.woken.wait(min(HEARTBEAT_SECONDS, left))
            self.woken.clear()
            messages = self.follower.taken()
            yield from _encoded(messages)
            if clock.monotonic() - beat >= HEARTBEAT_SECONDS:
                beat = clock.monotonic()
                self.follower.check()
            if self.follower.ended is not None:
                return self.follower.ended
            if not messages:
                yield f"id: {self.follower.id()}\n: \n\n".encode()
        return TIME_OVER if seconds == stream_seconds else TOKEN_EXPIRED


def _encoded(messages: Sequence[FeedMessage]) -> Iterator[bytes]:
    """Messages as events, many in a piece."""
    for start in range(0, len(messages), PIECE):
        yield b"".join(
            b"id: %b\nevent: %b\ndata: %b\n\n" % (one.id.encode(), one.kind.encode(), one.json())
            for one in messages[start : start + PIECE]
        )
