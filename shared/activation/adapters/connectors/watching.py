"""Calls that an observer hears of: what was said and answered, masked before anybody keeps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from activation import observability, tracing
from activation.adapters.connectors import masking
from activation.domain.exchange import Exchange
from activation.errors import PlatformError
from activation.inspection import Observer
from activation.ports import Clock

if TYPE_CHECKING:
    import httpx

    from activation.adapters.connectors.http import Reply


@dataclass(slots=True)
class Sight:
    """What was seen of a call so far: its answer, and the error it became."""

    reply: Reply | None = None
    error: PlatformError | None = None


def measured(clock: Clock, request: httpx.Request, call: Callable[[], Reply]) -> Reply:
    """Do `call`, and log how it ended and how long it took. Its trace stays with us: platforms
    are told of none."""
    started, status, outcome = clock.monotonic(), None, "failed"
    with tracing.span("platform request", kind="client", host=request.url.host) as span:
        try:
            reply = call()
            status, outcome = reply.status, "ok"
            return reply
        except PlatformError as error:
            outcome = error.code
            raise
        finally:
            span.note("outcome", outcome)
            observability.event(
                "platform request",
                platform=observability.about().get("platform", "none"),
                outcome=outcome,
                status=status,
                seconds=round(clock.monotonic() - started, 4),
            )


def watched(
    listener: Observer,
    clock: Clock,
    request: httpx.Request,
    attempt: Callable[[Sight], Reply],
    *,
    private: bool,
) -> Reply:
    """Do `attempt`, and tell `listener` of it when he wants to hear; the outcome is the same."""
    at, started, seen = clock.now(), clock.monotonic(), Sight()
    try:
        return attempt(seen)
    except PlatformError as error:
        seen.error = error
        raise
    finally:
        try:
            if listener.wants(failed=seen.error is not None):
                milliseconds = round((clock.monotonic() - started) * 1000)
                listener.saw(
                    _private(at, seen) if private else _made(at, request, seen, milliseconds)
                )
        except Exception as error:  # noqa: BLE001 - who watches must not change what happens
            observability.failure("an exchange was not kept", error)


def _private(at: datetime, seen: Sight) -> Exchange:
    return Exchange(at=at, status=seen.reply.status if seen.reply else None)


def _outcome(reply: Reply | None) -> str | None:
    return None if reply is None else "OK"


def _made(at: datetime, request: httpx.Request, seen: Sight, milliseconds: int) -> Exchange:
    url, reply, error = request.url, seen.reply, seen.error
    return Exchange(
        at=at,
        status=reply.status if reply else None,
        outcome=error.code if error else _outcome(reply),
        platform_code=masking.masked_code(error.platform_code) if error else None,
        method=request.method,
        host=url.host if url.port is None else f"{url.host}:{url.port}",
        path=masking.masked_path(url.path),
        query=masking.masked_names(name for name, _ in url.params.multi_items()),
        headers=masking.masked_headers(reply.headers) if reply else {},
        duration_ms=milliseconds,
        request=masking.masked_body(request.content, request.headers.get("content-type")),
        answer=masking.masked_body(reply.content, reply.headers.get("content-type"))
        if reply
        else None,
    )
