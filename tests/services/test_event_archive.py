"""The archive of counted events: all of them, once, whoever dies, races or is erased meanwhile."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import duckdb
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.bus import SqliteBus
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.event import Event, read_event
from activation.domain.event_archive import FOLDER, EventObject, RetiredObject
from activation.domain.retention_run import RetentionRun, RunDraft
from activation.domain.segment_record import NewSegmentDraft
from activation.domain.segment_replay import ShardReplay
from activation.domain.segment_shard import SHARDS, shard_of
from activation.errors import ConflictError, StorageUnavailableError, ValidationError
from activation.ports import Batch, BlobKey, Key, Message, Query
from activation.segments.event_file import events_of, file_table
from activation.services.event_archive import DAYS, MAX_RETIRED, EventArchive, Span
from activation.services.event_archiver import EventArchiver
from activation.services.event_log import LOG
from activation.services.event_messages import (
    adopt_message,
    archive_message,
    rules_message,
)
from activation.services.event_objects import ASIDE
from tests.conftest import caller_of
from tests.services.support import drained

ORGANIZATION = "acme"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ALL = range(SHARDS)


def event(number: int, user: str, at: datetime, **fields: object) -> Event:
    """An order."""
    return Event.model_validate(
        {
            "user_id": user,
            "event_type": "orders",
            "timestamp": at,
            "attributes": {"amount": 9.99, "ship": {"to": "Zürich", "fee": number}},
            "event_id": f"o{number}",
            "session_id": f"s{number}" if number % 2 else None,
            **fields,
        }
    )


def count(app: App, events: Sequence[Event]) -> None:
    """Count events, shard by shard."""
    by_shard: dict[int, list[Event]] = {}
    for one in events:
        by_shard.setdefault(shard_of(one.user_id), []).append(one)
    for shard, mine in by_shard.items():
        app.shards.process(ORGANIZATION, shard, mine)


def known(archive: EventArchive, since: datetime, user: str | None = None) -> list[Event]:
    """All events that log and archive have from an instant on, by their ids."""
    tables = archive.events(ORGANIZATION, Span(since), user)
    return sorted((one for t in tables for one in events_of(t)), key=lambda one: one.event_id)


def named(app: App) -> set[str]:
    """The objects that the archive names."""
    days = app.documents.query(Query(ORGANIZATION, DAYS, limit=200))
    return {one["path"] for day in days for one in day.data["objects"]}


def stored(app: App) -> set[str]:
    """The objects that there are."""
    return {one.key.path for one in app.event_blobs.list(ORGANIZATION, f"{FOLDER}/")}


def copies(app: App) -> set[str]:
    """What was set aside."""
    return {one.key.path for one in app.event_blobs.list(ORGANIZATION, f"{ASIDE}/")}


@pytest.fixture
def sample(clock: MovableClock) -> list[Event]:
    """Events of five users over three hours, some late."""
    now = clock.now()
    return [event(n, f"u{n % 5}", now - timedelta(minutes=7 * n)) for n in range(24)]


def in_order(events: Sequence[Event]) -> list[Event]:
    """Events by their ids."""
    return sorted(events, key=lambda one: one.event_id)


def test_what_was_counted_is_read_back_whole_from_log_and_archive(
    app: App, clock: MovableClock, sample: list[Event]
) -> None:
    since = clock.now() - DAY
    count(app, sample[:15])
    count(app, sample[:15])
    assert known(app.event_archive, since) == in_order(sample[:15])
    assert app.event_archiver.run(ORGANIZATION, ALL, now=True)
    assert app.documents.count(Query(ORGANIZATION, LOG)) == 0
    assert known(app.event_archive, since) == in_order(sample[:15])
    count(app, sample[10:])
    assert known(app.event_archive, since) == in_order(sample)
    mine = [one for one in sample if one.user_id == "u3"]
    assert known(app.event_archive, since, "u3") == in_order(mine)
    cut = known(app.event_archive, clock.now() - HOUR)
    assert cut == in_order([one for one in sample if one.timestamp >= clock.now() - HOUR])


def test_an_event_of_any_version_lets_the_others_be_archived(
    app: App, clock: MovableClock, sample: list[Event]
) -> None:
    """One has a version for which there is no room; it was counted before that was refused."""
    row = {"user_id": "u3", "event_type": "orders", "event_id": "far"}
    with pytest.raises(ValidationError) as caught:
        read_event({**row, "schema_version": 2**31}, clock.now())
    assert caught.value.field == "schema_version"
    last = read_event({**row, "schema_version": 2**31 - 1}, clock.now())
    beyond = last.model_copy(update={"schema_version": 10**18, "event_id": "beyond"})
    count(app, [*sample, last, beyond])
    assert app.event_archiver.run(ORGANIZATION, ALL, now=True)
    found = known(app.event_archive, clock.now() - DAY)
    assert [one.event_id for one in found] == sorted(
        one.event_id for one in [*sample, last, beyond]
    )


def test_an_earlier_step_sees_what_was_counted_by_then(
    app: App, clock: MovableClock, sample: list[Event]
) -> None:
    shard = shard_of("u1")
    span = Span(clock.now() - DAY)
    mine = [one for one in sample if one.user_id == "u1"]
    for one in mine:
        count(app, [one])
    before = [events_of(app.event_archive.read(ORGANIZATION, shard, n, span)) for n in range(6)]
    assert app.event_archiver.run(ORGANIZATION, ALL, now=True)
    after = [events_of(app.event_archive.read(ORGANIZATION, shard, n, span)) for n in range(6)]
    assert before == after == [mine[:n] for n in range(6)]


@pytest.mark.embedded("DuckDB reads the files of the folder")
def test_other_tools_read_it_by_day_and_hour(
    app: App, clock: MovableClock, sample: list[Event]
) -> None:
    count(app, sample)
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    files = app.settings.data_path / "events" / ORGANIZATION / "events" / "**" / "*.parquet"
    rows = duckdb.execute(
        "SELECT date, hour, count(*), bool_and(strftime(timestamp::TIMESTAMP, '%Y-%m-%d %H') ="
        f" date || ' ' || hour) FROM read_parquet('{files}', hive_partitioning = true,"
        " hive_types = {'date': VARCHAR, 'hour': VARCHAR}) GROUP BY ALL"
    ).fetchall()
    hours = {one.timestamp.strftime("%Y-%m-%d %H") for one in sample}
    assert {f"{day} {hour}" for day, hour, _, _ in rows} == hours
    assert sum(found for _, _, found, _ in rows) == len(sample)
    assert all(right for *_, right in rows)
    one = duckdb.execute(
        "SELECT user_id, event_id, session_id, attributes->>'$.ship.to', shard"
        f" FROM read_parquet('{files}') WHERE event_id = 'o7'"
    ).fetchall()
    assert one == [("u2", "o7", "s7", "Zürich", shard_of("u2"))]


def test_objects_of_an_hour_are_merged_when_they_are_many(app: App, clock: MovableClock) -> None:
    clock.set(clock.now().replace(minute=0))
    events = [event(n, "ann", clock.now() + n * timedelta(minutes=2)) for n in range(28)]
    for one in events:
        clock.set(one.timestamp)
        count(app, [one])
        app.event_archiver.run(ORGANIZATION, ALL, now=True)
    assert 1 < len(named(app)) <= 8
    assert known(app.event_archive, clock.now() - DAY) == in_order(events)
    clock.sleep(2 * 24 * 3600)
    app.event_archiver.tidy(ORGANIZATION)
    assert len(named(app)) == 1
    assert known(app.event_archive, events[0].timestamp) == in_order(events)
    assert stored(app) == named(app), "other tools count nothing twice"
    assert len(copies(app)) > 8, "a database may be taken back"
    clock.sleep(8 * 24 * 3600 + 1)
    app.event_archive.sweep(ORGANIZATION)
    assert stored(app) == named(app)
    assert copies(app) == set()
    assert known(app.event_archive, events[0].timestamp) == in_order(events)


def test_a_database_that_was_taken_back_finds_what_was_replaced_since(
    app: App, clock: MovableClock
) -> None:
    clock.set(clock.now().replace(minute=0))
    events = [event(n, "ann", clock.now()) for n in range(4)]
    for one in events:
        count(app, [one])
        app.event_archiver.run(ORGANIZATION, ALL, now=True)
    date = f"{clock.now():%Y-%m-%d}"
    then = app.event_archive.day(ORGANIZATION, date)
    clock.sleep(3 * 24 * 3600)
    assert app.event_archiver.tidy(ORGANIZATION) == 3
    now = app.event_archive.day(ORGANIZATION, date)
    app.documents.commit(Batch([now.replaced_by(then.entity)]))
    assert known(app.event_archive, events[0].timestamp) == in_order(events)
    clock.sleep(20 * 24 * 3600)
    app.event_archive.sweep(ORGANIZATION)
    assert known(app.event_archive, events[0].timestamp) == in_order(events)
    assert app.event_archiver.tidy(ORGANIZATION) == 3
    assert known(app.event_archive, events[0].timestamp) == in_order(events)


@pytest.mark.long_on_google
def test_a_day_remembers_so_many_replaced_objects(app: App, clock: MovableClock) -> None:
    """Events that come late all day long replace objects all day long."""
    archive = replace(app.event_archive, max_retired=10)
    archiver = EventArchiver(archive)
    clock.set(clock.now().replace(minute=0))
    began, events = clock.now(), list[Event]()
    for number in range(60):
        events.append(event(number, "ann", began))
        count(app, events[-1:])
        assert archiver.run(ORGANIZATION, ALL, now=True)
        clock.sleep(60)
        assert len(archive.day(ORGANIZATION, f"{began:%Y-%m-%d}").entity.retired) <= 10
        assert len(known(archive, began)) == number + 1
    assert known(archive, began) == in_order(events)
    copies = list(archive.objects.blobs.list(ORGANIZATION, "replaced/"))
    assert 0 < len(copies) <= 10


def test_a_busy_day_fits_into_its_document(app: App, clock: MovableClock) -> None:
    day = app.event_archive.day(ORGANIZATION, "2026-11-21")
    name = f"events/date=2026-11-21/hour=09/{'f' * 16}.parquet"
    size = 99_999_999
    one = EventObject(path=name, hour=499_999, rows=size, size_bytes=size, shards=tuple(ALL))
    retired = RetiredObject(path=name, at=clock.now())
    busy = day.entity.changed(objects=(one,) * 24 * 40, retired=(retired,) * MAX_RETIRED)
    app.documents.commit(Batch([day.replaced_by(busy)]))


def test_a_round_is_bounded_and_the_next_one_goes_on(
    app: App, clock: MovableClock, sample: list[Event]
) -> None:
    for one in sample:
        count(app, [one])
    archiver = EventArchiver(app.event_archive, round_events=10)
    rounds = 1
    while not archiver.run(ORGANIZATION, ALL, now=True):
        rounds += 1
        assert known(app.event_archive, clock.now() - DAY) == in_order(sample)
    assert rounds >= 3
    assert known(app.event_archive, clock.now() - DAY) == in_order(sample)


def test_the_clock_brings_events_into_the_archive(
    app: App, clock: MovableClock, sample: list[Event]
) -> None:
    count(app, sample)
    assert app.due.run()["event_archives"] == 0
    clock.sleep(3601)
    assert app.due.run()["event_archives"] == len({shard_of(one.user_id) for one in sample})
    app.event_worker.run(_asked(app))
    assert len(named(app)) == len({one.timestamp.hour for one in sample})
    assert app.due.run()["event_archives"] == 0
    clock.sleep(3601)
    assert app.due.run()["event_archives"] > 0


def _asked(app: App) -> Message:
    return archive_message(ORGANIZATION, ALL, app.clock)


def test_an_erased_user_is_in_no_object_and_no_log(
    app: App, clock: MovableClock, sample: list[Event]
) -> None:
    count(app, sample[:15])
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    count(app, sample[15:])
    assert app.event_archive.erase(ORGANIZATION, "u2") > 1
    left = in_order([one for one in sample if one.user_id != "u2"])
    assert known(app.event_archive, clock.now() - DAY) == left
    assert stored(app) == named(app)
    for path in stored(app):
        assert "u2" not in user_ids(app, path)
    assert app.event_archive.erase(ORGANIZATION, "u2") == 0


def user_ids(app: App, path: str) -> set[str]:
    """The users in an object."""
    return set(file_table(app.event_blobs.get(BlobKey(ORGANIZATION, path)))["user_id"].to_pylist())


def test_whoever_is_erased_does_not_come_back_by_an_archiver_at_work(
    app: App, clock: MovableClock, sample: list[Event]
) -> None:
    count(app, sample)
    archiver = app.event_archiver
    taken, _ = archiver._taken(ORGANIZATION, ALL, True)
    app.event_archive.erase(ORGANIZATION, "u2")
    assert not archiver._committed(ORGANIZATION, taken)
    assert named(app) == stored(app) == set()
    assert archiver.run(ORGANIZATION, ALL, now=True)
    left = in_order([one for one in sample if one.user_id != "u2"])
    assert known(app.event_archive, clock.now() - DAY) == left


def test_of_two_archivers_one_is_too_late(
    app: App, clock: MovableClock, sample: list[Event]
) -> None:
    count(app, sample)
    archiver = app.event_archiver
    taken, _ = archiver._taken(ORGANIZATION, ALL, True)
    assert archiver.run(ORGANIZATION, ALL, now=True)
    assert not archiver._committed(ORGANIZATION, taken)
    assert stored(app) == named(app)
    assert known(app.event_archive, clock.now() - DAY) == in_order(sample)


def test_old_days_go_by_the_daily_round_and_nothing_else(
    app: App, ann: Caller, clock: MovableClock, sample: list[Event]
) -> None:
    count(app, sample)
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    first = clock.now()
    clock.sleep(365 * 24 * 3600)
    fresh = [event(100 + n, "u1", clock.now()) for n in range(3)]
    count(app, fresh)
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    assert daily(app, ann).report.events_expired == 0
    assert len(known(app.event_archive, first - DAY)) == len(sample) + 3
    clock.sleep(24 * 3600)
    assert daily(app, ann, dry_run=True).report.events_expired == len(sample)
    assert len(known(app.event_archive, first - DAY)) == len(sample) + 3
    assert daily(app, ann).report.events_expired == len(sample)
    assert known(app.event_archive, first - DAY) == in_order(fresh)
    assert stored(app) == named(app)


def daily(app: App, ann: Caller, *, dry_run: bool = False) -> RetentionRun:
    """A daily round of retention."""
    started = app.retention.start(ann, RunDraft(dry_run=dry_run)).entity
    drained(app, app.jobs.records.get(ORGANIZATION, started.run_id).entity)
    return app.retention.get(ann, started.run_id).entity


def test_an_object_nobody_names_goes_when_it_is_old(
    app: App, clock: MovableClock, sample: list[Event]
) -> None:
    count(app, sample)
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    table = next(iter(app.event_archive.events(ORGANIZATION, Span(clock.now() - DAY))))
    lost = app.event_archive.objects.put(ORGANIZATION, 400_000, table)
    assert app.event_archive.sweep(ORGANIZATION) == 0
    clock.sleep(25 * 3600)
    assert app.event_archive.sweep(ORGANIZATION) == 1
    assert lost.path not in stored(app)
    assert stored(app) == named(app)


@pytest.mark.embedded("it damages a file")
def test_damage_is_noticed(app: App, clock: MovableClock, sample: list[Event]) -> None:
    count(app, sample)
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    path = app.settings.data_path / "events" / ORGANIZATION / min(named(app))
    content = bytearray(path.read_bytes())
    content[60] ^= 0x40
    path.chmod(0o600)
    path.write_bytes(content)
    with pytest.raises(StorageUnavailableError) as caught:
        known(app.event_archive, clock.now() - DAY)
    assert caught.value.reason == "damaged"
    path.unlink()
    with pytest.raises(StorageUnavailableError):
        known(app.event_archive, clock.now() - DAY)


@pytest.mark.embedded("it takes a file away")
def test_an_object_that_cannot_be_read_keeps_no_other_from_being_archived(
    app: App, clock: MovableClock
) -> None:
    clock.set(clock.now().replace(minute=0))
    for n in range(12):
        count(app, [event(n, "ann", clock.now())])
        app.event_archiver.run(ORGANIZATION, ALL, now=True)
        if n == 0:
            lost = named(app).pop()
            (app.settings.data_path / "events" / ORGANIZATION / lost).unlink()
    assert len(named(app)) == 12
    assert app.documents.count(Query(ORGANIZATION, LOG)) == 0
    clock.sleep(3 * 24 * 3600)
    assert app.event_archiver.tidy(ORGANIZATION) == 0


def with_a_lost_step(app: App, at: datetime) -> None:
    """Three steps of ann's shard, the second of which is so large that it lies in an object, which
    is gone; and two of bob's."""
    noise = random.Random(1)
    large = [event(n, "ann", at, session_id=None) for n in range(90)]
    for one in large:
        one.attributes["noise"] = noise.randbytes(7_500).hex()
    count(app, [event(100, "ann", at), event(101, "bob", at)])
    count(app, large)
    count(app, [event(102, "ann", at), event(103, "bob", at)])
    log = app.event_archive.log
    [lost] = [one for one in log.everything(ORGANIZATION) if "object" in one.data]
    log.parcels.blobs.delete(BlobKey(ORGANIZATION, lost.data["object"]))


