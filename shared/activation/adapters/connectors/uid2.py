"""Hashed e-mails and phones become raw UID2 or EUID: an operator's identity map v3.

The raw ids are kept in memory alone, under a digest, until the operator says that they may change
and never longer than a day, so that an opt-out is not overlooked. Facts: docs/platforms.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from activation.adapters.connectors.http import PlatformHTTP, Reply, http_refusal
from activation.domain.identifier import IdentifierType
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError

PATH = "/v3/identity/map"
BINARY = "application/octet-stream"
VERSION = b"\x01"
IV_BYTES, NONCE_BYTES, TIME_BYTES, KEY_BYTES = 12, 8, 8, 32
MAX_ITEMS = 5_000
MAX_KEPT = 50_000
LONGEST_KEPT = timedelta(hours=24)
MILLISECONDS_FROM = 100_000_000_000
"""A refresh time from here on is in milliseconds: the SDKs read seconds, the documentation shows
milliseconds."""
KINDS: Mapping[IdentifierType, str] = {
    IdentifierType.EMAIL: "email_hash",
    IdentifierType.PHONE: "phone_hash",
}
OPTED_OUT, INVALID, NOT_MAPPED = "optout", "invalid identifier", "not mapped"
"""Reasons why a hash has no raw id; the last stands for all that are not documented."""

_RAW_ID = re.compile(r"[A-Za-z0-9+/]{43}[A-Za-z0-9+/=]")
"""32 bytes in base64, or 33 with one that tells the kind."""

Hashed = tuple[IdentifierType, str]
"""A type and a SHA-256 as lower-case hex."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Where an identity map is, and who asks."""

    url: str
    api_key: str = field(repr=False)
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """What an operator knows of one hash: a raw id, or the reason why there is none."""

    raw: str = field(default="", repr=False)
    previous: str | None = field(default=None, repr=False)
    """The raw id that was in its place, when it changed within the last 90 days."""
    reason: str | None = None
    keep_until: datetime = field(default=datetime.min.replace(tzinfo=UTC), repr=False)


class IdentityMap:
    """Resolves hashes; one per process, safe to share between threads."""

    def __init__(self, http: PlatformHTTP) -> None:
        self._http = http
        self._lock = threading.Lock()
        self._kept: dict[bytes, Identity] = {}

    def resolved(self, operator: Operator, wanted: Sequence[Hashed]) -> list[Identity]:
        """What the operator knows of each hash, in order.

        Raises PlatformAuthError, PlatformTransientError or PlatformError as the operator refuses.
        """
        names = [_name(operator, hashed) for hashed in wanted]
        known = self._held(names)
        asked = dict(zip(names, wanted, strict=True))
        missing = {name: hashed for name, hashed in asked.items() if name not in known}
        for chunk in _chunks(list(missing.items())):
            identities = self._asked(operator, [hashed for _, hashed in chunk])
            known.update(zip((name for name, _ in chunk), identities, strict=True))
        self._keep({name: known[name] for name in missing})
        return [known[name] for name in names]

    def _held(self, names: Sequence[bytes]) -> dict[bytes, Identity]:
        now = self._http.clock.now()
        with self._lock:
            held = {name: self._kept[name] for name in names if name in self._kept}
        return {name: identity for name, identity in held.items() if identity.keep_until > now}

    def _keep(self, fresh: Mapping[bytes, Identity]) -> None:
        """Mapped hashes only: who has opted out, or is unknown, is asked about again."""
        mapped = {name: identity for name, identity in fresh.items() if identity.reason is None}
        with self._lock:
            if len(self._kept) + len(mapped) > MAX_KEPT:
                self._kept.clear()
            self._kept.update(mapped)

    def _asked(self, operator: Operator, wanted: Sequence[Hashed]) -> list[Identity]:
        key = secret_key(operator.client_secret)
        nonce, iv = secrets.token_bytes(NONCE_BYTES), secrets.token_bytes(IV_BYTES)
        body = sealed(key, iv, self._http.clock.now(), nonce, question(wanted))

        def read(reply: Reply) -> list[Identity]:
            return answers(opened(key, nonce, reply.content), wanted, self._http.clock.now())

        def meaning(reply: Reply, now: datetime) -> PlatformError | None:
            error = refusal(reply, now)
            if error is None:
                try:
                    read(reply)
                except ValueError:
                    return PlatformTransientError("The operator's answer does not fit the request.")
            return error

        headers = {"Authorization": f"Bearer {operator.api_key}", "Content-Type": BINARY}
        url = operator.url.rstrip("/") + PATH
        return read(self._http.call("POST", url, headers=headers, content=body, refusal=meaning))


