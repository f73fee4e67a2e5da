"""Verification of V4 signed URLs, written from the published signing process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256
from werkzeug.wrappers import Request

from activation.ports import Clock
from tests.wire.objects import RefusedError

ALGORITHM = "GOOG4-RSA-SHA256"


@dataclass(frozen=True)
class SignedRequests:
    """Requests that one service account, known by its public key, has signed."""

    email: str
    public_key: Any
    clock: Clock

    def require(self, request: Request, raw_path: str) -> None:
        """Refuse a request whose signature is wrong, too old, or covers too little."""
        try:
            self._require_signature(request, raw_path)
        except (InvalidSignature, KeyError, ValueError) as error:
            raise RefusedError(403, "SignatureDoesNotMatch") from error
        query = request.args
        signed_at = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if self.clock.now() >= signed_at + timedelta(seconds=int(query["X-Goog-Expires"])):
            raise RefusedError(400, "ExpiredToken")

    def _require_signature(self, request: Request, raw_path: str) -> None:
        query = request.args
        signer, _, scope = query["X-Goog-Credential"].partition("/")
        if (signer, query["X-Goog-Algorithm"]) != (self.email, ALGORITHM):
            raise InvalidSignature
        canonical = _canonical(request, raw_path)
        text = "\n".join((ALGORITHM, query["X-Goog-Date"], scope, _digest(canonical)))
        signature = bytes.fromhex(query["X-Goog-Signature"])
        self.public_key.verify(signature, text.encode(), padding.PKCS1v15(), SHA256())


def _canonical(request: Request, raw_path: str) -> str:
    signed = request.args["X-Goog-SignedHeaders"]
    names = signed.split(";")
    present = {name.lower() for name, _ in request.headers}
    if any(name.startswith("x-goog-") for name in present.difference(names)):
        raise InvalidSignature
    headers = "".join(f"{name}:{request.headers.get(name, '').strip()}\n" for name in names)
    pairs = sorted(
        (quote(name, safe="~"), quote(value, safe="~"))
        for name, value in request.args.items()
        if name != "X-Goog-Signature"
    )
    query = "&".join(f"{name}={value}" for name, value in pairs)
    elements = (request.method, raw_path, query, headers, signed, "UNSIGNED-PAYLOAD")
    return "\n".join(elements)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
