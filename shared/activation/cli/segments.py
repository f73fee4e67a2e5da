"""`activation segments`: users that follow rules on their events."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from activation.adapters.clock import SystemClock
from activation.cli.api import Api
from activation.cli.events import evaluating
from activation.cli.options import Group, options
from activation.cli.output import facts, moment, output, plain, table, text_of
from activation.cli.stores import opened
from activation.cli.watching import watch

if TYPE_CHECKING:
    from rich.console import RenderableType

    from activation.cli.progress import Bar

EPILOG = """\b
Examples:
  activation segments create "Buyers" --rule "orders >= 2 in 30m"
  activation segments create "Spenders" --rule "sum orders.amount > 99.50 in 24h"
  activation segments create "Lapsed" --expression '"Buyers" AND NOT "Spenders"'
  activation segments list --active
  activation segments members "Buyers"
  activation segments members "Buyers" --at 2026-11-28T09:30:00Z
  activation segments history "Buyers" --from 2026-11-28T09:00:00Z
  activation segments watch "Buyers"
  activation segments explain "Buyers" user-17
  activation segments explain "Buyers" user-17 --at 2026-11-28T09:30:00Z
  activation segments status "Buyers" inactive
  activation segments backfill "Spenders"

SEGMENT is a name or an id. A rule is [sum] EVENT[.FIELD] OPERATOR NUMBER in MINUTES, e.g. 30m or
24h; all rules of a segment must hold. EVENT is clicks, installs, orders or addToCart.
"""
POLL_SECONDS, PATIENCE_SECONDS = 1.0, 60.0
SYMBOLS = {">": "GT", ">=": "GTE", "<": "LT", "<=": "LTE", "=": "EQ", "==": "EQ", "!=": "NEQ"}
NAMES = {name: symbol for symbol, name in SYMBOLS.items() if symbol != "=="}
_RULE = re.compile(
    r"\s*(sum\s+)?(\w+)(?:\.(\S+))?\s*(>=|<=|!=|==|[<>=]|[A-Za-z]{2,3})\s*"
    r"(-?[\d.]+)\s+in\s+(\d+)\s*([mh]?)\s*"
)


def parsed_rule(text: str) -> dict[str, Any]:
    """`sum orders.amount > 99.5 in 24h` as the API's rule; click.BadParameter when it is none."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise click.BadParameter(
            f"{text!r} is not of the form [sum] EVENT[.FIELD] OPERATOR NUMBER in MINUTES."
        )
    sums, event, field, operator, value, window, unit = found.groups()
    if field and not sums:
        raise click.BadParameter(f"{text!r} has a field: begin it with sum.")
    rule: dict[str, Any] = {
        "event_type": event,
        "attribute": "sum" if sums else "count",
        "operator": SYMBOLS.get(operator, operator.upper()),
        "value": _number(value),
        "window_minutes": int(window) * (60 if unit == "h" else 1),
    }
    return {**rule, "field": field} if field else rule


def _number(text: str) -> int | float:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number.") from None


