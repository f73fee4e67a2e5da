"""The JSON of Amazon Ads Data Manager, as its published schema defines it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from activation.twins.members import SHA256_HEX, member_key
from activation.twins.shapes import Choice, Many

MAX_MEMBERS = 10_000
MAX_BYTES = 10_000_000
MAX_IDENTITIES = 10

_CONSENT_WORDS = Choice({"DENIED": 1, "GRANTED": 2, "NOT_APPLICABLE": 3, "UNKNOWN": 4})
_PII = dict.fromkeys(("em", "ph", "fn", "ln", "ad", "cty", "st", "zip"), str)
_EXTERNAL_NAMES = (
    *("liveRampId", "maId", "experianId", "kantarId", "merkleId", "merkuryId", "neustarId"),
    *("realId", "sambaTvId", "transunionId"),
)
_EXTERNAL = dict.fromkeys(_EXTERNAL_NAMES, str)
MEMBERS: Final[dict[str, Any]] = {
    "members": Many(
        {
            "action": Choice({"CREATE": 1, "DELETE": 2}),
            "externalUserId": str,
            "userIdentity": {"hashedPiis": Many(_PII), "externalIdentities": Many(_EXTERNAL)},
            "userConsent": {
                "geo": {"countryCode": str, "ipAddress": str},
                "consent": {
                    "amzn": {"amznUserData": _CONSENT_WORDS, "amznAdStorage": _CONSENT_WORDS},
                    "tcf": str,
                    "gpp": str,
                },
            },
        }
    )
}
DATASET: Final[dict[str, Any]] = {
    "name": str,
    "countryCode": str,
    "description": str,
    "idRetention": bool,
}
TERMS: Final[dict[str, Any]] = {"agreementToken": str, "hasAccepted": bool}
RULE: Final[dict[str, Any]] = {
    "accountEntityId": str,
    "application": str,
    "applicationId": str,
    "dataSetId": str,
    "destinationAccountId": str,
    "marketplaceId": str,
    "metadata": {
        "audienceMetadata": {"audienceName": str, "externalAudienceId": str, "description": str}
    },
}
RULE_QUERY: Final[dict[str, Any]] = {
    "application": str,
    "datasetIds": Many(str),
    "destinationAccountId": str,
    "statuses": Many(str),
    "nextToken": str,
    "maxResults": int,
}

_CODES = (
    "AT BE BG CY CZ DE DK EE ES FI FR GB GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK"
)
EEA_AND_UK = frozenset(re.findall("[A-Z]+", _CODES))
"""Countries whose people's data needs a word on consent."""

_KINDS = {"em": "email", "ph": "phone", "liveRampId": "ramp_id", "maId": "maid"}
USER_ID = re.compile(r"[0-9A-Za-z_-]{1,128}")
_MAID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def identity_keys(identity: Mapping[str, Any]) -> tuple[frozenset[bytes], str]:
    """The keys of a record's identifiers, and what is wrong with one of them ("" for nothing)."""
    given = list(_identifiers(identity))
    if not given:
        return frozenset(), "MissingIdentity"
    if len(given) > MAX_IDENTITIES:
        return frozenset(), "TooManyIdentities"
    for name, value in given:
        if name in _PII and not SHA256_HEX.fullmatch(value):
            return frozenset(), "InvalidHash"
        if (name == "maId" and not _MAID.fullmatch(value)) or "@" in value:
            return frozenset(), "InvalidIdentity"
    return frozenset(member_key(_KINDS.get(name, name), value) for name, value in given), ""


def _identifiers(identity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for group in ("hashedPiis", "externalIdentities"):
        for one in identity.get(group) or []:
            yield from one.items()


def lacks_consent(member: Mapping[str, Any], dataset_country: str) -> bool:
    """Whether a record of the EEA or the UK comes without any word on consent."""
    said = member.get("userConsent") or {}
    country = (said.get("geo") or {}).get("countryCode") or dataset_country
    return country in EEA_AND_UK and not said.get("consent")
