"""What a request meets at the door: the App behind it and who may come in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.api import auth
from activation.api.auth import Deliverers, TokenPolicy, TokenVerifier
from activation.api.issuer import TOKEN_TYPE, EmbeddedIssuer, issuer_name
from activation.api.keys import KeySource, PublishedKeys
from activation.app import App, get_app
from activation.errors import ValidationError
from activation.observability import configure, event

if TYPE_CHECKING:
    import httpx

ENVIRON = "activation.doors"
"""Under this WSGI key a server hands its own doors in; without it, `get_app()` decides."""

_lock = threading.Lock()
_default: Doors | None = None


@dataclass(frozen=True, slots=True)
class Doors:
    """An App and the checks at its entrance; `issuer` exists in embedded mode only, `deliverers` in
    the cloud."""

    app: App
    operators: TokenVerifier
    services: TokenVerifier
    deliverers: Deliverers | None
    issuer: EmbeddedIssuer | None

    @classmethod
    def of(cls, app: App, transport: httpx.BaseTransport | None = None) -> Doors:
        """The doors that the App's settings ask for; `transport` replaces the network in tests."""
        if app.settings.backend == "google":
            return cls._google(app, transport)
        issuer = EmbeddedIssuer.of(app.settings, app.clock)
        verifier = _operators(app, issuer)
        return cls(app, verifier, verifier, None, issuer)

    @classmethod
    def _google(cls, app: App, transport: httpx.BaseTransport | None) -> Doors:
        policy = TokenPolicy(
            issuers=auth.GOOGLE_ISSUERS,
            audience=app.settings.push_audience,
            types=frozenset({"jwt"}),
            required=("sub", "email"),
        )
        google_keys = PublishedKeys(auth.GOOGLE_KEYS_URL, app.clock, transport)
        return cls(
            app,
            _operators(app, PublishedKeys(app.settings.jwks_url, app.clock, transport)),
            TokenVerifier(policy, google_keys, app.clock, app.settings.push_checked),
            Deliverers.parsed(app.settings.push_service_accounts),
            None,
        )


def _operators(app: App, keys: KeySource) -> TokenVerifier:
    policy = TokenPolicy(
        issuers=(issuer_name(app.settings),),
        audience=app.settings.audience,
        types=frozenset({TOKEN_TYPE, f"application/{TOKEN_TYPE}"}),
        required=("sub", "org"),
    )
    return TokenVerifier(policy, keys, app.clock)


def doors(environ: Mapping[str, Any]) -> Doors:
    """The doors of a request: those its server brought, else the process's own."""
    brought = environ.get(ENVIRON)
    return brought if isinstance(brought, Doors) else process_doors()


def process_doors() -> Doors:
    """The doors of this process, made from its settings when first asked for."""
    global _default
    with _lock:
        if _default is None:
            app = _configured_app()
            configure(app.settings.log_level, app.settings.project)
            app.telemetry.start()
            _default = Doors.of(app)
        return _default


def _configured_app() -> App:
    """The process's App; settings that are wrong are our fault, not the caller's."""
    try:
        return get_app()
    except ValidationError as error:
        event(f"settings: {error.message}", level=logging.CRITICAL)
        raise RuntimeError("The settings are wrong.") from error
