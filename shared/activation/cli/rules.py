"""`activation operators`, `preview` and `derive`: rules, what they choose, audiences made of it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from activation.cli.api import connected
from activation.cli.audiences import TYPES, find_audience
from activation.cli.jobs import require_done
from activation.cli.options import Command, options
from activation.cli.output import facts, output, percent, plain, table
from activation.cli.progress import follow_job

if TYPE_CHECKING:
    from rich.console import RenderableType

    from activation.domain.operators import Operator

RULE_HELP = "VARIABLE[:TYPE] OPERATOR [VALUE]; may be given several times, and all must hold."
PREVIEW_EPILOG = """\b
Examples:
  activation preview "Loyal customers"
  activation preview "Loyal customers" --rule "country EQ DE" --rule "age:number >= 18"
  activation preview "Loyal customers" --rule "city IN Rome,Paris" --exact
  activation preview "Loyal customers" --rule "member.added_at > 2026-11-01" --sample 20

Attributes of CSV files are texts: write `age:number` to compare them as numbers. The other types
are string, boolean and instant. `activation operators` lists the operators.
"""
DERIVE_EPILOG = """\b
Example:
  activation derive "German adults" --from "All" --rule "country = DE" --rule "age:number > 17"

The members of the new audience are those of the other one that the rules choose, now and after
every change.
"""
OPERATORS_EPILOG = """\b
Example:
  activation operators

A rule of the command line takes the name of an operator or what stands under `also`.
"""
_RULE = re.compile(r"""\s*(?:"([^"]+)"|(\S+))\s+(\S.*)""", re.DOTALL)


