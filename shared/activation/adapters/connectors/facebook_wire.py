"""The Graph API on the wire: bodies as JSON, what answers mean, and which rows they reject."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from activation.adapters.connectors.http import Reply, json_refusal
from activation.adapters.connectors.json_rows import rows_of_one
from activation.domain.delivery import Delivery, Operation, SendOutcome
from activation.domain.identifier import HASHED_TYPES, IdentifierType
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError

KEYS: Mapping[IdentifierType, str] = {
    IdentifierType.EMAIL: "EMAIL",
    IdentifierType.PHONE: "PHONE",
    IdentifierType.MAID: "MADID",
    IdentifierType.CUSTOMER_ID: "EXTERN_ID",
}
OPTIONS = "DATA_PROCESSING_OPTIONS"
REMOVAL = 1 << 62
INVALID = "invalid_entry"
NOT_RECEIVED = "not_received"

RATE_LIMITS = frozenset({4, 17, 32, 613, 80003, 80004})
TRANSIENT = frozenset({1, 2, 341, 368, 803, 5000, 21009}) | RATE_LIMITS
"""803 is an audience that was made a moment ago and is not known everywhere yet."""
RECONNECT = frozenset({102, 190, 452, 459})
FLAGGED_STATUS = 471
FLAGGED_SUBCODE = 1713230


def session_id(delivery: Delivery) -> int:
    """The number of the upload session; removals of the same lane get another one."""
    return delivery.session_id ^ (REMOVAL if delivery.operation == Operation.REMOVE else 0)


def request_body(
    settings: Mapping[str, Any], delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """`payload` and `session` of one batch; an absent identifier is an empty text."""
    given = [kind for kind in KEYS if kind in columns]
    schema, ends = [KEYS[kind] for kind in given], ""
    if delivery.consent.limited_data_use:
        schema += [OPTIONS, f"{OPTIONS}_COUNTRY", f"{OPTIONS}_STATE"]
        ends = f',["LDU"],{settings["ldu_country"]},{settings["ldu_state"]}'
    return {
        "payload": {"schema": schema, "data": orjson.Fragment(_rows(given, columns, ends))},
        "session": {
            "session_id": session_id(delivery),
            "batch_seq": seq,
            "last_batch_flag": seq == delivery.batches,
            "estimated_num_total": delivery.rows,
        },
    }


def _rows(
    given: Sequence[IdentifierType], columns: Mapping[str, Sequence[Any]], ends: str
) -> bytes | str:
    """All rows as a JSON list of lists, with `ends` at the end of each."""

    def around(kind: str) -> tuple[str, str]:
        place = given.index(IdentifierType(kind))
        return '["' + '","' * place, '","' * (len(given) - 1 - place) + f'"{ends}]'

    # Devices are sent in lower case.
    alone = None if IdentifierType.MAID in given else rows_of_one(columns, around, b",")
    if alone is not None:
        return b"".join([b"[", alone, b"]"])
    texts = [_json_texts(kind, columns[kind]) for kind in given]
    rows = map('","'.join, zip(*texts, strict=True))
    return '[["' + f'"{ends}],["'.join(rows) + f'"{ends}]]'


def _json_texts(kind: IdentifierType, column: Sequence[Any]) -> list[str]:
    """Values as they stand between quotes in JSON; hexadecimal digits need no escapes."""
    values = _values(kind, column)
    if kind in HASHED_TYPES:
        return values
    return [orjson.dumps(value).decode()[1:-1] for value in values]


def _values(kind: IdentifierType, column: Sequence[Any]) -> list[str]:
    if kind is IdentifierType.MAID:
        return [value.lower() if value else "" for value in column]
    return [value or "" for value in column]


def appsecret_proof(app_secret: str, access_token: str) -> str:
    """Proof that the caller holds the app's secret, as hexadecimal text."""
    return hmac.new(app_secret.encode(), access_token.encode(), hashlib.sha256).hexdigest()


# Which rows Meta did not take -------------------------------------------------------------------


