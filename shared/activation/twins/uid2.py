"""The twin of a UID2 or EUID operator: the identity map v3, under its envelope."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import orjson
from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.shapes import Many, problem
from activation.twins.wsgi import Refused, json_response

PATH = "/v3/identity/map"
BINARY = "application/octet-stream"
VERSION = 1
IV_BYTES, HEAD_BYTES, NONCE_START = 12, 16, 8
WINDOW = timedelta(seconds=60)
MAX_ITEMS = 5_000
MAX_BYTES = 1024 * 1024
PREVIOUS_KNOWN = timedelta(days=90)
TWIN_KEY = "twin-uid2-key"
TWIN_SECRET = base64.b64encode(b"of the twin, for nobody elses id").decode()
KINDS = {"email_hash": "email", "phone_hash": "phone"}
_QUESTION = {name: Many(str) for name in ("email", "phone", *KINDS)}


def raw_id(kind: str, digest: str, *, scope: str = "uid2", generation: int = 0) -> str:
    """The raw id of a hash (`email` or `phone`, hex): always the same until a rotation.

    EUID have a byte that tells their kind before the other 32, and so no padding.
    """
    raw = hashlib.sha256(f"{scope}:{kind}:{digest}:{generation}".encode()).digest()
    return base64.b64encode(raw if scope == "uid2" else b"\x10" + raw).decode()


class IdentityOperator:
    """One operator with one participant. `asked` counts the hashes it was asked for.

    Hashes in `optouts` have no raw id; those in `unknown` are no identifiers (hex). The time in
    an answer's `r` is `refresh_seconds` ahead. More than 5,000 hashes are refused with 400, as
    are plain e-mails and phones: assumptions of the twin.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        api_key: str = TWIN_KEY,
        client_secret: str = TWIN_SECRET,
        scope: str = "uid2",
        optouts: Iterable[str] = (),
        unknown: Iterable[str] = (),
        refresh_seconds: int = 7 * 86_400,
    ) -> None:
        self.clock = clock
        self.optouts = set(optouts)
        self.unknown = set(unknown)
        self.refresh_seconds = refresh_seconds
        self.asked = 0
        self.generation = 0
        self._rotated_at: datetime | None = None
        self._api_key = api_key
        self._key = base64.b64decode(client_secret)
        self._scope = scope

    def rotate(self) -> None:
        """Give everybody a new raw id; the one before is told of for 90 days."""
        self.generation += 1
        self._rotated_at = self.clock.now()

    def raw_id(self, kind: str, digest: str) -> str:
        """The raw id of a hash today."""
        return raw_id(kind, digest, scope=self._scope, generation=self.generation)

    def respond(self, request: Request) -> Response:
        """Answer a request; raises Refused."""
        if (request.method, request.path) != ("POST", PATH):
            raise _refused(404, "client_error", "There is no such endpoint.")
        if request.headers.get("Authorization") != f"Bearer {self._api_key}":
            raise _refused(401, "unauthorized", "The bearer token is missing or wrong.")
        content = request.get_data()
        if len(content) > MAX_BYTES:
            raise _refused(413, "client_error", "The request is larger than 1 MB.")
        binary = request.mimetype == BINARY
        nonce, question = self._opened(content if binary else _decoded(content))
        answer = self._sealed(nonce, orjson.dumps(self._answer(question)))
        if binary:
            return Response(answer, content_type=BINARY)
        return Response(base64.b64encode(answer), content_type="text/plain")

    def _opened(self, envelope: bytes) -> tuple[bytes, Mapping[str, list[str]]]:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(envelope) < 1 + IV_BYTES + HEAD_BYTES or envelope[0] != VERSION:
            raise _refused(400, "client_error", "The envelope is none of version 1.")
        iv, rest = envelope[1 : 1 + IV_BYTES], envelope[1 + IV_BYTES :]
        try:
            plain = AESGCM(self._key).decrypt(iv, rest, None)
        except InvalidTag:
            raise _refused(400, "client_error", "The envelope does not open.") from None
        sent_at = int.from_bytes(plain[:NONCE_START], "big") / 1000
        if abs(self.clock.now().timestamp() - sent_at) > WINDOW.total_seconds():
            raise _refused(400, "client_error", "The time in the envelope is not now.")
        return plain[NONCE_START:HEAD_BYTES], _question(plain[HEAD_BYTES:])

    def _sealed(self, nonce: bytes, content: bytes) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        iv = secrets.token_bytes(IV_BYTES)
        milliseconds = round(self.clock.now().timestamp() * 1000).to_bytes(8, "big")
        return iv + AESGCM(self._key).encrypt(iv, milliseconds + nonce + content, None)

    def _answer(self, question: Mapping[str, list[str]]) -> dict[str, Any]:
        body: dict[str, list[dict[str, Any]]] = {name: [] for name in _QUESTION}
        for name, kind in KINDS.items():
            body[name] = [self._mapped(kind, text) for text in question.get(name, ())]
            self.asked += len(body[name])
        return {"body": body, "status": "success"}

    def _mapped(self, kind: str, text: str) -> dict[str, Any]:
        try:
            digest = base64.b64decode(text, validate=True).hex()
        except binascii.Error:
            digest = ""
        if len(digest) != 64 or digest in self.unknown:
            return {"e": "invalid identifier"}
        if digest in self.optouts:
            return {"e": "optout"}
        refresh = int(self.clock.now().timestamp()) + self.refresh_seconds
        return {"u": self.raw_id(kind, digest), "p": self._previous(kind, digest), "r": refresh}

    def _previous(self, kind: str, digest: str) -> str | None:
        if self._rotated_at is None or self.clock.now() - self._rotated_at > PREVIOUS_KNOWN:
            return None
        return raw_id(kind, digest, scope=self._scope, generation=self.generation - 1)


def _question(content: bytes) -> Mapping[str, list[str]]:
    try:
        question: dict[str, list[str]] = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _refused(400, "client_error", "The content is not JSON.") from None
    if problem(question, _QUESTION) is not None or not any(question.values()):
        raise _refused(400, "client_error", "The content is no question.")
    if question.get("email") or question.get("phone"):
        raise _refused(400, "client_error", "The twin takes no plain e-mails and phones.")
    if sum(map(len, question.values())) > MAX_ITEMS:
        raise _refused(400, "client_error", f"More than {MAX_ITEMS} items.")
    return question


def _decoded(content: bytes) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        raise _refused(400, "client_error", "The body is not base64.") from None


def _refused(status: int, name: str, message: str) -> Refused:
    return Refused(json_response({"status": name, "message": message}, status))
