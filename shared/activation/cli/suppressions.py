"""`activation suppressions`: people to whom nothing is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from activation.cli.api import Api, connected
from activation.cli.group import Failure
from activation.cli.imports import FORMATS, mapped_columns
from activation.cli.jobs import require_done
from activation.cli.options import Group, options
from activation.cli.output import Output, facts, moment, output, table
from activation.cli.progress import follow_job
from activation.cli.stores import opened

if TYPE_CHECKING:
    from rich.console import RenderableType

    from activation.app import App

TYPES = ("email", "phone", "ramp_id", "uid2", "maid", "cookie_id", "customer_id")
RULES = ("raw", "plain", "google", "uid2", "e164", "digits")
REASONS = ("list", "opt_out", "do_not_sell", "erasure")
MAX_BATCH = 1_000
WHY = "the list of the installation has no public API; whoever keeps the store changes it."
COUNTS = ("received", "added", "updated", "duplicate", "rejected")

EPILOG = """\b
Examples:
  activation suppressions add ann@example.com
  activation suppressions add --type phone --reason do_not_sell +4915112345678
  activation suppressions import opt-outs.csv --reason opt_out --default-region DE
  activation suppressions import deletions.csv --column "Hash=email:plain"
  activation suppressions check ann@example.com
  activation suppressions remove ann@example.com
  activation suppressions add --global ann@example.com

