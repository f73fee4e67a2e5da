"""`activation plan`, `distribute` and `distributions`: bringing an audience to a platform."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from activation.cli.api import Api, RefusedError, connected
from activation.cli.audiences import find_audience
from activation.cli.group import Failure
from activation.cli.options import Command, Group, options
from activation.cli.output import duration, facts, moment, output, percent, plain, size, table
from activation.cli.platforms import find_platform
from activation.cli.progress import follow_distributions, waits_for

if TYPE_CHECKING:
    from rich.console import RenderableType

PLAN_EPILOG = """\b
Examples:
  activation plan "Loyal customers" "Meta, Germany"
  activation plan "Loyal customers" "Meta, Germany" --segment vip
  activation plan "Loyal customers" "Meta, Germany" --type incremental
"""
DISTRIBUTE_EPILOG = """\b
Examples:
  activation distribute "Loyal customers" "Meta, Germany"
  activation distribute "Loyal customers" "Meta, Germany" --segment vip --matches
  activation distribute "Loyal customers" "Meta, Germany" --type incremental
  activation distribute "Loyal customers" "Meta, Germany" --at 2026-12-24T18:00:00+01:00
  activation distribute "Loyal customers" "Meta, Germany" --no-wait --url https://api.example.com

On a local store the work is done while the command waits, or by `activation serve`.
"""
KINDS = ("initial", "refresh", "incremental")
KIND = click.option(
    "--type",
    "kind",
    type=click.Choice(KINDS),
    default=KINDS[0],
    show_default=True,
    help="initial adds everybody; refresh leaves exactly the audience; incremental sends changes.",
)
COLUMNS = ("platform", "status", "planned", "sent", "rejected", "pending", "matched", "match rate")


@click.command(cls=Command, epilog=PLAN_EPILOG)
@click.argument("audience", metavar="AUDIENCE")
@click.argument("platform", metavar="PLATFORM")
@click.option("--segment", "segments", multiple=True, help="Only this part of the audience.")
@KIND
def plan(audience: str, platform: str, segments: tuple[str, ...], kind: str) -> None:
    """Say what a distribution would do, without doing it."""
    with connected(options()) as api:
        body = _body(api, audience, platform, segments, kind)
        found = api.post("/distributions/plan", body)
    output().answer(found, *plan_report(found))


@click.command(cls=Command, epilog=DISTRIBUTE_EPILOG)
@click.argument("audience", metavar="AUDIENCE")
@click.argument("platform", metavar="PLATFORM")
@click.option("--segment", "segments", multiple=True, help="Only this part of the audience.")
@click.option("--wait/--no-wait", default=True, help="Follow it to its end (the default).")
@click.option("--matches", is_flag=True, help="Wait until the platform has counted its matches.")
@click.option("--force", is_flag=True, help="Send a test audience to an ad platform.")
@click.option("--ask", is_flag=True, help="Wait for somebody else's approval.")
@click.option("--at", metavar="INSTANT", help="Start then, e.g. 2026-12-24T18:00:00+01:00.")
@KIND
def distribute(
    audience: str,
    platform: str,
    segments: tuple[str, ...],
    wait: bool,
    matches: bool,
    force: bool,
    ask: bool,
    at: str | None,
    kind: str,
) -> None:
    """Bring an audience to a platform."""
    out = output()
    wait, matches = wait and at is None, matches and at is None
    with connected(options(), works=wait or matches) as api:
        account = find_platform(api, platform)
        body = _body(api, audience, account["platform_id"], segments, kind)
        more = {"force": force, "require_approval": ask, **({"scheduled_at": at} if at else {})}
        job = api.post("/distributions", {**body, **more})
        if wait or matches:
            [job] = follow_distributions(api, out, [job], matches=matches)
    out.answer(job, *distribution_report([(account["name"], job)]))
    require_delivered(job)


def _body(
    api: Api, audience: str, platform: str, segments: tuple[str, ...], kind: str
) -> dict[str, Any]:
    return {
        "distribution_type": kind,
        "audience_id": find_audience(api, audience)["audience_id"],
        "platform_id": find_platform(api, platform)["platform_id"],
        "segments_distributed": list(segments),
    }


def plan_report(found: dict[str, Any]) -> list[RenderableType]:
    """A plan as lines."""
    withheld = {f"withheld: {name}": count for name, count in sorted(found["withheld"].items())}
    return [
        facts(
            {
                "members": found["members"],
                **withheld,
                "identifiers wanted there": found["identifiers"],
                **{f"  of type {k}": n for k, n in sorted(found["identifiers_by_type"].items())},
                "accepted before": found["accepted"] or None,
                "to add": found["adds"],
                "to remove": found["removes"] or None,
                "to state again": found["restated"] or None,
                "rows to send": found["rows"],
                "requests": found["requests"],
                "at the platform's rate": f"{found['minutes']:.1f} minutes",
                "cost estimate": found["cost_estimate"] or None,
                "estimated matches": found["estimated_matches"],
            }
        ),
        *(f"  [yellow]{plain(warning)}[/yellow]" for warning in found["warnings"]),
    ]


def distribution_report(jobs: list[tuple[str, dict[str, Any]]]) -> list[RenderableType]:
    """Results of distributions, one a row: planned = sent + rejected + pending."""
    report: list[RenderableType] = [table(COLUMNS, [(name, *_results(job)) for name, job in jobs])]
    for name, job in ((plain(name), job) for name, job in jobs):
        reasons = job["progress"]["rejected_by_reason"]
        report += [f"  {name} rejected {count:,}: {reason}" for reason, count in reasons.items()]
        failed = job["match_results"].get("failures", {})
        report += [f"  {name} did not process {count:,}: {why}" for why, count in failed.items()]
        waits = waits_for(job)
        if waits is not None:
            report.append(f"  [yellow]{name}: {plain(waits)}[/yellow]")
        if job["status"] in ("completed", "partial") and not job["match_results"]["final"]:
            shown = f"activation distributions show {job['distribution_id']}"
            report.append(f"  Matches of {name} are not counted yet; look again with `{shown}`.")
    return report


def _platform_of(api: Api, job: dict[str, Any]) -> str:
    """The name of a distribution's account; its id, where it is gone."""
    platform_id = str(job["platform_id"])
    try:
        return str(api.get(f"/platforms/{platform_id}")["name"])
    except RefusedError:
        return platform_id


