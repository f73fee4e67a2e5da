"""Several buckets behind one address, made when a test asks for them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from werkzeug.wrappers import Request, Response

from activation.adapters.clock import SystemClock
from activation.ports import Clock
from tests.wire.cloud_kms import KEY_NAME
from tests.wire.cloud_storage import CloudStorageServer
from tests.wire.fixtures import SIGNER, signing_key
from tests.wire.objects import Objects
from tests.wire.signatures import SignedRequests

KEY = f"{KEY_NAME}/cryptoKeyVersions/1"
BUCKET_OF_PATH = re.compile(r"/(?:(?:(?:upload|download)/)?storage/v1/b/)?([^/?]+)")


@dataclass
class Buckets:
    """A WSGI application: every bucket is a `CloudStorageServer` of its own."""

    servers: dict[str, CloudStorageServer] = field(default_factory=dict)

    def made(self, name: str, clock: Clock) -> CloudStorageServer:
        """A new, empty bucket, whose objects are as old as `clock` says and encrypted with KEY.

        Signatures count by the time of this machine, as clients sign by it.
        """
        signatures = SignedRequests(SIGNER, signing_key().public_key(), SystemClock())
        self.servers[name] = CloudStorageServer(Objects(name, clock, KEY), signatures)
        return self.servers[name]

    def __call__(self, request: Request) -> Response:
        """Let the bucket that the path names answer."""
        found = BUCKET_OF_PATH.match(request.environ["RAW_URI"])
        server = self.servers.get(unquote(found[1])) if found else None
        return server(request) if server else Response("no such bucket", 404)
