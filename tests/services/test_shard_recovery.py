"""After a store went back no number of a step is told twice; the past is right across the gap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.recovery import Recovery
from activation.domain.segment_shard import step_id
from activation.ports import Batch, BlobKey, Document, DocumentStore, Key, Query, Write
from activation.services.shard_recovery import ShardRecovery
from tests.segments.shards import require_turns
from tests.services.lost_shards import (
    CLARA,
    DAVE,
    EVE,
    fresh,
    head,
    heard,
    history,
    in_objects,
    lose,
    state,
    went_back,
)
from tests.services.rewinding import Then, state_of
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
