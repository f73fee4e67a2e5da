"""The twin of Amazon Ads Data Manager, with Login with Amazon at `/auth/o2/token`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.amazon_shapes import (
    DATASET,
    MAX_BYTES,
    MAX_MEMBERS,
    MEMBERS,
    RULE,
    RULE_QUERY,
    TERMS,
    USER_ID,
    identity_keys,
    lacks_consent,
)
from activation.twins.members import count_matched, member_key, set_digest
from activation.twins.oauth import OAuthEndpoint
from activation.twins.shapes import problem
from activation.twins.wsgi import Refused, Twin, json_response

TOKEN_PATH = "/auth/o2/token"  # noqa: S105 — a path
MEMBERS_TYPE = "application/vnd.admaudiences.v1+json"
METRICS_TYPE = "application/vnd.admmetrics.v1+json"
JSON = "application/json"
FIRST_ID = 413_642_381_039_213_536
"""Beyond 2^53, as Amazon's own ids are."""
AGREEMENT = "twin-agreement"
MAX_PAGE = 100
MIN_NAME, MAX_NAME = 10, 127

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{4,99}")
_DATASET = re.compile(r"/adm/(audiences|datasets)/([^/]+)(?:/(members|metrics))?")


@dataclass
class Dataset:
    """Records by the digest of their `externalUserId`, each with the keys of its identity."""

    dataset_id: str
    name: str
    country_code: str
    description: str
    records: dict[bytes, frozenset[bytes]] = field(default_factory=dict)
    consents: Counter[str] = field(default_factory=Counter)
    """Records created so far by the consent that came with them."""
    uploads: int = 0
    accepted: int = 0
    invalid: int = 0

    @property
    def keys(self) -> set[bytes]:
        """The identifiers of all records."""
        return set[bytes]().union(*self.records.values())

    def shown(self) -> dict[str, Any]:
        """What Amazon tells of the dataset."""
        return {
            "dataSetId": self.dataset_id,
            "name": self.name,
            "countryCode": self.country_code,
            "description": self.description,
            "dataSetType": "AUDIENCE",
        }

    def summary(self) -> dict[str, Any]:
        """What the control surface tells."""
        keys = self.keys
        return {
            "audience_id": self.dataset_id,
            "name": self.name,
            "external_id": self.name,
            "members": len(keys),
            "digest": set_digest(keys),
            "consents": dict(self.consents),
        }


