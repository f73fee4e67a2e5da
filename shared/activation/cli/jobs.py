"""`activation jobs`: long work on audiences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from activation.cli.api import connected
from activation.cli.audiences import find_audience
from activation.cli.group import Failure
from activation.cli.options import Group, options
from activation.cli.output import duration, facts, moment, output, size, table

if TYPE_CHECKING:
    from rich.console import RenderableType


EPILOG = """\b
Examples:
  activation jobs list "Loyal customers"
  activation jobs show 01a1fdd3-059a-7446-b6dc-2e2ba10ba1fb
"""


@click.group(cls=Group, epilog=EPILOG)
def jobs() -> None:
    """Look at jobs: archives, backups, restores."""


@jobs.command("list")
@click.argument("audience", metavar="AUDIENCE")
def list_jobs(audience: str) -> None:
    """List the jobs of an audience, newest first."""
    with connected(options()) as api:
        audience_id = find_audience(api, audience)["audience_id"]
        found = list(api.all(f"/audiences/{audience_id}/jobs"))
    rows = [
        (
            job["kind"],
            f"{job['status']} {job['percentage']:.0f} %"
            if job["status"] == "running"
            else job["status"],
            moment(job["created_at"]),
            duration(job["duration_seconds"]),
            job["job_id"],
        )
        for job in found
    ]
    output().answer(found, table(("kind", "status", "asked for", "took", "id"), rows))


@jobs.command("show")
@click.argument("job_id", metavar="ID")
def show_job(job_id: str) -> None:
    """Show a job with its progress and what it led to."""
    with connected(options()) as api:
        job = api.get(f"/jobs/{job_id}")
    output().answer(job, job_facts(job))


def job_facts(job: dict[str, Any]) -> RenderableType:
    """A job as lines."""
    result = {name.replace("_", " "): value for name, value in job["result"].items()}
    if "bytes" in result:
        result["bytes"] = size(result["bytes"])
    return facts(
        {
            "job": job["job_id"],
            "kind": job["kind"],
            "status": job["status"],
            "done": None if job["status"] == "completed" else f"{job['percentage']:.0f} %",
            "error": job["error"] and job["error"]["message"],
            "took": duration(job["duration_seconds"]),
            **result,
        }
    )


def require_done(job: dict[str, Any]) -> None:
    """Raise Failure for a job that failed."""
    if job["status"] == "failed":
        error = job["error"] or {}
        raise Failure(error.get("message") or "The job failed.", error.get("reason"))
