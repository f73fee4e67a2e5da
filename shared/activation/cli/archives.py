"""`activation archive` and `unarchive`: members into cold storage, and back."""

from __future__ import annotations

from typing import Any

import click

from activation.cli.api import connected
from activation.cli.audiences import find_audience
from activation.cli.jobs import job_facts, require_done
from activation.cli.options import Command, options
from activation.cli.output import output
from activation.cli.progress import follow_job

ARCHIVE_EPILOG = """\b
Examples:
  activation archive "Loyal customers"
  activation archive "Loyal customers" --no-wait
"""
UNARCHIVE_EPILOG = """\b
Example:
  activation unarchive "Loyal customers"

The members are compared with what was archived before the audience is active again.
"""
WAIT = click.option("--wait/--no-wait", default=True, help="Follow it to its end (the default).")


@click.command(cls=Command, epilog=ARCHIVE_EPILOG)
@click.argument("audience", metavar="AUDIENCE")
@WAIT
def archive(audience: str, wait: bool) -> None:
    """Move the members of an audience into the archive.

    The archive is read back and compared first. Older versions of the audience lose their members;
    backups of major versions stay.
    """
    job = _worked(audience, "archive", "Archiving", wait=wait)
    output().answer(job, job_facts(job))
    require_done(job)


@click.command(cls=Command, epilog=UNARCHIVE_EPILOG)
@click.argument("audience", metavar="AUDIENCE")
@WAIT
def unarchive(audience: str, wait: bool) -> None:
    """Bring an audience back from the archive."""
    job = _worked(audience, "unarchive", "Bringing back", wait=wait)
    output().answer(job, job_facts(job))
    require_done(job)


def _worked(audience: str, action: str, what: str, *, wait: bool) -> dict[str, Any]:
    with connected(options(), works=wait) as api:
        audience_id = find_audience(api, audience)["audience_id"]
        job = api.post(f"/audiences/{audience_id}/{action}")
        return follow_job(api, output(), job, what) if wait else job