With - for an identifier it is read from standard input (`add`: many, one a line). Only keyed
digests are stored: the list can be asked, not read. Exit code 1 when something could not be read
and is therefore not suppressed. docs/consent.md says what a list does, and what --global means.
"""


class Lists(Protocol):
    """A list to work on: through the API, or the installation's in its store."""

    def status(self) -> dict[str, Any]:
        """What there is."""

    def add(self, body: dict[str, Any]) -> dict[str, Any]:
        """Put identifiers on the list."""

    def check(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask for one."""

    def remove(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take one off."""

    def import_file(self, out: Output, file: Path, draft: dict[str, Any]) -> dict[str, Any]:
        """Put a file on the list; what became of it."""


class OrganizationLists:
    """The list of the organization, through the API."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def status(self) -> dict[str, Any]:
        """What there is."""
        return self._api.get("/suppressions")

    def add(self, body: dict[str, Any]) -> dict[str, Any]:
        """Put identifiers on the list."""
        return self._api.post("/suppressions", body)

    def check(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask for one."""
        return self._api.post("/suppressions/check", body)

    def remove(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take one off."""
        return self._api.delete("/suppressions", body)

    def import_file(self, out: Output, file: Path, draft: dict[str, Any]) -> dict[str, Any]:
        """Put a file on the list; what became of it."""
        octets, done = file.stat().st_size, 0
        with out.bar("Uploading", "bytes", octets) as bar, file.open("rb") as stream:

            def sent(piece: int) -> None:
                nonlocal done
                done += piece
                bar.show(done)

            job = self._api.suppress_file(draft, stream, octets, sent)
        job = follow_job(self._api, out, job, "Suppressing")
        require_done(job)
        result: dict[str, Any] = job["result"]
        return result


class InstallationList:
    """The list of the installation, in its stores."""

    def __init__(self, app: App, user: str) -> None:
        from activation.domain.caller import Caller, Role
        from activation.domain.entity import new_id
        from activation.domain.suppression import GLOBAL

        self._app = app
        self._caller = Caller(GLOBAL, f"cli:{user}", Role.ADMIN, new_id(app.clock.now()))

    def status(self) -> dict[str, Any]:
        """What there is."""
        return self._app.suppressions.status(self._caller).public()

    def add(self, body: dict[str, Any]) -> dict[str, Any]:
        """Put identifiers on the list."""
        from activation.api.envelope import valid
        from activation.domain.suppression import SuppressionsDraft

        draft = valid(SuppressionsDraft, body)
        return self._app.suppressions.add(self._caller, draft).public()

    def check(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask for one."""
        return self._app.suppressions.check(self._caller, _reference(body)).public()

    def remove(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take one off."""
        return self._app.suppressions.remove(self._caller, _reference(body)).public()

    def import_file(self, out: Output, file: Path, draft: dict[str, Any]) -> dict[str, Any]:
        """Put a file on the list; what became of it."""
        from activation.api.envelope import valid
        from activation.domain.entity import new_id
        from activation.domain.suppression import SuppressionFileDraft

        upload_id = new_id(self._app.clock.now())
        asked = valid(SuppressionFileDraft, {**draft, "upload_id": upload_id})
        with out.bar("Suppressing", "%", 100) as bar, file.open("rb") as source:
            return self._app.suppression_imports.run_here(
                self._caller, asked, source, lambda share: bar.show(100 * share)
            )


def _reference(body: dict[str, Any]) -> Any:
    from activation.api.envelope import valid
    from activation.domain.suppression import SuppressionReference

    return valid(SuppressionReference, body)


@contextmanager
def _lists(*, everywhere: bool, works: bool = False) -> Iterator[Lists]:
    if everywhere:
        with opened(WHY) as app:
            yield InstallationList(app, options().user)
        return
    with connected(options(), works=works) as api:
        yield OrganizationLists(api)


@click.group(cls=Group, epilog=EPILOG)
def suppressions() -> None:
    """Keep the lists of people to whom nothing is sent."""


_everywhere = click.option(
    "--global", "everywhere", is_flag=True, help="The list of the installation, for all of them."
)
_type = click.option(
    "--type", "kind", type=click.Choice(TYPES), default=TYPES[0], show_default=True
)
_rule = click.option(
    "--hash-rule", type=click.Choice(RULES), default=RULES[0], help="How hashes were made."
)
_region = click.option(
    "--default-region", metavar="XX", help="Country of phone numbers without country code, e.g. DE."
)


def _named(kind: str, hash_rule: str, region: str | None, value: str) -> dict[str, Any]:
    named = {"identifier_type": kind, "identifier_value": value, "hash_rule": hash_rule}
    return {**named, **({"default_region": region} if region else {})}


@suppressions.command("status")
@_everywhere
def status(everywhere: bool) -> None:
    """Say how many identifiers are suppressed, and why."""
    with _lists(everywhere=everywhere) as lists:
        found = lists.status()
    by_reason = {reason.replace("_", " "): count for reason, count in found["by_reason"].items()}
    shown = {"suppressed": found["size"], **by_reason, "for all": found["global_size"]}
    output().answer(found, facts({**shown, "changed": moment(found["updated_at"])}))


@suppressions.command("add")
@click.argument("identifiers", nargs=-1, required=True, metavar="IDENTIFIER...")
@_type
@_rule
@_region
@click.option("--reason", type=click.Choice(REASONS), default=REASONS[1], show_default=True)
@_everywhere
def add(
    identifiers: tuple[str, ...],
    kind: str,
    hash_rule: str,
    default_region: str | None,
    reason: str,
    everywhere: bool,
) -> None:
    """Send nothing to these identifiers any more."""
    values = list(_values(identifiers))
    sums: dict[str, Any] = dict.fromkeys(("accepted", *COUNTS), 0)
    reasons: dict[str, int] = {}
    with _lists(everywhere=everywhere) as lists:
        for start in range(0, len(values), MAX_BATCH):
            told = lists.add(
                {
                    "suppressions": [
                        {**_named(kind, hash_rule, None, value), "reason": reason}
                        for value in values[start : start + MAX_BATCH]
                    ],
                    **({"default_region": default_region} if default_region else {}),
                }
            )
            sums = {name: count + told[name] for name, count in sums.items()}
            for reject in told["rejects"]:
                reasons[reject["reason"]] = reasons.get(reject["reason"], 0) + 1
    document = {**sums, "rejected_by_reason": reasons}
    output().answer(document, *_report(document))
    _require_all_read(document)


def _values(given: Iterable[str]) -> Iterator[str]:
    for value in given:
        if value == "-":
            lines = (line.strip("\ufeff").strip() for line in sys.stdin)
            yield from filter(None, lines)
        else:
            yield value


@suppressions.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--column",
    "columns",
    multiple=True,
    callback=mapped_columns,
    metavar="COLUMN=MEANING[:RULE]",
    help="What a column holds, where its name does not say so; may be given several times.",
)
@click.option("--format", "file_format", type=click.Choice(FORMATS), help="Default: detected.")
@_region
@click.option("--reason", type=click.Choice(REASONS), default=REASONS[0], show_default=True)
@_everywhere
def import_(
    file: Path,
    columns: list[dict[str, str]],
    file_format: str | None,
    default_region: str | None,
    reason: str,
    everywhere: bool,
) -> None:
    """Send nothing to the identifiers of FILE any more."""
    given = {"format": file_format, "columns": columns or None, "default_region": default_region}
    draft = {name: value for name, value in given.items() if value is not None}
    out = output()
    with _lists(everywhere=everywhere, works=True) as lists:
        result = lists.import_file(out, file, {**draft, "reason": reason})
    out.answer(result, *_report(result))
    _require_all_read(result)


@suppressions.command("check")
@click.argument("identifier")
@_type
@_rule
@_region
@_everywhere
def check(
    identifier: str, kind: str, hash_rule: str, default_region: str | None, everywhere: bool
) -> None:
    """Say whether anything is sent to an identifier; the audit log remembers that you asked."""
    named = _named(kind, hash_rule, default_region, _single(identifier))
    with _lists(everywhere=everywhere) as lists:
        found = lists.check(named)
    if not found["suppressed"]:
        output().answer(found, "  Not suppressed.")
        return
    rows = [(one["scope"], one["reason"], moment(one["added_at"])) for one in found["findings"]]
    output().answer(found, table(("list", "reason", "since"), rows))


@suppressions.command("remove")
@click.argument("identifier")
@_type
@_rule
@_region
@_everywhere
def remove(
    identifier: str, kind: str, hash_rule: str, default_region: str | None, everywhere: bool
) -> None:
    """Take an identifier off the list."""
    named = _named(kind, hash_rule, default_region, _single(identifier))
    with _lists(everywhere=everywhere) as lists:
        found = lists.remove(named)
    shown = "Removed." if found["removed"] else "It was not on the list."
    if found["suppressed"]:
        shown += " It is still suppressed: by another list, or as another spelling of it."
    output().answer(found, f"  {shown}")


def _single(identifier: str) -> str:
    """The identifier, or the line of standard input for `-`; UsageError for none or several, which
    one answer would not be about."""
    found = list(_values([identifier]))
    if len(found) != 1:
        raise click.UsageError(f"One identifier at a time; standard input holds {len(found)}.")
    return found[0]


def _report(result: dict[str, Any]) -> list[RenderableType]:
    shown: list[RenderableType] = [
        table(("identifiers", "count"), [(name, result[name]) for name in COUNTS])
    ]
    if result["rejected"]:
        reasons = sorted(result["rejected_by_reason"].items(), key=lambda item: -item[1])
        shown += ["", table(("rejected because", "count"), reasons)]
    return shown


def _require_all_read(result: dict[str, Any]) -> None:
    """Raise Failure when some people are not suppressed although they should be."""
    if result["rejected"]:
        raise Failure(
            f"{result['rejected']} of {result['received']} could not be read: NOT suppressed."
        )
