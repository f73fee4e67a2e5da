"""`activation platforms`: accounts at ad platforms; credentials go in and never out."""

from __future__ import annotations

import json
from typing import IO, Any

import click

from activation.cli.api import Api, connected
from activation.cli.audiences import find_audience
from activation.cli.group import Failure
from activation.cli.options import Group, options
from activation.cli.output import facts, moment, output, percent, table
from activation.cli.progress import watched

TYPES = (
    "the_trade_desk",
    "google_ads",
    "facebook",
    "amazon_dsp",
    "dv360",
    "tiktok",
    "linkedin",
    "snapchat",
    "pinterest",
    "microsoft_ads",
    "criteo",
    "liveramp",
    "webhook",
    "file_drop",
)
"""Those of `domain.platform.PlatformType`, which takes long to load (a test compares)."""
ADD_EPILOG = """\b
Examples:
  activation platforms types
  activation platforms add "Meta, Germany" --type facebook \\
      --setting ad_account_id=1001 --credentials-file meta.json
  pass show meta | activation platforms add "Meta" --type facebook \\
      --setting ad_account_id=1001 --credentials-file -

Credentials are a JSON object. Without --credentials-file they are asked for, one by one, and
not shown. They are sealed before anything is stored.
"""


@click.group(cls=Group)
def platforms() -> None:
    """List, add and test accounts at ad platforms."""


@platforms.command("list")
def list_platforms() -> None:
    """List accounts, newest first."""
    with connected(options()) as api:
        found = list(api.all("/platforms"))
    rows = [
        (p["name"], p["platform_type"], p["status"], _health(p), p["platform_id"]) for p in found
    ]
    output().answer(found, table(("name", "type", "status", "health", "id"), rows))


def _health(platform: dict[str, Any]) -> str | None:
    health = platform["health"]
    return None if health is None else health["status"]


@platforms.command("types")
def types() -> None:
    """List the kinds of platform and the fields each one asks for."""
    with connected(options(), create=True) as api:
        found = api.get("/platform-types")["data"]
    rows = [
        (
            kind["platform_type"],
            part.rstrip("s"),
            field["name"],
            field["required"],
            field["description"],
        )
        for kind in found
        for part in ("credentials", "settings")
        for field in kind[part]
    ]
    output().answer(found, table(("type", "part", "field", "required", "meaning"), rows))


@platforms.command("add", epilog=ADD_EPILOG)
@click.argument("name")
@click.option("--type", "platform_type", type=click.Choice(TYPES), required=True)
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of this type of platform; may be given several times.",
)
@click.option(
    "--credentials-file",
    type=click.File("rb"),
    metavar="FILE|-",
    help="JSON object with the credentials; - reads standard input.",
)
def add(
    name: str, platform_type: str, settings: tuple[str, ...], credentials_file: IO[bytes] | None
) -> None:
    """Save an account; its credentials are sealed."""
    with connected(options(), create=True) as api:
        kinds = {kind["platform_type"]: kind for kind in api.get("/platform-types")["data"]}
        kind = kinds[platform_type]
        body = {
            "name": name,
            "platform_type": platform_type,
            "credentials": _asked(kind) if credentials_file is None else _read(credentials_file),
            "settings": {"config": dict(_setting(text, kind) for text in settings)},
        }
        made = api.post("/platforms", body)
    shown = f"Saved [bold]{made['platform_id']}[/bold]; try it with `activation platforms test`."
    output().answer(made, shown)


def _setting(text: str, kind: dict[str, Any]) -> tuple[str, Any]:
    """`NAME=VALUE`, the value as its field wants it; the API names what is wrong."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE.", param_hint="--setting")
    wanted = {field["name"]: field["kind"] for field in kind["settings"]}.get(name)
    if wanted == "boolean" and value in ("true", "false"):
        return name, value == "true"
    return name, int(value) if wanted == "integer" and value.isdigit() else value


def _read(file: IO[bytes]) -> dict[str, Any]:
    """The JSON object in a file; its text never appears in a message."""
    try:
        parsed = json.loads(file.read())
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise click.BadParameter("The file holds no JSON object.", param_hint="--credentials-file")
    # A key file of Google's is JSON itself, and kept as text.
    return {n: json.dumps(v) if isinstance(v, dict) else v for n, v in parsed.items()}


def _asked(kind: dict[str, Any]) -> dict[str, str]:
    answers = {
        field["name"]: click.prompt(
            f"{field['name']} ({field['description']})",
            default="",
            hide_input=True,
            show_default=False,
            err=True,
        )
        for field in kind["credentials"]
    }
    return {name: text for name, text in answers.items() if text}


@platforms.command("test")
@click.argument("platform", metavar="PLATFORM")
def check(platform: str) -> None:
    """Have the credentials checked at the platform."""
    with connected(options(), works=True) as api:
        tested = check_platform(api, find_platform(api, platform)["platform_id"])
    health = tested["health"]
    output().answer(
        tested,
        facts(
            {
                "platform": tested["name"],
                "health": health["status"],
                "says": health["message"],
                "end": moment(tested["credentials"]["expires_at"]),
            }
        ),
    )
    if health["status"] == "needs_reauth":
        raise Failure(health["message"], health["status"])


@platforms.command("match-rates")
@click.argument("platform", metavar="PLATFORM")
@click.option("--audience", metavar="AUDIENCE", help="Only this audience.")
def match_rates(platform: str, audience: str | None) -> None:
    """Show what the platform recognised of each audience, delivery after delivery."""
    with connected(options()) as api:
        query = (
            {} if audience is None else {"audience_id": find_audience(api, audience)["audience_id"]}
        )
        account = find_platform(api, platform)["platform_id"]
        found = list(api.all(f"/platforms/{account}/match-rates", **query))
    rows = [
        (
            history["audience_name"],
            moment(point["at"]),
            sorted(point["identifiers_by_type"]),
            point["sent"],
            point["matched"],
            percent(point["match_rate"]) or point["match_rate_range"],
            point["match_rate_fell"],
        )
        for history in found
        for point in reversed(history["points"])
    ]
    columns = ("audience", "when", "types", "sent", "matched", "match rate", "fell")
    output().answer(found, table(columns, rows))


def check_platform(api: Api, platform_id: str) -> dict[str, Any]:
    """The platform once its credentials were checked."""
    path = f"/platforms/{platform_id}"
    api.post(f"{path}/test")
    return watched(lambda: api.get(path), lambda p: bool(p["health"]["status"] != "checking"))


def find_platform(api: Api, id_or_name: str) -> dict[str, Any]:
    """The platform of this id or name; NotFoundError when there is none."""
    return api.find("/platforms", "platform", id_or_name)
