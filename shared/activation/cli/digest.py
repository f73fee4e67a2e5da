"""`activation digest`: one log through several engines, and whether they make the same of it."""

from __future__ import annotations

import dataclasses
import tempfile
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from activation.cli.group import Failure
from activation.cli.options import Command, options
from activation.cli.output import output, table
from activation.errors import InvalidStateError

if TYPE_CHECKING:
    from activation.digests.engines import Engine
    from activation.digests.report import Report

ENGINES = ("embedded", "functions", "beam")
SHOWN_DIGITS = 16
EPILOG = """\b
Examples:
  activation digest purchases.ndjson --rules segments.json
  activation digest purchases.ndjson --rules segments.json --engine beam --json
  activation digest purchases.ndjson --rules segments.json --engine all

A line of LOG is one event, with received_at where it came at another time than it happened. RULES
is a list of segments: name, and rules or an expression of the other names. Nothing is kept.

\b
  embedded   the shard worker on the stores of this machine
  functions  the functions on Google's emulators (FIRESTORE_EMULATOR_HOST, PUBSUB_EMULATOR_HOST)
  beam       the pipeline on Apache Beam's direct runner, in its environment: make beam

Each engine gets the events at the log's times, and sweeps in the same minutes. `state` does not
depend on how events were put into batches; `memberships` says since when, `history` is all entries
and exits. Exit code 1 when two engines differ.
"""


@click.command("digest", cls=Command, epilog=EPILOG)
@click.argument("log", type=click.File("rb"), metavar="LOG")
@click.option("--rules", type=click.File("rb"), required=True, help="Segments, as a JSON list.")
@click.option(
    "--engine",
    type=click.Choice([*ENGINES, "all"]),
    default="embedded",
    show_default=True,
    help="What the log goes through; all: each of them, and they are compared.",
)
@click.option(
    "--at",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ"]),
    help="Stop at this minute (UTC). Default: the whole minute after the last event.",
)
def digest(log: IO[bytes], rules: IO[bytes], engine: str, at: datetime | None) -> None:
    """Put a log of events through an engine and print a digest of what comes of it."""
    from datetime import UTC

    from activation.digests.log import read_log, read_segments

    options().require_local("an engine has empty stores of its own.")
    asked = ENGINES if engine == "all" else (engine,)
    engines = {name: _engine(name) for name in asked}
    end = None if at is None else at.replace(tzinfo=UTC)
    read = read_log(log, read_segments(rules.read()), end)
    from activation.digests.engines import timed
    from activation.digests.report import differences

    reports = []
    with output().bar("Digesting", "engines", len(engines)) as bar:
        for done, act in enumerate(engines.values(), start=1):
            with tempfile.TemporaryDirectory(prefix="activation-digest-") as folder:
                reports.append(timed(act, read, Path(folder)))
            bar.show(done)
    differing = differences(reports)
    documents = [{**dataclasses.asdict(one), "digest": one.digest} for one in reports]
    output().answer({"reports": documents, "differences": differing}, _shown(reports))
    if differing:
        raise Failure(f"The engines differ in {', '.join(differing)}.")


def _engine(name: str) -> Engine:
    """An engine; its libraries are loaded now, so that what is missing is said at once."""
    if name == "embedded":
        from activation.digests.engines import embedded

        return embedded
    if name == "functions":
        from activation.digests.functions import require_emulators, through_functions

        require_emulators()
        return through_functions
    try:
        from activation.digests.beam import through_beam
    except ModuleNotFoundError as error:
        if error.name != "apache_beam":
            raise
        raise InvalidStateError(
            "Apache Beam is not installed here; it has an environment of its own: `make beam`,"
            " then build/beam/bin/activation.",
            reason="no_beam",
        ) from error
    return through_beam


def _shown(reports: list[Report]) -> Any:
    """The reports side by side."""
    names = [one.name for one in dataclasses.fields(reports[0]) if one.name != "engine"]
    rows = [(name, *(_short(getattr(one, name)) for one in reports)) for name in (*names, "digest")]
    return table(("", *(one.engine for one in reports)), rows)


def _short(value: Any) -> str:
    """A digest as far as anybody compares it by eye."""
    return value[:SHOWN_DIGITS] if isinstance(value, str) else f"{value:,}"
