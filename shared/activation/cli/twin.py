"""`activation twin`: ad platforms to try things on, behind one port of this machine."""

from __future__ import annotations

import gc
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from activation.cli.options import Command
from activation.cli.output import output
from activation.cli.platforms import TYPES

if TYPE_CHECKING:
    from activation.ports import Clock

EPILOG = """\b
Examples:
  activation twin
  activation twin --port 9100 --match-rate 0.7

Run it next to `ACTIVATION_ALLOW_PRIVATE_HOSTS=true activation serve`. The twins refuse what the
platforms refuse. GET /_twin/state tells what they hold.
"""


@click.command(cls=Command, epilog=EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8090, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--match-rate",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the people that the platforms know.",
)
@click.option("--only", type=click.Choice(TYPES), help="Run only this one.")
@click.option("--until-closed", is_flag=True, hidden=True, help="End with standard input.")
def twin(host: str, port: int, match_rate: float, only: str | None, until_closed: bool) -> None:
    """Run the twins of the ad platforms, and print the settings to use."""
    from activation.adapters.clock import SystemClock
    from activation.twins.catalog import OFFERS
    from activation.twins.server import serve

    if only is not None and only not in OFFERS:
        raise click.BadParameter(f"There is no twin of {only}.", param_hint="--only")
    gc.set_threshold(MANY_OBJECTS)
    clock = SystemClock()
    names = list(OFFERS) if only is None else [only]
    twins = {name: OFFERS[name].make(clock, match_rate) for name in names}
    running = serve(twins, host, port)
    accounts = [
        OFFERS[name].account(name, running.url_of(name), made) for name, made in twins.items()
    ]
    try:
        output().answer({"url": running.url, "platforms": accounts}, *_shown(running.url, accounts))
        sys.stdout.flush()
        _wait(clock, until_closed=until_closed)
    finally:
        running.close()


def _shown(url: str, accounts: list[dict[str, Any]]) -> list[str]:
    lines = [f"The twins listen at [bold]{url}[/bold]; stop with Ctrl-C.", ""]
    for account in accounts:
        settings = account["settings"]["config"].items()
        name = account["platform_type"]
        lines.append(f"[bold]{name}[/bold]")
        lines += [f"  --setting {key}={json.dumps(value).strip(QUOTE)}" for key, value in settings]
        lines += [f"  credentials: {json.dumps(account['credentials'])}", ""]
    return [*lines, f"What they hold: {url}/_twin/state"]


QUOTE = '"'
MANY_OBJECTS = 200_000
"""So many new objects wake the garbage collector, which looks at every member of every set: with
its usual 700, and millions of members, it would take more time than all the checking."""


def _wait(clock: Clock, *, until_closed: bool) -> None:
    """Until Ctrl-C or, with `until_closed`, until whoever started us is gone."""
    if until_closed:
        sys.stdin.buffer.read()
        return
    while True:
        clock.sleep(3600)
