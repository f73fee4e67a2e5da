"""Amazon DSP audiences through Ads Data Manager. Facts: docs/platforms.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from activation.adapters.connectors.amazon_wire import (
    audience_name,
    dataset_name,
    duplicate_or_refusal,
    match_rate,
    members_body,
    missing_or_refusal,
    refusal,
    rejects,
    rule_state,
)
from activation.adapters.connectors.config import invalid, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.http import ATTEMPTS, PlatformHTTP, Refusal, Reply, objects
from activation.adapters.connectors.tokens import AccessTokens, refresh_grant
from activation.domain.delivery import AccountCheck, Delivery, MatchReport, SendOutcome
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import PlatformError
from activation.ports import Account

APPLICATION = "DSP_AUDIENCES"
MEMBERS_TYPE = "application/vnd.admAudiences.v1+json"
METRICS_TYPE = "application/vnd.admmetrics.v1+json"
PAGE_SIZE = 100
MAX_PAGES = 100

HASHED: Mapping[IdentifierType, Variant] = {
    IdentifierType.EMAIL: Variant.PLAIN,
    IdentifierType.PHONE: Variant.DIGITS,
}
FLAGS: Mapping[str, IdentifierType] = {
    "send_maid": IdentifierType.MAID,
    "send_ramp_id": IdentifierType.RAMP_ID,
}
"""Settings that add an identifier which not every account may send."""

_CREDENTIALS = (
    SettingField("client_id", "Client id of Login with Amazon", required=True),
    SettingField("client_secret", "Client secret", required=True, secret=True),
    SettingField("refresh_token", "Refresh token", required=True, secret=True),
)
_SETTINGS = (
    SettingField("manager_account_id", "Manager account; or advertiser_account_id", place=True),
    SettingField(
        "advertiser_account_id", "Advertiser account, where there is no manager account", place=True
    ),
    SettingField(
        "destination_account_id", "DSP advertiser that gets audiences", required=True, place=True
    ),
    SettingField("marketplace_id", "Marketplace of that advertiser", required=True, place=True),
    SettingField("country_code", "Country the data was collected in, e.g. DE", required=True),
    SettingField(
        "accept_terms",
        "Accept the terms of Ads Data Manager for the advertiser where they are not yet",
        default=False,
        kind="boolean",
    ),
    SettingField(
        "consent_granted",
        "Declare consent for people of whom nothing is known",
        default=False,
        kind="boolean",
    ),
    SettingField("send_maid", "Send mobile ids as well", default=False, kind="boolean"),
    SettingField("send_ramp_id", "Send RampIDs as well", default=False, kind="boolean"),
    SettingField(
        "api_url",
        "Address of the API in the account's region",
        default="https://advertising-api.amazon.com",
        kind="url",
        trusted=True,
    ),
    SettingField(
        "token_url",
        "Address of Login with Amazon in that region",
        default="https://api.amazon.com/auth/o2/token",
        kind="url",
        trusted=True,
    ),
)


def spec_for(settings: Mapping[str, Any]) -> ConnectorSpec:
    """What the connector takes under an account's settings."""
    more = {kind: Variant.RAW for flag, kind in FLAGS.items() if settings.get(flag)}
    return ConnectorSpec(
        platform_type=PlatformType.AMAZON_DSP,
        title="Amazon DSP (Ads Data Manager)",
        identifiers={**HASHED, **more},
        max_rows=5_000,
        max_bytes=10_000_000,
        requests_per_minute=60,
        credentials=_CREDENTIALS,
        settings=_SETTINGS,
        carries_consent=True,
        minimum_size=2_000,
        poll_seconds=86_400.0,
    )


SPEC = spec_for({})


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    if bool(settings["manager_account_id"]) == bool(settings["advertiser_account_id"]):
        raise invalid("settings.manager_account_id", "or advertiser_account_id must be given")
    for name in (*_ACCOUNT_HEADERS, "destination_account_id", "marketplace_id"):
        if settings[name] and not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", settings[name]):
            raise invalid(f"settings.{name}", "must be an id")
    if not re.fullmatch(r"[A-Z]{2}", settings["country_code"]):
        raise invalid("settings.country_code", "must be two capital letters")


_ACCOUNT_HEADERS = {
    "manager_account_id": "Amazon-Ads-Manager-Account-ID",
    "advertiser_account_id": "Amazon-Ads-AccountId",
}


