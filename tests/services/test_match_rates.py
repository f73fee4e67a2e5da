"""Match rates over time, as twins report them and as callers may see them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from activation.app import App
from activation.domain.audience import SharingDraft
from activation.domain.caller import Caller, Role
from activation.domain.match_rate import KEPT
from activation.errors import NotFoundError
from activation.ports import Batch, Query
from activation.services.matching import GIVE_UP_AFTER
from activation.twins.faults import Fault
from tests.conftest import caller_of
from tests.services.deliveries import PEOPLE, Deliveries, delivering
from tests.services.support import audience_of


@pytest.fixture
def world(app: App, ann: Caller) -> Iterator[Deliveries]:
    with delivering(app, ann) as found:
        yield found


def points(world: Deliveries, platform: str) -> list[dict[str, object]]:
    page = world.app.match_rates.list(world.ann, world.platforms[platform], world.audience_id)
    [history] = page.items
    shown: list[dict[str, object]] = history.public()["points"]
    return shown


def test_each_final_result_is_a_point(world: Deliveries) -> None:
    jobs = [world.matched("facebook") for _ in range(2)]
    found = points(world, "facebook")
    assert [one["distribution_id"] for one in found] == [one.distribution_id for one in jobs]
    for one, job in zip(found, jobs, strict=True):
        assert one["sent"] == PEOPLE
        assert one["matched"] == job.match_results.matched_records
        assert one["match_rate"] == job.match_results.match_rate
        assert one["identifiers_by_type"] == {"email": PEOPLE}
        assert one["rate_by_type"] == {"email": job.match_results.match_rate}
        assert one["match_rate_fell"] is None, "there is too little to compare with"


def test_a_band_is_kept_as_the_band_it_is(world: Deliveries) -> None:
    job = world.matched("google_ads")
    [found] = points(world, "google_ads")
    assert found["match_rate"] is None
    assert found["match_rate_range"] == job.match_results.match_rate_range
    assert found["rate_by_type"] == {"email": job.match_results.match_rate_range}


def test_a_result_that_is_not_final_is_no_point(world: Deliveries) -> None:
    world.delivered("facebook")
    assert world.app.match_rates.list(world.ann, world.platforms["facebook"]).items == []


def test_a_fall_is_flagged_where_people_look(world: Deliveries) -> None:
    for _ in range(4):
        assert not world.matched("facebook").match_results.match_rate_fell
    world.facebook._match_rate = 0.2
    fallen = world.matched("facebook")
    assert fallen.match_results.match_rate_fell is True
    assert fallen.public()["match_results"]["match_rate_fell"] is True
    [history] = world.app.match_rates.list(world.ann, world.platforms["facebook"]).items
    assert history.public()["match_rate_fell"] is True
    world.facebook._match_rate = 0.5
    assert world.matched("facebook").match_results.match_rate_fell is False


def test_a_platform_that_never_says_is_a_point_without_a_rate(world: Deliveries) -> None:
    job = world.delivered("facebook")
    world.facebook.faults.plan(Fault("status", path="sessions", status=403, times=99))
    world.app.clock.sleep(GIVE_UP_AFTER.total_seconds() + 7200)
    job = world.run(job)
    assert job.match_results.final
    [found] = points(world, "facebook")
    assert (found["matched"], found["match_rate"]) == (None, None)
    assert found["rate_by_type"] == {"email": "unknown"}


def test_a_result_that_is_told_twice_is_one_point(world: Deliveries) -> None:
    job = world.matched("facebook")
    _, write = world.app.match_rates.noted(job, job.match_results)
    assert write.data is not None
    assert len(write.data["points"]) == 1


def test_a_history_is_bounded(world: Deliveries) -> None:
    job = world.matched("facebook")
    for number in range(KEPT + 3):
        other = job.changed(distribution_id=f"{job.distribution_id[:-4]}{number:04x}")
        _, write = world.app.match_rates.noted(other, job.match_results)
        world.app.documents.commit(Batch([write]))
    found = points(world, "facebook")
    assert len(found) == KEPT
    assert str(found[-1]["distribution_id"]).endswith(f"{KEPT + 2:04x}")


def test_nobody_sees_rates_of_an_audience_he_may_not_see(world: Deliveries, eve: Caller) -> None:
    app, platform_id = world.app, world.platforms["facebook"]
    world.matched("facebook")
    with pytest.raises(NotFoundError):
        app.match_rates.list(eve, platform_id)
    bob = caller_of(user="bob", role=Role.EDITOR)
    with pytest.raises(NotFoundError):
        app.match_rates.list(bob, platform_id)
    app.platforms.share(world.ann, platform_id, SharingDraft(shared_with=("bob",)))
    assert app.match_rates.list(bob, platform_id).items == []
    with pytest.raises(NotFoundError):
        app.match_rates.list(bob, platform_id, world.audience_id)
    app.audiences.share(world.ann, world.audience_id, SharingDraft(shared_with=("bob",)))
    assert len(app.match_rates.list(bob, platform_id).items) == 1
    own = audience_of(app, bob, "Bob's").audience_id
    assert app.match_rates.list(bob, platform_id, own).items == []


def test_rates_go_with_their_platform(world: Deliveries) -> None:
    world.matched("facebook")
    world.matched("google_ads")
    world.app.platforms.delete(world.ann, world.platforms["facebook"])
    left = world.app.documents.query(Query("acme", "match_rates"))
    assert [one.data["platform_id"] for one in left] == [world.platforms["google_ads"]]
