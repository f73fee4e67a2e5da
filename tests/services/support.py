"""Short ways to audiences with members, for tests of use cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from activation.app import App
from activation.domain.audience import Audience, AudienceChanges, AudienceDraft, AudienceType
from activation.domain.caller import Caller
from activation.domain.identifier import IdentifierType
from activation.domain.job import Job
from activation.domain.member import MemberInput
from activation.ports import Batch


def never() -> None:
    """The heartbeat of work that nobody watches."""


def audience_of(app: App, caller: Caller, name: str = "Loyal") -> Audience:
    """A new audience without members."""
    draft = AudienceDraft(name=name, data_type=AudienceType.FIRST_PARTY)
    return app.audiences.create(caller, draft).entity


def inputs(
    count: int, start: int = 0, kind: IdentifierType = IdentifierType.EMAIL
) -> list[MemberInput]:
    """Members with different identifiers of one type."""
    forms = {
        IdentifierType.EMAIL: "p{}@example.com",
        IdentifierType.CUSTOMER_ID: "K{}",
        IdentifierType.MAID: "00000000-0000-4000-8000-{:012d}",
    }
    return [
        MemberInput(identifier_type=kind, identifier_value=forms[kind].format(number))
        for number in range(start, start + count)
    ]


def add(app: App, caller: Caller, audience_id: str, members: Sequence[MemberInput]) -> Audience:
    """Add members; the audience afterwards."""
    change = app.members.add(caller, audience_id, members)
    assert change.rejected == 0
    return app.audiences.find(caller, audience_id).entity


def contents(app: App, audience: Audience) -> dict[str, Any]:
    """All that is stored of an audience's members, by digest."""
    if audience.manifest_id is None:
        return {}
    manifest = app.members.manifests.get(audience.organization_id, audience.manifest_id).entity
    rows = [row for table in app.store.iter_batches(manifest) for row in table.to_pylist()]
    assert len(rows) == audience.size == manifest.size
    return {row["digest"].hex(): row for row in rows}


def renamed(app: App, caller: Caller, audience_id: str, name: str) -> Audience:
    """Give an audience another name."""
    return app.audiences.update(caller, audience_id, AudienceChanges(name=name)).entity


def set_fields(app: App, audience: Audience, **fields: Any) -> None:
    """Set fields of an audience's record past all rules."""
    stored = app.audiences.records.get(audience.organization_id, audience.audience_id)
    app.documents.commit(Batch([stored.replaced_by(stored.entity.changed(**fields))]))


def drained(app: App, job: Job) -> Job:
    """Bring a job to its end; the record afterwards."""
    app.job_worker.run(job.organization_id, job.job_id, "test-trace")
    return app.jobs.records.get(job.organization_id, job.job_id).entity
