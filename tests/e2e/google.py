"""The functions on Google's services: emulators, and wire-level servers for the real clients."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from activation.adapters.envelope import EnvelopeVault
from activation.adapters.gcp.blobs import CloudStorageBlobs
from activation.adapters.gcp.bus import PubSubBus
from activation.adapters.gcp.documents import FirestoreDocuments
from activation.adapters.gcp.keys import CloudKmsKeys
from activation.app import App
from activation.function_manifest import subscriptions
from activation.local import LocalServer
from tests.wire.cloud_kms import KEY_NAME
from tests.wire.fixtures import KmsServer, StorageServer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PUSH = "/_push/"
TICK_SECONDS = 0.5


def use_google(app: App, project: str, storage: StorageServer, kms: KmsServer) -> PubSubBus:
    """Put the Google adapters behind the App's ports, before any is used."""
    blobs = CloudStorageBlobs(storage.bucket, app.clock, storage.client())
    bus = PubSubBus(project)
    app.__dict__.update(
        documents=FirestoreDocuments(project, "(default)", app.clock),
        uploads=blobs,
        member_blobs=blobs,
        journal_blobs=blobs,
        bus=bus,
        vault=EnvelopeVault(CloudKmsKeys(KEY_NAME, client=kms.client)),
    )
    return bus


class PushedTo:
    """The functions behind one port, also those that Pub/Sub pushes to.

    The emulator signs no pushes, so the token it would bring is added here.
    """

    def __init__(self, server: LocalServer) -> None:
        self._server = server

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith(PUSH):
            return self._server.wsgi(environ, start_response)
        function = environ["PATH_INFO"].removeprefix(PUSH)
        body: Any = orjson.loads(Request(environ).get_data())
        status, _ = self._server.post(function, body)
        return Response(status=status)(environ, start_response)


@contextmanager
def running_on_google(server: LocalServer, bus: PubSubBus) -> Iterator[str]:
    """Serve, let Pub/Sub push, and tick; yields the address."""
    http = make_server("127.0.0.1", 0, PushedTo(server), threaded=True)
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(TICK_SECONDS):
            server.tick()

    threads = [threading.Thread(target=http.serve_forever), threading.Thread(target=tick)]
    for thread in threads:
        thread.start()
    url = f"http://127.0.0.1:{http.server_port}"
    _push_to(bus, url)
    try:
        yield url
    finally:
        stop.set()
        http.shutdown()
        for thread in threads:
            thread.join()
        http.server_close()
        server.app.close()


def _push_to(bus: PubSubBus, url: str) -> None:
    topics = subscriptions()
    bus.ensure_topology(topics, ordered=False)
    for subscription in [s.name for group in topics.values() for s in group]:
        request = {
            "subscription": bus._subscription(subscription),
            "push_config": {"push_endpoint": f"{url}{PUSH}{subscription}"},
        }
        bus._subscriber.modify_push_config(request=request)