def _results(job: dict[str, Any]) -> tuple[Any, ...]:
    progress, matches = job["progress"], job["match_results"]
    return (
        job["status"],
        *(progress[name] for name in ("planned", "sent", "rejected", "pending")),
        matches["matched_records"],
        percent(matches["match_rate"]) or matches["match_rate_range"],
    )


def require_delivered(job: dict[str, Any]) -> None:
    """Raise Failure for a distribution that failed or was cancelled."""
    if job["status"] in ("failed", "cancelled"):
        error = job["error_details"]
        message = error["error_message"] or f"The distribution is {job['status']}."
        raise Failure(message, error["error_code"])


@click.group(cls=Group)
def distributions() -> None:
    """Look at distributions, running and past."""


@distributions.command("list")
@click.option("--status", metavar="STATUS", help="Only those with this status, e.g. completed.")
@click.option("--audience", metavar="AUDIENCE", help="The history of one audience.")
def list_distributions(status: str | None, audience: str | None) -> None:
    """List distributions, newest first."""
    query = {} if status is None else {"status": status}
    with connected(options()) as api:
        if audience is not None:
            query["audience_id"] = find_audience(api, audience)["audience_id"]
        found = list(api.all("/distributions", **query))
        names = {p["platform_id"]: p["name"] for p in api.all("/platforms")}
    rows = [
        (
            job["audience_name"],
            names.get(job["platform_id"]),
            *_results(job),
            job["distribution_id"],
        )
        for job in found
    ]
    output().answer(found, table(("audience", *COLUMNS, "id"), rows))


