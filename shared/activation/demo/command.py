"""`activation demo`: the main job, end to end, on made-up data or a file of yours."""

from __future__ import annotations

from pathlib import Path

import click

from activation.cli.options import Command, options
from activation.cli.output import output
from activation.demo.folder import DEFAULT

DEFAULT_ROWS = 1_000_000
EPILOG = f"""\b
Examples:
  activation demo
  activation demo --rows 50000
  activation demo --input customers.csv --default-region US

It needs no account, no key and no network: the ad platforms are strict twins on this machine.
The store stays in ./{DEFAULT} (or --data), to look at afterwards.
"""


@click.command(cls=Command, epilog=EPILOG)
@click.option(
    "--rows", default=DEFAULT_ROWS, show_default=True, type=click.IntRange(1, 100_000_000)
)
@click.option(
    "--input",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Import this file instead of a made-up one.",
)
@click.option("--default-region", default="DE", show_default=True, metavar="XX")
@click.option("--keep", is_flag=True, help="Keep the made-up file, next to the store.")
def demo(rows: int, file: Path | None, default_region: str, keep: bool) -> None:
    """Import a million made-up customers and bring them to two ad platforms."""
    from activation.demo.run import Wishes, run

    given = options()
    given.require_local("the demo makes a store of its own.")
    run(given, output(), Wishes(rows, file, default_region, keep))
