"""The twin of Meta's Graph API: custom audiences, their users and upload sessions."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import orjson
from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.members import SHA256_HEX, TwinAudience, is_matched, member_key
from activation.twins.shapes import Many, problem
from activation.twins.wsgi import Refused, Twin, json_response

MAX_ROWS = 10_000
MAX_SESSION_ID = (1 << 63) - 1
MAX_SAMPLES = 10
MAX_PAGE = 500

KINDS = {"EMAIL": "email", "PHONE": "phone", "MADID": "maid", "EXTERN_ID": "customer_id"}
"""Keys of a multi-key schema that the twin can hold."""
SINGLE_KINDS = {
    "EMAIL_SHA256": "email",
    "PHONE_SHA256": "phone",
    "MOBILE_ADVERTISER_ID": "maid",
}
FILE_SOURCES = ("USER_PROVIDED_ONLY", "PARTNER_PROVIDED_ONLY", "BOTH_USER_AND_PARTNER_PROVIDED")
_CREDENTIALS = ("access_token", "appsecret_proof")
_SESSION = {
    "session_id": int,
    "batch_seq": int,
    "last_batch_flag": bool,
    "estimated_num_total": int,
}
_CREATE = {
    "name": str,
    "subtype": str,
    "description": str,
    "customer_file_source": str,
    "audience_labels": Many(str),
}
_FIELDS = (
    "id",
    "name",
    "description",
    "subtype",
    "approximate_count_lower_bound",
    "approximate_count_upper_bound",
    "operation_status",
    "delivery_status",
    "time_updated",
)


@dataclass
class _Session:
    """One upload session of one audience."""

    audience_id: str
    batches: dict[int, str] = field(default_factory=dict)
    """Digest of the content by batch number."""
    last_seq: int | None = None
    ended_at: datetime | None = None
    received: int = 0
    invalid: int = 0
    matched: int = 0
    """Rows in which the platform knows at least one identifier."""


class FacebookTwin(Twin):
    """One ad account and its custom audiences.

    Match results of a session appear `match_delay_seconds` after its last batch. A batch that is
    sent again with the same content is accepted and changes nothing: an assumption of the twin,
    as is that a batch out of sequence is refused with code 100.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ad_account_id: str = "1001",
        access_token: str = "twin-token",  # noqa: S107
        app_secret: str | None = None,
        api_version: str = "v26.0",
        match_rate: float = 0.5,
        match_delay_seconds: float = 3600.0,
        require_session: bool = True,
    ) -> None:
        super().__init__(clock)
        self.audiences: dict[str, TwinAudience] = {}
        self._account = f"act_{ad_account_id}"
        self._token = access_token
        self._secret = app_secret
        self._version = api_version
        self._match_rate = match_rate
        self._delay = timedelta(seconds=match_delay_seconds)
        self._require_session = require_session
        self._sessions: dict[int, _Session] = {}

    def contents(self) -> dict[str, Any]:
        """The custom audiences."""
        return {"audiences": [audience.summary() for audience in self.audiences.values()]}

    def respond(self, request: Request) -> Response:
        """Answer as the Graph API does."""
        version, _, path = request.path.removeprefix("/").partition("/")
        if version != self._version:
            raise refused(2635, f"You are calling a deprecated version: {version}.")
        given = arguments(request)
        self._authenticate(request, given)
        given = {name: value for name, value in given.items() if name not in _CREDENTIALS}
        node, _, edge = path.partition("/")
        if node == self._account and edge == "customaudiences":
            return self._account_audiences(request.method, given)
        audience = self.audiences.get(node)
        if audience is None:
            raise refused(100, "Unsupported request: object does not exist.", subcode=33)
        match request.method, edge:
            case "GET", "":
                return json_response(self._shown(audience, given))
            case "GET", "sessions":
                return self._session_status(audience, given)
            case "POST" | "DELETE" as method, "users":
                return self._change(audience, "add" if method == "POST" else "remove", given)
        raise refused(100, "Unsupported request.", subcode=33)

    def _authenticate(self, request: Request, given: Mapping[str, Any]) -> None:
        header = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if (header or given.get("access_token")) != self._token:
            raise refused(190, "Invalid OAuth access token.", status=401)
        if self._secret is None:
            return
        proof = hmac.new(self._secret.encode(), self._token.encode(), hashlib.sha256).hexdigest()
        if given.get("appsecret_proof") != proof:
            raise refused(100, "Invalid appsecret_proof provided in the API argument.")

    # Audiences

    def _account_audiences(self, method: str, given: dict[str, Any]) -> Response:
        if method == "POST":
            return self._create(given)
        if method != "GET":
            raise refused(100, "Unsupported request.", subcode=33)
        require_known(given, ("fields", "limit", "after", "summary"))
        limit, start = str(given.get("limit", "25")), str(given.get("after", "0"))
        if not (limit.isdigit() and start.isdigit() and 1 <= int(limit) <= MAX_PAGE):
            raise refused(100, "Invalid paging.")
        found = list(self.audiences.values())
        end = int(start) + int(limit)
        rows = [self._shown(audience, given) for audience in found[int(start) : end]]
        paging: dict[str, Any] = {"cursors": {"before": start, "after": str(end)}}
        if end < len(found):
            paging["next"] = "https://graph.facebook.com/next"
        return json_response({"data": rows, "paging": paging})

    def _create(self, given: dict[str, Any]) -> Response:
        require_shape(given, _CREATE)
        if given.get("subtype") != "CUSTOM" or not given.get("name"):
            raise refused(100, "name and subtype CUSTOM are required.")
        if given.get("customer_file_source") not in FILE_SOURCES:
            raise refused(100, "customer_file_source is required.")
        audience_id = str(23_850_000_000_000 + len(self.audiences))
        self.audiences[audience_id] = TwinAudience(
            audience_id,
            given["name"],
            description=given.get("description", ""),
            created_at=self.clock.now(),
        )
        return json_response({"id": audience_id})

    def _shown(self, audience: TwinAudience, given: Mapping[str, Any]) -> dict[str, Any]:
        count = sum(is_matched(key, self._match_rate) for key in audience.keys)
        whole = {
            "id": audience.audience_id,
            "name": audience.name,
            "description": audience.description,
            "subtype": "CUSTOM",
            "approximate_count_lower_bound": count,
            "approximate_count_upper_bound": count,
            "operation_status": {"code": 200, "description": "Normal"},
            "delivery_status": {"code": 200, "description": "Ready"},
            "time_updated": int(self.clock.now().timestamp()),
        }
        wanted = str(given.get("fields", "id")).split(",")
        for name in wanted:
            if name not in _FIELDS:
                raise refused(100, f"Tried accessing nonexisting field ({name}).")
        return {name: whole[name] for name in dict.fromkeys(["id", *wanted])}

    # Users

    def _change(self, audience: TwinAudience, operation: str, given: dict[str, Any]) -> Response:
        require_known(given, ("payload", "session"))
        payload = given.get("payload")
        kinds, rows = read_payload(payload)
        found, samples, invalid = read_rows(kinds, rows)
        session = self._session(audience, given.get("session"), orjson.dumps([operation, payload]))
        audience.change(operation, chain.from_iterable(found))
        if session is not None:
            session.received += len(rows)
            session.invalid += invalid
            session.matched += sum(self._knows(keys) for keys in found)
        return json_response(
            {
                "audience_id": audience.audience_id,
                "session_id": str((given.get("session") or {}).get("session_id", "")),
                "num_received": len(rows),
                "num_invalid_entries": invalid,
                "invalid_entry_samples": samples or [],
            }
        )

    def _session(self, audience: TwinAudience, given: Any, content: bytes) -> _Session | None:
        """The session to count this batch in; None for a repeated batch."""
        if given is None and not self._require_session:
            return None
        require_shape(given, _SESSION)
        number, seq = given.get("session_id", 0), given.get("batch_seq", 0)
        if not (0 < number <= MAX_SESSION_ID and seq >= 1):
            raise refused(100, "session_id and batch_seq must be positive.")
        session = self._sessions.setdefault(number, _Session(audience.audience_id))
        if session.audience_id != audience.audience_id:
            raise refused(100, "The session belongs to another audience.")
        digest = hashlib.sha256(content).hexdigest()
        if session.batches.get(seq) == digest:
            return None
        if session.last_seq is not None or seq != len(session.batches) + 1:
            raise refused(100, "batch_seq must rise by one, up to the last batch.")
        session.batches[seq] = digest
        if given.get("last_batch_flag"):
            session.last_seq, session.ended_at = seq, self.clock.now()
        return session

    def _knows(self, keys: list[bytes]) -> bool:
        return any(is_matched(key, self._match_rate) for key in keys)

    def _session_status(self, audience: TwinAudience, given: dict[str, Any]) -> Response:
        require_known(given, ("session_id", "fields"))
        number = str(given.get("session_id", ""))
        session = self._sessions.get(int(number)) if number.isdigit() else None
        if session is None or session.audience_id != audience.audience_id:
            return json_response({"data": []})
        ended = session.ended_at
        done = ended is not None and self.clock.now() >= ended + self._delay
        matched = session.matched if done else -1
        status = {
            "session_id": number,
            "num_received": str(session.received),
            "num_matched": str(matched),
            "num_invalid_entries": str(session.invalid),
            "progress": "100" if done else "0",
            "stage": "complete" if done else "uploading",
        }
        return json_response({"data": [status]})


