"""Backups of a store of this machine: whole while it works, whole after a crash, and alone."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.backup_check import BackupCheck
from activation.adapters.embedded.backup_folder import BackupFolder
from activation.adapters.embedded.backup_maker import BackupMaker, StoreFolders
from activation.adapters.embedded.disk import walk
from activation.app import App
from activation.domain.distribution import DistributionDraft
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.job import JobKind
from activation.domain.member import MemberInput
from activation.domain.member_import import ImportDraft
from activation.domain.platform import PlatformDraft
from activation.domain.recovery import Recovery
from activation.domain.store_backup import KeepRule, StoreBackup, kept
from activation.domain.suppression import SuppressionsDraft
from activation.errors import (
    ActivationError,
    CredentialUnreadableError,
    InvalidStateError,
    NotFoundError,
    StorageUnavailableError,
    ValidationError,
)
from activation.restoring import Keys, restored
from activation.settings import Settings
from tests.conftest import START, caller_of
from tests.e2e.scan import _readings, leaks
from tests.services.support import audience_of, contents, drained
from tests.working import work

PASSPHRASE = "correct horse battery staple"
ANN = caller_of()


class Crash(BaseException):
    """The process ends here."""


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


# there and back -----------------------------------------------------------------------------------


def test_a_restored_store_is_the_one_that_was_backed_up(place: Place) -> None:
    audience_id = filled(place)
    before = contents(place.app, place.app.audiences.find(ANN, audience_id).entity)
    made = place.made()
    assert (made.missing, made.documents["audiences"], made.organizations) == (0, 2, ("acme",))
    assert place.checked() == [made.backup_id]
    known = rows_of(place.settings)
    settings = place.new_settings()
    back, recovery = place.back(settings)
    assert (back.backup_id, recovery.ledgers, recovery.distributions) == (made.backup_id, 1, 0)
    same = {key: data for key, data in known.items() if key[1] not in TOLD}
    assert {k: d for k, d in rows_of(settings).items() if k[1] not in TOLD} == same
    app = App(settings, place.clock)
    assert contents(app, app.audiences.find(ANN, audience_id).entity) == before
    assert hits(app, 6) == [3]
    archived = next(a for a in app.audiences.list(ANN, {}).items if a.name == "Old")
    drained(app, app.jobs.start(ANN, JobKind.UNARCHIVE, archived.audience_id).entity)
    assert app.audiences.find(ANN, archived.audience_id).entity.size == 30
    for area in ("members", "backup", "archive"):
        there = {
            name: e.stat().st_mtime_ns for name, e in walk(place.settings.data_path / area, "")
        }
        here = {name: e.stat().st_mtime_ns for name, e in walk(settings.data_path / area, "")}
        assert there.items() <= here.items()
    app.close()


def test_what_is_there_is_not_copied_twice(place: Place) -> None:
    audience_id = filled(place)
    first = place.made()
    second = place.made()
    assert first.new_objects == first.total.objects > 5
    assert (second.new_objects, second.total) == (0, first.total)
    place.app.members.add(ANN, audience_id, members(range(100, 130)))
    third = place.made()
    assert 0 < third.new_objects < first.new_objects
    assert place.checked() == [third.backup_id, second.backup_id, first.backup_id]
    place.back(place.new_settings("then"), second.backup_id)
    then = App(place.new_settings("then"), place.clock)
    assert then.audiences.find(ANN, audience_id).entity.size == 63
    then.close()


def test_no_revision_is_given_out_again(place: Place) -> None:
    audience_id = filled(place)
    place.made()
    stored = place.app.audiences.find(ANN, audience_id)
    suppress(place.app, 5)
    settings = place.new_settings()
    place.back(settings)
    app = App(settings, place.clock)
    assert app.audiences.find(ANN, audience_id).revision == stored.revision
    app.audiences.set_status(ANN, audience_id, "paused")
    assert int(app.audiences.find(ANN, audience_id).revision) > int(stored.revision) + 10**8
    app.close()


# who must not come back ---------------------------------------------------------------------------


def test_who_opted_out_after_the_backup_is_suppressed_in_the_restored_store(place: Place) -> None:
    filled(place)
    place.made()
    suppress(place.app, 7, 8)
    settings = place.new_settings()
    _, recovery = place.back(settings)
    assert recovery.suppressed == 2
    app = App(settings, place.clock)
    assert hits(app, 10) == [3, 7, 8]
    app.close()


def test_erased_people_are_in_no_byte_of_the_restored_store(place: Place) -> None:
    """Once the sweep has been: older versions and their backups go, as everywhere, a day later."""
    audience_id = filled(place)
    place.made()
    suppress(place.app, 11, reason="erasure")
    settings = place.new_settings()
    _, recovery = place.back(settings)
    assert recovery.erased_members == 1
    app = App(settings, place.clock)
    platform = next(iter(app.platforms.list(ANN, {}).items)).platform_id
    place.clock.sleep(3600)
    draft = DistributionDraft.model_validate(
        {"audience_id": audience_id, "platform_id": platform, "distribution_type": "incremental"}
    )
    work(app, app.distributions.create(ANN, draft).entity.distribution_id)
    canaries = [key_digest("p11@example.com"), key_digest("p12@example.com")]
    for _ in range(4):
        place.clock.sleep(timedelta(hours=30).total_seconds())
        sweep(app)
    app.close()
    found = holding(settings.data_path / "members", canaries)
    assert found[canaries[1]], "the scan finds who is there"
    assert not found[canaries[0]]


def sweep(app: App) -> None:
    drained(app, app.jobs.start(ANN, JobKind.SWEEP).entity)


def holding(folder: Path, digests: list[bytes]) -> dict[bytes, list[str]]:
    """Files that hold a digest, as stored or in a cell."""
    found: dict[bytes, list[str]] = {digest: [] for digest in digests}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = b"\n".join(_readings(path))
            for digest in digests:
                if digest in data or digest.hex().encode() in data:
                    found[digest].append(str(path.relative_to(folder)))
    return found


def test_a_journal_that_was_saved_from_the_lost_store_is_taken_over(tmp_path: Path) -> None:
    """Where the journal lies in the data folder, it goes back with it."""
    clock = MovableClock(START)
    settings = Settings(data_folder=str(tmp_path / "store"))
    place = Place(tmp_path, clock, settings, App(settings, clock))
    suppress(place.app, 1)
    place.made()
    suppress(place.app, 2)
    place.app.close()
    place.back(place.new_settings("without"))
    place.back(place.new_settings("with"), journal=settings.data_path / "journal")
    for name, listed in (("without", [1]), ("with", [1, 2])):
        app = App(place.new_settings(name), clock)
        assert hits(app, 4) == listed
        app.close()


def test_a_backup_that_the_journal_does_not_reach_back_to_is_refused(place: Place) -> None:
    filled(place)
    place.made()
    place.clock.sleep(timedelta(days=61).total_seconds())
    with pytest.raises(InvalidStateError) as refused:
        place.back(place.new_settings())
    assert refused.value.reason == "too_old"
    assert not place.new_settings().data_path.exists()


# keys and readable data ---------------------------------------------------------------------------


def test_no_key_and_no_address_is_in_a_backup(place: Place) -> None:
    audience_id = filled(place)
    rows = "email\n" + "".join(f"canary{n}@example.com\n" for n in range(40))
    place.app.imports.create_direct(ANN, audience_id, ImportDraft(), io.BytesIO(rows.encode()))
    place.made()
    place.made(None)
    secrets = [path.read_text() for path in place.settings.data_path.glob("*key*")]
    assert len(secrets) >= 1
    texts = ["canary7@example.com", "p7@example.com"]
    texts += [text.split('"')[5] for text in secrets if text.startswith("{")]
    assert all(texts)
    assert leaks(place.folder.root, texts) == []
    assert leaks(place.settings.data_path, texts[:1]), "the scan finds what is there"


def test_a_restore_needs_the_keys_of_this_very_store(place: Place, tmp_path: Path) -> None:
    filled(place)
    made = place.made(None)
    settings = place.new_settings()
    other = App(Settings(data_folder=str(tmp_path / "other")), place.clock)
    suppress(other, 1)
    other.close()
    for keys, error in (
        (Keys(), NotFoundError),
        (Keys(passphrase=PASSPHRASE), NotFoundError),
        (Keys(folder=tmp_path / "other"), InvalidStateError),
    ):
        with pytest.raises(error):
            place.back(settings, made.backup_id, keys=keys)
        assert not settings.data_path.exists()
    sealed = place.made()
    with pytest.raises(CredentialUnreadableError):
        place.back(settings, sealed.backup_id, keys=Keys(passphrase="something else"))
    place.back(settings, made.backup_id, keys=Keys(folder=place.settings.data_path))
    assert settings.data_path.joinpath("keys.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValidationError):
        place.made("short")


def test_a_backup_is_restored_into_an_empty_place_only(place: Place) -> None:
    filled(place)
    place.made()
    settings = place.new_settings()
    settings.data_path.mkdir()
    (settings.data_path / "note.txt").write_text("mine")
    with pytest.raises(InvalidStateError):
        place.back(settings)
    (settings.data_path / "note.txt").unlink()
    place.back(settings)
    with pytest.raises(InvalidStateError):
        place.back(settings)


def test_a_folder_with_something_else_gets_no_backups(place: Place) -> None:
    filled(place)
    place.folder.root.mkdir()
    (place.folder.root / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidStateError):
        place.made()
    with pytest.raises(NotFoundError):
        place.folder.require()


# damage -------------------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("hurt", [_flip, _cut, Path.unlink])
@pytest.mark.parametrize(
    "which", ["objects/members", "objects/archive", "documents", "bus", "objects.nd", "manifest"]
)
def test_every_damage_is_found_before_anything_is_restored(
    place: Place, which: str, hurt: Callable[[Path], None]
) -> None:
    filled(place)
    made = place.made()
    place.checked()
    files = [path for path in place.folder.root.rglob("*") if path.is_file()]
    hurt(next(p for p in sorted(files) if which in str(p.relative_to(place.folder.root))))
    settings = place.new_settings()
    with pytest.raises((StorageUnavailableError, NotFoundError)):
        place.back(settings, made.backup_id)
    assert not settings.data_path.exists()


# while it works -----------------------------------------------------------------------------------


class AtWork:
    """Threads that each do one thing over and over; what is refused is tried again."""

    def __init__(self, *acts: Callable[[int], None]) -> None:
        self._stop = threading.Event()
        self.done: list[int] = []
        self._threads = [threading.Thread(target=self._run, args=(act,)) for act in acts]

    def __enter__(self) -> AtWork:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, act: Callable[[int], None]) -> None:
        for number in range(10_000):
            if self._stop.is_set():
                self.done.append(number)
                return
            with contextlib.suppress(ActivationError):
                act(number)


def test_backups_of_a_store_at_work_are_whole(place: Place) -> None:
    """Imports, opt-outs, distributions and sweeps go on; time runs, so that sweeps delete."""
    app, audience_id = place.app, filled(place)
    platform = next(iter(app.platforms.list(ANN, {}).items)).platform_id

    def change(number: int) -> None:
        app.members.add(ANN, audience_id, members(range(100 + 25 * number, 130 + 25 * number)))

    def tidy(_number: int) -> None:
        place.clock.sleep(timedelta(hours=3).total_seconds())
        sweep(app)

    acts: list[Callable[[int], None]] = [
        change,
        lambda n: suppress(app, 1_000 + n),
        lambda _n: distribute(app, audience_id, platform),
        tidy,
    ]
    with AtWork(*acts) as work_done:
        made = [place.maker().make(PASSPHRASE) for _ in range(6)]
    assert len(work_done.done) == len(acts), "nothing went wrong"
    assert min(work_done.done) > 3
    assert {one.missing for one in made} == {0}
    assert len({one.documents["audit"] for one in made}) == 6, "the store was at work"
    for one in made[::2]:
        BackupCheck(place.folder).run(one)
    settings = place.new_settings()
    place.clock.sleep(60)
    place.back(settings, made[-1].backup_id)
    back = App(settings, place.clock)
    audience = back.audiences.find(ANN, audience_id).entity
    assert len(contents(back, audience)) == audience.size
    assert hits(back, 1_000) == [3]
    assert back.suppressions.status(ANN).size == app.suppressions.status(ANN).size
    back.close()


# crashes ------------------------------------------------------------------------------------------


def test_a_backup_that_was_killed_is_not_listed_and_harms_nothing(place: Place) -> None:
    """The process dies at each step that it tells of."""
    audience_id = filled(place)
    first = place.made()
    whole, steps = [first.backup_id], 0
    for deadline in (1, 2, 3, 5, 8, 11, 14, 10_000):
        place.app.members.add(ANN, audience_id, members(range(70 + deadline, 90 + deadline)))
        left = deadline

        def progress(*_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Crash

        place.clock.sleep(1)
        try:
            whole.append(place.maker(progress).make(PASSPHRASE).backup_id)
        except Crash:
            steps += 1
        assert place.folder.ids() == sorted(whole, reverse=True)
        BackupCheck(place.folder).run(place.folder.backup())
    assert steps > 3
    assert place.checked()[-1] == first.backup_id
    assert list(place.folder.writing.iterdir()) == []


def test_a_restore_that_was_killed_can_be_started_again(place: Place) -> None:
    filled(place)
    place.made()
    suppress(place.app, 9)
    settings, steps = place.new_settings(), 0
    for deadline in range(1, 1_000, 9):
        left = deadline

        def progress(*_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Crash

        try:
            place.back(settings, progress=progress)
        except Crash:
            steps += 1
            assert not settings.data_path.exists()
        else:
            break
    assert steps > 5
    app = App(settings, place.clock)
    assert hits(app, 12) == [3, 9]
    app.close()


KILLED = """
import sys
from pathlib import Path
from activation.adapters.clock import SystemClock
from activation.adapters.embedded.backup_folder import BackupFolder
from activation.adapters.embedded.backup_maker import BackupMaker, StoreFolders
store = StoreFolders(Path(sys.argv[1]), Path(sys.argv[2]))
print("ready", flush=True)
BackupMaker(store, BackupFolder(Path(sys.argv[3])), SystemClock(), "test").make()
"""


def test_a_backup_may_be_killed_at_any_moment(place: Place) -> None:
    filled(place)
    place.app.members.add(ANN, filled_large(place), members(range(400, 1_400)))
    first, choose = place.made(), random.Random(1)
    paths = (place.settings.data_path, place.settings.journal_path, place.folder.root)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, *map(str, paths)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(choose.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        ended += len(place.folder.ids()) - 1
        assert first.backup_id in place.folder.ids()
        place.checked()
    place.maker().make(PASSPHRASE)
    place.checked()


def filled_large(place: Place) -> str:
    return audience_of(place.app, ANN, "Large").audience_id


# how long they are kept ---------------------------------------------------------------------------


@given(
    ages=st.lists(st.integers(0, 60 * 24 * 45), unique=True, max_size=80),
    last=st.integers(1, 12),
    hours=st.integers(0, 24),
    days=st.integers(0, 30),
)
def test_the_rule_keeps_what_it_says(ages: list[int], last: int, hours: int, days: int) -> None:
    taken = {f"b{age}": START - timedelta(minutes=age) for age in ages}
    rule = KeepRule(last, hours, days)
    stay = kept(taken, rule, START)
    newest_first = sorted(taken, key=lambda name: taken[name], reverse=True)
    assert stay <= set(taken)
    assert set(newest_first[:1]) <= stay
    young = [name for name in newest_first if START - taken[name] <= rule.max_age]
    assert set(young[:last]) <= stay
    assert not {n for n in stay if n not in young} - set(newest_first[:1])
    assert len(stay) <= last + hours + days + 1
    for period, count in (("%Y%m%d%H", hours), ("%Y%m%d", days)):
        periods = list(dict.fromkeys(taken[n].strftime(period) for n in young))[:count]
        for one in periods:
            assert next(n for n in young if taken[n].strftime(period) == one) in stay


def test_pruning_deletes_what_no_backup_names_any_more(place: Place) -> None:
    audience_id = filled(place)
    old = place.made()
    place.clock.sleep(timedelta(days=2).total_seconds())
    place.app.members.add(ANN, audience_id, members(range(100, 140)))
    new = place.made()
    for _ in range(3):
        place.clock.sleep(timedelta(hours=30).total_seconds())
        sweep(place.app)
    last = place.made()
    with place.folder.alone():
        for one in (old, new):
            place.folder.forget(one.backup_id)
        count, octets = place.folder.sweep()
    assert count >= 0
    assert octets >= 0
    assert place.checked() == [last.backup_id]
    stored = sum(1 for _ in place.folder.objects(last.backup_id))
    pooled = [p for p in (place.folder.root / "objects").rglob("*") if p.is_file()]
    assert len(pooled) == stored
