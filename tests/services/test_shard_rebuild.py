"""A shard whose state is lost is made again, as it was, without those who were erased."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.segment_shard import step_id
from activation.errors import StorageUnavailableError
from activation.ports import Batch, BlobKey, BlobStore, Key, Query, Write
from activation.services.event_archive import DAYS
from activation.services.segment_shards import TRANSITIONS
from activation.services.shard_rebuild import Rebuilt, ShardRebuild
from tests.segments.shards import require_turns
from tests.services.lost_shards import (
    CLARA,
    DAVE,
    damage,
    fresh,
    head,
    history,
    in_objects,
    lose,
    lose_to_another_release,
    state,
    stays,
)
from tests.services.test_user_erasures import (
    BOB,
    OTHERS,
    SHARD,
    come,
    inside,
    segment_id,
    told,
)

__all__ = ["segment_id"]


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


class _Run:
    """A run of a job that nothing is kept of."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def keep(self) -> None:
        """Nothing to keep alive."""


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
