"""Rules: the operators there are, and what rules choose."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from activation.api.audiences import ONE
from activation.api.paths import AudiencePath
from activation.api.routes import Ask, Resource
from activation.domain.caller import Role
from activation.domain.operators import MEMBER_FIELDS, OPERATORS, OperatorInfo, ValueType
from activation.domain.preview import Preview, PreviewDraft

rules = Resource("rules", "Rules over members: operators, and previews of what they choose.")


class OperatorsAnswer(BaseModel):
    """The operators of rules, and the fields of members beside their attributes."""

    data: list[OperatorInfo]
    member_fields: dict[str, ValueType]


@rules.route("GET", "/operators", role=Role.VIEWER, answer=OperatorsAnswer)
def list_operators(_ask: Ask) -> dict[str, Any]:
    """List the operators of rules with the values they take."""
    return {
        "data": [info.model_dump(mode="json") for info in OPERATORS.values()],
        "member_fields": {f"member.{name}": kind.value for name, kind in MEMBER_FIELDS.items()},
    }


@rules.route("POST", f"{ONE}/preview", role=Role.VIEWER, answer=Preview, reads=True)
def preview_audience(ask: Ask, path: AudiencePath, body: PreviewDraft) -> Preview:
    """Count the members that rules choose: an estimate at once, or exactly."""
    return ask.app.previews.preview(ask.caller, path.audience_id, body)
