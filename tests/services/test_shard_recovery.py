"""After a store went back: no number of a step is told twice, and what is unreadable is rebuilt."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.recovery import Recovery
from activation.domain.segment_shard import shard_id, step_id
from activation.errors import StorageUnavailableError
from activation.ports import Batch, BlobKey, BlobStore, Document, DocumentStore, Key, Query, Write
from activation.segments.codec import pack, unpack
from activation.segments.state import ShardState
from activation.services.archive_mending import ArchiveMending
from activation.services.event_archive import DAYS, Span
from activation.services.event_objects import EventObjects
from activation.services.kept_states import KeptStates
from activation.services.segment_shards import TRANSITIONS
from activation.services.shard_rebuild import Rebuilt, ShardRebuild
from activation.services.shard_recovery import ShardRecovery
from activation.services.shard_states import DELTAS, HEADS, LOST
from tests.segments.shards import require_turns
from tests.services.rewinding import Then, go_back, state_of
from tests.services.test_user_erasures import (
    BOB,
    OTHERS,
    SHARD,
    come,
    erased,
    inside,
    known,
    segment_id,
    told,
)

__all__ = ["segment_id"]
CLARA, DAVE, EVE = OTHERS[:3]


def fresh(app: App) -> None:
    """Another process: it remembers no state."""
    states = replace(app.shards.states, kept=KeptStates())
    object.__setattr__(app.shards, "states", states)


def in_objects(app: App) -> None:
    """States, deltas and steps lie in objects."""
    object.__setattr__(app.shards.parcels, "inline_bytes", 10)


def went_back(app: App, then: Then) -> None:
    """The store is as it was, an hour later, for a new process."""
    go_back(app, then)
    app.clock.sleep(3600)
    fresh(app)


def state(app: App) -> ShardState:
    """The shard's state, with everybody looked at."""
    while app.shards.sweep_shard("acme", SHARD):
        pass
    return app.shards.states.open("acme", SHARD).state


def head(app: App) -> dict[str, Any]:
    """The head of the shard."""
    found = app.documents.get(Key("acme", HEADS, shard_id(SHARD)))
    assert found is not None
    return dict(found.data)


def lose(app: App) -> None:
    """The objects that the head names are gone, and nobody has the state in memory."""
    objects = head(app)["objects"]
    assert objects
    for name in objects:
        app.member_blobs.delete(BlobKey("acme", name))
    fresh(app)


def damage(app: App) -> None:
    """The objects that the head names are not what was written."""
    for name in head(app)["objects"]:
        key = BlobKey("acme", name)
        data = app.member_blobs.get(key)
        app.member_blobs.delete(key)
        app.member_blobs.put(key, data[:-1] + b"?")
    fresh(app)


def lose_to_another_release(app: App) -> None:
    """A delta was written by a release that evaluates in another way."""
    key = Key("acme", DELTAS, step_id(SHARD, head(app)["number"]))
    found = app.documents.get(key)
    assert found is not None
    header, columns = unpack(app.shards.parcels.opened(found))
    data = base64.b64encode(pack({**header, "evaluation": 999}, columns)).decode()
    content = {name: value for name, value in found.data.items() if name != "object"}
    app.documents.commit(Batch([Write(key, {**content, "data": data})]))
    fresh(app)


def stays(app: App, user: str) -> list[tuple[str, int, Any]]:
    """Where a user is: segment, seq and since."""
    opened = app.shards.states.open("acme", SHARD)
    return [
        (one.segment_id, one.seq, one.entered_at)
        for one in opened.state.memberships_of(user, opened.book)
    ]


def heard(app: App) -> dict[tuple[str, str, int], bool]:
    """What somebody knows who has heard everything: (user, segment, seq) to in or out."""
    return {(one.user_id, one.segment_id, one.seq): one.entered for one in told(app)}


def history(app: App) -> None:
    """Bob and the others enter, some events are archived, and time goes by."""
    for number in (1, 2, 3):
        come(app, [BOB, *OTHERS], number)
        app.clock.sleep(60)
    assert app.event_archiver.run("acme", [SHARD], now=True)
    come(app, [CLARA], 4)
    app.clock.sleep(60)


# numbers ------------------------------------------------------------------------------------------


