"""A receiver of signed webhooks that checks everything a careful receiver would, and lists."""

from __future__ import annotations

import base64
import hashlib
import hmac
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.members import TwinAudience, member_key
from activation.twins.shapes import ANY, Many, problem
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
_EVENT = {"type": str, "timestamp": str, "data": ANY}


class WebhookTwin(Twin):
    """Takes messages signed with any of `secrets` (`whsec_…`), each message id once.

    It tells its members in pages of `page_size`, in the order of their keys.
    """

    def __init__(self, clock: Clock, *, secrets: Sequence[str], page_size: int = 1_000) -> None:
        super().__init__(clock)
        self.audiences: dict[str, TwinAudience] = {}
        self.members: dict[str, dict[bytes, tuple[str, str]]] = {}
        """Type and value of each member, by audience and key."""
        self._page_size = page_size
        self._ordered: dict[str, list[bytes]] = {}
        self.message_ids: list[str] = []
        """Ids in order of arrival, repeats left out."""
        self.events: dict[str, dict[str, Any]] = {}
        """Events by id, each as it was posted."""
        self._keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
        self._seen: dict[str, str] = {}

    def trust(self, secret: str) -> None:
        """Take messages signed with `secret` too."""
        self._keys.append(base64.b64decode(secret.removeprefix("whsec_")))

    def contents(self) -> dict[str, Any]:
        """The audiences, by the id that the sender gave them."""
        return {
            "audiences": [audience.summary() for audience in self.audiences.values()],
            "messages": len(self.message_ids),
        }

    def lose(self, audience_id: str, kind: str, value: str) -> None:
        """Forget a member, as a receiver does that came back from an old backup."""
        with self._lock:
            key = member_key(kind, value)
            del self.members[audience_id][key]
            self.audiences[audience_id].keys.remove(key)
            self._ordered.pop(audience_id, None)

    def respond(self, request: Request) -> Response:
        """Take a message; 204 also for one that was taken before. GET asks for members."""
        if request.method == "GET":
            return self._listed(request)
        if request.method != "POST":
            raise refused(405, "POST and GET only")
        body = request.get_data()
        message_id = self._verified(request, body)
        digest = hashlib.sha256(body).hexdigest()
        if message_id in self._seen:
            if self._seen[message_id] != digest:
                raise refused(409, "the same id with another body")
            return Response(status=204)
        self._take(message_id, request.mimetype, body)
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

    def _take(self, message_id: str, mimetype: str, body: bytes) -> None:
        event = read_event(mimetype, body)
        if event is not None:
            self.events[message_id] = event
            return
        head, members = read_message(mimetype, body)
        if head["operation"] != "ping":
            self._change(head, members)

    def _change(self, head: Mapping[str, Any], members: Sequence[Mapping[str, str]]) -> None:
        if head["operation"] not in ("add", "remove") or head["rows"] != len(members):
            raise refused(422, "operation or rows is wrong")
        given = {member_key(*pair): pair for member in members for pair in member.items()}
        audience_id = head["audience_id"]
        new = TwinAudience(audience_id, head["audience_name"], external_id=audience_id)
        self.audiences.setdefault(audience_id, new).change(head["operation"], given)
        held = self.members.setdefault(audience_id, {})
        self._ordered.pop(audience_id, None)
        if head["operation"] == "add":
            held.update(given)
        else:
            for key in given:
                held.pop(key, None)

    def _listed(self, request: Request) -> Response:
        """One page: a line per member, then where the next one starts."""
        audience_id, cursor = request.args.get("audience_id", ""), request.args.get("cursor")
        asked = f"list.{audience_id}" + ("" if cursor is None else f".{cursor}")
        if self._verified(request, b"") != asked:
            raise refused(401, "the id does not say what is asked for")
        held = self.members.get(audience_id, {})
        if audience_id not in self._ordered:
            self._ordered[audience_id] = sorted(held)
        keys = self._ordered[audience_id]
        start = 0 if cursor is None else bisect_right(keys, _key_at(cursor))
        page = keys[start : start + self._page_size]
        more = start + len(page) < len(keys)
        lines = [dict(zip(("type", "value"), held[key], strict=True)) for key in page]
        end = {"next": page[-1].hex() if more else None}
        body = b"".join(orjson.dumps(line) + b"\n" for line in (*lines, end))
        return Response(body, content_type="application/x-ndjson")


def refused(status: int, reason: str) -> Refused:
    """A JSON refusal."""
    return Refused(json_response({"error": reason}, status))


def read_event(mimetype: str, body: bytes) -> dict[str, Any] | None:
    """An event of the Standard Webhooks form; None for a batch."""
    try:
        parsed = orjson.loads(body) if mimetype == "application/json" else None
    except orjson.JSONDecodeError:
        return None
    if not isinstance(parsed, dict) or "type" not in parsed:
        return None
    if problem(parsed, _EVENT) or parsed.keys() != _EVENT.keys() or b"@" in body:
        raise refused(422, "an unknown or missing property, or an address")
    return parsed


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


def _key_at(cursor: str) -> bytes:
    try:
        return bytes.fromhex(cursor)
    except ValueError:
        raise refused(400, "not a cursor of ours") from None


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
