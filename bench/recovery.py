"""The restore drill: python -m bench.recovery [--rows N] [--audiences N] [--distributions N]

Fills a store (20 audiences with 10 million members together, each distributed once, and a small
one with the rest of 1,000 distributions), backs it up, lets it work for what may be five minutes
between two backups, loses it, restores the last backup, and distributes. Goals: sending again
within 15 minutes (RTO), with the state of at most 5 minutes before (RPO). 10 million need 6 GB of
disk and twenty minutes.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activation.adapters.clock import SystemClock
from activation.adapters.embedded.backup_check import BackupCheck
from activation.adapters.embedded.backup_folder import BackupFolder
from activation.adapters.embedded.backup_maker import BackupMaker, StoreFolders
from activation.api import messages
from activation.app import App
from activation.domain.audience import AudienceDraft, AudienceType
from activation.domain.caller import Caller, Role
from activation.domain.distribution import FINAL, DistributionDraft
from activation.domain.identifier import IdentifierType
from activation.domain.member import MemberInput
from activation.domain.platform import PlatformDraft
from activation.domain.suppression import SuppressionsDraft
from activation.members.runs import write_run
from activation.ports import BlobKey, Message
from activation.restoring import Keys, restored
from activation.settings import Settings
from bench.generated import blocks, members
from bench.tables import printed

CALLER = Caller("bench", "ann", Role.ADMIN, "bench")
PASSPHRASE = "a passphrase for the drill"
SMALL = 2_000
ROUNDS = 3
"""Backups after some work."""


@dataclass
class Drill:
    """A store, its backups, and what was measured."""

    folder: Path
    arguments: argparse.Namespace
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    audiences: list[str] = field(default_factory=list)
    small: str = ""
    platform: str = ""

    @property
    def settings(self) -> Settings:
        return self.settings_of("store")

    @property
    def backups(self) -> BackupFolder:
        return BackupFolder(self.folder / "backups")

    def settings_of(self, name: str) -> Settings:
        """The settings of a store; the journal lies apart."""
        return Settings(
            data_folder=str(self.folder / name), journal_folder=str(self.folder / "journal")
        )

    @contextmanager
    def timed(self, what: str, told: Callable[[], str] = lambda: "") -> Iterator[None]:
        """Note how long something takes."""
        began = time.perf_counter()
        yield
        self.note(what, f"{time.perf_counter() - began:.1f} s", told())

    def note(self, what: str, took: str, told: str = "") -> None:
        """Add a line to the table."""
        self.lines.append((what, took, told))
        print(f"{what}: {took} {told}", flush=True)

    def make(self, what: str) -> None:
        """A backup, timed."""
        store = StoreFolders(self.settings.data_path, self.settings.journal_path)
        began = time.perf_counter()
        made = BackupMaker(store, self.backups, SystemClock(), "bench").make(PASSPHRASE)
        took = time.perf_counter() - began
        added = f"+{made.new_objects:,} objects, +{made.new_bytes / 1e6:,.1f} MB"
        self.note(what, f"{took:.1f} s", added)


def main() -> None:
    """Drill and print."""
    arguments = parsed()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        drill = Drill(Path(folder), arguments)
        fill(drill)
        back_up(drill)
        lose_and_restore(drill)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    drill.note("peak of memory", f"{peak:,.0f} MB")
    print("\n" + printed(("step", "took", ""), drill.lines))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--audiences", type=int, default=20)
    parser.add_argument("--distributions", type=int, default=1_000)
    parser.add_argument("--scratch", type=Path, help="Where files are made; default: temporary.")
    return parser.parse_args()


# filling ------------------------------------------------------------------------------------------


def fill(drill: Drill) -> None:
    """Audiences, members, distributions."""
    app = App(drill.settings)
    draft = PlatformDraft.model_validate(
        {
            "platform_type": "file_drop",
            "name": "Drop",
            "credentials": {},
            "settings": {"max_removal_share": 1.0},
        }
    )
    drill.platform = app.platforms.create(CALLER, draft).entity.platform_id
    each = drill.arguments.rows // drill.arguments.audiences
    with drill.timed("filling", lambda: f"{drill.arguments.rows:,} members"):
        for number in range(drill.arguments.audiences):
            numbers = range(number * each, (number + 1) * each)
            drill.audiences.append(filled(app, f"Audience {number}", numbers))
        drill.small = filled(app, "Small", range(SMALL))
    with drill.timed("distributing", lambda: f"{drill.arguments.distributions:,} distributions"):
        for audience_id in drill.audiences:
            distribute(app, drill, audience_id)
        for number in range(drill.arguments.distributions - len(drill.audiences)):
            change(app, drill.small, range(number, number + 3))
            distribute(app, drill, drill.small)
    app.close()


def filled(app: App, name: str, numbers: range) -> str:
    """A new audience of generated members."""
    draft = AudienceDraft(name=name, data_type=AudienceType.FIRST_PARTY)
    audience_id = app.audiences.create(CALLER, draft).entity.audience_id
    paths = []
    for block in blocks(numbers):
        paths.append(f"runs/{audience_id}-{block.start}.arrow")
        write_run(app.member_blobs, BlobKey("bench", paths[-1]), members(block))

    def merge(parent: Any, manifest_id: str) -> Any:
        return app.store.merge("bench", audience_id, manifest_id, parent, paths)

    app.members.switch(CALLER, audience_id, "bench:fill", "Generated", merge, lambda *_: ())
    app.audiences.set_status(CALLER, audience_id, "active")
    app.store.discard_runs("bench", paths)
    return audience_id


def change(app: App, audience_id: str, numbers: range) -> None:
    """Some people come."""
    given = [
        MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value=f"new{n}@example.com")
        for n in numbers
    ]
    app.members.add(CALLER, audience_id, given)


def distribute(app: App, drill: Drill, audience_id: str) -> None:
    """An incremental distribution, to its end."""
    draft = DistributionDraft.model_validate(
        {
            "audience_id": audience_id,
            "platform_id": drill.platform,
            "distribution_type": "incremental",
        }
    )
    job = app.distributions.create(CALLER, draft).entity
    bus: Any = app.bus

    def handed(_to: str, message: Message, _attempt: int) -> None:
        if "distribution_id" in message.data:
            messages.dispatch_distribution(app, message)

    while True:
        delivered = bus.deliver_due(handed, 20)
        stored = app.distributions.records.get("bench", job.distribution_id).entity
        if stored.status in FINAL and stored.settled:
            assert stored.status == "completed", stored.error_details
            return
        if not delivered:
            app.due.run()
            bus.wait(0.05)


# the drill ----------------------------------------------------------------------------------------


def back_up(drill: Drill) -> None:
    """The first backup, one of a store that rests, and some of one that works."""
    drill.make("first backup")
    drill.make("backup, nothing new")
    app = App(drill.settings)
    for number in range(ROUNDS):
        for place, audience_id in enumerate(drill.audiences):
            start = 1_000_000 * (number + 1) + 1_000 * place
            change(app, audience_id, range(start, start + 1_000))
        distribute(app, drill, drill.audiences[number])
        distribute(app, drill, drill.small)
        suppress(app, range(number * 100, number * 100 + 100))
        drill.make("backup after 5 minutes of work")
    suppress(app, range(900, 1_000))
    app.close()
    with drill.timed("verifying a backup"):
        BackupCheck(drill.backups).run(drill.backups.backup())
    size = sum(path.stat().st_size for path in drill.backups.root.rglob("*") if path.is_file())
    one = drill.backups.backup()
    drill.note(
        "size of all backups",
        f"{size / 1e6:,.0f} MB",
        f"{one.total.objects:,} objects, {sum(one.documents.values()):,} documents, "
        f"{sum(file.bytes for file in one.files) / 1e6:.1f} MB of each backup's own",
    )


def suppress(app: App, numbers: range) -> None:
    """Some opt out."""
    given = [
        {"identifier_type": "email", "identifier_value": f"new{n}@example.com"} for n in numbers
    ]
    app.suppressions.add(CALLER, SuppressionsDraft.model_validate({"suppressions": given}))


def lose_and_restore(drill: Drill) -> None:
    """From nothing to the first distribution that has ended."""
    shutil.rmtree(drill.settings.data_path)
    os.sync()
    settings, began = drill.settings_of("again"), time.perf_counter()
    with drill.timed("restoring, with verification"):
        _, recovery = restored(settings, SystemClock(), drill.backups, None, Keys(None, PASSPHRASE))
    app = App(settings)
    with drill.timed(
        "first distribution",
        lambda: f"{drill.arguments.rows // drill.arguments.audiences:,} members",
    ):
        distribute(app, drill, drill.audiences[0])
    drill.note("from nothing to sending (RTO)", f"{time.perf_counter() - began:.1f} s")
    told = f"{recovery.suppressed} of 100 opt-outs since the backup"
    drill.note("lost at most (RPO)", "pause + backup", told)
    assert recovery.suppressed == 100
    app.close()


if __name__ == "__main__":
    main()
