"""The ad platforms of a world: strict twins that live on when a process dies.

A process speaks to them through its tape: a request that changes something is an effect, and the
process may die before it, or after it, when the platform has taken it and nobody has learned so.
There are no sockets.
"""

from __future__ import annotations

import copy
import copyreg
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import httpx
from werkzeug.wrappers import Request, Response

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.adapters.connectors.transport import plain_transport
from activation.app import App
from activation.domain.delivery import Delivery, SendOutcome
from activation.domain.platform import ConnectorSpec, PlatformType
from activation.ports import Account, Connector
from activation.services.locks import DocumentLock
from activation.twins.catalog import OFFERS
from activation.twins.facebook import FacebookTwin
from activation.twins.facebook_rules import refused as meta_refused
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.google_rules import refused as google_refused
from activation.twins.server import TwinServer
from activation.twins.the_trade_desk import TheTradeDeskTwin
from activation.twins.webhook import WebhookTwin
from activation.twins.wsgi import Twin
from tests.connectors.support import WEBHOOK_SECRET
from tests.faults.ports import Tape
from tests.faults.witness import Send, Witness

HOST = "twins"
URL = f"http://{HOST}"
MAX_ROWS, LANES = 2, 2
POLL_SECONDS = 300.0
"""Less than a round of the worlds."""
PER_MINUTE = 6000

copyreg.pickle(type(threading.Lock()), lambda _lock: (threading.Lock, ()))
copyreg.pickle(type(threading.RLock()), lambda _lock: (threading.RLock, ()))
# A copied twin has locks of its own.


class ChoosyMeta(FacebookTwin):
    """Refuses each batch with one of the hashes in `refuses`, whole and for good."""

    refuses: frozenset[str] = frozenset()

    def respond(self, request: Request) -> Response:
        """The answer of Meta."""
        text = request.get_data().decode()
        if any(value in text for value in self.refuses):
            raise meta_refused(100, "Invalid parameter")
        return super().respond(request)


class ChoosyGoogle(GoogleAdsTwin):
    """Refuses the rows with one of the hashes in `refuses`, and names them."""

    refuses: frozenset[str] = frozenset()

    def respond(self, request: Request) -> Response:
        """The answer of Google."""
        body = request.get_json(silent=True) or {}
        bad = [
            f"audience_members[{number}].user_data"
            for number, row in enumerate(body.get("audienceMembers", ()))
            if any(value in str(row) for value in self.refuses)
        ]
        if bad:
            raise google_refused(400, "INVALID_SHA256_FORMAT", "Not a digest.", *bad)
        return super().respond(request)


@dataclass(frozen=True, slots=True)
class Kind:
    """How a twin is made, and what an account at it takes."""

    make: Any
    credentials: Mapping[str, str]
    config: Mapping[str, Any]


def _offered(name: str, make: Any, **more: Any) -> Kind:
    """As in the twins' catalog."""
    account = OFFERS[name].account(name, f"{URL}/{name}")
    config = {**account["settings"]["config"], **more}
    return Kind(make, account["credentials"], config)


KINDS: Mapping[str, Kind] = {
    "facebook": _offered("facebook", lambda clock: ChoosyMeta(clock, match_delay_seconds=0.0)),
    "google_ads": _offered("google_ads", lambda clock: ChoosyGoogle(clock, polls_before_final=0)),
    "the_trade_desk": _offered(
        "the_trade_desk",
        TheTradeDeskTwin,
        resolve_with="none",
        product="crm",
        crm_region="EU",
        crm_minimum_rows=1,
    ),
    "webhook": Kind(
        lambda clock: WebhookTwin(clock, secrets=[WEBHOOK_SECRET]),
        {"signing_secret": WEBHOOK_SECRET},
        {"url": f"{URL}/webhook", "list_url": f"{URL}/webhook"},
    ),
}
"""By platform type."""


