"""What is stored of an audience's members."""

from __future__ import annotations

from activation.api.answers import JobAnswer
from activation.api.audiences import ONE
from activation.api.paths import AudiencePath
from activation.api.routes import Ask, Resource
from activation.documents import Stored
from activation.domain.caller import Role
from activation.domain.job import Job
from activation.domain.storage import StorageInfo

storages = Resource("storage", "Where and how members are stored.")


@storages.route("GET", f"{ONE}/storage", role=Role.VIEWER, answer=StorageInfo)
def get_storage(ask: Ask, path: AudiencePath) -> StorageInfo:
    """Say what is stored of the members: tier, bytes, every part, storage classes, backups."""
    return ask.app.storages.info(ask.caller, path.audience_id)


@storages.route("POST", f"{ONE}/compact", role=Role.EDITOR, answer=JobAnswer, status=202)
def compact_audience(ask: Ask, path: AudiencePath) -> Stored[Job]:
    """Fold the small changes of an audience into its partitions; the job says when it is done."""
    return ask.app.storages.request_compaction(ask.caller, path.audience_id)
