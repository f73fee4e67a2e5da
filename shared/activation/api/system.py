"""Health, readiness and the description of the API, in every function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import flask
from werkzeug.exceptions import NotFound

from activation.api.description import described
from activation.api.responses import answered
from activation.errors import StorageUnavailableError

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

    from activation.app import App

OPEN_ENDPOINTS = frozenset(
    {"system.health", "system.ready", "system.docs", "system.asset", "system.openapi"}
)
"""What needs no token."""

PARTS: Mapping[str, Callable[[App], Any]] = {
    "documents": lambda app: app.documents,
    "bus": lambda app: app.bus,
    "uploads": lambda app: app.uploads,
    "members": lambda app: app.member_blobs,
    "backup": lambda app: app.backup_blobs,
    "journal": lambda app: app.journal_blobs,
    "events": lambda app: app.event_blobs,
    "credentials": lambda app: app.vault,
    "suppressions": lambda app: app.suppression_vault,
}
"""What can be asked whether it answers: stores, the bus, and keys."""
STORES = ("documents", "bus")
READY: Mapping[str, tuple[str, ...]] = {
    "audiences": (*STORES, "uploads", "members", "backup", "journal", "suppressions"),
    "platforms": (*STORES, "credentials"),
    "distributions": (*STORES, "members", "suppressions"),
    "events": STORES,
    "segments": (*STORES, "members"),
    "realtime": ("documents", "members"),
    "users": (*STORES, "members", "events", "journal", "suppressions"),
    "local": tuple(PARTS),
}
"""What each function asks: what its roles in the manifest cover, and nothing else."""

_ASSETS = {
    "swagger-ui.css": ("css/swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": ("js/swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui-standalone-preset.js": ("js/swagger-ui-standalone-preset.js", "text/javascript"),
}
_START = """window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  layout: "StandaloneLayout",
});
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Audience activation: API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/swagger-ui-standalone-preset.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""


def blueprint() -> flask.Blueprint:
    """The routes that every function has."""
    routes = flask.Blueprint("system", __name__)
    routes.add_url_rule("/health", view_func=health)
    routes.add_url_rule("/ready", view_func=ready)
    routes.add_url_rule("/openapi.json", view_func=openapi)
    routes.add_url_rule("/docs", view_func=docs)
    routes.add_url_rule("/docs/<name>", view_func=asset)
    return routes


def health() -> flask.Response:
    """The process lives."""
    return answered({"status": "ok"}, 200)


def ready() -> flask.Response:
    """Every store, bus and key service that the function may use answers; 503 naming the one that
    does not. The cache may be down. What only workers use is `activation doctor`'s to try."""
    app = flask.g.doors.app
    names = READY[flask.current_app.config["FUNCTION"]]
    for name in names:
        try:
            PARTS[name](app).ping()
        except StorageUnavailableError as error:
            raise StorageUnavailableError(error.message, field=name, reason="not_ready") from error
    cache = all(layer.reachable for layer in app.cache.layers())
    optional = {"cache": "ok" if cache else "down"}
    return answered({"status": "ready", "checked": sorted(names), "optional": optional}, 200)


def openapi() -> flask.Response:
    """The description of the routes of this function."""
    application = cast("OpenAPI", flask.current_app)
    return answered(described(application.api_doc), 200)


def docs() -> flask.Response:
    """The description as a page."""
    return flask.Response(_PAGE, content_type="text/html; charset=utf-8")


def asset(name: str) -> flask.Response:
    """The parts of the page, from the installed package."""
    if name == "start.js":
        return flask.Response(_START, content_type="text/javascript; charset=utf-8")
    if name not in _ASSETS:
        raise NotFound
    import flask_openapi3_swagger  # type: ignore[import-untyped]

    path, kind = _ASSETS[name]
    folder = Path(flask_openapi3_swagger.__path__[0]) / "templates" / "swagger"
    return flask.Response((folder / path).read_bytes(), content_type=kind)