def numbers_are_new(app: App, segment_id: str, recover: Callable[[Then], object]) -> None:
    """After the store went back nobody is told anything under a number that was told before."""
    come(app, [CLARA, DAVE], 1)
    then = state_of(app)
    come(app, [CLARA], 2)
    come(app, [DAVE], 3)
    lost = heard(app)
    assert len(lost) == 2
    went_back(app, then)
    recover(then)
    for number in (4, 5):
        come(app, [DAVE, EVE], number)
    after = heard(app)
    assert {user for user, _, _ in after} == {DAVE, EVE}
    assert inside(app, segment_id) == {DAVE, EVE}
    app.clock.sleep(7200)
    state(app)
    assert require_turns(told(app)) == set()
    assert not set(heard(app)) & set(lost)


def test_no_number_is_told_twice_with_another_meaning(app: App, segment_id: str) -> None:
    done: list[Recovery] = []
    numbers_are_new(app, segment_id, lambda then: done.append(app.recovery.run(then.at)))
    assert [(one.shards, one.shards_rebuilt, one.shards_unreadable) for one in done] == [(1, 0, 0)]
    assert min(seq for _, _, seq in heard(app)) > 1_000_000


def test_planted_fault_numbers_are_used_again(app: App, segment_id: str) -> None:
    class Forgetful(ShardRecovery):
        def recovered(self, organization_id: str, skip: int) -> Counter[str]:
            return super().recovered(organization_id, 0)

    shards = Forgetful(app.recovery.shards.replay, app.clock)
    with pytest.raises(AssertionError):
        numbers_are_new(
            app, segment_id, lambda then: replace(app.recovery, shards=shards).run(then.at)
        )


def test_a_shard_that_began_in_the_lost_time_does_not_begin_again_at_one(
    app: App, segment_id: str
) -> None:
    then = state_of(app)
    come(app, [CLARA], 1)
    come(app, [CLARA], 2)
    lost = heard(app)
    went_back(app, then)
    assert app.recovery.run(then.at).shards == 0
    come(app, [CLARA], 3)
    come(app, [CLARA], 4)
    assert inside(app, segment_id) == {CLARA}
    assert not set(heard(app)) & set(lost)
    assert app.event_archiver.run("acme", [SHARD], now=True)


def test_a_second_way_back_to_one_state_leaves_out_what_the_first_one_used(
    app: App, segment_id: str
) -> None:
    come(app, [CLARA], 1)
    then = state_of(app)
    went_back(app, then)
    app.recovery.run(then.at)
    come(app, [CLARA], 2)
    come(app, [CLARA], 3)
    lost = heard(app)
    went_back(app, then)
    app.recovery.run(then.at)
    come(app, [CLARA], 4)
    come(app, [CLARA], 5)
    assert lost
    assert not set(heard(app)) & set(lost)
    assert inside(app, segment_id) == {CLARA}


def test_numbers_are_left_out_once_for_a_restore(app: App, segment_id: str) -> None:
    del segment_id
    come(app, [CLARA], 1)
    then = state_of(app)
    went_back(app, then)
    app.recovery.run(then.at)
    number = head(app)["number"]
    again = app.recovery.run(then.at)
    assert (again.again, again.shards, head(app)["number"]) == (True, 0, number)


@pytest.mark.parametrize("lost", [False, True])
def test_a_recovery_that_dies_at_any_commit_is_done_again(
    app: App, ann: Caller, segment_id: str, lost: bool
) -> None:
    """It dies at one commit after the other, until it gets to its end."""
    if lost:
        in_objects(app)
    come(app, [BOB, CLARA, DAVE], 1)
    then = state_of(app)
    come(app, [CLARA], 2)
    if lost:
        app.clock.sleep(60)
        erased(app, ann)
    said = heard(app)
    went_back(app, then)
    deaths = 0
    while dying(app, then, deaths):
        deaths += 1
        app.clock.sleep(600)
    assert deaths >= (4 if lost else 2)
    again = app.recovery.run(then.at)
    assert (again.again, again.shards, again.shards_unreadable) == (True, 0, 0)
    assert head(app)["number"] > 1_000_000
    for number in (4, 5):
        come(app, [DAVE], number)
    assert not set(heard(app)) & set(said)
    assert inside(app, segment_id) == {DAVE}
    assert known(app) is not lost


def dying(app: App, then: Then, survives: int) -> bool:
    """A recovery in a process that dies after so many commits; whether it did."""
    documents = app.documents
    owners = [app.shards, app.shards.commits, app.recovery.distributions, app.event_archive]
    mortal = Dying(documents, survives)
    for one in owners:
        object.__setattr__(one, "documents", mortal)
    fresh(app)
    try:
        app.recovery.run(then.at)
    except Died:
        return True
    finally:
        for one in owners:
            object.__setattr__(one, "documents", documents)
        fresh(app)
    return False


