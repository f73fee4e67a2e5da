"""Amazon Ads Data Manager on the wire: records as JSON text, and what answers mean."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from activation.adapters.connectors.http import (
    Reply,
    http_refusal,
    json_refusal,
    objects,
    shown_code,
)
from activation.domain.consent import NOTHING_SAID, ConsentBasis
from activation.domain.delivery import Delivery
from activation.domain.identifier import Consent
from activation.errors import PlatformError, PlatformRowsError

IDENTITIES = {
    "email": '{"hashedPiis":[{"em":%s}]}',
    "phone": '{"hashedPiis":[{"ph":%s}]}',
    "maid": '{"externalIdentities":[{"maId":%s}]}',
    "ramp_id": '{"externalIdentities":[{"liveRampId":%s}]}',
}
DUPLICATE = "DuplicateDatasetName"
MIN_NAME, MAX_NAME = 10, 127
"""Characters of an audience's name in the DSP."""
REVOKED = "REVOKED"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{4,99}")
_WORD = re.compile(r"[A-Za-z]{1,80}")


def dataset_name(external_id: str) -> str:
    """The name of an audience's dataset: our external id, or a digest where it is no name."""
    if _NAME.fullmatch(external_id):
        return external_id
    return f"aa-{hashlib.sha256(external_id.encode()).hexdigest()}"


def audience_name(delivery: Delivery) -> str:
    """The name that the DSP shows; a short one gets our external id behind it."""
    name = delivery.audience_name
    if len(name) < MIN_NAME:
        name = f"{name} ({delivery.external_id})"
    return name[:MAX_NAME]


def members_body(
    settings: Mapping[str, Any], delivery: Delivery, columns: Mapping[str, Sequence[Any]]
) -> bytes:
    """The records of a batch. Each row has one identifier; ValueError otherwise."""
    create = delivery.operation == "add"
    start = f'{{"action":"{"CREATE" if create else "DELETE"}","externalUserId":"'
    end = "}"
    if create:
        consent = orjson.dumps(_user_consent(settings, delivery.consent)).decode()
        end = f',"userConsent":{consent}}}'
    kinds = tuple(columns)
    members = []
    for row in zip(*columns.values(), strict=True):
        ((kind, value),) = ((k, v) for k, v in zip(kinds, row, strict=True) if v is not None)
        identity = IDENTITIES[kind] % orjson.dumps(value).decode()
        members.append(f'{start}{external_user_id(kind, value)}","userIdentity":{identity}{end}')
    return f'{{"members":[{",".join(members)}]}}'.encode()


def external_user_id(kind: str, value: str) -> str:
    """The name of an identifier's record: a digest, so that it tells nothing, and always one."""
    return hashlib.sha256(f"{kind}:{value}".encode()).hexdigest()


def _user_consent(settings: Mapping[str, Any], basis: ConsentBasis) -> dict[str, Any]:
    """Where the data is from, and what the people of a batch said to its use.

    What only one of the two is known of is UNKNOWN: without a word on storage Amazon would take
    it as granted.
    """
    geo = {"countryCode": settings["country_code"]}
    if basis == NOTHING_SAID and settings["consent_granted"]:
        basis = ConsentBasis(Consent.GRANTED, Consent.GRANTED)
    said = {"amznUserData": basis.ad_user_data, "amznAdStorage": basis.ad_personalization}
    if not any(said.values()):
        return {"geo": geo}
    words = {kind: word.name if word else "UNKNOWN" for kind, word in said.items()}
    return {"geo": geo, "consent": {"amzn": words}}


# What Amazon's answers mean ---------------------------------------------------------------------


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply. An accepted one may be empty: terms are answered with 204."""
    usual = http_refusal(reply, now) if reply.status == 204 else json_refusal(reply, now)
    if reply.status == 413:
        # A record is the same in whichever request it comes, so halves may be sent instead.
        return PlatformRowsError("The batch is too large for Amazon.", platform_code="413")
    code = _code(reply)
    if usual is not None and code is not None:
        usual.platform_code = code
    return usual


def missing_or_refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The same where 404 is an answer."""
    return None if reply.status == 404 else refusal(reply, now)


def duplicate_or_refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The same where a name that is taken is an answer, for it holds the id."""
    return None if reply.status == 400 and _code(reply) == DUPLICATE else refusal(reply, now)


def _code(reply: Reply) -> str | None:
    parsed = reply.parsed()
    code = parsed.get("code") if isinstance(parsed, dict) else None
    return _shown(code)


def _shown(code: object) -> str | None:
    """A code, or a word that is one; None for what may be anything else."""
    if isinstance(code, str) and _WORD.fullmatch(code):
        return code
    return shown_code(code)


def rejects(answer: Mapping[str, Any], rows: int) -> tuple[dict[int, str], dict[str, int]]:
    """Records that were not taken: by position, and by reason where the position is missing.

    An error that cannot be read is one too.
    """
    placed: dict[int, str] = {}
    unplaced: Counter[str] = Counter()
    errors = answer.get("errors") or []
    for one in errors if isinstance(errors, list) else [errors]:
        error = one if isinstance(one, dict) else {}
        index, reason = error.get("index"), _reason(error)
        if isinstance(index, int | float) and 0 <= index < rows and index == int(index):
            placed[int(index)] = reason
        else:
            unplaced[reason] += 1
    return placed, dict(unplaced)


def _reason(error: Mapping[str, Any]) -> str:
    """Amazon's word for what is wrong; texts are left alone, for they may quote the record."""
    details = objects(error.get("errors"))
    given = (*(detail.get("errorType") for detail in details), error.get("code"))
    return next(filter(None, map(_shown, given)), "refused_by_platform")


def rule_state(
    rules: Iterable[Mapping[str, Any]], dataset_id: str, wanted: Mapping[str, str]
) -> str:
    """What there is between a dataset and its destination: shared, revoked or none."""
    ours = {**wanted, "dataSetId": dataset_id}
    states = [
        str(rule.get("status"))
        for rule in rules
        if all(str(rule.get(name)) == value for name, value in ours.items())
    ]
    if any(not state.startswith(REVOKED) for state in states):
        return "shared"
    return "revoked" if states else "none"


def match_rate(metrics: Mapping[str, Any]) -> str | None:
    """Resolved of all records with an identity, e.g. `57%`; None while there are none."""
    known, all_records = (metrics.get(n) for n in ("recordsResolved", "recordsWithIdentity"))
    if not isinstance(known, int | float) or not isinstance(all_records, int | float):
        return None
    return f"{round(100 * known / all_records)}%" if all_records else None
