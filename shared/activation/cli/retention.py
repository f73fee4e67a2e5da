"""`activation retention`: runs, reports, holds."""

from __future__ import annotations

from typing import Any

import click

from activation.cli.api import connected
from activation.cli.audiences import find_audience
from activation.cli.group import Failure
from activation.cli.options import Group, options
from activation.cli.output import facts, moment, output, plain, table
from activation.cli.progress import watched

JOBS = ("daily", "weekly", "monthly", "lookahead")
COUNTS = {
    "processed": "looked at",
    "archived": "archived",
    "compressed": "compressed",
    "deleted": "members deleted",
    "notified": "told of",
    "ended": "expired and paused",
    "expired_members": "expired members removed",
    "folded": "folded",
    "distributions_archived": "distributions archived",
    "steps_deleted": "steps of segments deleted",
    "rules_deleted": "rules of segments deleted",
    "refusals_deleted": "refusals of events deleted",
    "events_expired": "old events let go",
    "skipped_count": "skipped",
    "error_count": "failed",
}
"""Count of a report → what people read."""


EPILOG = """\b
Examples:
  activation retention run --dry-run
  activation retention show "Loyal customers"
  activation retention hold "Loyal customers" --reason "Case 17"
  activation retention release "Loyal customers"
"""


@click.group(cls=Group, epilog=EPILOG)
def retention() -> None:
    """Show and apply the rules for how long members are kept."""


@retention.command("run")
@click.option(
    "--job",
    type=click.Choice(JOBS),
    default=JOBS[0],
    show_default=True,
    help="Which of the scheduled jobs; docs/retention.md says what each does.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def run(job: str, dry_run: bool) -> None:
    """Run a retention job now and show its report."""
    with connected(options(), works=True) as api:
        started = api.post("/retention/runs", {"job": job, "dry_run": dry_run})
        address = f"/retention/runs/{started['run_id']}"
        finished = watched(lambda: api.get(address), lambda one: one["status"] != "running")
    output().answer(finished, run_facts(finished), *_lists(finished))
    if finished["status"] == "failed":
        raise Failure("The run has failed.", (finished["error"] or {}).get("code"))


@retention.command("runs")
@click.option("--job", type=click.Choice(JOBS), help="Only those of this job.")
def runs(job: str | None) -> None:
    """List runs, newest first."""
    with connected(options()) as api:
        found = list(api.all("/retention/runs", **({} if job is None else {"job": job})))
    rows = [
        (
            moment(one["scheduled_at"] or one["created_at"]),
            one["job"] + (" (dry)" if one["dry_run"] else ""),
            one["status"],
            _done(one["report"]),
            one["run_id"],
        )
        for one in found
    ]
    columns = ("slot", "job", "status", "done", "id")
    output().answer(found, table(columns, rows))


def _done(report: dict[str, Any]) -> str:
    """`3 archived, 1 failed`; what every run counts is left out."""
    counts = {label: report[name] for name, label in COUNTS.items() if name != "processed"}
    return ", ".join(f"{count:,} {label}" for label, count in counts.items() if count)


@retention.command("show")
@click.argument("audience", metavar="AUDIENCE")
def show(audience: str) -> None:
    """Show an audience's policy, what it will do and when, and what was done."""
    with connected(options()) as api:
        found = find_audience(api, audience)
        shown = api.get(f"/audiences/{found['audience_id']}/retention")
    hold = shown["legal_hold"]
    policy = {name: days for name, days in shown["policy"].items() if name != "custom_rules"}
    head = {
        "audience": found["name"],
        "policy": shown["policy_name"],
        **{name.replace("_", " "): days for name, days in policy.items()},
        "legal hold": hold and hold["reason"],
        "members deleted": moment(shown["members_deleted_at"]),
    }
    coming = [(moment(n["due_at"]), n["action"], n["reason"]) for n in shown["next_actions"]]
    done = [(moment(e["at"]), e["action"], _brief(e["details"])) for e in shown["log"]]
    output().answer(
        shown,
        facts(head),
        "",
        table(("due", "action", "because"), coming) if coming else "  Nothing is due.",
        "",
        table(("done", "action", "details"), done) if done else "  Nothing was done yet.",
    )


@retention.command("hold")
@click.argument("audience", metavar="AUDIENCE")
@click.option("--reason", required=True, help="The case, for whoever reads it later.")
def hold(audience: str, reason: str) -> None:
    """Place a legal hold: nothing is archived, compressed or deleted."""
    with connected(options()) as api:
        found = find_audience(api, audience)
        held = api.put(f"/audiences/{found['audience_id']}/legal-hold", {"reason": reason})
    output().answer(held, f"[bold]{plain(found['name'])}[/bold] is under legal hold.")


@retention.command("release")
@click.argument("target", metavar="AUDIENCE|RUN_ID")
def release(target: str) -> None:
    """Lift a legal hold, or let a held run go on."""
    with connected(options()) as api:
        held = {one["run_id"] for one in api.all("/retention/runs", status="held")}
        if target in held:
            released = api.post(f"/retention/runs/{target}/release")
            output().answer(released, "The run goes on.")
            return
        found = find_audience(api, target)
        api.delete(f"/audiences/{found['audience_id']}/legal-hold")
    output().answer({"audience_id": found["audience_id"]}, "The hold is lifted.")


def run_facts(one: dict[str, Any]) -> Any:
    """A run as lines."""
    guard = one["guard"]
    held = f"{guard['candidates']} of {guard['audiences']} audiences, limit {guard['limit']}"
    counts = {label: one["report"][name] or None for name, label in COUNTS.items()}
    return facts(
        {
            "run": one["run_id"],
            "job": one["job"] + (" (dry run)" if one["dry_run"] else ""),
            "status": one["status"],
            "held because of": held if one["status"] == "held" else None,
            **counts,
        }
    )


def _lists(one: dict[str, Any]) -> list[Any]:
    report = one["report"]
    planned = [(p["audience_id"], p["action"], p["reason"]) for p in report["planned"]]
    skipped = [(s["audience_id"], s["reason"]) for s in report["skipped"]]
    errors = [(e["audience_id"], e["action"], e["code"], e["reason"]) for e in report["errors"]]
    shown: list[tuple[list[Any], tuple[str, ...]]] = [
        (planned, ("audience", "would do" if one["dry_run"] else "about to do", "because")),
        (skipped, ("audience", "skipped because of")),
        (errors, ("audience", "failed to", "code", "reason")),
    ]
    return [table(columns, rows) for rows, columns in shown if rows]


def _brief(details: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in details.items() if value)