class AmazonDspTwin(Twin):
    """One manager account with a data room, its datasets and what they are shared with.

    Assumptions: ids are texts of digits (`numeric_ids` makes them numbers), a second sharing rule
    for the same destination is refused, and records of the EEA and the UK without a word on
    consent are rejected one by one. Without `data_room` and `terms_accepted` they come first.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        manager_account_id: str = "amzn1.ads-account.g.manager",
        advertiser_account_id: str = "amzn1.ads-account.g.advertiser",
        login: OAuthEndpoint | None = None,
        client_id: str = "twin-client",
        match_rate: float = 0.5,
        terms_accepted: bool = True,
        data_room: bool = True,
        numeric_ids: bool = False,
    ) -> None:
        super().__init__(clock)
        self.login = login or OAuthEndpoint(clock, client_id=client_id)
        self.datasets: dict[str, Dataset] = {}
        self.rules: list[dict[str, Any]] = []
        self.terms_accepted = terms_accepted
        self.data_room = data_room
        self._accounts = (manager_account_id, advertiser_account_id)
        self._client_id = client_id
        self._match_rate = match_rate
        self._numeric_ids = numeric_ids

    def contents(self) -> dict[str, Any]:
        """The datasets and the sharing rules."""
        return {
            "audiences": [dataset.summary() for dataset in self.datasets.values()],
            "sharing_rules": len(self.rules),
        }

    def respond(self, request: Request) -> Response:
        """Answer as Amazon does."""
        if request.path == TOKEN_PATH:
            return self.login.respond(request)
        self._authenticate(request)
        match request.method, request.path:
            case (("GET" | "PATCH"), "/adm/terms"):
                return self._terms(request)
            case (("GET" | "POST"), "/adm/datarooms"):
                return self._data_room(request)
        if not (self.terms_accepted and self.data_room):
            raise refused(403, "403", "There is no data room, or its terms are not accepted.")
        match request.method, request.path:
            case "GET", "/adm/audiences":
                return self._listed(request)
            case "POST", "/adm/audiences":
                return self._create(request)
            case "POST", "/adm/sharingRules":
                return self._share(request)
            case "POST", "/adm/sharingRules/list":
                return self._rules(request)
        return self._of_dataset(request)

    def _authenticate(self, request: Request) -> None:
        headers = request.headers
        if not self.login.holds(headers.get("Authorization", "")):
            raise refused(401, "401", "Not authorized to access this resource.")
        if headers.get("Amazon-Advertising-API-ClientId") != self._client_id:
            raise refused(401, "401", "Amazon-Advertising-API-ClientId is missing or wrong.")
        names = ("Amazon-Ads-Manager-Account-ID", "Amazon-Ads-AccountId")
        given = [headers.get(name) for name in names]
        if sum(account is not None for account in given) != 1:
            raise refused(400, "400", "One of the two account headers is required.")
        if not any(a == b for a, b in zip(given, self._accounts, strict=True)):
            raise refused(403, "403", "No permission for this account.")

    # Terms and the data room

    def _terms(self, request: Request) -> Response:
        if request.method == "GET":
            return json_response(
                {
                    "agreementContent": "Terms of the twin.",
                    "agreementToken": AGREEMENT,
                    "hasAccepted": self.terms_accepted,
                }
            )
        body = read(request, TERMS)
        if body.get("agreementToken") != AGREEMENT or "hasAccepted" not in body:
            raise refused(400, "400", "agreementToken and hasAccepted are required.")
        self.terms_accepted = body["hasAccepted"]
        return Response(status=204)

    def _data_room(self, request: Request) -> Response:
        if request.method == "GET" and not self.data_room:
            raise refused(404, "404", "There is no data room.")
        if request.method == "POST":
            read(request, {})
            if not self.terms_accepted:
                raise refused(403, "403", "The terms are not accepted.")
            self.data_room = True
        status = 200 if request.method == "GET" else 201
        return json_response({"accountId": self._accounts[0]}, status)

    # Datasets

    def _listed(self, request: Request) -> Response:
        limit, start = request.args.get("limit", "100"), request.args.get("nextToken", "0")
        unknown = set(request.args) - {"limit", "nextToken"}
        if unknown or not (limit.isdigit() and start.isdigit() and 1 <= int(limit) <= MAX_PAGE):
            raise refused(400, "400", "Invalid paging.")
        end = int(start) + int(limit)
        page = [self._shown(d) for d in list(self.datasets.values())[int(start) : end]]
        more = {"nextToken": str(end)} if end < len(self.datasets) else {}
        return json_response({"dataSets": page, **more})

    def _create(self, request: Request) -> Response:
        body = read(request, DATASET)
        name, country = body.get("name", ""), body.get("countryCode", "")
        if not _NAME.fullmatch(name) or not re.fullmatch("[A-Z]{2}", country):
            raise refused(400, "400", "name or countryCode is missing or wrong.")
        if not 1 <= len(body.get("description", "-")) <= 1000:
            raise refused(400, "400", "description has 1 to 1000 characters.")
        for taken in self.datasets.values():
            if taken.name == name:
                answer = {"code": "DuplicateDatasetName", "datasetId": self._id(taken)}
                raise Refused(json_response(answer, 400))
        dataset_id = str(FIRST_ID + len(self.datasets))
        made = Dataset(dataset_id, name, country, body.get("description", ""))
        self.datasets[dataset_id] = made
        return json_response(self._shown(made), 201)

    def _id(self, dataset: Dataset) -> str | int:
        return int(dataset.dataset_id) if self._numeric_ids else dataset.dataset_id

    def _shown(self, dataset: Dataset) -> dict[str, Any]:
        return {**dataset.shown(), "dataSetId": self._id(dataset)}

    def _of_dataset(self, request: Request) -> Response:
        found = _DATASET.fullmatch(request.path)
        dataset = self.datasets.get(found[2]) if found else None
        if found is None or dataset is None:
            raise refused(404, "404", "Resource not found.")
        match request.method, found[1], found[3]:
            case "GET", "audiences", None:
                return json_response(self._shown(dataset))
            case "POST", "audiences", "members":
                return self._members(request, dataset)
            case "GET", "datasets", "metrics":
                return self._metrics(request, dataset)
        raise refused(404, "404", "Resource not found.")

    # Members

    def _members(self, request: Request, dataset: Dataset) -> Response:
        if (request.content_length or 0) > MAX_BYTES:
            raise refused(413, "413", "The request is larger than 10 MB.")
        body = read(request, MEMBERS, MEMBERS_TYPE)
        members = body.get("members") or []
        if not 1 <= len(members) <= MAX_MEMBERS:
            raise refused(400, "400", f"1 to {MAX_MEMBERS} members.")
        dataset.uploads += 1
        errors = []
        for index, member in enumerate(members):
            wrong = self._record(dataset, member)
            if wrong:
                errors.append(record_error(index, wrong))
        dataset.accepted += len(members) - len(errors)
        dataset.invalid += len(errors)
        ingress = {"ingressId": f"twin-{dataset.dataset_id}-{dataset.uploads}"}
        return json_response({**ingress, "errors": errors} if errors else ingress)

    def _record(self, dataset: Dataset, member: Mapping[str, Any]) -> str:
        """Take one record; what is wrong with it otherwise."""
        if not member.get("action") or not USER_ID.fullmatch(member.get("externalUserId", "")):
            return "InvalidField"
        keys, wrong = identity_keys(member.get("userIdentity") or {})
        if wrong:
            return wrong
        name = member_key("external_user_id", member["externalUserId"])
        if member["action"] == "DELETE":
            dataset.records.pop(name, None)
            return ""
        if lacks_consent(member, dataset.country_code):
            return "MissingConsent"
        dataset.records[name] = keys
        dataset.consents[consent_of(member)] += 1
        return ""

    def _metrics(self, request: Request, dataset: Dataset) -> Response:
        if request.headers.get("Amazon-Ads-Manager-Account-ID") is None:
            raise refused(403, "403", "Metrics are for manager accounts.")
        if request.headers.get("Accept") != METRICS_TYPE:
            raise refused(400, "400", "Not acceptable.")
        keys = dataset.keys
        known = count_matched(keys, self._match_rate)
        counts = {
            "acceptedCount": dataset.accepted,
            "invalidRecordCount": dataset.invalid,
            "matchRecordPercentage": 100 * known / len(keys) if keys else 0,
            "recordsResolved": known,
            "recordsWithIdentity": len(keys),
            "uploadCount": dataset.uploads,
        }
        return json_response({**self._shown(dataset), **counts})

    # Sharing

    def _share(self, request: Request) -> Response:
        body = read(request, RULE)
        application = body.get("application") or body.get("applicationId")
        audience = (body.get("metadata") or {}).get("audienceMetadata") or {}
        if application != "DSP_AUDIENCES" or body.get("dataSetId") not in self.datasets:
            raise refused(400, "400", "application or dataSetId is missing or wrong.")
        if not body.get("destinationAccountId") or not body.get("marketplaceId"):
            raise refused(400, "400", "destinationAccountId and marketplaceId are required.")
        if not MIN_NAME <= len(audience.get("audienceName", "")) <= MAX_NAME:
            raise refused(400, "400", "audienceName has 10 to 127 characters.")
        rule = {
            "sharingRuleId": f"rule-{len(self.rules) + 1}",
            "application": application,
            "dataSetId": body["dataSetId"],
            "destinationAccountId": body["destinationAccountId"],
            "marketplaceId": body["marketplaceId"],
            "status": "PENDING",
            "metadata": {"audienceName": audience["audienceName"], "audienceId": str(FIRST_ID)},
        }
        if any(_fits(other, rule, _SAME) for other in self.rules):
            raise refused(400, "DuplicateSharingRule", "There is such a rule already.")
        self.rules.append(rule)
        return json_response(rule)

    def _rules(self, request: Request) -> Response:
        body = read(request, RULE_QUERY)
        wanted = {name: body[name] for name in _SAME[1:] if name in body}
        ids, statuses = body.get("datasetIds"), body.get("statuses")
        found = [
            rule
            for rule in self.rules
            if _fits(rule, wanted, tuple(wanted))
            and (ids is None or rule["dataSetId"] in ids)
            and (statuses is None or rule["status"] in statuses)
        ]
        return json_response({"sharingRules": found})


_SAME = ("dataSetId", "application", "destinationAccountId")


def _fits(rule: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> bool:
    return all(rule[name] == other[name] for name in names)


def refused(status: int, code: str, details: str) -> Refused:
    """Amazon's error body."""
    error = {"errorType": code, "errorMessage": details, "errorCode": status}
    return Refused(json_response({"code": code, "details": details, "errors": [error]}, status))


