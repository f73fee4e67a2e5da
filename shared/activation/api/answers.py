"""Answers as schemas: the public form of each entity, for the API description.

Views answer with `entity.public()`; these models say what that looks like. A test holds the two
together, so a field that is shown without being described here fails.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from activation.domain.audience import INTERNAL, Audience, AudienceType
from activation.domain.caller import Role
from activation.domain.distribution import HIDDEN, Distribution
from activation.domain.entity import Entity, Instant, Value
from activation.domain.job import Job
from activation.domain.ledger import Ledger
from activation.domain.member_import import MemberImport
from activation.domain.operator_account import OperatorAccount
from activation.domain.platform import OWN_TIMES, Platform
from activation.domain.retention_run import Organization
from activation.domain.segment_record import SHOWN_BESIDE, SegmentRecord, SegmentVersion
from activation.domain.version import AudienceVersion, SampleMember
from activation.domain.webhook import Webhook, WebhookDelivery


def public_form(
    entity: type[Entity], hidden: frozenset[str] = frozenset(), **shown: Any
) -> type[BaseModel]:
    """A model like `entity` without `hidden` and with the fields `shown`."""
    fields: dict[str, tuple[Any, FieldInfo]] = {
        name: (info.annotation, info)
        for name, info in entity.model_fields.items()
        if name not in hidden
    }
    added = {name: (kind, ...) for name, kind in shown.items()}
    definition: dict[str, Any] = {**fields, **added}
    return create_model(
        f"{entity.__name__}Answer", __base__=Value, __doc__=entity.__doc__, **definition
    )


AudienceAnswer = public_form(
    Audience,
    INTERNAL,
    type=AudienceType,
    total_audience_size=int,
)
VersionAnswer = public_form(AudienceVersion, frozenset({"samples"}), has_members=bool)
VersionDetailAnswer = create_model(
    "VersionDetailAnswer",
    __base__=VersionAnswer,
    __doc__="A version with the snapshot before it and samples of its members.",
    before=(dict[str, Any] | None, ...),
    samples=(tuple[SampleMember, ...], ...),
    has_backup=(bool, ...),
)
ImportAnswer = public_form(
    MemberImport, frozenset({"chunks", "attempt", "lease_until", "source", "read_to_end"})
)
JobAnswer = public_form(Job, frozenset({"state", "attempt", "lease_until"}))
PlatformAnswer = public_form(Platform, OWN_TIMES)
OrganizationAnswer = public_form(Organization, frozenset({"started", "retention_rules"}))
OperatorAccountAnswer = public_form(OperatorAccount, permissions=tuple[Role, ...])
DistributionAnswer = public_form(Distribution, HIDDEN)
LedgerAnswer = public_form(
    Ledger,
    frozenset({"accepted", "visible_to", "forms", "place", "era"}),
    accepted=int,
    accepted_by_type=dict[str, int],
    doubtful=int,
)
SegmentAnswer = public_form(SegmentRecord, **SHOWN_BESIDE)
SegmentVersionAnswer = public_form(SegmentVersion)
WebhookAnswer = public_form(Webhook)
NewSecretAnswer = create_model(
    "NewSecretAnswer",
    __base__=WebhookAnswer,
    __doc__="A webhook and its new secret, which is told this once: null in a repeated answer.",
    secret=(str | None, ...),
)
WebhookDeliveryAnswer = public_form(WebhookDelivery, frozenset({"lease_until"}))


class UploadAnswer(Value):
    """Where and how to put the file: method, address, headers to send."""

    method: str
    url: str
    headers: dict[str, str]
    expires_at: Instant
