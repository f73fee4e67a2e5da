"""A store with something in it, its backups, and where a restored store goes."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.backup_check import BackupCheck
from activation.adapters.embedded.backup_folder import BackupFolder
from activation.adapters.embedded.backup_maker import BackupMaker, StoreFolders
from activation.app import App
from activation.domain.distribution import DistributionDraft
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.job import JobKind
from activation.domain.member import MemberInput
from activation.domain.platform import PlatformDraft
from activation.domain.recovery import Recovery
from activation.domain.store_backup import StoreBackup
from activation.domain.suppression import SuppressionsDraft
from activation.restoring import Keys, restored
from activation.settings import Settings
from tests.conftest import START, caller_of
from tests.services.support import audience_of, drained
from tests.working import work

PASSPHRASE = "correct horse battery staple"
ANN = caller_of()


@dataclasses.dataclass
class Place:
    """A store, a folder of backups, and where a restored store goes."""

    root: Path
    clock: MovableClock
    settings: Settings
    app: App

    @property
    def folder(self) -> BackupFolder:
        return BackupFolder(self.root / "backups")

    def maker(self, progress: Callable[[str, float, float], None] | None = None) -> BackupMaker:
        store = StoreFolders(self.settings.data_path, self.settings.journal_path)
        more = {} if progress is None else {"progress": progress}
        return BackupMaker(store, self.folder, self.clock, "test", **more)

    def made(self, passphrase: str | None = PASSPHRASE) -> StoreBackup:
        self.clock.sleep(1)
        return self.maker().make(passphrase)

    def new_settings(self, name: str = "restored") -> Settings:
        return dataclasses.replace(self.settings, data_folder=str(self.root / name))

    def back(
        self, settings: Settings, backup_id: str | None = None, **more: Any
    ) -> tuple[StoreBackup, Recovery]:
        keys = more.pop("keys", Keys(passphrase=PASSPHRASE))
        return restored(settings, self.clock, self.folder, backup_id, keys, **more)

    def checked(self) -> list[str]:
        return [
            BackupCheck(self.folder).run(self.folder.backup(one)).backup_id
            for one in self.folder.ids()
        ]


def members(numbers: range) -> list[MemberInput]:
    return [
        MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value=f"p{n}@example.com")
        for n in numbers
    ]


def filled(place: Place) -> str:
    """An audience with small and large changes, an archive, a list, and a drop that was sent."""
    app = place.app
    audience_id = audience_of(app, ANN).audience_id
    app.members.add(ANN, audience_id, members(range(60)))
    app.members.add(ANN, audience_id, members(range(60, 63)))
    app.audiences.set_status(ANN, audience_id, "active")
    archived = audience_of(app, ANN, "Old").audience_id
    app.members.add(ANN, archived, members(range(30)))
    app.audiences.set_status(ANN, archived, "active")
    drained(app, app.jobs.start(ANN, JobKind.ARCHIVE, archived).entity)
    suppress(app, 3)
    platform = app.platforms.create(ANN, PlatformDraft.model_validate(DROP)).entity.platform_id
    distribute(app, audience_id, platform)
    return audience_id


DROP = {"platform_type": "file_drop", "name": "Drop", "credentials": {}}


def distribute(app: App, audience_id: str, platform_id: str) -> None:
    draft = DistributionDraft(audience_id=audience_id, platform_id=platform_id)
    work(app, app.distributions.create(ANN, draft).entity.distribution_id)


def suppress(app: App, *numbers: int, reason: str = "opt_out") -> None:
    given = [
        {"identifier_type": "email", "identifier_value": f"p{n}@example.com", "reason": reason}
        for n in numbers
    ]
    app.suppressions.add(ANN, SuppressionsDraft.model_validate({"suppressions": given}))


def hits(app: App, count: int) -> list[int]:
    column = [key_digest(f"p{n}@example.com").hex() for n in range(count)]
    return app.suppressions.view("acme").hits({IdentifierType.EMAIL: column})


def rows_of(settings: Settings) -> dict[tuple[str, ...], bytes]:
    """All documents of a store that is closed."""
    with closing(sqlite3.connect(settings.data_path / "documents.sqlite")) as connection:
        found = connection.execute("SELECT organization_id, collection, id, data FROM documents")
        return {tuple(row[:3]): row[3] for row in found}


TOLD = {"audit", "ledgers", "recoveries", "cache_keys"}
"""Collections that a restore itself writes to."""


def sweep(app: App) -> None:
    drained(app, app.jobs.start(ANN, JobKind.SWEEP).entity)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    clock = MovableClock(START)
    settings = Settings(
        data_folder=str(tmp_path / "store"),
        journal_folder=str(tmp_path / "journal"),
        database_threshold=20,
        allow_private_hosts=True,
    )
    app = App(settings, clock)
    yield Place(tmp_path, clock, settings, app)
    app.close()