def _rules(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> Any:
    return [parsed_rule(text) for text in given]


@click.group(cls=Group, epilog=EPILOG)
def segments() -> None:
    """Define segments on events, and see who is in them."""


segments.add_command(watch)


@segments.command("list")
@click.option("--active/--inactive", "active", default=None, help="Only those.")
def list_segments(active: bool | None) -> None:
    """List segments, newest first."""
    query = {} if active is None else {"active": str(active).lower()}
    with evaluating(options()) as (api, _):
        found = list(api.all("/segments", **query))
    rows = [(s["name"], s["type"], s["status"], s["version"], s["segment_id"]) for s in found]
    output().answer(found, table(("name", "type", "status", "version", "id"), rows))


@segments.command("show")
@click.argument("segment", metavar="SEGMENT")
def show(segment: str) -> None:
    """Show a segment, its members and who came and went."""
    with evaluating(options()) as (api, drain):
        drain(None)
        found = _found(api, segment)
        path = f"/segments/{found['segment_id']}"
        statistics, uses = api.get(f"{path}/statistics"), api.get(f"{path}/used-by")
    document = {**found, "statistics": statistics, "used_by": uses["data"]}
    output().answer(document, *_shown(found, statistics, uses))


@segments.command("create")
@click.argument("name", metavar="NAME")
@click.option("--rule", "rules", multiple=True, callback=_rules, metavar="RULE", help="See below.")
@click.option("--expression", metavar="TEXT", help="Other segments with AND, OR, NOT and ( ).")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@click.option("--inactive", is_flag=True, help="Define it, and let it count later.")
def create(
    name: str, rules: list[dict[str, Any]], expression: str | None, description: str, inactive: bool
) -> None:
    """Define a segment by rules, or by an expression."""
    if bool(rules) == bool(expression):
        raise click.UsageError("Give either --rule or --expression.")
    body: dict[str, Any] = {
        "name": name,
        "description": description,
        "type": "DERIVED" if expression else "INDEPENDENT",
        "status": "inactive" if inactive else "active",
        **({"expression": expression} if expression else {"rules": rules}),
    }
    with evaluating(options(), create=True) as (api, drain):
        made = api.post("/segments", body)
        drain(None)
    warnings = [f"[yellow]{one['message']}[/yellow]" for one in made["warnings"]]
    output().answer(made, f"Saved [bold]{made['segment_id']}[/bold].", *warnings)


@segments.command("delete")
@click.argument("segment", metavar="SEGMENT")
def delete(segment: str) -> None:
    """Delete a segment that nobody uses."""
    with evaluating(options()) as (api, drain):
        found = _found(api, segment)
        api.delete(f"/segments/{found['segment_id']}")
        drain(None)
    output().answer({"segment_id": found["segment_id"]}, "Deleted.")


@segments.command("status")
@click.argument("segment", metavar="SEGMENT")
@click.argument("status", type=click.Choice(("active", "inactive")))
def set_status(segment: str, status: str) -> None:
    """Switch a segment on or off; an inactive one has no members."""
    with evaluating(options()) as (api, drain):
        found = _found(api, segment)
        after = api.put(f"/segments/{found['segment_id']}/status", {"status": status})
        drain(None)
    output().answer(after, f"{plain(after['name'])} is {after['status']}.")


@segments.command("members")
@click.argument("segment", metavar="SEGMENT")
@click.option("--limit", default=100, show_default=True, help="How many at most.")
@click.option("--at", metavar="INSTANT", help="Who was in it then, e.g. 2026-11-28T09:30:00Z.")
def members(segment: str, limit: int, at: str | None) -> None:
    """List the users in a segment, and since when."""
    query = {} if at is None else {"at": at}
    with evaluating(options()) as (api, drain):
        drain(None)
        found = _found(api, segment)
        path = f"/segments/{found['segment_id']}/members"
        people = list(islice(api.all(path, **query), limit))
    rows = [(one["user_id"], moment(one["entered_at"])) for one in people]
    output().answer(people, table(("user", "since"), rows))


@segments.command("backfill")
@click.argument("segment", metavar="SEGMENT")
def backfill(segment: str) -> None:
    """Wait until the sums of a segment have got their past, and show how far it is."""
    out = output()
    with evaluating(options()) as (api, drain):
        found = _found(api, segment)
        path = f"/segments/{found['segment_id']}/backfill"
        with out.bar("Bringing the past", "shards") as bar:
            drain(None)
            state = brought(lambda: api.get(path), bar)
    done = f"{state['done']} of {state['shards']} shards have their past."
    out.answer(state, done if state["since"] else "All of its past is there.")


@segments.command("history")
@click.argument("segment", metavar="SEGMENT")
@click.option("--from", "since", metavar="INSTANT", help="Told at or after this instant.")
@click.option("--until", metavar="INSTANT", help="Told before this instant.")
@click.option("--limit", default=100, show_default=True, help="How many at most.")
def history(segment: str, since: str | None, until: str | None, limit: int) -> None:
    """List who entered and left a segment, newest first."""
    given = {"from": since, "until": until}
    query = {name: value for name, value in given.items() if value is not None}
    with evaluating(options()) as (api, drain):
        drain(None)
        found = _found(api, segment)
        path = f"/segments/{found['segment_id']}/history"
        changes = list(islice(api.all(path, **query), limit))
    rows = [
        (moment(one["told_at"]), "entered" if one["entered"] else "left", one["user_id"])
        for one in changes
    ]
    output().answer(changes, table(("told", "", "user"), rows))


@segments.command("explain")
@click.argument("segment", metavar="SEGMENT")
@click.argument("user_id", metavar="USER")
@click.option("--at", metavar="INSTANT", help="As it was then; by default now.")
def explain(segment: str, user_id: str, at: str | None) -> None:
    """Tell why a user is in a segment or not, and when that changes by itself."""
    from urllib.parse import quote

    with evaluating(options()) as (api, drain):
        drain(None)
        found = _found(api, segment)
        user = quote(user_id, safe="")
        asked = f"?at={quote(at, safe='')}" if at else ""
        told = api.get(f"/users/{user}/segments/{found['segment_id']}/explain{asked}")
    shown = {
        "member": told["member"],
        "since": moment(told["entered_at"]),
        "holds then" if at else "holds now": told["holds"],
        "changes by itself": moment(told["changes_at"]) or "never",
        "counting since": moment(told["counting_since"]),
    }
    rows = [
        (one["name"], _rule(rule["rule"]), rule["number"], rule["holds"])
        for one in told["segments"]
        for rule in one["rules"]
    ]
    output().answer(told, facts(shown), table(("segment", "rule", "number", "holds"), rows))


@segments.command("fold")
def fold() -> None:
    """Store every shard of all organizations whole: before another release that evaluates in
    another way, as its changelog says. It works on the stores, while nothing else does."""
    out = output()
    with opened("segments are folded in the stores themselves.") as app:
        shards = [
            (one, shard)
            for one in app.documents.organizations()
            for shard in app.segment_replay.existing(one)
        ]
        with out.bar("Folding", "shards") as bar:
            for number, (organization_id, shard) in enumerate(shards, 1):
                app.shards.fold(organization_id, shard)
                bar.show(number, total=len(shards))
    told = "1 shard is" if len(shards) == 1 else f"{len(shards):,} shards are"
    out.answer({"shards": len(shards)}, f"{told} stored whole.")


def brought(ask: Callable[[], dict[str, Any]], bar: Bar) -> dict[str, Any]:
    """Follow a backfill to its end; gives up waiting after `PATIENCE` without any progress."""
    clock = SystemClock()
    state = ask()
    seen, since = state["done"], clock.monotonic()
    while state["since"] is not None and clock.monotonic() - since < PATIENCE_SECONDS:
        bar.show(state["done"], total=state["shards"] or 1)
        clock.sleep(POLL_SECONDS)
        state = ask()
        if state["done"] != seen:
            seen, since = state["done"], clock.monotonic()
    bar.show(state["done"], total=state["shards"] or None)
    return state


def _found(api: Api, id_or_name: str) -> dict[str, Any]:
    return api.find("/segments", "segment", id_or_name)


def _rule(rule: dict[str, Any]) -> str:
    """A rule as it is written on the command line."""
    what = rule["event_type"]
    if rule["attribute"] == "sum":
        what = f"sum {what}.{rule['field']}"
    minutes = rule["window_minutes"]
    window = f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"
    return f"{what} {NAMES[rule['operator']]} {rule['value']} in {window}"


def _shown(
    found: dict[str, Any], statistics: dict[str, Any], uses: dict[str, Any]
) -> list[RenderableType]:
    hour, day = statistics["last_hour"], statistics["last_day"]
    about = {
        "id": found["segment_id"],
        "status": found["status"],
        "version": found["version"],
        "rules": "; ".join(map(_rule, found["rules"])) or None,
        "expression": found["expression"],
        "counting since": moment(found["counting_since"]),
        "members": statistics["members"],
        "last hour": f"{text_of(hour['entered'])} entered, {text_of(hour['exited'])} left",
        "last day": f"{text_of(day['entered'])} entered, {text_of(day['exited'])} left",
        "used by": ", ".join(one["name"] for one in uses["data"]) or None,
    }
    warnings = [f"[yellow]{one['message']}[/yellow]" for one in found["warnings"]]
    return [f"[bold]{found['name']}[/bold]", facts(about), *warnings]