def outcome(
    answer: Mapping[str, Any], receipt: str, columns: Mapping[str, Sequence[Any]]
) -> SendOutcome:
    """Invalid rows are counted; they are named when the samples show every one of them.

    The samples may be customer data. They are compared with the rows that were sent, and
    forgotten.
    """
    count = int(answer.get("num_invalid_entries") or 0)
    if not count:
        return SendOutcome(receipt=receipt)
    samples = answer.get("invalid_entry_samples")
    for texts in (samples.values(), samples) if isinstance(samples, dict) else ():
        rows = _shown_rows(map(str, texts), columns)
        if len(rows) == count:
            return SendOutcome(rejected=dict.fromkeys(rows, INVALID), receipt=receipt)
    return SendOutcome(unplaced_rejects={INVALID: count}, receipt=receipt)


def complete(
    sent: SendOutcome, answer: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]
) -> SendOutcome:
    """The outcome, where Meta says that it received fewer rows than were sent also with those."""
    rows, received = len(next(iter(columns.values()))), answer.get("num_received")
    if not str(received).isdecimal() or int(str(received)) >= rows:
        return sent
    lost = {NOT_RECEIVED: rows - int(str(received))}
    return replace(sent, unplaced_rejects={**sent.unplaced_rejects, **lost})


def _shown_rows(samples: Iterable[str], columns: Mapping[str, Sequence[Any]]) -> list[int]:
    """Positions of the rows that samples show: as a whole, or by a value of theirs.

    None when a sample shows no row, for then it is not known what samples look like.
    """
    wanted = {_sample_values(text) for text in samples}
    single = {sample[0] for sample in wanted if len(sample) == 1}
    lists = [_values(kind, columns[kind]) for kind in KEYS if kind in columns]
    shown: list[int] = []
    met: set[tuple[str, ...]] = set()
    for row, values in enumerate(zip(*lists, strict=True)):
        found = {(value,) for value in values if value in single} | ({values} & wanted)
        if found:
            shown.append(row)
            met |= found
    return shown if met == wanted else []


def _sample_values(text: str) -> tuple[str, ...]:
    """A sample as the values of a row, or as a single one."""
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        return (text,)
    if not isinstance(parsed, list):
        return (text,)
    return tuple(value for value in parsed if isinstance(value, str))


# What Meta's answers mean -----------------------------------------------------------------------


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply; Meta's own code counts more than the status."""
    usual = json_refusal(reply, now)
    parsed = reply.parsed()
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("code"), int):
        return usual
    code = error["code"]
    name = ".".join(str(part) for part in (code, error.get("error_subcode")) if part is not None)
    if error.get("error_subcode") == FLAGGED_SUBCODE:
        return flagged(name)
    if code in RECONNECT:
        return PlatformAuthError("Meta refuses the access token.", platform_code=name)
    if code in TRANSIENT or error.get("is_transient") is True:
        return PlatformTransientError(
            f"Meta answered with code {name}; it asks for patience.",
            platform_code=name,
            retry_after_seconds=_regain_seconds(reply) if code in RATE_LIMITS else None,
        )
    if isinstance(usual, PlatformTransientError):
        return usual
    return PlatformError(f"Meta refused with code {name}.", platform_code=name)


def flagged(code: str) -> PlatformError:
    """The error about an audience that Meta has flagged: only an appeal at Meta helps."""
    return PlatformError(
        "Meta has flagged this audience; appeal in its Audience Manager.",
        platform_code=code,
        reason="audience_flagged",
    )


def _regain_seconds(reply: Reply) -> float | None:
    """How long until calls are allowed again; the header tells minutes per business."""
    try:
        usage = orjson.loads(reply.headers.get("x-business-use-case-usage", ""))
        minutes = [
            float(entry.get("estimated_time_to_regain_access") or 0)
            for entries in usage.values()
            for entry in entries
        ]
    except (ValueError, TypeError, AttributeError):
        return None
    return max(minutes, default=0.0) * 60 or None
