"""Cross-origin rules. Tokens travel in a header, never in a cookie, so origins are all there is."""

from __future__ import annotations

import flask

EXPOSED = "ETag, Idempotent-Replay, RateLimit, RateLimit-Policy, Retry-After, X-Trace-Id"
METHODS = "GET, POST, PUT, PATCH, DELETE"
ACCEPTED = "Authorization, Content-Type, Idempotency-Key, If-Match, Last-Event-ID, X-Trace-Id"
PREFLIGHT_SECONDS = 600


def allow_origin(response: flask.Response, request: flask.Request, origins: str) -> None:
    """Let pages of the comma-separated `origins` read the response; others get no header."""
    response.vary.add("Origin")
    origin = request.headers.get("Origin")
    if not origin or origin not in origins.replace(" ", "").split(","):
        return
    response.access_control_allow_origin = origin
    response.headers["Access-Control-Expose-Headers"] = EXPOSED
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Allow-Headers"] = ACCEPTED
        response.access_control_max_age = PREFLIGHT_SECONDS
