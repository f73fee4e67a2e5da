"""`activation import` and `activation imports`: members from a file, with what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from activation.cli.api import Api, connected
from activation.cli.audiences import TYPES, create_audience, find_audience
from activation.cli.group import Failure
from activation.cli.options import Command, Group, options
from activation.cli.output import Output, duration, output, percent, plain, table
from activation.cli.progress import follow_import
from activation.errors import NotFoundError

if TYPE_CHECKING:
    from rich.console import RenderableType

FORMATS = ("csv", "ndjson", "parquet")
IMPORT_EPILOG = """\b
Examples:
  activation import customers.csv --audience "Loyal customers" --create
  activation import crm.csv.gz --audience "Loyal customers" --default-region DE
  activation import hashes.csv --audience "Newsletter" --column "Mail=email:plain"
  activation import export.csv --audience "Newsletter" --column "Notes=ignore"

CSV, NDJSON and Parquet are read, plain or packed with gzip or zstd. E-mail addresses and phone
numbers are hashed on arrival and never stored. Rejected rows are listed with row number, column
and reason, without their values.
"""
ROLES = (
    *("attribute", "attributes", "expires_at", "score", "segments"),
    *("consent", "ad_user_data", "ad_personalization", "limited_data_use", "tcf"),
    *("identifier_type", "identifier_value", "ignore"),
)


def mapped_columns(
    _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> Any:
    """Values of `--column` as the API's column mappings."""
    return [_mapped(text) for text in given]


def _mapped(text: str) -> dict[str, str]:
    """`Mail=email:plain` and `Notes=ignore` as the API's column mappings."""
    column, equals, meaning = text.rpartition("=")
    if not equals or not column or not meaning:
        raise click.BadParameter(f"{text!r} is not of the form COLUMN=MEANING[:RULE].")
    kind, _, rule = meaning.partition(":")
    if kind in ROLES:
        return {"column": column, "role": kind}
    return {"column": column, "identifier_type": kind, **({"hash_rule": rule} if rule else {})}


@click.command("import", cls=Command, epilog=IMPORT_EPILOG)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--audience", required=True, metavar="NAME_OR_ID", help="Where the members go.")
@click.option("--create", is_flag=True, help="Create the audience when there is none of this name.")
@click.option(
    "--type",
    "data_type",
    type=click.Choice(TYPES),
    default=TYPES[0],
    show_default=True,
    help="With --create: where the members come from.",
)
@click.option(
    "--default-region",
    metavar="XX",
    help="Country (ISO 3166) of phone numbers without country code, e.g. DE.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    callback=mapped_columns,
    metavar="COLUMN=MEANING[:RULE]",
    help="What a column holds, where its name does not say so; may be given several times.",
)
@click.option("--format", "file_format", type=click.Choice(FORMATS), help="Default: detected.")
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where rejected rows are listed. Default: next to the file.",
)
def import_(
    file: Path,
    audience: str,
    create: bool,
    data_type: str,
    default_region: str | None,
    columns: list[dict[str, str]],
    file_format: str | None,
    rejects: Path | None,
) -> None:
    """Import members from FILE into an audience."""
    given = {"format": file_format, "columns": columns or None, "default_region": default_region}
    draft = {name: value for name, value in given.items() if value is not None}
    out = output()
    with connected(options(), create=create, works=True) as api:
        found = _audience(api, audience, data_type, create=create)
        job = run_import(api, out, found["audience_id"], file, draft)
        unwritable, saved = None, None
        try:
            saved = save_rejects(api, job, rejects or file.with_name(f"{file.name}.rejects.csv"))
        except click.FileError as error:  # the import is over all the same
            unwritable = error
        document = {**job, "rejects_file": str(saved) if saved else None}
        out.answer(document, *import_report(job, saved))  # the backup may still be at work
    require_completed(job)
    if unwritable is not None:
        raise unwritable


def _audience(api: Api, name: str, data_type: str, *, create: bool) -> dict[str, Any]:
    try:
        return find_audience(api, name)
    except NotFoundError:
        if not create:
            raise
    return create_audience(api, name, data_type)


def run_import(
    api: Api, out: Output, audience_id: str, file: Path, draft: dict[str, Any]
) -> dict[str, Any]:
    """Upload a file, follow its import to the end, and return the job."""
    octets = file.stat().st_size
    done = 0
    with out.bar("Uploading", "bytes", octets) as bar, file.open("rb") as stream:

        def sent(piece: int) -> None:
            nonlocal done
            done += piece
            bar.show(done)

        import_id = api.import_file(
            audience_id, {"file_name": file.name, **draft}, stream, octets, sent
        )
    return follow_import(api, out, audience_id, import_id)


def save_rejects(api: Api, job: dict[str, Any], target: Path) -> Path | None:
    """Write the reject file of a job that rejected anything."""
    if not job["counts"]["rejected"]:
        return None
    api.save(f"/audiences/{job['audience_id']}/imports/{job['import_id']}/rejects", target)
    return target


def import_report(job: dict[str, Any], rejects: Path | None) -> list[RenderableType]:
    """What an import did, as tables."""
    counts = job["counts"]
    rows = [
        (
            name,
            counts[name],
            percent(counts[name] / counts["received"]) if counts["received"] else None,
        )
        for name in ("received", "accepted", "duplicate", "rejected")
    ]
    took = duration(job["duration_seconds"])
    read = f"{counts['rows']:,} rows" + (f" in {took}" if took else "")
    report: list[RenderableType] = [f"  {read}\n", table(("values", "count", "share"), rows)]
    if counts["rejected"]:
        reasons = sorted(counts["rejected_by_reason"].items(), key=lambda item: -item[1])
        report += ["", table(("rejected because", "count"), reasons)]
    if rejects is not None:
        report.append(
            f"\n  Rejected rows by number, column and reason: [bold]{plain(rejects)}[/bold]"
        )
    report += [f"  [yellow]{plain(warning)}[/yellow]" for warning in job["warnings"]]
    return report


def require_completed(job: dict[str, Any]) -> None:
    """Raise Failure for a job that did not complete."""
    if job["status"] == "completed":
        return
    error = job["error"] or {}
    message = error.get("message") or f"The import is {job['status']}."
    raise Failure(message, error.get("reason"))


@click.group(cls=Group)
def imports() -> None:
    """Look at imports, running and past."""


@imports.command("list")
@click.option("--audience", required=True, metavar="NAME_OR_ID")
def list_imports(audience: str) -> None:
    """List the imports into an audience, newest first."""
    with connected(options()) as api:
        audience_id = find_audience(api, audience)["audience_id"]
        found = list(api.all(f"/audiences/{audience_id}/imports"))
    counted = ("rows", "accepted", "duplicate", "rejected")
    rows = [
        (job["file_name"], job["status"], *map(job["counts"].get, counted), job["import_id"])
        for job in found
    ]
    output().answer(found, table(("file", "status", *counted, "id"), rows))


@imports.command("show")
@click.argument("import_id")
@click.option("--audience", required=True, metavar="NAME_OR_ID")
def show_import(import_id: str, audience: str) -> None:
    """Show an import with its counts."""
    with connected(options()) as api:
        audience_id = find_audience(api, audience)["audience_id"]
        job = api.get(f"/audiences/{audience_id}/imports/{import_id}")
    output().answer(job, f"  {job['status']}, {job['percentage']} %", *import_report(job, None))