def test_archive_and_past_are_right_across_the_gap(app: App, ann: Caller, segment_id: str) -> None:
    history(app)
    then = state_of(app)
    come(app, [DAVE], 5)
    went_back(app, then)
    before = app.clock.now()
    app.recovery.run(then.at)
    for number in (6, 7):
        come(app, [EVE], number)
        app.clock.sleep(60)
    opened = app.shards.states.open("acme", SHARD)
    assert not app.segment_replay.check("acme", SHARD).differs
    assert app.event_archiver.run("acme", [SHARD], now=True)
    fresh(app)
    assert not app.segment_replay.check("acme", SHARD).differs
    assert app.documents.query(Query("acme", "segment_events")) == []
    explained = app.past_explanations.explain(ann, EVE, segment_id, app.clock.now())
    assert (explained.member, explained.holds) == (True, True)
    page = app.past_memberships.members(ann, segment_id, then.at)
    assert {one.user_id for one in page.data} == {BOB, *OTHERS}
    now = app.past_memberships.members(ann, segment_id, app.clock.now())
    assert {one.user_id for one in now.data} == set(
        opened.state.members_of(segment_id, opened.book)
    )
    changes = app.past_memberships.history(ann, segment_id, since=before)
    assert [one.seq for one in changes.data] == sorted(
        (one.seq for one in changes.data), reverse=True
    )
    assert changes.data[0].user_id == EVE
    assert changes.data[0].seq > 1_000_000
    shards = app.segment_changes.look("acme", [SHARD]).numbers
    steps = list(app.segment_changes.steps("acme", {SHARD: 0}, shards))
    assert [one.number for one in steps] == sorted({one.seq for one in told(app)})


def test_the_log_is_read_in_small_pages_across_a_gap(app: App, segment_id: str) -> None:
    """Many steps lie behind the numbers that were left out."""
    del segment_id
    come(app, [CLARA], 0)
    app.shards.fold("acme", SHARD, 5_000)
    for number in range(1, 150):
        come(app, [CLARA], number)
    pages = Pages(app.documents)
    log = replace(app.event_archive.log, documents=pages)  # type: ignore[arg-type]
    last = head(app)["number"]
    found = [one.key.id for one in log.steps("acme", SHARD, 0, last)]
    assert found == sorted(found)
    assert len(found) == 150
    assert len(pages.sizes) < 30
    assert [one.key.id for one in log.steps("acme", SHARD, 1, last - 1)] == found[1:-1]


