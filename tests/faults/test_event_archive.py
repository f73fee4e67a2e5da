"""The archive of events, dying at every store call: nothing lost, nothing twice, nobody left."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller, Role
from activation.domain.event import Event
from activation.domain.membership import Transition
from activation.domain.segment_shard import SHARDS, shard_of
from activation.errors import StorageUnavailableError
from activation.ports import Batch, BlobKey, Query, Write
from activation.segments.event_file import by_hour, events_of, file_table
from activation.services.event_archive import DAYS, Span
from activation.services.segment_shards import TRANSITIONS
from activation.settings import Settings
from tests.faults.conftest import RAM_DISK, Tell
from tests.faults.lab import Report
from tests.faults.ports import Crash, Fault, Tape, When, attach
from tests.segments.shards import require_turns
from tests.segments.worlds import segment

ORGANIZATION, ANN = "acme", Caller("acme", "ann", Role.ADMIN, "trace")
START = MovableClock().now().replace(minute=5, second=0, microsecond=0)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
USERS = ("u1", "u6", "u9")
ALL = range(SHARDS)
BUYERS = segment(
    "buyers",
    rules=[{"event_type": "orders", "operator": "GTE", "value": 2, "window_minutes": 300}],
)
TAXED = segment(
    "taxed",
    rules=[
        {
            "event_type": "orders",
            "attribute": "sum",
            "field": "tax",
            "operator": "GTE",
            "value": 5,
            "window_minutes": 300,
        }
    ],
)
Act = Callable[[App], object]


def event(number: int, at: int) -> Event:
    """An order with a tax, so many minutes after the start."""
    return Event.model_validate(
        {
            "user_id": USERS[number % len(USERS)],
            "event_type": "orders",
            "timestamp": START + at * MINUTE,
            "attributes": {"amount": 9, "tax": number},
            "event_id": f"o{number}",
        }
    )


def count(app: App, numbers: range) -> None:
    """Count events, shard by shard."""
    some = [event(number, 20 * number) for number in numbers]
    for shard in sorted({shard_of(one.user_id) for one in some}):
        mine = [one for one in some if shard_of(one.user_id) == shard]
        app.shards.process(ORGANIZATION, shard, mine)


def define(app: App, *segments: Any) -> None:
    """Put segments in force."""
    app.documents.commit(Batch(app.shards.books.change(ORGANIZATION, segments)))


# the flows ----------------------------------------------------------------------------------------


def counted(app: App) -> None:
    """Some events are archived, some lie in the log."""
    define(app, BUYERS)
    app.clock.sleep(100 * 60)
    count(app, range(4))
    archive(app)
    count(app, range(6))


def archive(app: App) -> None:
    """Bring the log into the archive."""
    while not app.event_archiver.run(ORGANIZATION, ALL, now=True):
        pass


def with_new_field(app: App) -> None:
    """A field has to get its past."""
    counted(app)
    define(app, BUYERS, TAXED)


def adopt(app: App) -> None:
    """Bring all shards over."""
    for shard in app.segment_replay.existing(ORGANIZATION):
        app.shards.adopt(ORGANIZATION, shard)
        app.shards.backfill(ORGANIZATION, shard)


def live(app: App) -> None:
    """An event comes before the message that tells of the rules."""
    count(app, range(8))
    adopt(app)


def in_pieces(app: App) -> None:
    """Two objects an hour, long ago."""
    counted(app)
    archive(app)
    app.clock.sleep(3 * DAY.total_seconds())


def tidy(app: App) -> None:
    """Merge them."""
    app.event_archiver.tidy(ORGANIZATION)


def erase(app: App) -> None:
    """A person leaves the archive."""
    app.event_archive.erase(ORGANIZATION, USERS[1])


def littered(app: App) -> None:
    """Merged, with copies, and with an object that somebody has left who died."""
    in_pieces(app)
    tidy(app)
    where = (ORGANIZATION, shard_of(USERS[1]), 99, Span(START - DAY), USERS[1])
    table = app.event_archive.read(*where)
    for hour, some in by_hour(table):
        app.event_archive.objects.put(ORGANIZATION, hour, some)


def expire(app: App) -> None:
    """All of it is old."""

    def let_go(_day: Any, write: Write) -> None:
        app.documents.commit(Batch([write]))

    app.event_archive.expire(ORGANIZATION, app.clock.now() - DAY, let_go)


def damaged(app: App) -> None:
    """A shard thinks that nobody is anywhere."""
    counted(app)
    shard = shard_of(USERS[0])
    opened = app.shards.states.open(ORGANIZATION, shard)
    number, ranks = opened.state.number + 1, opened.state.ranks * 0
    state = replace(opened.state, number=number, ranks=ranks)
    app.documents.commit(Batch(app.shards.states.whole(opened, state)))


def mend(app: App) -> None:
    """Replay it, and put it right."""
    for shard in app.segment_replay.existing(ORGANIZATION):
        app.segment_replay.apply(ANN, shard)


FLOWS: dict[str, tuple[Act, Act]] = {
    "archive events": (counted, archive),
    "merge archived events": (in_pieces, tidy),
    "erase from the archive": (counted, erase),
    "erase from a littered archive": (littered, erase),
    "expire events": (in_pieces, expire),
    "backfill": (with_new_field, adopt),
    "backfill by a live event": (with_new_field, live),
    "mend by replay": (damaged, mend),
}


# the lab ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Archive:
    """Copies of one prepared installation, each for one death."""

    folder: Path
    prepare: Act
    clock: MovableClock = field(default_factory=lambda: MovableClock(START))
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        with self.process(self.folder / "first", Tape()) as app:
            self.prepare(app)

    @contextmanager
    def process(self, folder: Path, tape: Tape) -> Iterator[App]:
        """A process on an installation."""
        app = attach(App(Settings(data_folder=str(folder)), self.clock), tape)
        try:
            yield app
        finally:
            app.close()

    def run(self, act: Act, tape: Tape) -> dict[str, Any]:
        """Let it happen and perhaps die; then again, to its end. What the stores say then."""
        folder = self.folder / f"run-{next(self._numbers)}"
        shutil.copytree(self.folder / "first", folder)
        now = self.clock.now()
        with self.process(folder, tape) as app, suppress(Crash):
            act(app)
        with self.process(folder, Tape()) as app:
            midway = known(app)
            act(app)
            found = {**seen(app), "midway": midway}
        self.clock.set(now)
        shutil.rmtree(folder)
        return found


def known(app: App) -> list[str]:
    """The ids of all events that log and archive have, in order."""
    tables = app.event_archive.events(ORGANIZATION, Span(START - DAY))
    return sorted(one.event_id for table in tables for one in events_of(table))


def seen(app: App) -> dict[str, Any]:
    """What can be learned of events and memberships, and what lies about."""
    left = [user for path in objects(app) for user in users_in(app, path)]
    inside, told = [], []
    for shard in app.segment_replay.existing(ORGANIZATION):
        opened = app.shards.states.open(ORGANIZATION, shard)
        names = opened.state.users.names
        inside += [(n, one) for n in names for one in opened.state.segments_of(n, opened.book)]
        transitions = told_of(app, shard)
        require_turns(transitions)
        told += sorted((one.user_id, one.segment_id, one.entered) for one in transitions)
    app.clock.sleep(9 * DAY.total_seconds())
    app.event_archive.sweep(ORGANIZATION)
    days = app.documents.query(Query(ORGANIZATION, DAYS, limit=200))
    named = {one["path"] for day in days for one in day.data["objects"]}
    return {
        "known": known(app),
        "inside": sorted(inside),
        "told": told,
        "in objects": sorted(set(left)),
        "strays": sorted(objects(app) ^ named),
    }


def told_of(app: App, shard: int) -> list[Transition]:
    """Everything ever told of a shard."""
    query = Query(ORGANIZATION, TRANSITIONS, {"shard": shard}, limit=200)
    numbers = sorted(int(one.key.id.split("-")[1]) for one in app.documents.query(query))
    return [one for n in numbers for one in app.shards.told(ORGANIZATION, shard, n)]


def objects(app: App) -> set[str]:
    """The objects that there are, and those that were set aside."""
    return {one.key.path for one in app.event_blobs.list(ORGANIZATION)}


def users_in(app: App, path: str) -> list[str]:
    """The users in an object; nobody can read half of one."""
    try:
        table = file_table(app.event_blobs.get(BlobKey(ORGANIZATION, path)))
    except StorageUnavailableError:
        return []
    return [str(one) for one in table["user_id"].to_pylist()]


def deaths(tape: Tape) -> Iterator[Fault]:
    """Every way to die at an effect."""
    for call in range(1, len(tape.effects) + 1):
        yield Fault(call, When.BEFORE)
        if call in tape.tearable:
            yield Fault(call, When.TORN)
        yield Fault(call, When.AFTER)


@pytest.mark.parametrize("name", FLOWS)
def test_a_crash_anywhere_loses_and_doubles_no_event(name: str, tell: Tell) -> None:
    prepare, act = FLOWS[name]
    with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else None) as folder:
        lab = Archive(Path(folder), prepare)
        tape = Tape()
        right = lab.run(act, tape)
        require_right(name, right)
        report = Report(name, len(tape.effects))
        for fault in deaths(tape):
            found = lab.run(act, Tape(fault))
            report.add(str(fault), wrong(right, found))
    tell(report)


def wrong(right: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What differs after a death; halfway there may be more than in the end, never one twice."""
    differs = [key for key in right if key != "midway" and right[key] != found[key]]
    midway = found["midway"]
    if len(midway) != len(set(midway)) or not set(right["known"]) <= set(midway) | {"o6", "o7"}:
        differs.append("midway")
    return [f"{key}: {found[key]}" for key in differs]


