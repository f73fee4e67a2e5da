"""An erased user leaves audiences that follow segments: members, versions and backups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.documents import Collection
from activation.domain.audience import AudienceDraft
from activation.domain.distribution import DistributionDraft
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.job import FINAL, JobKind, JobStatus
from activation.domain.platform import PlatformDraft
from activation.domain.retention_run import RetentionJob, RunDraft
from activation.domain.segment_follow import FollowedAs, SegmentSend
from activation.domain.version import AudienceVersion
from activation.errors import StorageUnavailableError, VersionExpiredError
from activation.members.user_ids import keys_of_user
from activation.ports import Batch, Query
from activation.services.follow_work import FollowWork
from activation.services.jobs import JobRun
from activation.services.segment_followers import SENDS
from tests.conftest import START
from tests.services.following import ANN, Shop, email, emails
from tests.services.support import contents, drained
from tests.services.unpacked import holds
from tests.working import work

BOB = email(7)
OTHERS = emails(*range(1, 7))


@pytest.fixture
def shop(app: App, clock: MovableClock) -> Shop:
    return Shop(app, clock)


def followed(shop: Shop, more: Sequence[str] = (), **binding: Any) -> str:
    """An audience with Bob and others in it."""
    audience_id = shop.audience(**binding)
    shop.work()
    shop.buys(BOB, *OTHERS)
    shop.quiet()
    assert shop.require_in_step(audience_id).members == 1 + len(OTHERS) + len(more)
    return audience_id


def erased(shop: Shop, user_id: str = BOB) -> dict[str, Any]:
    """Have a user erased, with nobody following meanwhile; the receipt of audiences."""
    job = drained(shop.app, shop.app.user_erasures.request(ANN, user_id).entity)
    assert job.status is JobStatus.COMPLETED
    receipt: dict[str, Any] = job.result["stores"]["audiences"]
    return receipt


def versions_with_members(shop: Shop, audience_id: str) -> list[int]:
    """The versions whose members somebody can ask for."""
    audience = shop.app.audiences.find(ANN, audience_id).entity
    found = shop.app.versions.shown(audience, every_version(shop, audience_id))
    return sorted(one["version"] for one in found if one["has_members"])


def every_version(shop: Shop, audience_id: str) -> list[AudienceVersion]:
    query = Query("acme", "versions", {"audience_id": audience_id}, limit=200)
    return [AudienceVersion.restored(one.data) for one in shop.app.documents.query(query)]


def days(shop: Shop, count: int) -> None:
    """Days pass, with their rounds of retention."""
    for _ in range(count):
        shop.clock.sleep(timedelta(days=1).total_seconds())
        shop.app.retention.start(ANN, RunDraft(job=RetentionJob.DAILY))
        shop.minutes(2)


def test_he_leaves_the_members_and_every_version(shop: Shop, app: App) -> None:
    audience_id = followed(shop)
    shop.buys(*emails(8, 9))
    shop.quiet()
    before = shop.record(audience_id)
    assert erased(shop) == {
        "members": {audience_id: 1},
        "held": [],
        "archives": [],
        "distributions": [],
    }
    after = shop.record(audience_id)
    assert contents(app, after).keys() == contents(app, before).keys() - {BOB}
    assert (after.version, after.members_kept_from) == (before.version + 1,) * 2
    assert versions_with_members(shop, audience_id)[-1] == after.version
    for number in range(2, after.version):
        with pytest.raises(VersionExpiredError):
            app.versions.restore(ANN, audience_id, number)
    shop.quiet()
    shop.require_in_step(audience_id)


def test_nothing_that_is_stored_holds_him_four_days_later(shop: Shop, app: App) -> None:
    """Members, changes of members, versions, backups, events, dead letters, journals."""
    audience_id = followed(shop)
    other = shop.audience("By customer", identifier="customer_id")
    for number in range(8, 18):
        shop.buys(email(number))
        shop.minutes(2)
    shop.quiet()
    backed_up(shop, audience_id)
    assert holds(app, BOB)
    receipt = erased(shop)
    assert receipt["members"] == {audience_id: 1, other: 1}
    shop.quiet()
    days(shop, 4)
    assert not holds(app, BOB)
    shop.require_in_step(audience_id)
    shop.require_in_step(other)


def backed_up(shop: Shop, audience_id: str) -> list[int]:
    """The versions that have a backup."""
    return sorted(one.version for one in every_version(shop, audience_id) if one.backup)


@pytest.mark.long_on_google
def test_one_who_left_long_ago_leaves_earlier_versions_only(shop: Shop, app: App) -> None:
    """Later versions, which are without him, can still be restored."""
    audience_id = followed(shop)
    shop.minutes(20)
    shop.buys(*OTHERS)
    shop.minutes(15)
    assert BOB not in contents(app, shop.record(audience_id))
    shop.buys(*emails(*range(10, 30)))
    shop.quiet()
    app.member_upkeep.compact(ANN, audience_id)
    before = shop.record(audience_id)
    first = {number for number in backed_up(shop, audience_id) if number < before.version}
    assert erased(shop)["members"] == {audience_id: 0}
    after = shop.record(audience_id)
    assert after.version == before.version
    assert 1 < after.members_kept_from <= after.version
    assert 1 < after.backups_kept_from <= after.version
    assert first
    assert after.version in versions_with_members(shop, audience_id)
    days(shop, 4)
    assert not holds(app, BOB)
    app.versions.restore(ANN, audience_id, after.members_kept_from)


@pytest.mark.long_on_google
def test_a_change_that_took_him_out_does_not_name_him_any_more(shop: Shop, app: App) -> None:
    """He has left the members by a delta, which says whom it removes."""
    object.__setattr__(app.store, "delta_from", 0)
    many = emails(*range(20, 420))
    shop.buys(*many)
    audience_id = followed(shop, many)
    shop.minutes(20)
    shop.buys(*OTHERS, *many)
    shop.minutes(15)
    before = shop.record(audience_id)
    manifest = app.audiences.manifest_of(app.audiences.find(ANN, audience_id).entity)
    assert manifest is not None
    assert manifest.deltas
    assert erased(shop)["members"] == {audience_id: 0}
    after = shop.record(audience_id)
    assert (after.version, after.members_kept_from) == (before.version + 1,) * 2
    assert contents(app, after).keys() == contents(app, before).keys()
    shop.quiet()
    days(shop, 4)
    assert not holds(app, BOB)


@pytest.mark.long_on_google
def test_every_rule_that_made_a_kept_version_is_looked_at(shop: Shop, app: App) -> None:
    audience_id = followed(shop, identifier="customer_id")
    shop.bind(audience_id, identifier="phone", default_region="DE")
    shop.quiet()
    assert shop.record(audience_id).size == 0
    shop.bind(audience_id, identifier="maid", segment=None)
    rules = app.audiences.find(ANN, audience_id).entity.followed_as
    assert [one.identifier for one in rules] == ["customer_id", "phone"]
    assert erased(shop)["members"] == {audience_id: 0}
    days(shop, 4)
    assert not holds(app, BOB)


def test_an_audience_that_was_set_free_keeps_everybody_else(shop: Shop, app: App) -> None:
    audience_id = followed(shop)
    shop.bind(audience_id, segment=None)
    assert erased(shop)["members"] == {audience_id: 1}
    assert contents(app, shop.record(audience_id)).keys() == set(OTHERS)


def test_an_audience_that_is_derived_from_one_loses_him_too(shop: Shop, app: App) -> None:
    source = followed(shop)
    draft = {
        "name": "Some",
        "type": "first_party",
        "derived_from": {"source_audience_id": source},
    }
    derived = app.audiences.create(ANN, AudienceDraft.model_validate(draft)).entity.audience_id
    shop.quiet()
    assert BOB in contents(app, shop.record(derived))
    assert erased(shop)["members"] == {source: 1, derived: 1}
    shop.quiet()
    assert contents(app, shop.record(derived)).keys() == set(OTHERS)
    days(shop, 4)
    assert not holds(app, BOB)


def test_audiences_that_never_had_him_keep_their_versions(shop: Shop, app: App) -> None:
    audience_id = followed(shop)
    plain = AudienceDraft.model_validate({"name": "Plain", "type": "first_party"})
    other = app.audiences.create(ANN, plain).entity
    before = shop.record(audience_id)
    assert erased(shop, email(99))["members"] == {}
    after = shop.record(audience_id)
    assert (after.version, after.members_kept_from) == (before.version, 1)
    assert app.audiences.find(ANN, other.audience_id).entity == other


def test_a_legal_hold_is_told_of_and_the_next_request_does_it(shop: Shop, app: App) -> None:
    audience_id = followed(shop)
    held = app.retention.hold(ANN, audience_id, "A lawsuit")
    receipt = erased(shop)
    assert (receipt["members"], receipt["held"]) == ({}, [audience_id])
    assert BOB in contents(app, app.audiences.find(ANN, audience_id).entity)
    assert held.entity.version == app.audiences.find(ANN, audience_id).entity.version
    app.retention.lift(ANN, audience_id)
    assert erased(shop)["members"] == {audience_id: 1}


def test_earlier_versions_under_legal_hold_stay(shop: Shop, app: App) -> None:
    audience_id = followed(shop)
    shop.minutes(32)
    assert shop.record(audience_id).size == 0
    app.retention.hold(ANN, audience_id, "A lawsuit")
    before = app.audiences.find(ANN, audience_id).entity
    receipt = erased(shop)
    assert (receipt["members"], receipt["held"]) == ({}, [audience_id])
    assert app.audiences.find(ANN, audience_id).entity == before


@pytest.mark.embedded("drops lie on the disk")
def test_a_distribution_that_would_still_send_him_is_told_of(shop: Shop, app: App) -> None:
    audience_id = followed(shop, identifier="customer_id")
    drop = {"platform_type": "file_drop", "name": "Drop", "credentials": {}}
    platform = app.platforms.create(ANN, PlatformDraft.model_validate(drop)).entity
    draft = DistributionDraft(audience_id=audience_id, platform_id=platform.platform_id)
    tomorrow = draft.model_copy(update={"scheduled_at": shop.clock.now() + timedelta(days=1)})
    early = app.distributions.create(ANN, tomorrow).entity.distribution_id
    shop.buys(email(8))
    shop.quiet()
    waits = app.distributions.create(ANN, draft).entity.distribution_id
    assert erased(shop)["distributions"] == [early]
    after = shop.record(audience_id)
    moved = app.distributions.get(ANN, waits).entity
    assert (moved.manifest_id, moved.audience_version) == (after.manifest_id, after.version)
    work(app, waits)
    sent = app.distributions.get(ANN, waits).entity
    assert (sent.status, sent.progress.sent) == ("completed", len(OTHERS) + 1)
    assert erased(shop)["distributions"] == [early]


def test_an_archive_with_him_is_told_of(shop: Shop, app: App) -> None:
    audience_id = followed(shop)
    drained(app, app.archives.request_archive(ANN, audience_id).entity)
    receipt = erased(shop)
    assert receipt["archives"] == [audience_id]
    assert erased(shop, email(99))["archives"] == []
    drained(app, app.archives.request_unarchive(ANN, audience_id).entity)
    assert erased(shop)["members"] == {audience_id: 1}


def test_a_worker_who_follows_at_that_moment_does_not_bring_him_back(shop: Shop, app: App) -> None:
    """He has looked at the shard before it forgot the user, and commits afterwards."""
    audience_id = shop.audience()
    shop.buys(BOB, *OTHERS)
    shop.work()
    shop.clock.sleep(120)
    receipts: list[dict[str, Any]] = []

    class Slow(FollowWork):
        """Whoever is about to commit is held up until somebody was erased."""

        def _changed(self, *args: Any, **options: Any) -> None:
            if not receipts:
                receipts.append(erased(shop))
            super()._changed(*args, **options)

    worker = replace(app.follow_worker, work=Slow)
    worker.run("acme", audience_id, "t")
    assert receipts
    assert shop.record(audience_id).manifest_id is None or BOB not in contents(
        app, shop.record(audience_id)
    )
    shop.quiet()
    shop.require_in_step(audience_id)
    days(shop, 4)
    assert not holds(app, BOB)


def test_the_same_again_after_a_crash_counts_the_same(shop: Shop, app: App) -> None:
    """The process dies after each commit that takes him out of an audience, before that is noted
    with the job."""
    audiences = [followed(shop), shop.audience("Other", identifier="customer_id")]
    shop.quiet()
    job = app.user_erasures.request(ANN, BOB).entity
    stores = dict(app.user_erasures.stores())
    erase = stores["audiences"]

    def dies(run: JobRun, digest: str, user_id: str) -> Any:
        receipts.append(erase(run, digest, user_id))
        raise StorageUnavailableError("Died.")

    receipts: list[Any] = []
    dying = replace(
        app.user_erasures, stores=lambda: [*list(stores.items())[:-1], ("audiences", dies)]
    )
    handlers = {JobKind.ERASE_USER: lambda: dying.run}
    with pytest.raises(StorageUnavailableError):
        replace(app.job_worker, handlers=handlers).run("acme", job.job_id, "t")
    stored = app.jobs.records.get("acme", job.job_id)
    state = {"receipts": stored.entity.state["receipts"]}
    app.documents.commit(Batch([stored.replaced_by(stored.entity.changed(state=state))]))
    done = drained(app, job)
    assert done.result["stores"]["audiences"] == receipts[0]
    assert receipts[0]["members"] == dict.fromkeys(audiences, 1)


@pytest.mark.long_on_google
def test_a_search_goes_on_where_the_last_call_has_ended(shop: Shop, app: App) -> None:
    """Every call has time for one step only."""
    audience_id = followed(shop)
    shop.minutes(32)
    shop.buys(*emails(*range(10, 30)))
    shop.quiet()
    backups = backed_up(shop, audience_id)
    assert len(backups) > 1
    job = app.user_erasures.request(ANN, BOB).entity
    hasty = replace(app.job_worker, work_seconds=-1.0)
    walks: list[tuple[int, ...]] = []
    while job.status not in FINAL:
        hasty.run("acme", job.job_id, "t")
        job = app.jobs.records.get("acme", job.job_id).entity
        if at := (job.state.get("walk") or {}).get("at"):
            walks.append((at["version"], at["backup"]))
        assert len(walks) < 20, "it does not get on"
    assert job.result["stores"]["audiences"]["members"] == {audience_id: 0}
    assert len(walks) == len(backups)
    assert walks[-1] == (max(walks)[0], max(walks)[1])
    after = app.audiences.find(ANN, audience_id).entity
    assert (after.members_kept_from, after.backups_kept_from) == tuple(n + 1 for n in walks[-1])
    days(shop, 4)
    assert not holds(app, BOB)


def test_platforms_are_told_by_themselves_where_they_are_so(shop: Shop, app: App) -> None:
    every = shop.audience("Sent", distribute_every_minutes=5)
    never = followed(shop)
    sends = [one.key.id for one in app.documents.query(Query("acme", SENDS))]
    stored = Collection(app.documents, SENDS, SegmentSend).get("acme", every)
    quiet = stored.entity.changed(next_at=None)
    app.documents.commit(Batch([stored.replaced_by(quiet)]))
    assert erased(shop)["members"] == {every: 1, never: 1}
    again = Collection(app.documents, SENDS, SegmentSend).get("acme", every).entity
    assert again.next_at is not None
    assert sends == [every]


@pytest.mark.parametrize(
    ("identifier", "user", "stored"),
    [
        ("customer_id", "C-17", "C-17"),
        ("maid", "6D92078A-8246-4BA4-AE5B-76104861E7DC", None),
        ("phone", "0049 170 1234567", "+491701234567"),
    ],
)
def test_who_a_user_is_says_the_rule(identifier: str, user: str, stored: str | None) -> None:
    rule = FollowedAs(identifier=IdentifierType(identifier))
    keys = keys_of_user([rule, rule], user, START)
    assert keys.num_rows == 1
    if stored is not None:
        assert keys.column("digest").to_pylist() == [key_digest(stored)]
    assert keys_of_user([FollowedAs(identifier=IdentifierType.EMAIL)], "C-17", START).num_rows == 0