def record_error(index: int, wrong: str) -> dict[str, Any]:
    """One record that is not taken; numbers are floating point, as the schema says."""
    error = {"errorType": wrong, "errorMessage": "The record is invalid.", "errorCode": 400.0}
    return {"index": float(index), "code": "400", "details": wrong, "errors": [error]}


def read(request: Request, shape: dict[str, Any], media_type: str = JSON) -> dict[str, Any]:
    """The body, when it is JSON of this media type and shape and nothing more."""
    if request.mimetype != media_type:
        raise refused(400, "400", f"The content type must be {media_type}.")
    try:
        body = orjson.loads(request.get_data())
    except orjson.JSONDecodeError:
        raise refused(400, "400", "The body is not JSON.") from None
    found = problem(body, shape)
    if found is not None:
        raise refused(400, "400", f"Invalid {found.path} ({found.kind}).")
    return dict(body)


def consent_of(member: Mapping[str, Any]) -> str:
    """What a record says of consent, e.g. `granted/unknown`; `none` when it says nothing."""
    consent = (member.get("userConsent") or {}).get("consent") or {}
    if "amzn" not in consent:
        return next(iter(consent), "none")
    words = (consent["amzn"].get(kind, "") for kind in ("amznUserData", "amznAdStorage"))
    return "/".join(word.lower() for word in words)