def require_right(name: str, right: dict[str, Any]) -> None:
    """What an undisturbed run comes to."""
    ids = [f"o{n}" for n in range(8 if "live" in name else 6)]
    if name.startswith("erase"):
        ids = ["o0", "o2", "o3", "o5"]
        assert USERS[1] not in right["in objects"]
    assert right["known"] == ([] if name == "expire events" else ids)
    assert right["strays"] == []
    members = {one for _, one in right["inside"]}
    assert members == ({"buyers", "taxed"} if "backfill" in name else {"buyers"})


def test_the_lab_finds_a_log_that_goes_before_it_is_archived() -> None:
    """A wrong order must not pass."""

    def log_first(app: App) -> None:
        archiver = app.event_archiver
        taken, _ = archiver._taken(ORGANIZATION, ALL, True)
        for one in taken:
            archiver._forget(ORGANIZATION, one.progress.entity.shard, one.number)
        archiver._committed(ORGANIZATION, taken)

    assert bad_runs(log_first)


def test_the_lab_finds_objects_that_are_named_apart_from_the_progress() -> None:
    """Named first and moved on afterwards: a death between the two doubles events."""

    def in_two(app: App) -> None:
        archiver = app.event_archiver
        taken, _ = archiver._taken(ORGANIZATION, ALL, True)
        tables = [table for one in taken for table in one.tables]
        made: list[Any] = []
        if tables:
            hours = dict(by_hour(pa.concat_tables(tables)))
            for write in archiver._days(ORGANIZATION, hours, made, []):
                app.documents.commit(Batch([write]))
        progress: list[Write] = archiver._progress(taken)
        app.documents.commit(Batch(progress))

    assert bad_runs(in_two)


def bad_runs(act: Act) -> list[str]:
    """Deaths of a flow on archived and logged events after which something is wrong."""
    with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else None) as folder:
        lab = Archive(Path(folder), counted)
        right = lab.run(archive, Tape())
        tape = Tape()
        lab.run(act, tape)
        return [str(fault) for fault in deaths(tape) if wrong(right, lab.run(act, Tape(fault)))]
