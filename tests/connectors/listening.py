"""An observer that keeps what it is told, and what must never be in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import orjson

from activation.domain.exchange import Exchange

SHAPES = (
    re.compile(r"[0-9a-fA-F]{32,}"),
    re.compile(r"(?=\w*\d)(?=\w*[a-z])[A-Za-z0-9+_-]{36,}={0,2}"),
    re.compile(r"[\w.+-]+@[\w.-]+"),
    re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-"),
    re.compile(r"twin-(?:token|secret|refresh|client)|ya29|whsec_|Bearer"),
)
"""Hashes, UID2s and tokens, addresses, device ids, credentials of the twins."""


@dataclass
class Ear:
    """An observer that keeps what it is told."""

    only_failures: bool = False
    heard: list[Exchange] = field(default_factory=list)

    def wants(self, *, failed: bool) -> bool:
        return failed or not self.only_failures

    def saw(self, exchange: Exchange) -> None:
        self.heard.append(exchange)

    @property
    def bytes(self) -> bytes:
        return b"\n".join(orjson.dumps(one.model_dump(mode="json")) for one in self.heard)


def personal(ear: Ear) -> list[str]:
    """What was heard that looks like a person or a secret; digests of large bodies are ours."""
    own = [
        body.sha256
        for one in ear.heard
        for body in (one.request, one.answer)
        if body is not None and body.sha256 is not None
    ]
    text = ear.bytes.decode()
    for digest in own:
        text = text.replace(digest, "")
    return [match for shape in SHAPES for match in shape.findall(text)]