class AmazonDsp(Defaults):
    """A dataset of Ads Data Manager per audience, named by our external id, shared with the DSP.

    A row is one identifier, and its digest is the `externalUserId`: adding and removing it name
    the same record, whatever else is known of the person by then.
    """

    def __init__(
        self, http: PlatformHTTP, tokens: AccessTokens, spec: ConnectorSpec = SPEC
    ) -> None:
        self.spec = spec
        self._http = http
        self._tokens = tokens

    def check(self, account: Account) -> AccountCheck:
        """Ask whether the terms are accepted; where they may not be for us, that is an error."""
        self._require_terms(account, accept=False)
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the id of the dataset with our name, made and shared where it is not yet."""
        self._require_terms(account, accept=True)
        self._require_data_room(account)
        name = dataset_name(delivery.external_id)
        dataset_id = self._find(account, name) or self._create(account, delivery, name)
        self._share(account, delivery, dataset_id)
        return dataset_id

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Create or delete the records of one batch; Amazon names those it does not take."""
        body = members_body(resolved(SPEC, account.settings), delivery, columns)
        path = f"/adm/audiences/{quote(str(delivery.platform_audience_id), safe='')}/members"
        answer = self._call(account, "POST", path, body, MEMBERS_TYPE).object()
        placed, unplaced = rejects(answer, len(next(iter(columns.values()))))
        receipt = answer.get("ingressId")
        return SendOutcome(placed, unplaced, str(receipt) if receipt else None)

    def match_results(
        self, account: Account, delivery: Delivery, receipts: Sequence[str]
    ) -> MatchReport:
        """The share of the dataset's records that Amazon knows, over all uploads of it."""
        path = f"/adm/datasets/{quote(str(delivery.platform_audience_id), safe='')}/metrics"
        rate = match_rate(self._call(account, "GET", path, media_type=METRICS_TYPE).object())
        return MatchReport(final=rate is not None, match_rate_range=rate)

    # What must be there before members can be sent

    def _require_terms(self, account: Account, *, accept: bool) -> None:
        terms = self._call(account, "GET", "/adm/terms").object()
        if terms.get("hasAccepted") is True:
            return
        if not resolved(SPEC, account.settings)["accept_terms"]:
            message = "The terms of Amazon Ads Data Manager are not accepted."
            raise PlatformError(message, reason="terms_not_accepted")
        if accept:
            body = {"agreementToken": terms.get("agreementToken"), "hasAccepted": True}
            self._call(account, "PATCH", "/adm/terms", orjson.dumps(body))

    def _require_data_room(self, account: Account) -> None:
        rooms = "/adm/datarooms"
        if self._call(account, "GET", rooms, refusal=missing_or_refusal).status == 404:
            self._call(account, "POST", rooms, b"{}")

    def _find(self, account: Account, name: str) -> str | None:
        for dataset in self._datasets(account):
            if dataset.get("name") == name and dataset.get("dataSetId"):
                return str(dataset["dataSetId"])
        return None

    def _datasets(self, account: Account) -> Iterator[dict[str, Any]]:
        params = {"limit": str(PAGE_SIZE)}
        for _ in range(MAX_PAGES):
            page = self._call(account, "GET", "/adm/audiences", params=params).object()
            yield from objects(page.get("dataSets"))
            if not page.get("nextToken"):
                return
            params["nextToken"] = str(page["nextToken"])

    def _create(self, account: Account, delivery: Delivery, name: str) -> str:
        """One try; the answer to a name that is taken tells whose it is."""
        body = {
            "name": name,
            "countryCode": resolved(SPEC, account.settings)["country_code"],
            "description": delivery.audience_name[:1000],
        }
        answer = self._call(
            account,
            "POST",
            "/adm/audiences",
            orjson.dumps(body),
            refusal=duplicate_or_refusal,
            attempts=1,
        ).object()
        dataset_id = answer.get("dataSetId") or answer.get("datasetId")
        if not dataset_id:
            raise PlatformError("Amazon told no id of the dataset.", reason="no_dataset_id")
        return str(dataset_id)

    def _share(self, account: Account, delivery: Delivery, dataset_id: str) -> None:
        """Look for the rule first, and post it once: Amazon does not want it repeated."""
        settings = resolved(SPEC, account.settings)
        wanted = {
            "application": APPLICATION,
            "destinationAccountId": settings["destination_account_id"],
        }
        query = orjson.dumps({**wanted, "datasetIds": [dataset_id]})
        listed = self._call(account, "POST", "/adm/sharingRules/list", query).object()
        state = rule_state(objects(listed.get("sharingRules")), dataset_id, wanted)
        if state == "revoked":
            message = "Somebody has revoked the sharing of the dataset with the DSP."
            raise PlatformError(message, reason="sharing_revoked")
        if state == "shared":
            return
        audience = {
            "audienceName": audience_name(delivery),
            "externalAudienceId": delivery.external_id,
        }
        rule = {
            **wanted,
            "dataSetId": dataset_id,
            "marketplaceId": settings["marketplace_id"],
            "metadata": {"audienceMetadata": audience},
        }
        self._call(account, "POST", "/adm/sharingRules", orjson.dumps(rule), attempts=1)

    def _call(
        self,
        account: Account,
        method: str,
        path: str,
        body: bytes = b"",
        media_type: str = "application/json",
        *,
        params: Mapping[str, str] | None = None,
        refusal: Refusal = refusal,
        attempts: int = ATTEMPTS,
    ) -> Reply:
        settings, credentials = resolved(SPEC, account.settings), account.credentials
        headers = {
            "Accept": media_type,
            "Amazon-Advertising-API-ClientId": credentials.get("client_id", ""),
        }
        headers |= {h: settings[n] for n, h in _ACCOUNT_HEADERS.items() if settings[n]}
        if body:
            headers["Content-Type"] = media_type

        def call(token: str) -> Reply:
            return self._http.call(
                method,
                settings["api_url"].rstrip("/") + path,
                headers={**headers, "Authorization": f"Bearer {token}"},
                params=params,
                content=body,
                refusal=refusal,
                attempts=attempts,
            )

        token_url = settings["token_url"]
        return self._tokens.authorized(
            account, token_url, lambda given, _now: refresh_grant(token_url, given), call
        )
