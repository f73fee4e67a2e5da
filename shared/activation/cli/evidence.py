"""`activation evidence`, `evidence-key` and `verify`: proof of what a distribution did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from activation.cli.api import Api, connected
from activation.cli.group import Failure
from activation.cli.options import Command, options
from activation.cli.output import Output, facts, output, plain

if TYPE_CHECKING:
    from rich.console import RenderableType

    from activation.services.evidence_check import Verdict

MAX_FILE_BYTES = 256 * 1024 * 1024
EVIDENCE_EPILOG = """\b
Examples:
  activation evidence ID -o evidence.json
  activation evidence-key -o evidence-key.pem
  activation verify evidence.json --public-key evidence-key.pem

A pack holds no member: of the list it has digests. docs/evidence.md tells what is in it.
"""
VERIFY_EPILOG = """\b
Examples:
  activation verify evidence.json --public-key evidence-key.pem
  activation verify - --json < evidence.json

Needs no store and no network. Exit code 0 when the pack is what was signed, 1 when it is not.
Without --public-key the key is taken from the pack: that shows that nothing was altered since,
and not who signed it.
"""
WORDS = {
    "file": "this is no evidence pack, or part of it is missing",
    "form": "the bytes are not those that were signed (it was written anew, or added to)",
    "key": "it was signed with another key",
    "signature": "the header or the signature was altered",
}


@click.command(cls=Command, epilog=EVIDENCE_EPILOG)
@click.argument("distribution_id", metavar="ID")
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the pack to this file; without, it goes to standard output.",
)
def evidence(distribution_id: str, target: Path | None) -> None:
    """Fetch the signed evidence of a distribution."""
    out = output()
    with connected(options()) as api:
        pack = _fetched(api, out, f"/distributions/{distribution_id}/evidence")
    if target is None:
        click.echo(pack)
        return
    _write(target, pack)
    header = json.loads(pack)["header"]
    out.answer({**header, "file": str(target)}, f"  Written to [bold]{plain(target)}[/bold].")


def _fetched(api: Api, out: Output, path: str) -> bytes:
    """The pack; a long list is read in several requests."""
    status, content = api.download(path)
    if status == 200:
        return content
    with out.bar("Reading the list", "rows", json.loads(content)["rows"]) as bar:
        while status == 202:
            bar.show(json.loads(content)["rows_read"])
            status, content = api.download(path)
    return content


@click.command("evidence-key", cls=Command)
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the public key to this file (PEM).",
)
def evidence_key(target: Path | None) -> None:
    """Show the public key that evidence is signed with."""
    with connected(options()) as api:
        found = api.get("/distributions/evidence-key")
    shown: list[RenderableType] = [
        facts({"key": found["key_id"], "SHA-256": found["public_key_sha256"]})
    ]
    if target is None:
        shown.append(f"\n{found['public_key']}")
    else:
        _write(target, found["public_key"].encode())
        shown.append(f"  Written to [bold]{plain(target)}[/bold].")
    output().answer(found, *shown)


def _write(target: Path, content: bytes) -> None:
    try:
        target.write_bytes(content)
    except OSError as error:
        raise click.FileError(str(target), error.strerror) from error


@click.command(cls=Command, epilog=VERIFY_EPILOG)
@click.argument("file", type=click.File("rb"), metavar="FILE|-")
@click.option(
    "--public-key",
    "key",
    type=click.File("rb"),
    metavar="PEM",
    help="The key that must have signed it, from a place you trust.",
)
def verify(file: IO[bytes], key: IO[bytes] | None) -> None:
    """Check a pack of evidence, offline."""
    from activation.services.evidence_check import checked

    pem = None if key is None else key.read(MAX_FILE_BYTES).decode("ascii", "replace")
    verdict = checked(file.read(MAX_FILE_BYTES), pem)
    problems = [_problem(part) for part in verdict.altered]
    output().answer(_document(verdict), *_report(verdict, problems))
    if problems:
        raise Failure(f"Not valid: {'; '.join(problems)}.")


def _problem(part: str) -> str:
    section = part.removeprefix("section:")
    return WORDS[part] if section == part else f"section {section!r} was altered"


def _document(verdict: Verdict) -> dict[str, Any]:
    return {
        "valid": verdict.valid,
        "altered": list(verdict.altered),
        "key_trusted": verdict.trusted,
        "header": dict(verdict.header) if verdict.valid else None,
    }


def _report(verdict: Verdict, problems: list[str]) -> list[RenderableType]:
    from rich.text import Text

    if problems:
        return [Text(f"  {problem}", style="red") for problem in problems]
    header = verdict.header
    names = ("distribution_id", "organization_id", "status", "issued_at", "issued_to")
    shown = {name.replace("_", " "): _plain(header.get(name)) for name in names}
    signer = {f"signer's {name}": _plain(value) for name, value in header["signer"].items()}
    report: list[RenderableType] = [
        "[green]Valid[/green]: nothing was altered.",
        facts({**shown, **signer}),
    ]
    if not verdict.trusted:
        report.append(
            "  [yellow]The key came with the pack: anybody can sign with a key of his own. "
            "Compare its SHA-256,\n  or give the key you know with --public-key.[/yellow]"
        )
    return report


def _plain(value: Any) -> str:
    """A value of a pack that anybody may have written: nothing in it moves a terminal's cursor."""
    text = str(value)
    return text if text.isprintable() else ascii(text)
