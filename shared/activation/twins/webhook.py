"""A receiver of signed webhooks that checks everything a careful receiver would."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.members import TwinAudience, member_key
from activation.twins.shapes import Many, problem
from activation.twins.wsgi import Refused, Twin, json_response

TOLERANCE_SECONDS = 300
KINDS = ("email", "phone", "ramp_id", "uid2", "maid", "cookie_id", "customer_id")
_MEMBER = dict.fromkeys(KINDS, str)
_HEAD = {
    "distribution_id": str,
    "audience_id": str,
    "audience_name": str,
    "operation": str,
    "batch_seq": int,
    "last": bool,
    "rows": int,
}


class WebhookTwin(Twin):
    """Takes messages signed with any of `secrets` (`whsec_…`), each message id once."""

    def __init__(self, clock: Clock, *, secrets: Sequence[str]) -> None:
        super().__init__(clock)
        self.audiences: dict[str, TwinAudience] = {}
        self.message_ids: list[str] = []
        """Ids in order of arrival, repeats left out."""
        self._keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
        self._seen: dict[str, str] = {}

    def contents(self) -> dict[str, Any]:
        """The audiences, by the id that the sender gave them."""
        return {
            "audiences": [audience.summary() for audience in self.audiences.values()],
            "messages": len(self.message_ids),
        }

    def respond(self, request: Request) -> Response:
        """Take a message; 204 also for one that was taken before."""
        if request.method != "POST":
            raise refused(405, "POST only")
        body = request.get_data()
        message_id = self._verified(request, body)
        digest = hashlib.sha256(body).hexdigest()
        if message_id in self._seen:
            if self._seen[message_id] != digest:
                raise refused(409, "the same id with another body")
            return Response(status=204)
        head, members = read_message(request.mimetype, body)
        if head["operation"] != "ping":
            self._take(head, members)
        self._seen[message_id] = digest
        self.message_ids.append(message_id)
        return Response(status=204)

    def _verified(self, request: Request, body: bytes) -> str:
        message_id = request.headers.get("webhook-id", "")
        timestamp = request.headers.get("webhook-timestamp", "")
        if not message_id or not timestamp.isdigit():
            raise refused(400, "headers are missing")
        if abs(self.clock.now().timestamp() - int(timestamp)) > TOLERANCE_SECONDS:
            raise refused(401, "the timestamp is too far from now")
        signed = f"{message_id}.{timestamp}.".encode() + body
        good = {_signature(key, signed) for key in self._keys}
        if good.isdisjoint(request.headers.get("webhook-signature", "").split(" ")):
            raise refused(401, "no signature fits")
        return message_id

    def _take(self, head: Mapping[str, Any], members: Sequence[Mapping[str, str]]) -> None:
        if head["operation"] not in ("add", "remove") or head["rows"] != len(members):
            raise refused(422, "operation or rows is wrong")
        keys = [member_key(kind, value) for member in members for kind, value in member.items()]
        audience_id = head["audience_id"]
        new = TwinAudience(audience_id, head["audience_name"], external_id=audience_id)
        self.audiences.setdefault(audience_id, new).change(head["operation"], keys)


def refused(status: int, reason: str) -> Refused:
    """A JSON refusal."""
    return Refused(json_response({"error": reason}, status))


def read_message(mimetype: str, body: bytes) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The head of a message and its members, from either form."""
    try:
        if mimetype == "application/x-ndjson":
            head, *members = (orjson.loads(line) for line in body.splitlines())
        elif mimetype == "application/json":
            head = orjson.loads(body)
            members = head.pop("members", [])
        else:
            raise refused(415, "unknown content type")
    except (orjson.JSONDecodeError, AttributeError, ValueError):
        raise refused(400, "the body cannot be read") from None
    if problem(head, _HEAD) or problem(members, Many(_MEMBER)) or "operation" not in head:
        raise refused(422, "an unknown or missing property")
    if any("@" in value for member in members for value in member.values()):
        raise refused(422, "a value is not hashed")
    return head, members


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