def _rules(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> Any:
    return [parsed_rule(text) for text in given]


def parsed_rule(text: str) -> dict[str, Any]:
    """`age:number >= 18` as the API's rule; click.BadParameter when it is none."""
    from activation.domain.operators import OPERATORS, operator_of

    found = _RULE.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not of the form VARIABLE[:TYPE] OPERATOR [VALUE].")
    variable, rest = found[1] or found[2], found[3].split(maxsplit=2)
    for words in (2, 1):
        code = operator_of(" ".join(rest[:words])) if len(rest) >= words else None
        if code is not None:
            value = found[3].split(maxsplit=words)[words:]
            return _rule(variable, code, value[0].strip() if value else None)
    raise click.BadParameter(f"{rest[0]!r} is none of {', '.join(OPERATORS)}.")


def _rule(variable: str, code: Operator, text: str | None) -> dict[str, Any]:
    from activation.domain.operators import OPERATORS, OperandType, ValueType

    name, _, kind = variable.rpartition(":")
    typed = bool(name) and kind in set(ValueType)
    rule: dict[str, Any] = {"variable_id": name if typed else variable, "operator": code.value}
    if typed:
        rule["value_type"] = kind
    if text is not None:
        several = {OperandType.LIST, OperandType.RANGE} & set(OPERATORS[code].value_types)
        rule["value"] = _list(text, kind) if several else _value(text, kind)
    return rule


def _list(text: str, kind: str) -> Any:
    if text.startswith("["):
        return _value(text, kind)
    return [_value(part.strip(), kind) for part in text.split(",")]


def _value(text: str, kind: str) -> Any:
    """A JSON value, or the text itself; texts are taken as such when the type says so."""
    if kind in ("string", "instant") and text[:1] not in ('"', "["):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


@click.command(cls=Command, epilog=OPERATORS_EPILOG)
def operators() -> None:
    """List the operators of rules."""
    with connected(options(), create=True) as api:
        found = api.get("/operators")
    rows = [
        (one["code"], " ".join(one["aliases"]), ", ".join(one["value_types"]), one["meaning"])
        for one in found["data"]
    ]
    fields = list(found["member_fields"].items())
    shown = table(("operator", "also", "compares with", "holds when the value"), rows)
    beside = table(("beside attributes", "type"), fields)
    output().answer(found, shown, "", beside)


@click.command(
    cls=Command, epilog=PREVIEW_EPILOG, short_help="Count the members that rules choose."
)
@click.argument("audience", metavar="AUDIENCE")
@click.option("--rule", "rules", multiple=True, callback=_rules, metavar="RULE", help=RULE_HELP)
@click.option("--exact", is_flag=True, help="Look at every member; the default may estimate.")
@click.option(
    "--sample",
    type=click.IntRange(0, 100),
    default=5,
    show_default=True,
    metavar="N",
    help="Show so many of the chosen members, without their values.",
)
def preview(audience: str, rules: list[dict[str, Any]], exact: bool, sample: int) -> None:
    """Count the members that rules choose; without --rule, those of the audience itself."""
    body: dict[str, Any] = {"exact": exact, "sample": sample}
    if rules:
        body["rules"] = rules
    with connected(options()) as api:
        audience_id = find_audience(api, audience)["audience_id"]
        found = api.post(f"/audiences/{audience_id}/preview", body)
    output().answer(found, *preview_report(found))


def preview_report(found: dict[str, Any]) -> list[RenderableType]:
    """A preview as lines and tables."""
    exact = found["basis"] == "exact"
    between = f"{found['matched_low']:,} to {found['matched_high']:,}"
    about = found["matched"] if exact else f"about {found['matched']:,}"
    summary = {
        "members": found["size"],
        "chosen": about,
        "between": None if exact else between,
        "share": percent(found["share"]),
        "examined": None if exact else found["examined"],
        **{f"of type {kind}": count for kind, count in found["by_type"].items()},
    }
    rules = [
        (one["variable_id"], one["operator"], one["present"], one["unreadable"], one["matched"])
        for one in found["rules"]
    ]
    report: list[RenderableType] = [facts(summary)]
    if rules:
        columns = ("variable", "operator", "present", "other type", "matched")
        report += ["", table(columns, rows=rules)]
    if any(one["unreadable"] and not one["matched"] for one in found["rules"]):
        report.append(
            "  [yellow]Values of another type never match: declare it, as in age:number.[/yellow]"
        )
    missing = [one["variable_id"] for one in found["rules"] if not one["present"]]
    if missing and found["size"]:
        names = plain(", ".join(map(repr, dict.fromkeys(missing))))
        report.append(f"  [yellow]None of the members looked at has {names}.[/yellow]")
    if found["sample"]:
        rows = [
            (one["identifier_type"], one["attributes"], one["segments"], one["added_month"])
            for one in found["sample"]
        ]
        report += ["", table(("type", "attributes", "segments", "added"), rows)]
    return report


@click.command(
    cls=Command, epilog=DERIVE_EPILOG, short_help="Make an audience of what rules choose."
)
@click.argument("name")
@click.option("--from", "source", required=True, metavar="NAME_OR_ID", help="The other audience.")
@click.option("--rule", "rules", multiple=True, callback=_rules, metavar="RULE", help=RULE_HELP)
@click.option(
    "--type",
    "data_type",
    type=click.Choice(TYPES),
    default=TYPES[0],
    show_default=True,
    help="Where the members come from.",
)
def derive(name: str, source: str, rules: list[dict[str, Any]], data_type: str) -> None:
    """Make an audience of those members of another one that rules choose."""
    out = output()
    with connected(options(), works=True) as api:
        origin = find_audience(api, source)["audience_id"]
        body = {"name": name, "data_type": data_type, "rules": rules}
        made = api.post("/audiences", {**body, "derived_from": {"source_audience_id": origin}})
        path = f"/audiences/{made['audience_id']}"
        choosing = [job for job in api.all(f"{path}/jobs") if job["kind"] == "derive"]
        for job in choosing:
            require_done(follow_job(api, out, job, "Choosing"))
        made = api.get(path)
    out.answer(
        made,
        f"Created the audience [bold]{made['audience_id']}[/bold]: {made['size']:,} members of "
        f"{plain(repr(source))}, and in step with it from now on.",
    )