class Pages:
    """Documents; tells how many each query has found."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self.sizes: list[int] = []

    def query(self, query: Query) -> list[Document]:
        """As it is."""
        found = self._documents.query(query)
        self.sizes.append(len(found))
        return list(found)


# lost states --------------------------------------------------------------------------------------


def lost_and_made_again(app: App, ann: Caller, lost: Callable[[App], None] = lose) -> None:
    """A shard loses its state; what a replay makes of it is what there was."""
    in_objects(app)
    history(app)
    before, where = state(app), {one: stays(app, one) for one in (BOB, *OTHERS)}
    said = told(app)
    lost(app)
    with pytest.raises(StorageUnavailableError):
        app.shards.states.open("acme", SHARD)
    found = app.segment_replay.check("acme", SHARD)
    assert (found.unreadable, found.differs) == (True, True)
    assert found.replayed_digest == before.digest()
    with pytest.raises(StorageUnavailableError):
        app.shards.states.open("acme", SHARD)
    assert app.segment_replay.apply(ann, SHARD).unreadable
    after = state(app)
    assert (after.digest(), after.number) == (before.digest(), before.number + 1)
    assert {one: stays(app, one) for one in (BOB, *OTHERS)} == where
    assert told(app) == said, "others know it all"
    assert not app.segment_replay.check("acme", SHARD).differs
    come(app, [BOB, *OTHERS], 1)
    assert state(app).digest() == before.digest(), "ids are known as before"
    app.clock.sleep(3600)
    state(app)
    assert require_turns(told(app)) == set()


@pytest.mark.parametrize("lost", [lose, damage, lose_to_another_release])
def test_a_lost_shard_is_made_again_by_a_replay(
    app: App, ann: Caller, segment_id: str, lost: Callable[[App], None]
) -> None:
    del segment_id
    lost_and_made_again(app, ann, lost)


class TellsAll(ShardRebuild):
    """A fault: what was told is not looked at."""

    def rebuilt(self, organization_id: str, shard: int) -> Rebuilt:
        """As if nobody had been told anything."""
        return replace(super().rebuilt(organization_id, shard), told={})


class Unmarked(ShardRebuild):
    """A fault: who was erased is not looked at."""

    def rebuilt(self, organization_id: str, shard: int) -> Rebuilt:
        """With everybody."""
        shards = replace(self.shards, marks=None)
        return ShardRebuild(shards, self.archive).rebuilt(organization_id, shard)


class LogAlone(ShardRebuild):
    """A fault: what was archived is forgotten."""

    def rebuilt(self, organization_id: str, shard: int) -> Rebuilt:
        """With the log alone."""
        days = self.archive.documents.query(Query(organization_id, DAYS))
        self.archive.documents.commit(Batch([Write(one.key, None) for one in days]))
        return super().rebuilt(organization_id, shard)


@pytest.mark.parametrize("fault", [TellsAll, LogAlone])
def test_planted_faults_of_a_rebuilt_shard_are_found(
    app: App, ann: Caller, segment_id: str, fault: type[ShardRebuild]
) -> None:
    del segment_id
    app.segment_replay.__dict__["rebuild"] = fault(app.shards, app.event_archive)
    with pytest.raises(AssertionError):
        lost_and_made_again(app, ann)


def test_users_of_long_ago_are_known_again(app: App, ann: Caller, segment_id: str) -> None:
    """Their events are in no window any more; one is known by what he was told alone."""
    in_objects(app)
    come(app, [BOB, *OTHERS], 1)
    assert app.event_archiver.run("acme", [SHARD], now=True)
    app.clock.sleep(90 * 86_400)
    for number in (2, 3):
        come(app, [CLARA], number)
        app.clock.sleep(60)
    before = state(app)
    lose(app)
    found = app.segment_replay.apply(ann, SHARD)
    assert (found.kept_from, found.lost_objects, found.lost_steps) == (None, 0, 0)
    assert state(app).digest() == before.digest()
    assert inside(app, segment_id) == {CLARA}
    days = app.documents.query(Query("acme", DAYS))
    app.documents.commit(Batch([Write(one.key, None) for one in days]))
    come(app, [CLARA], 4)
    lose(app)
    app.segment_replay.__dict__.pop("rebuild")
    app.segment_replay.apply(ann, SHARD)
    assert set(state(app).users.names) == {CLARA}


def test_what_is_not_kept_any_more_is_said(app: App, ann: Caller, segment_id: str) -> None:
    del segment_id
    in_objects(app)
    history(app)
    (day,) = app.documents.query(Query("acme", DAYS))
    for one in day.data["objects"]:
        app.event_blobs.delete(BlobKey("acme", one["path"]))
    lose(app)
    assert app.segment_replay.check("acme", SHARD).lost_objects > 0
    then = app.clock.now()
    recovery = app.recovery.run(then)
    assert recovery.shards_rebuilt == 1
    assert recovery.events_missing == 3 * (1 + len(OTHERS))


def test_what_was_told_is_put_right_by_a_rebuilt_shard(
    app: App, ann: Caller, segment_id: str
) -> None:
    """Clara has entered by an event that is not kept; Dave was told out and is in."""
    in_objects(app)
    come(app, [CLARA, DAVE], 1)
    come(app, [CLARA], 2)
    last = step_id(SHARD, head(app)["number"])
    log = app.documents.get(Key("acme", "segment_events", last))
    assert log is not None
    app.documents.commit(Batch([Write(log.key, None)]))
    come(app, [DAVE], 3)
    entry = app.documents.get(Key("acme", TRANSITIONS, step_id(SHARD, head(app)["number"])))
    assert entry is not None
    app.documents.commit(Batch([Write(entry.key, None)]))
    lose(app)
    app.segment_replay.apply(ann, SHARD)
    assert inside(app, segment_id) == {DAVE}
    assert require_turns(told(app)) == {(DAVE, segment_id)}
    seq = head(app)["number"]
    assert [(one.user_id, one.entered) for one in told(app) if one.seq == seq] in (
        [(CLARA, False), (DAVE, True)],
        [(DAVE, True), (CLARA, False)],
    )
    assert stays(app, DAVE)[0][1] == seq


def erased_user_stays_out(app: App, ann: Caller, segment_id: str) -> None:
    """The erasure has only begun: his events still lie in the log."""
    in_objects(app)
    come(app, [BOB, *OTHERS], 1)
    come(app, [BOB, *OTHERS], 2)
    job = app.user_erasures.request(ann, BOB).entity
    eraser = app.user_erasures.stores()[0][1]
    eraser(_Run(ann), job.params["erasure_id"], BOB)  # type: ignore[arg-type]
    before = state(app)
    lose(app)
    app.segment_replay.apply(ann, SHARD)
    assert state(app).digest() == before.digest()
    assert inside(app, segment_id) == set(OTHERS)
    assert state(app).row(BOB) is None
    app.clock.sleep(60)
    come(app, [BOB], 5)
    app.clock.sleep(60)
    come(app, [BOB], 6)
    lose(app)
    app.segment_replay.apply(ann, SHARD)
    assert inside(app, segment_id) == {BOB, *OTHERS}
    assert [one.entered for one in told(app) if one.user_id == BOB] == [True, True]


def test_an_erased_user_stays_out_of_a_rebuilt_shard(
    app: App, ann: Caller, segment_id: str
) -> None:
    erased_user_stays_out(app, ann, segment_id)


def test_planted_fault_marks_are_not_looked_at(app: App, ann: Caller, segment_id: str) -> None:
    app.segment_replay.__dict__["rebuild"] = Unmarked(app.shards, app.event_archive)
    with pytest.raises(AssertionError):
        erased_user_stays_out(app, ann, segment_id)


def strays(app: App) -> None:
    """Delete what no document names."""
    app.shards.parcels.sweep(app.documents, "acme", app.clock.now())
    days = app.documents.query(Query("acme", DAYS))
    named = {one["path"] for day in days for one in day.data["objects"]}
    for path in set(app.event_archive.objects.all_paths("acme")) - named:
        app.event_archive.objects.delete("acme", [path])


class _Run:
    """A run of a job that nothing is kept of."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def keep(self) -> None:
        """Nothing to keep alive."""


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


