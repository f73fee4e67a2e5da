"""What an erasure or an archiving has deleted since is found where it went, after a restore."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from activation.app import App
from activation.domain.caller import Caller
from activation.errors import StorageUnavailableError
from activation.ports import Document, Query
from activation.services.archive_mending import ArchiveMending
from activation.services.event_archive import DAYS, Span
from activation.services.event_objects import EventObjects
from activation.services.shard_states import LOST
from tests.services.lost_shards import (
    CLARA,
    DAVE,
    fresh,
    heard,
    in_objects,
    lose,
    state,
    went_back,
)
from tests.services.rewinding import go_back, state_of
from tests.services.test_user_erasures import (
    BOB,
    OTHERS,
    SHARD,
    come,
    erased,
    known,
    segment_id,
)

__all__ = ["segment_id"]


def strays(app: App) -> None:
    """Delete what no document names."""
    app.shards.parcels.sweep(app.documents, "acme", app.clock.now())
    days = app.documents.query(Query("acme", DAYS))
    named = {one["path"] for day in days for one in day.data["objects"]}
    for path in set(app.event_archive.objects.all_paths("acme")) - named:
        app.event_archive.objects.delete("acme", [path])


def behind_an_erasure(
    app: App, ann: Caller, *, archived: bool, first: Callable[[App], None] = fresh
) -> None:
    """The erasure has deleted states, logs and archived events that the database names."""
    in_objects(app)
    for number in (1, 2):
        come(app, [BOB, *OTHERS], number)
    if archived:
        assert app.event_archiver.run("acme", [SHARD], now=True)
    then = state_of(app)
    lost = heard(app)
    app.clock.sleep(60)
    erased(app, ann)
    app.clock.sleep(3600)
    expected = state(app).digest()
    come(app, [CLARA], 7)
    went_back(app, then)
    with pytest.raises(StorageUnavailableError) as caught:
        app.shards.states.open("acme", SHARD)
    assert caught.value.reason == LOST
    first(app)
    recovery = app.recovery.run(then.at)
    assert (recovery.shards, recovery.shards_rebuilt, recovery.shards_unreadable) == (0, 1, 0)
    assert (recovery.users_erased, recovery.erasures_waiting) == (1, 0)
    assert not known(app)
    assert state(app).row(BOB) is None
    assert state(app).digest() == expected
    assert not {key: value for key, value in heard(app).items() if lost.get(key, value) != value}
    again = app.recovery.run(then.at)
    assert (again.again, again.shards_rebuilt, again.erasures_waiting) == (True, 0, 0)


@pytest.mark.parametrize("archived", [False, True])
def test_a_database_alone_goes_back_behind_an_erasure(
    app: App, ann: Caller, segment_id: str, archived: bool
) -> None:
    del segment_id
    behind_an_erasure(app, ann, archived=archived)


@pytest.mark.parametrize("archived", [False, True])
def test_planted_fault_what_an_erasure_rewrote_is_not_looked_for(
    app: App, ann: Caller, segment_id: str, archived: bool
) -> None:
    """Objects that the database does not name are lost, too."""
    del segment_id

    with pytest.raises(AssertionError):
        behind_an_erasure(app, ann, archived=archived, first=strays)


@pytest.mark.parametrize("lost_state", [False, True])
def test_a_log_that_was_archived_since_is_found_in_the_archive(
    app: App, segment_id: str, lost_state: bool
) -> None:
    """Objects of the log went with the archiving, and those of the archive with a merge."""
    del segment_id
    in_objects(app)
    come(app, [BOB, *OTHERS], 1)
    assert app.event_archiver.run("acme", [SHARD], now=True)
    come(app, [BOB, CLARA], 2)
    expected = state(app).digest()
    then = state_of(app)
    named = {one for day in app.documents.query(Query("acme", DAYS)) for one in paths(day)}
    come(app, [CLARA, DAVE], 3)
    assert app.event_archiver.run("acme", [SHARD], now=True)
    for day in list(app.event_archive.all_days("acme")):
        assert app.event_archiver.merge("acme", day)
    app.event_archive.objects.delete("acme", named)
    go_back(app, then)
    fresh(app)
    if lost_state:
        lose(app)
    recovery = app.recovery.run(then.at)
    assert (recovery.shards, recovery.shards_rebuilt) == ((0, 1) if lost_state else (1, 0))
    assert (recovery.events_missing, recovery.shards_incomplete) == (0, 0)
    assert state(app).digest() == expected
    assert not app.segment_replay.check("acme", SHARD).differs
    come(app, [DAVE], 4)
    assert app.event_archiver.run("acme", [SHARD], now=True)
    assert not app.segment_replay.check("acme", SHARD).differs
    span = Span(then.at - timedelta(days=1))
    counted = [len(one) for one in app.event_archive.events("acme", span)]
    assert sum(counted) == 1 + len(OTHERS) + 2 + 1


def test_an_archive_is_mended_while_others_archive(app: App, segment_id: str) -> None:
    """What came after the objects were listed is not taken for lost; what is lost is."""
    del segment_id
    for number in (1, 2):
        come(app, [CLARA], number)
        assert app.event_archiver.run("acme", [SHARD], now=True)
    (day,) = app.documents.query(Query("acme", DAYS))
    first, second = paths(day)
    app.event_archive.objects.delete("acme", [first])
    listed = Unlisted(app.event_archive.objects.blobs)
    archive = replace(app.event_archive, objects=listed)
    found = ArchiveMending(archive).mend("acme")
    assert (found.objects, found.events, found.missing) == (1, 1, 1)
    (day,) = app.documents.query(Query("acme", DAYS))
    assert paths(day) == [second]
    assert ArchiveMending(archive).mend("acme").objects == 0


class Unlisted(EventObjects):
    """Objects of which a listing came too early."""

    def all_paths(self, organization_id: str) -> Iterator[str]:
        """None of them."""
        del organization_id
        yield from ()


def paths(day: Document) -> list[str]:
    """The objects of a day."""
    return [one["path"] for one in day.data["objects"]]
