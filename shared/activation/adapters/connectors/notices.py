"""Notices to the operator's own address, signed by the Standard Webhooks scheme."""

from __future__ import annotations

import orjson

from activation.adapters.connectors.http import PlatformHTTP, trace_header
from activation.adapters.connectors.webhook import refusal, signed, signing_key
from activation.errors import ValidationError
from activation.ports import Clock, JSONObject


class WebhookNotifier:
    """Posts to one address; `secret` is `whsec_` and base64 of the signing key."""

    def __init__(
        self, clock: Clock, url: str, secret: str, *, allow_private_hosts: bool = False
    ) -> None:
        try:
            self._key = signing_key(secret)
        except ValueError:
            self._key = b""
        if not self._key:
            raise ValidationError(
                "ACTIVATION_RETENTION_WEBHOOK_SECRET must be whsec_ and base64.",
                field="retention_webhook_secret",
            )
        self._http = PlatformHTTP(clock, allow_private_hosts=allow_private_hosts)
        self._url = url

    def send(self, message_id: str, document: JSONObject) -> None:
        """Post the document; any 2xx is a receipt."""
        body = orjson.dumps(dict(document))
        self._http.call(
            "POST",
            self._url,
            headers={
                "Content-Type": "application/json",
                **trace_header(),
                **signed([self._key], message_id, self._http.clock.now(), body),
            },
            content=body,
            refusal=refusal,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