def _name(operator: Operator, hashed: Hashed) -> bytes:
    parts = (operator.url, operator.api_key, *hashed)
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()


def _chunks(missing: Sequence[tuple[bytes, Hashed]]) -> Iterator[Sequence[tuple[bytes, Hashed]]]:
    for start in range(0, len(missing), MAX_ITEMS):
        yield missing[start : start + MAX_ITEMS]


# The envelope -----------------------------------------------------------------------------------


def secret_key(client_secret: str) -> bytes:
    """The AES-256 key of a client secret; raises PlatformAuthError when it is not one."""
    try:
        key = base64.b64decode(client_secret, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise PlatformAuthError("The UID2 client secret is not base64 of 32 bytes.")
    return key


def sealed(key: bytes, iv: bytes, now: datetime, nonce: bytes, content: bytes) -> bytes:
    """A request: version, iv, and under AES-256-GCM the time, the nonce and the content."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    milliseconds = round(now.timestamp() * 1000).to_bytes(TIME_BYTES, "big")
    return VERSION + iv + AESGCM(key).encrypt(iv, milliseconds + nonce + content, None)


def opened(key: bytes, nonce: bytes, envelope: bytes) -> bytes:
    """The content of an answer; raises ValueError unless it was made for this nonce."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        plain = AESGCM(key).decrypt(envelope[:IV_BYTES], envelope[IV_BYTES:], None)
    except (InvalidTag, ValueError):
        raise ValueError("the envelope does not open") from None
    start = TIME_BYTES + NONCE_BYTES
    if plain[TIME_BYTES:start] != nonce:
        raise ValueError("the envelope answers another request")
    return plain[start:]


# What is asked and answered ---------------------------------------------------------------------


def question(wanted: Sequence[Hashed]) -> bytes:
    """The hashes as base64, by kind."""
    lists: dict[str, list[str]] = {}
    for kind, digest in wanted:
        encoded = base64.b64encode(bytes.fromhex(digest)).decode()
        lists.setdefault(KINDS[kind], []).append(encoded)
    return orjson.dumps(lists)


def answers(content: bytes, wanted: Sequence[Hashed], now: datetime) -> list[Identity]:
    """What was found, in the order of `wanted`; raises ValueError for any other document."""
    try:
        document = orjson.loads(content)
        if document["status"] != "success":
            raise ValueError("no success")
        lists = {kind: iter(document["body"][name]) for kind, name in _asked_kinds(wanted).items()}
        found = [_identity(next(lists[kind]), now) for kind, _ in wanted]
    except (KeyError, TypeError, AttributeError, StopIteration, OverflowError, OSError):
        raise ValueError("not an answer of the identity map") from None
    if any(list(rest) for rest in lists.values()):
        raise ValueError("more answers than questions")
    return found


def _asked_kinds(wanted: Sequence[Hashed]) -> dict[IdentifierType, str]:
    return {kind: KINDS[kind] for kind, _ in wanted}


def _identity(item: Mapping[str, Any], now: datetime) -> Identity:
    if "e" in item:
        known = item["e"] in (OPTED_OUT, INVALID)
        return Identity(reason=item["e"] if known else NOT_MAPPED)
    raw, previous, refresh = item["u"], item.get("p"), item["r"]
    if type(refresh) is not int or not all(_RAW_ID.fullmatch(v) for v in (raw, previous or raw)):
        raise ValueError("not a raw id")
    seconds = refresh / 1000 if refresh >= MILLISECONDS_FROM else refresh
    keep_until = min(datetime.fromtimestamp(seconds, UTC), now + LONGEST_KEPT)
    return Identity(raw, previous, keep_until=keep_until)


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply; the operator names a `status` in all but 200 and 429."""
    error = http_refusal(reply, now)
    parsed = reply.parsed() if error else None
    status = parsed.get("status") if isinstance(parsed, dict) else None
    if error is not None and status in ("client_error", "unauthorized"):
        error.platform_code = status
    return error
