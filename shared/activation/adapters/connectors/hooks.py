"""Events to the addresses that organizations registered, signed by the Standard Webhooks scheme."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from activation.adapters.connectors.addresses import require_url
from activation.adapters.connectors.http import (
    Patience,
    PlatformHTTP,
    retry_after,
    trace_header,
)
from activation.adapters.connectors.webhook import signed, signing_key
from activation.ports import Clock, HookReply, JSONObject

PATIENCE = Patience(connect=3, read=10, whole=10, reads_body=False)
"""A receiver has ten seconds in all: it should note the event and answer, and work afterwards."""


class HookPoster:
    """Posts to addresses that strangers chose: only to public hosts, and never for long."""

    def __init__(
        self, clock: Clock, *, allow_private_hosts: bool = False, patience: Patience = PATIENCE
    ) -> None:
        self._http = PlatformHTTP(clock, allow_private_hosts=allow_private_hosts, patience=patience)

    def require(self, url: str) -> None:
        """Raise ValidationError (URL_NOT_ALLOWED) for what can be seen to lead nowhere good."""
        require_url(url, field="url", allow_private_hosts=self._http.allow_private_hosts)

    def post(
        self, url: str, secrets: Sequence[str], message_id: str, document: JSONObject
    ) -> HookReply:
        """Post once; whatever the receiver answers is a reply."""
        body, now = orjson.dumps(dict(document)), self._http.clock.now()
        keys = [signing_key(secret) for secret in secrets]
        headers = {"Content-Type": "application/json", **trace_header()}
        reply = self._http.call(
            "POST",
            url,
            headers={**headers, **signed(keys, message_id, now, body)},
            content=body,
            refusal=lambda _reply, _now: None,
            attempts=1,
        )
        return HookReply(reply.status, retry_after(reply.headers.get("retry-after"), now))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
