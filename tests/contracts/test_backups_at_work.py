"""Backups while the store works, and when whoever makes or restores one is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from activation.adapters.embedded.backup_check import BackupCheck
from activation.app import App
from activation.domain.store_backup import StoreBackup
from activation.errors import (
    ActivationError,
)
from tests.contracts.stores import (
    ANN,
    PASSPHRASE,
    Place,
    distribute,
    filled,
    hits,
    members,
    place,
    suppress,
    sweep,
)
from tests.services.support import audience_of, contents

__all__ = ["place"]

pytestmark = pytest.mark.slow


MOVES = 6
"""Of three hours each, in the time of one backup: less than a sweep waits."""


class Crash(BaseException):
    """The process ends here."""


# while it works -----------------------------------------------------------------------------------


class AtWork:
    """Threads that each do one thing over and over; what is refused is tried again."""

    def __init__(self, *acts: Callable[[int], None]) -> None:
        self._stop = threading.Event()
        self.rounds = [0] * len(acts)
        """How often each act was tried."""
        self.ended = 0
        self._threads = [
            threading.Thread(target=self._run, args=(which, act)) for which, act in enumerate(acts)
        ]

    def __enter__(self) -> AtWork:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, which: int, act: Callable[[int], None]) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(ActivationError):
                act(self.rounds[which])
            self.rounds[which] += 1
        self.ended += 1


def test_backups_of_a_store_at_work_are_whole(place: Place) -> None:
    """Imports, opt-outs, distributions and sweeps go on; time runs, so that sweeps delete."""
    app, audience_id = place.app, filled(place)
    platform = next(iter(app.platforms.list(ANN, {}).items)).platform_id

    def change(number: int) -> None:
        app.members.add(ANN, audience_id, members(range(100 + 25 * number, 130 + 25 * number)))

    made: list[StoreBackup] = []
    moves: list[int] = []

    def tidy(number: int) -> None:
        """No backup takes so long that a sweep deletes what was let go while it is made."""
        if len(moves) < MOVES * (1 + len(made)):
            moves.append(number)
            place.clock.sleep(timedelta(hours=3).total_seconds())
        sweep(app)

    acts: list[Callable[[int], None]] = [
        change,
        lambda n: suppress(app, 1_000 + n),
        lambda _n: distribute(app, audience_id, platform),
        tidy,
    ]

    def seen() -> int:
        """How many states of the store were backed up."""
        return len({one.documents["audit"] for one in made})

    with AtWork(*acts) as work_done:
        while seen() < 6 or min(work_done.rounds) < 4 or len(moves) <= MOVES:
            made += [place.maker().make(PASSPHRASE)]
            assert len(made) < 1_000, "every act goes on"
    assert work_done.ended == len(acts), "nothing went wrong"
    assert {one.missing for one in made} == {0}
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
    large = audience_of(place.app, ANN, "Large").audience_id
    place.app.members.add(ANN, large, members(range(400, 1_400)))
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
