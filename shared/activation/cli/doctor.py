"""`activation doctor`: everything a store or an API needs, tried once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from activation.cli.group import Failure
from activation.cli.options import Command, Options, options
from activation.cli.output import output, plain, size
from activation.errors import ActivationError, InvalidStateError, NotFoundError

if TYPE_CHECKING:
    from activation.app import App
    from activation.ports import BlobStore
    from activation.settings import Settings

MIN_FREE_BYTES = 1_000_000_000
PROBE = b"doctor"
EPILOG = """\b
Examples:
  activation doctor
  activation doctor --data ./store --json
  activation doctor --url https://api.example.com --token @token.txt

Exit code 1 when a check fails.
"""


@dataclass(frozen=True, slots=True)
class Check:
    """Something to try, and what to do when it fails."""

    name: str
    attempt: Callable[[], str]
    hint: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    name: str
    ok: bool
    detail: str
    hint: str | None = None


@click.command(cls=Command, epilog=EPILOG)
def doctor() -> None:
    """Check settings, stores, keys, disk and vault, and say what to do."""
    out = output()
    given = options()
    findings = _of_api(given) if given.url is not None else _of_store(given)
    for finding in findings:
        mark = "[green]ok    [/green]" if finding.ok else "[red]failed[/red]"
        if not out.as_json:
            out.line(f"{mark}  {finding.name:<12} {plain(finding.detail)}")
        if finding.hint and not out.as_json:
            out.line(f"        {'':<12} [dim]{plain(finding.hint)}[/dim]")
    failed = sum(not finding.ok for finding in findings)
    shown = [{"check": f.name, "ok": f.ok, "detail": f.detail, "hint": f.hint} for f in findings]
    out.answer({"ok": not failed, "checks": shown}, "" if failed else "All is well.")
    if failed:
        raise Failure(f"{failed} of {len(findings)} checks failed.")


def examined(checks: Sequence[Check]) -> list[Finding]:
    """Try every check; one failure does not keep the others from being tried."""
    return [_examined(check) for check in checks]


def _examined(check: Check) -> Finding:
    try:
        return Finding(check.name, True, check.attempt())
    except ActivationError as error:
        return Finding(check.name, False, error.message, check.hint)
    except OSError as error:
        return Finding(check.name, False, error.strerror or type(error).__name__, check.hint)


# a store ----------------------------------------------------------------------------------------


def _of_store(given: Options) -> list[Finding]:
    settings_hint = "Unset the variable, or correct its value; the README lists all settings."
    try:
        settings = given.settings()
    except ActivationError as error:
        return [Finding("settings", False, error.message, settings_hint)]
    findings = [Finding("settings", True, f"back-end {settings.backend}")]
    if settings.backend == "embedded":
        findings += examined(_folder_checks(settings))
        if not all(finding.ok for finding in findings):
            return findings
    from activation.app import App

    app = App(settings)
    try:
        return findings + examined(_store_checks(app, given.organization))
    finally:
        app.close()


def _folder_checks(settings: Settings) -> list[Check]:
    def folder() -> str:
        if not settings.data_path.is_dir():
            raise NotFoundError(f"There is no folder {settings.data_folder}.")
        probe = settings.data_path / ".doctor"
        probe.write_bytes(PROBE)
        probe.unlink()
        return str(settings.data_path)

    def disk() -> str:
        free = shutil.disk_usage(settings.data_path).free
        if free < MIN_FREE_BYTES:
            raise InvalidStateError(f"Only {size(free)} are free.")
        return f"{size(free)} free"

    wanted = "Name the store with --data; `activation serve` and `activation demo` make one."
    return [
        Check("data folder", folder, wanted),
        Check("disk", disk, f"Imports need room: keep {size(MIN_FREE_BYTES)} free."),
    ]


def _store_checks(app: App, organization_id: str) -> list[Check]:
    def documents() -> str:
        app.documents.ping()
        return "answers"

    def bus() -> str:
        from activation.function_manifest import functions

        app.bus.ping()
        names = [function.name for function in functions() if function.topic]
        dead = {name: len(app.bus.dead_letters(name)) for name in names}
        if any(dead.values()):
            raise InvalidStateError(f"Dead letters: {dead}.")
        return "answers, no dead letters"

    def vault() -> str:
        context = ("doctor", organization_id)
        if app.vault.open(app.vault.seal(PROBE, context), context) != PROBE:
            raise InvalidStateError("What was sealed opens as something else.")
        return "seals and opens"

    def evidence_key() -> str:
        if not app.signer.sign(PROBE):
            raise InvalidStateError("Nothing was signed.")
        return f"signs as {app.signer.key_id}"

    storage = "See whether the folder belongs to you and the disk works; with Google, the roles."
    checks = [
        Check("documents", documents, storage),
        *_area_checks(app, organization_id, storage),
        Check("bus", bus, "`activation dead-letters list` names the reasons; then redrive them."),
        Check("vault", vault, "keys.json must be there, readable by its owner only."),
        Check(
            "evidence key",
            evidence_key,
            "signing-key.pem must be a P-256 key, readable by its owner only; with Google, "
            "ACTIVATION_SIGNING_KEY must name a version of one.",
        ),
    ]
    if app.settings.backend == "embedded":
        hint = "issuer-key.pem must hold an RSA key; without the file a new one is made."
        checks.append(Check("token key", lambda: _token(app, organization_id), hint))
    return checks


def _area_checks(app: App, organization_id: str, storage: str) -> list[Check]:
    areas: dict[str, Callable[[], BlobStore]] = {
        "uploads": lambda: app.uploads,
        "members": lambda: app.member_blobs,
        "backup": lambda: app.backup_blobs,
        "archive": lambda: app.archive_blobs,
        "events": lambda: app.event_blobs,
    }
    wanted = "ACTIVATION_{}_BUCKET must name a bucket." if app.settings.backend == "google" else ""
    return [
        Check(
            area,
            partial(_round_trip, app, blobs, organization_id),
            f"{wanted.format(area.upper())} {storage}".lstrip(),
        )
        for area, blobs in areas.items()
    ]


def _round_trip(app: App, area: Callable[[], BlobStore], organization_id: str) -> str:
    from activation.domain.entity import new_id
    from activation.ports import BlobKey

    blobs = area()
    key = BlobKey(organization_id, f"doctor/{new_id(app.clock.now())}")
    blobs.put(key, PROBE)
    try:
        if blobs.get(key) != PROBE:
            raise InvalidStateError("What was written reads as something else.")
    finally:
        blobs.delete(key)
    return "writes, reads and deletes"


def _token(app: App, organization_id: str) -> str:
    from activation.api.doors import Doors
    from activation.domain.caller import Role

    doors = Doors.of(app)
    assert doors.issuer is not None
    try:
        token = doors.issuer.token(organization_id, "doctor", Role.VIEWER)
    except ValueError as error:  # of the library that reads the key
        raise InvalidStateError("The token key cannot be read.") from error
    doors.operators.claims(token)
    return "signs and verifies"


# an API -----------------------------------------------------------------------------------------


def _of_api(given: Options) -> list[Finding]:
    from activation.cli.api import connected

    with connected(given) as api:
        return examined(
            [
                Check("health", lambda: str(api.plain("/health")["status"]), "Is the URL right?"),
                Check("ready", lambda: str(api.plain("/ready")["status"]), "See the API's logs."),
                Check(
                    "token",
                    lambda: f"sees {api.get('/audiences', limit=1)['total']:,} audiences",
                    "Get a fresh token; it lives an hour at most.",
                ),
            ]
        )
