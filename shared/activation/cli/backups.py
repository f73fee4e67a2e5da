"""`activation backup`: backups of a whole store, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from activation.cli.options import Group, options
from activation.cli.output import Output, facts, moment, output, plain, size, table
from activation.cli.stores import opened

if TYPE_CHECKING:
    from activation.adapters.embedded.backup_folder import BackupFolder
    from activation.domain.recovery import Recovery
    from activation.domain.store_backup import StoreBackup
    from activation.settings import Settings

WHY = "a store is backed up where it lies; docs/operations.md says how on Google Cloud."
COLUMNS = ("backup", "state of", "documents", "objects", "bytes", "added", "keys")
EPILOG = """\b
Examples:
  activation backup make --to /mnt/backups
  activation backup list --from /mnt/backups
  activation backup verify --from /mnt/backups
  activation backup prune --from /mnt/backups --last 12 --hours 24 --days 30
  activation backup restore --from /mnt/backups --keys-from /mnt/keys --data ./store
  activation backup reapply --since 2026-11-28T11:20:00Z

Nothing is stopped for a backup, and an object is copied once only. Keys are not in a backup
unless --passphrase-file is given, which seals them. docs/operations.md walks through a restore.
"""


@click.group(cls=Group, epilog=EPILOG)
def backup() -> None:
    """Back a store up, check backups, and restore one."""


_from = click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Folder of backups.",
)
_id = click.option("--id", "backup_id", metavar="ID", help="Which one. Default: the newest.")
_passphrase = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File with the passphrase that seals the keys.",
)


@backup.command()
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Folder of backups, on another disk than the store.",
)
@_passphrase
def make(target: Path, passphrase_file: Path | None) -> None:
    """Back the store up while it works."""
    from activation import __version__
    from activation.adapters.clock import SystemClock
    from activation.adapters.embedded.backup_folder import BackupFolder
    from activation.adapters.embedded.backup_maker import BackupMaker, StoreFolders

    settings, out = _local_settings(), output()
    store = StoreFolders(settings.data_path, settings.journal_path)
    with _bars(out) as progress:
        maker = BackupMaker(store, BackupFolder(target), SystemClock(), __version__, progress)
        made = maker.make(_read(passphrase_file))
    _tidy_journal(settings)
    out.answer(made.public(), facts(_shown(made)), *_notes(made, settings.data_folder))


@backup.command(name="list")
@_from
def list_(source: Path) -> None:
    """List the backups of a folder, newest first."""
    folder, out = _folder(source), output()
    found = folder.backups()
    bad = sorted(set(folder.ids()) - {one.backup_id for one in found})
    answer = {"backups": [one.public() for one in found], "damaged": bad}
    shown = [f"[red]damaged: {one}[/red]" for one in bad]
    out.answer(answer, table(COLUMNS, [_row(one) for one in found]), *shown)


@backup.command()
@_from
@_id
def verify(source: Path, backup_id: str | None) -> None:
    """Read a whole backup and compare every byte with what was written."""
    from activation.adapters.embedded.backup_check import BackupCheck

    out, folder = output(), _folder(source)
    with folder.steady(), _bars(out) as progress:
        checked = BackupCheck(folder, progress).run(folder.backup(backup_id))
    out.answer({"ok": True, **checked.public()}, facts(_shown(checked)), "The backup is whole.")


@backup.command()
@_from
@click.option("--last", default=12, show_default=True, type=click.IntRange(1))
@click.option("--hours", default=24, show_default=True, type=click.IntRange(0))
@click.option("--days", default=30, show_default=True, type=click.IntRange(0, 30))
def prune(source: Path, last: int, hours: int, days: int) -> None:
    """Delete backups but the last ones and the newest of each hour and day, none older than 30
    days but the newest; then objects that no backup names. Damaged backups stay."""
    from activation.adapters.clock import SystemClock
    from activation.domain.store_backup import KeepRule, kept

    folder, now = _folder(source), SystemClock().now()
    rule = KeepRule(last, hours, days)
    with folder.alone():
        taken = {one.backup_id: one.taken_at for one in folder.backups()}
        stay = kept(taken, rule, now)
        gone = sorted(set(taken) - stay)
        for one in gone:
            folder.forget(one)
        objects, octets = folder.sweep()
    counts = {"kept": len(stay), "deleted": len(gone), "objects": objects, "bytes": octets}
    output().answer(counts, facts({**counts, "bytes": size(octets)}))


@backup.command()
@_from
@_id
@click.option(
    "--keys-from",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder with keys.json and the other key files.",
)
@_passphrase
@click.option(
    "--journal",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Journal, of suppressions and erasures, that was saved from the lost store.",
)
def restore(
    source: Path,
    backup_id: str | None,
    keys_from: Path | None,
    passphrase_file: Path | None,
    journal: Path | None,
) -> None:
    """Restore a backup into an empty data folder; who opted out since is suppressed again, and who
    was erased is erased again."""
    from activation.adapters.clock import SystemClock
    from activation.restoring import Keys, restored

    settings, out, folder = _local_settings(), output(), _folder(source)
    keys = Keys(keys_from, _read(passphrase_file))
    with _bars(out) as progress:
        brought, recovery = restored(
            settings, SystemClock(), folder, backup_id, keys, journal, progress
        )
    answer = {"backup": brought.public(), "recovery": recovery.public()}
    out.answer(answer, facts(_shown(brought)), "", facts(_told(recovery)), *_advice(recovery))


@backup.command()
@click.option(
    "--since",
    required=True,
    metavar="INSTANT",
    help="The state that the store went back to, such as 2026-11-28T11:20:00Z.",
)
def reapply(since: str) -> None:
    """Tell a store that went back to an earlier state by other means (Firestore) what it has to
    hear. Stop everything that works on it first."""
    out = output()
    with opened("whoever restores a store works on it.") as app:
        recovery = app.recovery.run(_instant(since))
    out.answer(recovery.public(), facts(_told(recovery)), *_advice(recovery))


# shown --------------------------------------------------------------------------------------------


def _shown(one: StoreBackup) -> dict[str, Any]:
    return {
        "backup": one.backup_id,
        "state of": moment(one.taken_at.isoformat()),
        "documents": sum(one.documents.values()),
        "organizations": len(one.organizations),
        "objects": one.total.objects,
        "bytes": size(one.total.bytes),
        "added": f"{one.new_objects:,} objects, {size(one.new_bytes)}",
        "took": f"{(one.finished_at - one.started_at).total_seconds():.1f} s",
        "keys": "sealed in it" if one.holds_keys else "not in it",
        "missing objects": one.missing or None,
    }


def _row(one: StoreBackup) -> tuple[Any, ...]:
    return (
        one.backup_id,
        moment(one.taken_at.isoformat()),
        sum(one.documents.values()),
        one.total.objects,
        one.total.bytes,
        one.new_bytes,
        "sealed" if one.holds_keys else "no",
    )


def _notes(made: StoreBackup, data_folder: str) -> list[str]:
    """What somebody has to know who wants to restore it."""
    notes = []
    if not made.holds_keys:
        notes.append(
            "\n[yellow]The keys are NOT in this backup.[/yellow] Keep "
            f"{plain(data_folder)}/keys.json somewhere else, or use --passphrase-file: without it "
            "nobody can restore."
        )
    if made.missing:
        notes.append(f"[red]{made.missing} objects are missing in the store itself.[/red]")
    return notes


def _told(recovery: Recovery) -> dict[str, Any]:
    return {
        "went back to": moment(recovery.since.isoformat()),
        "organizations": recovery.organizations,
        "journal entries": recovery.journal_entries,
        "suppressed again": recovery.suppressed,
        "released again": recovery.released or None,
        "erased members": recovery.erased_members or None,
        "erased users": recovery.users_erased or None,
        "shards under new numbers": recovery.shards or None,
        "shards made again": recovery.shards_rebuilt or None,
        "uncertain ledgers": recovery.ledgers,
        "begun anew": recovery.distributions,
    }


def _advice(recovery: Recovery) -> list[str]:
    advice = []
    if recovery.audiences_held or recovery.archives_unchecked:
        advice.append(
            f"[yellow]{recovery.audiences_held} audiences under legal hold and "
            f"{recovery.archives_unchecked} archives may hold people who were erased.[/yellow]"
        )
    if recovery.erasures_waiting:
        advice.append(
            f"[yellow]{recovery.erasures_waiting} erasures of users were asked for again and have "
            "not ended; they go on when the store runs.[/yellow]"
        )
    if recovery.shards_unreadable:
        advice.append(
            f"[red]{recovery.shards_unreadable} shards of segments can neither be read nor be made "
            "again. Repeat activation backup reapply; docs/operations.md says more.[/red]"
        )
    if recovery.shards_incomplete:
        advice.append(
            f"[yellow]{recovery.shards_incomplete} of the shards made again lack events, ids of "
            "events or entries of the past; docs/operations.md says what that means.[/yellow]"
        )
    if recovery.events_missing:
        advice.append(
            f"[yellow]{recovery.events_missing} archived events are gone with their objects; those "
            "of users who were erased since are among them.[/yellow]"
        )
    if recovery.again:
        advice.append("The ledgers had been told before; they were left alone.")
    return advice


# how ----------------------------------------------------------------------------------------------


def _local_settings() -> Settings:
    options().require_local(WHY)
    settings = options().settings()
    if settings.backend != "embedded":
        raise click.UsageError(f"This works on a store of this machine: {WHY}")
    return settings


def _tidy_journal(settings: Settings) -> None:
    """Drop what is older than every backup that may be restored."""
    from activation.app import App

    app = App(settings)
    app.journal.tidy()
    app.erasure_journal.tidy()
    app.close()


def _folder(path: Path) -> BackupFolder:
    from activation.adapters.embedded.backup_folder import BackupFolder

    return BackupFolder(path).require()


def _read(passphrase_file: Path | None) -> str | None:
    return None if passphrase_file is None else passphrase_file.read_text().strip()


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no instant.", param_hint="--since") from None
    if found.utcoffset() is None:
        raise click.BadParameter("It needs a time zone, such as Z.", param_hint="--since")
    return found


@contextmanager
def _bars(out: Output) -> Iterator[Any]:
    """A bar that shows bytes of objects; the databases are small beside them."""
    with out.bar("Copying", "bytes") as bar:

        def progress(what: str, done: float, total: float) -> None:
            if what == "objects":
                bar.show(done, total=total)

        yield progress
