"""Restoring a store of this machine: its files, then what it has to hear, then it is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from activation.domain.recovery import Recovery
from activation.domain.store_backup import StoreBackup
from activation.errors import InvalidStateError
from activation.ports import Clock
from activation.services.suppression_journal import KEPT_FOR
from activation.settings import Settings

if TYPE_CHECKING:
    from activation.adapters.embedded.backup_folder import BackupFolder

Progress = Callable[[str, float, float], None]


def nothing(_what: str, _done: float, _total: float) -> None:
    """Shows no progress."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the keys of the store come from: a folder that has them, or the backup itself."""

    folder: Path | None = None
    passphrase: str | None = None


def restored(
    settings: Settings,
    clock: Clock,
    folder: BackupFolder,
    backup_id: str | None,
    keys: Keys,
    journal: Path | None = None,
    progress: Progress = nothing,
) -> tuple[StoreBackup, Recovery]:
    """Restore a backup, without an id the newest, into the data folder of `settings`.

    The backup is checked whole before anything is written. `journal` is one that was saved from
    the lost store. Raises InvalidStateError when the data folder is not empty, or for a backup
    that is older than the journal reaches back; NotFoundError without the keys.
    """
    from activation.adapters.embedded.backup_check import BackupCheck
    from activation.adapters.embedded.backup_restorer import BackupRestorer

    own_journal = Path(settings.journal_folder) if settings.journal_folder else None
    restorer = BackupRestorer(folder, settings.data_path, own_journal, progress)
    restorer.require_empty()
    with folder.require().steady():
        backup = folder.backup(backup_id)
        _require_young(backup, clock)
        found: Mapping[str, bytes] = restorer.keys_of(backup, keys.folder, keys.passphrase)
        BackupCheck(folder, progress).run(backup)
        draft = restorer.prepare(backup, found)
    if journal is not None:
        restorer.add_journal(journal)
    recovery = _told(settings, clock, draft, backup)
    restorer.finish()
    return backup, recovery


def _require_young(backup: StoreBackup, clock: Clock) -> None:
    if clock.now() - backup.taken_at > KEPT_FOR:
        raise InvalidStateError(
            f"The backup is older than {KEPT_FOR.days} days: nobody knows any more who has opted "
            "out since.",
            reason="too_old",
        )


def _told(settings: Settings, clock: Clock, draft: Path, backup: StoreBackup) -> Recovery:
    from activation.app import App

    app = App(dataclasses.replace(settings, data_folder=str(draft)), clock)
    try:
        return app.recovery.run(backup.taken_at)
    finally:
        app.close()
