"""Plans: the counts of a preparation at a platform's limits and prices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from activation.domain.distribution import Plan, PlannedStep
from activation.domain.ledger import Ledger
from activation.domain.platform import ConnectorSpec, Platform
from activation.domain.roster import Roster
from activation.errors import ValidationError

if TYPE_CHECKING:
    from activation.members.delivery import Prepared


def require_same_place(ledger: Ledger, spec: ConnectorSpec, platform: Platform) -> None:
    """Raise ValidationError when the settings now name another account than the one that holds
    the audience: there nothing is, and what is here would be out of reach."""
    if ledger.place and ledger.place != spec.place(platform.settings.config):
        raise ValidationError(
            "The platform's settings now name another account than the one that holds the "
            "audience; add it as a new platform.",
            field="platform_id",
            reason="account_changed",
        )


def comparable(ledger: Ledger | None, spec: ConnectorSpec, platform: Platform) -> Roster | None:
    """What the platform has accepted, in the forms that the spec sends now.

    ValidationError when it was sent in other forms, or to another account: they cannot be
    compared.
    """
    from activation.members.delivery import forms_of

    if ledger is not None:
        require_same_place(ledger, spec, platform)
    if ledger is None or ledger.accepted is None or not ledger.accepted.size:
        return None
    if ledger.forms != forms_of(spec):
        raise ValidationError(
            "The platform's settings now choose other identifiers than those it holds; "
            "add it as a new platform.",
            field="platform_id",
            reason="identifiers_changed",
        )
    return ledger.accepted


def planned(prepared: Prepared, spec: ConnectorSpec, platform: Platform) -> Plan:
    """The plan that counts make at this platform's limits and prices."""
    counts, settings = prepared.counts, platform.settings
    steps = tuple(
        PlannedStep(
            operation=step.operation,
            identifiers=step.identifiers,
            rows=step.rows,
            requests=step.batches,
        )
        for step in prepared.steps
    )
    requests = sum(step.requests for step in steps)
    added = sum(step.rows for step in steps if step.operation in ("add", "replace"))
    per_minute = settings.requests_per_minute or spec.requests_per_minute
    return Plan(
        members=counts.members,
        withheld=dict(counts.withheld),
        identifiers=counts.identifiers,
        identifiers_by_type=dict(counts.by_type),
        accepted=prepared.held,
        kept=prepared.kept,
        adds=prepared.adds,
        removes=prepared.removes,
        restated=prepared.restated,
        states_all=prepared.states_all,
        steps=steps,
        rows=sum(step.rows for step in steps),
        requests=requests,
        minutes=round(requests / per_minute, 2),
        cost_estimate=round(added / 1000 * settings.cost_per_thousand, 2),
        estimated_matches=round(added * settings.default_match_rate),
        warnings=_warnings(prepared, spec),
    )


def _warnings(prepared: Prepared, spec: ConnectorSpec) -> tuple[str, ...]:
    found = []
    size = prepared.counts.identifiers
    if size < spec.minimum_size:
        found.append(f"{spec.title} asks for at least {spec.minimum_size} rows; this has {size}.")
    replaced = any(step.operation == "replace" for step in prepared.steps)
    if prepared.removes and not spec.removes and not replaced:
        found.append(
            f"{spec.title} takes nothing out again: {prepared.removes} identifiers stay there."
        )
    return tuple(found)
