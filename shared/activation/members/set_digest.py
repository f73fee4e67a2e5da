"""The digest of a set of outgoing identifiers: a sum, so that order and batches do not matter.

    element = SHAKE-128("<type>:<value>"), 512 bytes, read as a big-endian number
    digest  = SHA-256 of the sum of all elements modulo 2^4096, as 512 big-endian bytes

A value is what is sent: a hash as 64 lower-case hex digits, any other text as it is. An identifier
that is sent twice counts twice. Why so wide: docs/adr/0009-evidence-is-signed.md.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

METHOD = "sha256(sum(shake128_4096(type:value)) mod 2^4096)"
WIDTH_BYTES = 512
MODULUS = 1 << 8 * WIDTH_BYTES


@dataclass(frozen=True, slots=True)
class SetDigest:
    """The sum over `identifiers` identifiers so far."""

    total: int = 0
    identifiers: int = 0

    def with_columns(self, columns: Mapping[str, Sequence[str | None]]) -> SetDigest:
        """The digest with a batch more: values by identifier type, None where there is none."""
        total, count = self.total, self.identifiers
        for kind, values in columns.items():
            given = [f"{kind}:{value}".encode() for value in values if value is not None]
            digests = (hashlib.shake_128(text).digest(WIDTH_BYTES) for text in given)
            total += sum(map(int.from_bytes, digests))
            count += len(given)
        return SetDigest(total % MODULUS, count)

    @property
    def value(self) -> str:
        """The digest, 64 hex digits."""
        return hashlib.sha256(self.total.to_bytes(WIDTH_BYTES, "big")).hexdigest()

    def packed(self) -> str:
        """The sum as text, to go on from later."""
        return base64.b64encode(self.total.to_bytes(WIDTH_BYTES, "big")).decode()

    @classmethod
    def unpacked(cls, text: str, identifiers: int) -> SetDigest:
        """The digest from its packed sum."""
        return cls(int.from_bytes(base64.b64decode(text), "big"), identifiers)