def test_a_shard_that_nothing_can_be_made_of_does_not_stop_the_others(
    app: App, ann: Caller, segment_id: str
) -> None:
    del segment_id
    in_objects(app)
    come(app, [CLARA], 1)
    then = state_of(app)
    number = head(app)["number"]
    went_back(app, then)
    lose(app)
    log = app.documents.get(Key("acme", "segment_events", step_id(SHARD, number)))
    assert log is not None
    app.member_blobs.delete(BlobKey("acme", log.data["object"]))
    app.member_blobs.put(BlobKey("acme", log.data["object"]), b"something else")
    first = app.recovery.run(then.at)
    assert (first.shards, first.shards_rebuilt, first.shards_unreadable) == (0, 0, 1)
    app.documents.commit(Batch([Write(log.key, None)]))
    second = app.recovery.run(then.at)
    assert (second.shards_rebuilt, second.shards_unreadable) == (1, 0)
    assert head(app)["number"] > 1_000_000, "also when it is told later"


def test_a_store_that_does_not_answer_is_no_lost_state(app: App, segment_id: str) -> None:
    del segment_id
    in_objects(app)
    come(app, [CLARA], 1)
    fresh(app)
    before = head(app)
    rebuild: ShardRebuild = app.segment_replay.rebuild
    for blobs in (Silent(app.member_blobs), Elsewhere(app.member_blobs)):
        parcels = replace(app.shards.parcels, blobs=blobs)
        states = replace(app.shards.states, blobs=blobs, parcels=parcels)
        silent = replace(rebuild, shards=replace(app.shards, states=states))
        with pytest.raises(StorageUnavailableError) as caught:
            silent.is_lost("acme", SHARD)
        assert caught.value.reason is None
    assert head(app) == before
    assert not rebuild.is_lost("acme", SHARD)


class Silent:
    """A store of objects that does not answer."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def get(self, *_: object) -> bytes:
        """No answer."""
        raise StorageUnavailableError("No.")


class Elsewhere(Silent):
    """A store of objects whose area is not there: everything is missing in it."""

    def get(self, key: BlobKey, *_: object) -> bytes:  # type: ignore[override]
        """Not found."""
        return self._blobs.get(BlobKey(key.organization_id, "nothing"))

    def ping(self) -> None:
        """It says so."""
        raise StorageUnavailableError("No.")


class Died(BaseException):
    """The process is dead."""


class Dying:
    """Documents of a process that dies at a commit."""

    def __init__(self, documents: Any, survives: int) -> None:
        self._documents, self._left = documents, survives

    def __getattr__(self, name: str) -> Any:
        return getattr(self._documents, name)

    def commit(self, batch: Batch) -> Any:
        """Commit, some times."""
        if not self._left:
            raise Died
        self._left -= 1
        return self._documents.commit(batch)
