"""LinkedIn matched audiences: DMP segments and their users. Facts: docs/platforms.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from activation.adapters.connectors.bearer import CREDENTIALS, BearerHTTP, validate_login
from activation.adapters.connectors.config import invalid, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.http import ATTEMPTS, PlatformHTTP, Refusal, Reply
from activation.adapters.connectors.linkedin_wire import (
    account_urn,
    destination_of,
    refusal,
    refusal_of_creation,
    refusal_of_segment,
    refusal_of_users,
    refused_rows,
    require_known,
    segment_body,
    users_body,
)
from activation.adapters.connectors.marks import given_id
from activation.adapters.connectors.tokens import AccessTokens
from activation.domain.delivery import AccountCheck, Delivery, PlatformSize, SendOutcome
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import PlatformError, PlatformTransientError
from activation.ports import Account

UNUSABLE = frozenset({"EXPIRED", "FAILED", "ERROR"})
"""States of a destination in which a segment reaches nobody any more."""
MAX_SETTLE_SECONDS = 600
CLOCK_SKEW_SECONDS = 60
"""How far LinkedIn's clock may be ahead of ours for a segment to pass as new."""

SPEC = ConnectorSpec(
    platform_type=PlatformType.LINKEDIN,
    title="LinkedIn matched audiences",
    identifiers={IdentifierType.EMAIL: Variant.PLAIN, IdentifierType.MAID: Variant.RAW},
    max_rows=5_000,
    max_bytes=None,
    requests_per_minute=60,
    credentials=CREDENTIALS,
    settings=(
        SettingField("ad_account_id", "Sponsored account, digits only", required=True, place=True),
        SettingField("source_platform", "Name that LinkedIn gave your integration", required=True),
        SettingField("api_version", "Version of the API, YYYYMM", default="202611"),
        SettingField(
            "settle_seconds",
            f"Pause after a segment was made, 0 to {MAX_SETTLE_SECONDS}",
            default=5,
            kind="integer",
        ),
        SettingField(
            "api_url",
            "Address of the API",
            default="https://api.linkedin.com/rest",
            kind="url",
            trusted=True,
        ),
        SettingField(
            "token_url",
            "Address that gives access tokens",
            default="https://www.linkedin.com/oauth/v2/accessToken",
            kind="url",
            trusted=True,
        ),
    ),
    multi_key=True,
    tells_size=True,
    minimum_size=300,
    reports_matches=False,
)


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    validate_login(credentials)
    if not re.fullmatch(r"[0-9]{1,20}", settings["ad_account_id"]):
        raise invalid("settings.ad_account_id", "must be digits only")
    if not re.fullmatch(r"[A-Za-z0-9_]{1,100}", settings["source_platform"]):
        raise invalid("settings.source_platform", "must be letters, digits and underscores")
    if not re.fullmatch(r"20[0-9]{2}(0[1-9]|1[0-2])", settings["api_version"]):
        raise invalid("settings.api_version", "must look like 202611")
    if not 0 <= settings["settle_seconds"] <= MAX_SETTLE_SECONDS:
        raise invalid("settings.settle_seconds", f"must be 0 to {MAX_SETTLE_SECONDS}")


class LinkedIn(Defaults):
    """Segments are found again by their `sourceSegmentId`, which is our external id."""

    spec: ConnectorSpec = SPEC

    def __init__(self, http: PlatformHTTP, tokens: AccessTokens) -> None:
        self._http = BearerHTTP(http, tokens)

    def check(self, account: Account) -> AccountCheck:
        """List one segment of the account."""
        self._found(account, start="0", count="1")
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the id of the segment with our external id, made when there is none."""
        for segment in self._found(account, sourceSegmentId=delivery.external_id):
            if segment.get("sourceSegmentId", delivery.external_id) == delivery.external_id:
                return given_id(segment.get("id"))
        body = segment_body(resolved(SPEC, account.settings), delivery)
        reply = self._call(
            account, "POST", "/dmpSegments", content=body, refusal=refusal_of_creation, attempts=1
        )
        return given_id(reply.headers.get("x-restli-id") or reply.headers.get("x-linkedin-id"))

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Add or remove one batch; LinkedIn answers for each row by itself.

        What is sent to a segment within seconds of its making may vanish without an error, so the
        first batch of a lane looks at the segment first.
        """
        if seq == 1:
            self._require_settled(account, delivery)
        reply = self._call(
            account,
            "POST",
            f"{_segment_path(delivery)}/users",
            content=users_body(delivery, columns),
            headers={"X-RestLi-Method": "BATCH_CREATE"},
            refusal=refusal_of_users,
        )
        rows = len(next(iter(columns.values())))
        return SendOutcome(refused_rows(require_known(reply), rows))

    def size(self, account: Account, delivery: Delivery) -> PlatformSize | None:
        """`audienceSize`, the people found so far; None while LinkedIn builds the segment."""
        people = destination_of(self._segment(account, delivery)).get("audienceSize")
        return PlatformSize(people, people) if isinstance(people, int) else None

    def _require_settled(self, account: Account, delivery: Delivery) -> None:
        segment = self._segment(account, delivery)
        status = destination_of(segment).get("status")
        if status in UNUSABLE and delivery.operation == "add":
            raise PlatformError(
                "LinkedIn no longer fills the segment.", reason="unusable", platform_code=status
            )
        created = segment.get("created")
        if not isinstance(created, int):
            return
        settle = resolved(SPEC, account.settings)["settle_seconds"]
        age = self._http.clock.now().timestamp() - created / 1000
        if settle and -CLOCK_SKEW_SECONDS <= age < settle:
            raise PlatformTransientError(
                "The segment was made a moment ago; LinkedIn asks for a pause.",
                retry_after_seconds=min(settle - age, settle),
            )

    def _segment(self, account: Account, delivery: Delivery) -> dict[str, Any]:
        path = _segment_path(delivery)
        return require_known(self._call(account, "GET", path, refusal=refusal_of_segment)).object()

    def _found(self, account: Account, **params: str) -> list[dict[str, Any]]:
        settings = resolved(SPEC, account.settings)
        query = {
            "q": "account",
            "account": account_urn(settings),
            "sourcePlatform": settings["source_platform"],
            **params,
        }
        # Colons must be escaped under this version of the protocol.
        reply = self._call(account, "GET", f"/dmpSegments?{urlencode(query)}")
        elements: list[dict[str, Any]] = reply.object().get("elements") or []
        return elements

    def _call(
        self,
        account: Account,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        refusal: Refusal = refusal,
        attempts: int = ATTEMPTS,
    ) -> Reply:
        settings = resolved(SPEC, account.settings)
        return self._http.call(
            account,
            settings,
            method,
            path,
            refusal=refusal,
            headers={
                "LinkedIn-Version": settings["api_version"],
                "X-Restli-Protocol-Version": "2.0.0",
                **(headers or {}),
            },
            content=content,
            attempts=attempts,
        )


def _segment_path(delivery: Delivery) -> str:
    return f"/dmpSegments/{quote(str(delivery.platform_audience_id), safe='')}"
