"""Upload tokens: the right to create one object, signed, for a while."""

from __future__ import annotations

import base64
import hmac
import json
from dataclasses import asdict, dataclass
from datetime import datetime

from activation.errors import ForbiddenError


@dataclass(frozen=True, slots=True)
class UploadGrant:
    """What a token allows: this one object, of this type and size, until an instant (seconds)."""

    area: str
    organization_id: str
    path: str
    content_type: str
    max_bytes: int
    expires: float

    def token(self, signing_key: bytes) -> str:
        """The grant as text that fits into an address."""
        body = json.dumps(asdict(self), separators=(",", ":")).encode()
        return f"{_packed(body)}.{_packed(_signature(signing_key, body))}"

    @classmethod
    def opened(cls, token: str, signing_key: bytes, area: str, now: datetime) -> UploadGrant:
        """The grant of a token; ForbiddenError unless we signed it for this area and it lasts."""
        try:
            body, signature = (base64.urlsafe_b64decode(part) for part in token.split("."))
        except ValueError as error:
            raise refused() from error
        if not hmac.compare_digest(signature, _signature(signing_key, body)):
            raise refused()
        grant = cls(**json.loads(body))
        if grant.area != area or grant.expires <= now.timestamp():
            raise refused()
        return grant


def refused() -> ForbiddenError:
    """The one answer to tokens that are foreign, altered, expired or used for something else."""
    return ForbiddenError("This upload address is not valid, or no longer.", reason="upload_token")


def _signature(signing_key: bytes, body: bytes) -> bytes:
    return hmac.digest(signing_key, b"upload\0" + body, "sha256")


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()