def test_a_logged_step_that_is_lost_keeps_no_other_from_being_archived(
    app: App, clock: MovableClock
) -> None:
    """It is looked at again hours later, and not again and again in the meantime."""
    with_a_lost_step(app, clock.now())
    clock.sleep(3601)
    assert app.due.run()["event_archives"] == 2
    app.event_worker.run(_asked(app))
    archived = [
        one.event_id
        for name in named(app)
        for one in events_of(app.event_archive.objects.table(ORGANIZATION, name))
    ]
    assert sorted(archived) == ["o100", "o101", "o103"]
    assert app.due.run()["event_archives"] == 0
    clock.sleep(6 * 3600)
    assert app.due.run()["event_archives"] == 2


def test_events_do_not_wait_for_a_logged_step_that_is_lost(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    with_a_lost_step(app, clock.now())
    made = app.segments.create(ann, fees_from(1)).entity
    worked(app)
    count(app, [event(104, "ann", clock.now()), event(105, "bob", clock.now())])
    state = app.memberships.backfill(ann, made.segment_id)
    assert (state.shards, state.done) == (2, 1)
    told = app.memberships.members(ann, made.segment_id).data
    assert sorted(one.user_id for one in told) == ["ann", "bob"]
    with pytest.raises(StorageUnavailableError) as caught:
        app.segment_replay.check(ORGANIZATION, shard_of("ann"))
    assert caught.value.reason == "damaged"


def fees_from(value: int, field: str = "ship.fee") -> NewSegmentDraft:
    """A segment on a sum that nobody has asked for."""
    rule = {"event_type": "orders", "attribute": "sum", "field": field, "operator": "GTE"}
    rules = [{**rule, "value": value, "window_minutes": 1_440}]
    return NewSegmentDraft.model_validate({"name": field, "type": "INDEPENDENT", "rules": rules})


def test_a_past_is_brought_and_a_replay_agrees(
    app: App, ann: Caller, clock: MovableClock, sample: list[Event]
) -> None:
    count(app, sample[:14])
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    count(app, sample[14:])
    made = app.segments.create(ann, fees_from(50)).entity
    assert made.counting_since == clock.now()
    worked(app)
    fees = {f"u{n}": sum(range(n, 24, 5)) for n in range(5)}
    members = app.memberships.members(ann, made.segment_id).data
    assert {one.user_id for one in members} == {user for user, fee in fees.items() if fee >= 50}
    assert app.memberships.backfill(ann, made.segment_id).since is None
    assert app.segments.get(ann, made.segment_id).entity.counting_since is None
    for shard in app.segment_replay.existing(ORGANIZATION):
        found = app.segment_replay.check(ORGANIZATION, shard)
        assert not found.differs, found


def test_a_replay_agrees_after_an_erasure_and_with_who_came_again(
    app: App, ann: Caller, clock: MovableClock, sample: list[Event]
) -> None:
    app.segments.create(ann, fees_from(1))
    worked(app)
    count(app, sample[:12])
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    count(app, sample[12:])
    drained(app, app.user_erasures.request(ann, "u2").entity)
    assert not differing(app)
    left = [one for one in sample if one.user_id != "u2"]
    assert known(app.event_archive, clock.now() - DAY) == in_order(left)
    clock.sleep(600)
    again = [event(100 + n, "u2", clock.now()) for n in range(2)]
    count(app, again)
    assert not differing(app)
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    assert not differing(app)
    assert known(app.event_archive, clock.now() - DAY) == in_order([*left, *again])
    app.segments.create(ann, fees_from(1, "tax"))
    worked(app)
    assert not differing(app)


def differing(app: App) -> list[ShardReplay]:
    """The shards that are not as they follow from their events."""
    shards = app.segment_replay.existing(ORGANIZATION)
    found = [app.segment_replay.check(ORGANIZATION, shard) for shard in shards]
    assert all(one.missing == () for one in found)
    return [one for one in found if one.differs]


@pytest.mark.embedded("it takes a file away, and looks at the embedded bus")
def test_events_do_not_wait_for_a_past_that_cannot_be_read(
    app: App, ann: Caller, clock: MovableClock, sample: list[Event]
) -> None:
    mine = [one for one in sample if one.user_id == "u1"]
    count(app, mine[:3])
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    path = app.settings.data_path / "events" / ORGANIZATION / min(named(app))
    path.rename(path.with_suffix(".away"))
    made = app.segments.create(ann, fees_from(1)).entity
    worked(app)
    count(app, mine[3:])
    state = app.memberships.backfill(ann, made.segment_id)
    assert (state.shards, state.done, state.since) == (1, 0, clock.now())
    for _ in range(20):
        clock.sleep(3_600)
        worked(app)
    letters = app.bus.dead_letters("process_events")
    assert [one.message.data["aside"] for one in letters] == [True]
    path.with_suffix(".away").rename(path)
    assert app.bus.redrive("process_events") == 1
    worked(app)
    assert app.memberships.backfill(ann, made.segment_id).since is None


def worked(app: App) -> None:
    """Hand out messages of events."""

    def hand_out(_subscription: str, message: Message, _attempt: int) -> None:
        app.event_worker.run(message)

    if isinstance(app.bus, SqliteBus):
        while app.bus.deliver_due(hand_out, only=("process_events",)):
            pass
    else:
        version = app.shards.books.current(ORGANIZATION).version
        app.event_worker.run(rules_message(caller_of(), version, app.clock))
        for shard in app.segment_replay.existing(ORGANIZATION):
            app.event_worker.run(adopt_message(ORGANIZATION, shard, version, app.clock))


def test_organizations_are_apart(app: App, clock: MovableClock, sample: list[Event]) -> None:
    count(app, sample)
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    assert list(app.event_archive.events("evil-corp", Span(clock.now() - DAY))) == []
    assert app.event_archive.erase("evil-corp", "u2") == 0
    assert known(app.event_archive, clock.now() - DAY) == in_order(sample)


def test_a_reader_on_the_way_is_told_to_read_again(
    app: App, clock: MovableClock, sample: list[Event]
) -> None:
    count(app, sample)
    app.event_archiver.run(ORGANIZATION, ALL, now=True)
    shard = shard_of("u2")
    number = app.event_archive.counted(ORGANIZATION, shard)
    reading = app.event_archive.tables(ORGANIZATION, shard, number, Span(clock.now() - DAY))
    next(reading)
    app.event_archive.erase(ORGANIZATION, "u2")
    with pytest.raises(ConflictError):
        list(reading)
    assert app.documents.get(Key(ORGANIZATION, DAYS, f"{clock.now():%Y-%m-%d}")) is not None
