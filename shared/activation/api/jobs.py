"""Jobs: long work on an audience, with its progress and result."""

from __future__ import annotations

from typing import Any

from activation.api.answers import JobAnswer
from activation.api.audiences import ONE
from activation.api.listing import ListQuery, list_of, listed
from activation.api.paths import AudiencePath, JobPath
from activation.api.routes import Ask, Resource
from activation.documents import Stored
from activation.domain.caller import Role
from activation.domain.job import Job

jobs = Resource("jobs", "Long work: archives, backups, retention rounds and the like.")


@jobs.route("GET", "/jobs/<job_id>", role=Role.VIEWER, answer=JobAnswer)
def get_job(ask: Ask, path: JobPath) -> Stored[Job]:
    """Show a job with its progress and, at its end, its result."""
    return ask.app.jobs.get(ask.caller, path.job_id)


@jobs.route("GET", f"{ONE}/jobs", role=Role.VIEWER, answer=list_of(JobAnswer))
def list_jobs(ask: Ask, path: AudiencePath, query: ListQuery) -> dict[str, Any]:
    """List the jobs of an audience, newest first."""
    page = ask.app.jobs.list(ask.caller, path.audience_id, query.limit, query.after)
    return listed(page, query.limit, ask.app.jobs.count(ask.caller, path.audience_id))
