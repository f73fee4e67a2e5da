"""`activation ledgers`: what each platform has accepted of each audience."""

from __future__ import annotations

from typing import Any

import click

from activation.cli.api import connected
from activation.cli.audiences import find_audience
from activation.cli.options import Group, options
from activation.cli.output import facts, moment, output, table
from activation.cli.platforms import find_platform

RECONCILE_EPILOG = """\b
Example:
  activation ledgers reconcile "Loyal customers" "Our receiver"

Works with platforms that list or count what they hold; a distribution heals what has drifted.
"""


@click.group(cls=Group)
def ledgers() -> None:
    """See what platforms have accepted, and compare it with what they hold."""


@ledgers.command("list")
@click.option("--audience", help="Only those of this audience.")
def list_ledgers(audience: str | None) -> None:
    """List what platforms have accepted."""
    with connected(options()) as api:
        query = {} if audience is None else {"audience_id": _id_of(api, audience)}
        found = list(api.all("/ledgers", **query))
        audiences = {a["audience_id"]: a["name"] for a in api.all("/audiences")}
        platforms = {p["platform_id"]: p["name"] for p in api.all("/platforms")}
    rows = [
        (
            audiences.get(one["audience_id"]),
            platforms.get(one["platform_id"]),
            one["accepted"],
            one["doubtful"],
            moment(one["accepted_at"]),
        )
        for one in found
    ]
    output().answer(
        found, table(("audience", "platform", "accepted", "in doubt", "last sent"), rows)
    )


@ledgers.command("show")
@click.argument("audience", metavar="AUDIENCE")
@click.argument("platform", metavar="PLATFORM")
def show_ledger(audience: str, platform: str) -> None:
    """Show what a platform has accepted, skipped slots and the last drift."""
    with connected(options()) as api:
        found = api.get(_path(api, audience, platform))
    output().answer(found, *_report(found))


@ledgers.command("reconcile", epilog=RECONCILE_EPILOG)
@click.argument("audience", metavar="AUDIENCE")
@click.argument("platform", metavar="PLATFORM")
def reconcile(audience: str, platform: str) -> None:
    """Compare with what the platform holds, and heal what has drifted."""
    with connected(options(), works=True) as api:
        found = api.post(_path(api, audience, platform) + "/reconcile")
    output().answer(
        found, "The comparison is under way; `activation ledgers show` tells what it found."
    )


@ledgers.command("forget")
@click.argument("audience", metavar="AUDIENCE")
@click.argument("platform", metavar="PLATFORM")
def forget(audience: str, platform: str) -> None:
    """Forget what a platform has accepted, after its audience was deleted there."""
    with connected(options()) as api:
        api.delete(_path(api, audience, platform))
    output().answer({}, "Forgotten; the next distribution makes a new audience there.")


@ledgers.command("pause")
@click.argument("audience", metavar="AUDIENCE")
@click.argument("platform", metavar="PLATFORM")
def pause(audience: str, platform: str) -> None:
    """Leave an audience out of the platform's refresh schedule."""
    with connected(options()) as api:
        found = api.post(_path(api, audience, platform) + "/pause")
    output().answer(found, *_report(found))


@ledgers.command("resume")
@click.argument("audience", metavar="AUDIENCE")
@click.argument("platform", metavar="PLATFORM")
def resume(audience: str, platform: str) -> None:
    """Take an audience into the platform's refresh schedule again."""
    with connected(options()) as api:
        found = api.post(_path(api, audience, platform) + "/resume")
    output().answer(found, *_report(found))


def _id_of(api: Any, audience: str) -> str:
    return str(find_audience(api, audience)["audience_id"])


def _path(api: Any, audience: str, platform: str) -> str:
    return f"/ledgers/{_id_of(api, audience)}/{find_platform(api, platform)['platform_id']}"


def _report(found: dict[str, Any]) -> list[Any]:
    drift = found["drift"]
    shown = [
        facts(
            {
                "accepted": found["accepted"],
                **{f"  of type {k}": n for k, n in sorted(found["accepted_by_type"].items())},
                "in doubt": found["doubtful"] or None,
                "uncertain since": found["uncertain_since"] and moment(found["uncertain_since"]),
                "at the platform": found["platform_audience_id"],
                "last sent": moment(found["accepted_at"]),
                "refresh": "paused" if found["refresh_paused"] else None,
                "compared": moment(drift["checked_at"]) if drift else None,
                "  missing there": drift["missing"] if drift else None,
                "  strange there": drift["extra"] if drift else None,
                "  says": drift["message"] or None if drift else None,
                "  healed by": drift["healed_by"] if drift else None,
            }
        )
    ]
    if found["skipped"]:
        rows = [(moment(one["slot_at"]), one["reason"]) for one in found["skipped"]]
        shown.append(table(("skipped slot", "reason"), rows))
    return shown