def refused(code: int, message: str, *, subcode: int | None = None, status: int = 400) -> Refused:
    """Meta's error body."""
    error: dict[str, Any] = {"message": f"(#{code}) {message}", "type": "OAuthException"}
    error |= {"code": code, "fbtrace_id": "twin"}
    if subcode is not None:
        error["error_subcode"] = subcode
    return Refused(json_response({"error": error}, status))


def arguments(request: Request) -> dict[str, Any]:
    """The arguments of a call: query and form with JSON in their values, or a JSON body."""
    given: dict[str, Any] = {name: _value(text) for name, text in request.args.items()}
    if request.mimetype == "application/json":
        try:
            body = orjson.loads(request.get_data())
        except orjson.JSONDecodeError:
            raise refused(100, "The body is not JSON.") from None
        if not isinstance(body, dict):
            raise refused(100, "The body is not a JSON object.")
        return given | body
    return given | {name: _value(text) for name, text in request.form.items()}


def _value(text: str) -> Any:
    if not text.startswith(("{", "[")):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def require_known(given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse an argument that the edge does not have."""
    for name in given:
        if name not in known:
            raise refused(100, f"Unknown parameter {name}.")


def require_shape(given: Any, shape: dict[str, Any]) -> None:
    """Refuse unknown properties and wrong types."""
    found = problem(given, shape)
    if found is not None:
        raise refused(100, f"Invalid parameter {found.path} ({found.kind}).")


def read_payload(payload: Any) -> tuple[list[str], list[Any]]:
    """The kinds of identifier in a payload's columns, and its rows."""
    if not isinstance(payload, dict) or not isinstance(payload.get("data"), list):
        raise refused(100, "payload needs schema and data.")
    require_known(payload, ("schema", "data", "is_raw", "app_ids"))
    rows, schema = payload["data"], payload.get("schema")
    if not 1 <= len(rows) <= MAX_ROWS:
        raise refused(100, f"payload must have 1 to {MAX_ROWS} rows.")
    if isinstance(schema, str) and schema in SINGLE_KINDS:
        return [SINGLE_KINDS[schema]], [[value] for value in rows]
    if not isinstance(schema, list) or not schema or any(key not in KINDS for key in schema):
        raise refused(100, "Unknown schema.")
    return [KINDS[key] for key in schema], rows


def read_rows(kinds: list[str], rows: list[Any]) -> tuple[list[list[bytes]], dict[str, str], int]:
    """The keys of each good row, samples of the bad ones, and how many are bad."""
    good: list[list[bytes]] = []
    samples: dict[str, str] = {}
    bad = 0
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(kinds):
            raise refused(100, "Every row must have one value per key of the schema.")
        found = list(_row_keys(kinds, row))
        if found and None not in found:
            good.append([key for key in found if key])
            continue
        bad += 1
        if len(samples) < MAX_SAMPLES:
            samples[str(index)] = orjson.dumps(row).decode()
    return good, samples, bad


def _row_keys(kinds: list[str], row: list[Any]) -> Iterator[bytes | None]:
    """The key of each value that is there; None for one that is not what it should be."""
    for kind, value in zip(kinds, row, strict=True):
        if not isinstance(value, str) or "@" in value:
            raise refused(100, "A value is not hashed.")
        if not value:
            continue
        yield member_key(kind, value) if _is_good(kind, value) else None


def _is_good(kind: str, value: str) -> bool:
    if kind in ("email", "phone"):
        return SHA256_HEX.fullmatch(value) is not None
    return kind != "maid" or re.fullmatch(r"[0-9a-f-]{36}|[0-9a-f]{64}", value) is not None