@dataclass(slots=True)
class Platforms:
    """The twins of a world, and the witness of what they took."""

    clock: MovableClock
    witness: Witness = field(default_factory=Witness)
    twins: dict[str, Twin] = field(default_factory=dict)
    lanes: int = LANES
    tampered: bool = False
    """Whether a platform has lost members that it had accepted."""

    def copied(self, clock: MovableClock) -> Platforms:
        """The same once more, with another clock."""
        twins = copy.deepcopy(self.twins, {id(self.clock): clock}) if self.twins else {}
        return replace(self, clock=clock, witness=self.witness.copy(), twins=twins)

    def opened(self, name: str) -> Twin:
        """The twin of this name; it is there from now on."""
        if name not in self.twins:
            self.twins[name] = KINDS[name].make(self.clock)
            if isinstance(self.twins[name], TheTradeDeskTwin):
                self.twins[name].crm.minimum_rows = 1  # type: ignore[attr-defined]
        return self.twins[name]

    def held(self) -> dict[tuple[str, str], frozenset[bytes]]:
        """Who is in which audience: by platform type and the platform's own name for it."""
        return {
            (name, audience_id): frozenset(audience.keys)
            for name, twin in self.twins.items()
            for audience_id, audience in _audiences(twin).items()
        }


def _audiences(twin: Any) -> dict[str, Any]:
    if isinstance(twin, TheTradeDeskTwin):
        return dict(twin.crm.segments)
    return dict(twin.lists if isinstance(twin, GoogleAdsTwin) else twin.audiences)


# between a process and its platforms --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sending:
    """The batch that a thread is about to send."""

    delivery: Delivery
    seq: int


_sending: ContextVar[_Sending | None] = ContextVar("sending", default=None)


class TapedTransport(httpx.BaseTransport):
    """Takes requests to the twins, over the tape of the process; others go their way."""

    def __init__(self, platforms: Platforms, tape: Tape) -> None:
        self._platforms, self._tape = platforms, tape

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer of a twin."""
        if request.url.host != HOST:
            return self._network.handle_request(request)
        name = f"{request.method} {request.url.path.removeprefix('/')}"
        if request.method == "GET":
            return self._tape.read(name, lambda: self._answer(request))
        return self._tape.effect(name, lambda: self._answer(request))

    @cached_property
    def _network(self) -> httpx.HTTPTransport:
        return plain_transport()

    def close(self) -> None:
        """Give the connections back."""
        if "_network" in self.__dict__:
            self._network.close()

    def _answer(self, request: httpx.Request) -> httpx.Response:
        server = httpx.WSGITransport(app=TwinServer(self._platforms.twins))
        response = server.handle_request(request)
        sending = _sending.get()
        if sending is not None and response.is_success and request.method != "GET":
            self._platforms.witness.sends.append(_send(request, sending))
        return response


def _send(request: httpx.Request, sending: _Sending) -> Send:
    platform = request.url.path.split("/")[1]
    delivery = sending.delivery
    content = hashlib.sha256(request.method.encode() + request.content).hexdigest()
    audience = f"{platform} {delivery.platform_audience_id}"
    return Send(delivery.distribution_id, audience, delivery.key, sending.seq, content)


class TapedConnectors(ConnectorRegistry):
    """The connectors with small batches and few lanes, over a tape."""

    def __init__(self, platforms: Platforms, tape: Tape, app: App) -> None:
        super().__init__(
            platforms.clock,
            allow_private_hosts=True,
            drop_root=app.settings.data_path / "drops",
            transport=TapedTransport(platforms, tape),
            lock=DocumentLock(app.documents, platforms.clock),
        )
        self.platforms = platforms

    def spec_for(self, platform_type: PlatformType, config: Mapping[str, Any]) -> ConnectorSpec:
        """The spec, at a small scale."""
        return self._small(super().spec_for(platform_type, config))

    def connector(self, platform_type: PlatformType, config: Mapping[str, Any]) -> Connector:
        """The connector, which tells the witness what it sends."""
        connector = super().connector(platform_type, config)
        connector.spec = self._small(connector.spec)
        send = connector.send

        def told(
            account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
        ) -> SendOutcome:
            with _about(_Sending(delivery, seq)):
                return send(account, delivery, seq, columns)

        connector.send = told  # type: ignore[method-assign]
        return connector

    def _small(self, spec: ConnectorSpec) -> ConnectorSpec:
        many = spec.platform_type in (PlatformType.FACEBOOK, PlatformType.GOOGLE_ADS)
        return replace(
            spec,
            max_rows=MAX_ROWS,
            lanes=self.platforms.lanes if many else 1,
            minimum_size=0,
            requests_per_minute=PER_MINUTE,
            poll_seconds=POLL_SECONDS,
        )


@contextmanager
def _about(sending: _Sending) -> Iterator[None]:
    token = _sending.set(sending)
    try:
        yield
    finally:
        _sending.reset(token)


def platforms_of(app: App) -> Platforms:
    """The platforms of the world that a process runs in."""
    connectors = app.connectors
    assert isinstance(connectors, TapedConnectors)
    return connectors.platforms
