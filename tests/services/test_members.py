"""Members change, expire and are compacted while others do the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import Audience, AudienceChanges, AudienceSegment, SegmentDraft
from activation.domain.caller import Caller
from activation.domain.identifier import key_digest
from activation.domain.job import JobKind
from activation.domain.manifest import Manifest, TierLimits
from activation.domain.member import MAX_LISTED_SEGMENTS, MemberFilter, MemberInput
from activation.domain.member_change import MemberReference
from activation.errors import StorageUnavailableError
from activation.members.store import MergeResult
from activation.ports import BlobKey, Query
from tests.services.support import add, audience_of, contents, drained, inputs, set_fields


@pytest.fixture
def audience(app: App, ann: Caller) -> Audience:
    """160 members in objects; small changes become deltas."""
    app.__dict__["store"] = replace(app.store, limits=TierLimits(database=0), delta_from=1)
    audience = audience_of(app, ann)
    return add(app, ann, audience.audience_id, inputs(160))


def current(app: App, ann: Caller, audience: Audience) -> Audience:
    return app.audiences.find(ann, audience.audience_id).entity


def manifest_of(app: App, audience: Audience) -> Manifest:
    assert audience.manifest_id is not None
    return app.members.manifests.get("acme", audience.manifest_id).entity


def reference(number: int) -> MemberReference:
    [one] = inputs(1, number)
    return MemberReference(
        identifier_type=one.identifier_type, identifier_value=one.identifier_value
    )


def digest(number: int) -> str:
    return key_digest(f"p{number}@example.com").hex()


def actions(app: App) -> list[str]:
    found = app.documents.query(Query("acme", "audit", limit=100))
    return [str(document.data["action"]) for document in found]


def expiring(clock: MovableClock, count: int, days: int) -> list[MemberInput]:
    end = clock.now() + timedelta(days=days)
    return [one.model_copy(update={"expires_at": end}) for one in inputs(count)]


# upkeep -------------------------------------------------------------------------------------------


def test_expired_members_are_removed_as_upkeep(
    app: App, ann: Caller, clock: MovableClock, audience: Audience
) -> None:
    before = add(app, ann, audience.audience_id, expiring(clock, 4, 2))
    assert app.member_upkeep.expire(ann, audience.audience_id) == 0
    assert current(app, ann, audience) == before
    clock.sleep(timedelta(days=2).total_seconds())
    assert app.member_upkeep.expire(ann, audience.audience_id) == 4
    after = current(app, ann, audience)
    assert (after.size, after.version) == (156, before.version + 1)
    assert after.last_activity_at == before.last_activity_at
    assert actions(app)[0] == "function:members:expire"
    assert not contents(app, after).keys() & {digest(n) for n in range(4)}
    assert app.member_upkeep.expire(ann, audience.audience_id) == 0


def test_an_audience_without_members_has_nothing_to_expire_or_compact(
    app: App, ann: Caller
) -> None:
    audience_id = audience_of(app, ann).audience_id
    assert app.member_upkeep.expire(ann, audience_id) == 0
    assert app.member_upkeep.compact(ann, audience_id) is None


def test_compaction_makes_no_version(app: App, ann: Caller, audience: Audience) -> None:
    before = add(app, ann, audience.audience_id, inputs(8, 156))
    assert len(manifest_of(app, before).deltas) == 1
    held = contents(app, before)
    assert app.member_upkeep.compact(ann, audience.audience_id) is not None
    after = current(app, ann, audience)
    assert manifest_of(app, after).deltas == ()
    assert (after.version, after.size) == (before.version, before.size)
    assert after.last_activity_at == before.last_activity_at
    assert contents(app, after) == held
    assert app.member_upkeep.compact(ann, audience.audience_id) is None
    assert current(app, ann, audience) == after


def test_a_job_packs_tighter_once(app: App, ann: Caller, audience: Audience) -> None:
    for _ in range(2):
        job = app.jobs.start(ann, JobKind.COMPACT, audience.audience_id, {"level": 19}).entity
        done = drained(app, job)
        assert (done.status, done.result["storage_type"]) == ("completed", "segmented")
    assert current(app, ann, audience).storage.compression == "zstd:19"
    assert actions(app).count("function:members:compact") == 1


# segments -----------------------------------------------------------------------------------------


def labelled(label: str, number: int) -> MemberInput:
    value = f"p{number}@example.com"
    return MemberInput(identifier_type="email", identifier_value=value, segments=(label,))


def test_a_label_beyond_those_that_are_listed_has_its_size(app: App, ann: Caller) -> None:
    made = audience_of(app, ann, "Many labels")
    count = MAX_LISTED_SEGMENTS + 5
    after = add(app, ann, made.audience_id, [labelled(f"l{n:04d}", n) for n in range(count)])
    last = f"l{count - 1:04d}"
    assert last not in {one.segment_id for one in after.segments}
    declared = AudienceChanges(segments=(SegmentDraft(segment_id=last, name="Last"),))
    first = app.audiences.update(ann, made.audience_id, declared).entity.segments[0]
    assert (first.segment_id, first.name, first.size) == (last, "Last", 1)


def test_labels_that_nobody_carries_make_room_for_others(app: App, ann: Caller) -> None:
    made = audience_of(app, ann, "Old labels")
    old = [AudienceSegment(segment_id=f"old{n}") for n in range(MAX_LISTED_SEGMENTS - 1)]
    set_fields(app, made, segments=(AudienceSegment(segment_id="vip", name="VIP"), *old))
    after = add(app, ann, made.audience_id, [labelled("new", 1)])
    assert [(one.segment_id, one.size) for one in after.segments] == [("vip", 0), ("new", 1)]


def test_sizes_of_segments_follow_the_members(app: App, ann: Caller, audience: Audience) -> None:
    drafts = (SegmentDraft(segment_id="gold"), SegmentDraft(segment_id="none"))
    app.audiences.update(ann, audience.audience_id, AudienceChanges(segments=drafts))
    gold = [one.model_copy(update={"segments": ("gold", "x")}) for one in inputs(8)]
    after = add(app, ann, audience.audience_id, gold)
    assert [(s.segment_id, s.size, s.size_percentage) for s in after.segments] == [
        ("gold", 8, 5.0),
        ("none", 0, 0.0),
        ("x", 8, 5.0),
    ]
    app.members.remove(ann, audience.audience_id, [reference(n) for n in range(4)])
    assert [s.size for s in current(app, ann, audience).segments] == [4, 0, 4]


# races --------------------------------------------------------------------------------------------


def overtaken(
    app: App, ann: Caller, audience: Audience, fresh: list[MemberInput]
) -> tuple[Audience, MergeResult, int]:
    """A change that others overtake at each of its first three merges, and how often it merged."""
    run = app.store.run_of("acme", audience.audience_id, fresh)
    merges = [0]

    def small(number: int) -> None:
        app.members.add(ann, audience.audience_id, inputs(2, 1000 + 2 * number))
        app.members.remove(ann, audience.audience_id, [reference(number)])

    def merge(parent: Manifest | None, manifest_id: str) -> MergeResult:
        result = app.store.merge(
            "acme", audience.audience_id, manifest_id, parent, [run.path or ""]
        )
        small(merges[0])
        merges[0] += 1
        return result

    after, result = app.members.switch(
        ann, audience.audience_id, "test", "Overtaken", merge, lambda *_: ()
    )
    return after, result, merges[0]


def test_small_changes_do_not_make_a_long_merge_start_again(
    app: App, ann: Caller, audience: Audience
) -> None:
    after, result, merges = overtaken(app, ann, audience, inputs(80, 100))
    assert merges == 1
    # Member 0 was removed, two were added; of the 80 the last 20 are new.
    assert (result.added, result.updated, result.removed) == (20, 60, 0)
    assert after.size == 160 + 2 - 1 + 20
    expected = {digest(n) for n in (*range(1, 180), 1000, 1001)}
    assert contents(app, after).keys() == expected


def test_a_member_removed_meanwhile_comes_back_anew(
    app: App, ann: Caller, audience: Audience
) -> None:
    before = contents(app, audience)[digest(0)]
    fresh = [one.model_copy(update={"score": 2.0}) for one in inputs(80)]
    after, result, merges = overtaken(app, ann, audience, fresh)
    assert merges == 1
    assert (result.added, result.updated) == (1, 79)
    assert after.size == 162
    row = contents(app, after)[digest(0)]
    assert (row["score"], before["score"]) == (2.0, None)


def test_a_merge_of_documents_is_done_again(app: App, ann: Caller) -> None:
    audience = audience_of(app, ann)
    audience = add(app, ann, audience.audience_id, inputs(40))
    run = app.store.run_of("acme", audience.audience_id, inputs(40, 20))
    merges = [0]

    def merge(parent: Manifest | None, manifest_id: str) -> MergeResult:
        result = app.store.merge(
            "acme", audience.audience_id, manifest_id, parent, [run.path or ""]
        )
        merges[0] += 1
        if merges[0] == 1:
            app.members.remove(ann, audience.audience_id, [reference(0)])
        return result

    after, result = app.members.switch(
        ann, audience.audience_id, "test", "Overtaken", merge, lambda *_: ()
    )
    assert merges == [2]
    assert (result.added, result.updated, after.size) == (20, 20, 59)
    assert contents(app, after).keys() == {digest(n) for n in range(1, 60)}


def test_a_reader_goes_on_with_the_members_that_are_current(
    app: App, ann: Caller, audience: Audience
) -> None:
    early = app.audiences.find(ann, audience.audience_id)
    old = manifest_of(app, audience)
    fresh = [one.model_copy(update={"score": 1.0}) for one in inputs(160)]
    after = add(app, ann, audience.audience_id, fresh)
    kept = {part.path for part in manifest_of(app, after).parts}
    for part in old.parts:
        assert part.path not in kept
        app.member_blobs.delete(BlobKey("acme", part.path))
    members, _ = app.members.page_of(early, MemberFilter(), 1000, None)
    assert len(members) == 160
    assert {member.score for member in members} == {1.0}


def test_a_part_that_is_missing_is_an_error(app: App, ann: Caller, audience: Audience) -> None:
    for part in manifest_of(app, audience).parts:
        app.member_blobs.delete(BlobKey("acme", part.path))
    with pytest.raises(StorageUnavailableError):
        app.members.page(ann, audience.audience_id, MemberFilter())
    with pytest.raises(StorageUnavailableError):
        app.members.add(ann, audience.audience_id, inputs(80))
