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
        return _signed(signing_key, base64.urlsafe_b64encode(body).decode())

    @classmethod
    def opened(cls, token: str, signing_key: bytes, area: str, now: datetime) -> UploadGrant:
        """The grant of a token; ForbiddenError unless we signed it for this area and it lasts."""
        body = token.partition(".")[0]
        if not hmac.compare_digest(token.encode(), _signed(signing_key, body).encode()):
            raise refused()
        grant = cls(**json.loads(base64.urlsafe_b64decode(body)))
        if grant.area != area or grant.expires <= now.timestamp():
            raise refused()
        return grant


def refused() -> ForbiddenError:
    """The one answer to tokens that are foreign, altered, expired or used for something else."""
    return ForbiddenError("This upload address is not valid, or no longer.", reason="upload_token")


def _signed(signing_key: bytes, body: str) -> str:
    return f"{body}.{hmac.digest(signing_key, f'upload:{body}'.encode(), 'sha256').hex()}"