DECISIONS_EPILOG = """\b
Example:
  activation distributions {0} 01990000-0000-7000-8000-000000000000
"""


def _decision(name: str, method: str, path: str, body: dict[str, Any] | None, doc: str) -> None:
    """A command by which somebody decides about a distribution."""

    @distributions.command(name, help=doc, epilog=DECISIONS_EPILOG.format(name))
    @click.argument("distribution_id", metavar="ID")
    def decide(distribution_id: str) -> None:
        with connected(options(), works=True) as api:
            address = f"/distributions/{distribution_id}/{path}"
            job = api.put(address, body or {}) if method == "PUT" else api.post(address)
            name = _platform_of(api, job)
        output().answer(job, *distribution_report([(name, job)]))


for _name, _method, _path, _body_sent, _doc in (
    ("approve", "PUT", "approval", {"status": "approved"}, "Approve one that waits for it."),
    ("reject", "PUT", "approval", {"status": "rejected"}, "Reject one: it is never sent."),
    ("release", "POST", "release", None, "Let one go on that was held for what it removes."),
    ("pause", "POST", "pause", None, "Send nothing more until it is resumed."),
    ("resume", "POST", "resume", None, "Let a paused one go on."),
    ("cancel", "PUT", "status", {"status": "cancelled"}, "Send nothing more, for good."),
    ("retry", "POST", "retry", None, "Let a failed one go on with what is left."),
):
    _decision(_name, _method, _path, _body_sent, _doc)


@distributions.command("show")
@click.argument("distribution_id", metavar="ID")
def show_distribution(distribution_id: str) -> None:
    """Show a distribution with its progress and results."""
    with connected(options()) as api:
        job = api.get(f"/distributions/{distribution_id}")
        name = _platform_of(api, job)
    details = facts(
        {
            "audience": f"{job['audience_name']}, version {job['audience_version']}",
            "at the platform": job["match_results"]["platform_audience_id"],
            "created": moment(job["created_at"]),
            "completed": moment(job["completed_at"]),
            "error": job["error_details"]["error_message"],
        }
    )
    output().answer(job, details, *distribution_report([(name, job)]))


@distributions.command("rejects")
@click.argument("distribution_id", metavar="ID")
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write them to this file; without, they go to standard output.",
)
def rejects(distribution_id: str, target: Path | None) -> None:
    """Fetch the rows that the platform refused, as CSV: batch, row and reason, no values."""
    path = f"/distributions/{distribution_id}/rejects"
    with connected(options()) as api:
        if target is None:
            click.echo(api.download(path)[1], nl=False)
            return
        api.save(path, target)
    output().answer({"file": str(target)}, f"  Written to [bold]{plain(target)}[/bold].")


@distributions.command("requests")
@click.argument("distribution_id", metavar="ID")
def requests(distribution_id: str) -> None:
    """Show the last requests to the platform and its answers; all texts are masked."""
    with connected(options()) as api:
        found = api.get(f"/distributions/{distribution_id}/exchanges")["data"]
    columns = ("when", "batch", "request", "status", "outcome", "code", "took", "sent", "answered")
    shown = "  Bodies, masked, are in the output of --json."
    output().answer(found, table(columns, [_exchange(one) for one in found]), shown)


def _exchange(one: dict[str, Any]) -> tuple[Any, ...]:
    address = None if one["method"] is None else f"{one['method']} {one['host']}{one['path']}"
    took = one["duration_ms"]
    return (
        one["at"][:19].replace("T", " "),
        one["batch"],
        address or "(token endpoint)",
        one["status"],
        one["outcome"],
        one["platform_code"],
        None if took is None else duration(took / 1000),
        one["request"] and size(one["request"]["size_bytes"]),
        one["answer"] and size(one["answer"]["size_bytes"]),
    )
