"""400 days, day by day, through the scheduler of the local runner: who is touched, and when.

The table is written by hand from the requirement: limits are exceeded strictly, days count from
the last activity (from creation for tests, not before the expiry, from the archiving for what is
deleted afterwards), members of an archived audience stay as long as its class before promised.
Compression is done by the run of Sundays, 03:00; everything else by that of each day, 02:00.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import Audience, AudienceChanges, AudienceStatus, MetadataDraft
from activation.domain.caller import Caller
from activation.domain.member import MemberInput
from activation.domain.retention import (
    AudienceRetentionPolicy,
    RetentionAction,
    RetentionCondition,
    RetentionRule,
)
from activation.domain.retention_run import RetentionJob, RunStatus
from activation.local import LocalServer
from activation.settings import Settings
from tests.conftest import caller_of
from tests.services.support import audience_of, contents, inputs

DAYS = 400
START = datetime(2026, 1, 4, tzinfo=UTC)
"""A Sunday, midnight."""

SUNDAY_AFTER_30 = 35
"""The first Sunday on or after day 31 is day 35."""

TABLE = [
    (6, "custom policy", "archive"),
    (8, "test", "delete"),
    (8, "test, used", "delete"),
    (11, "promo", "delete"),
    (11, "told of", "notify"),
    (21, "custom policy", "delete"),
    (31, "paused", "archive"),
    (SUNDAY_AFTER_30, "active, untouched", "compress"),
    (SUNDAY_AFTER_30, "expiring", "compress"),
    (SUNDAY_AFTER_30, "losing members", "compress"),
    (SUNDAY_AFTER_30, "told of", "compress"),
    (42, "losing members", "compress"),
    (91, "archived by hand", "delete"),
    (122, "paused", "delete"),
    (131, "expiring", "delete"),
    (181, "active, untouched", "archive"),
    (181, "losing members", "archive"),
    (181, "told of", "archive"),
    (366, "active, untouched", "delete"),
    (366, "losing members", "delete"),
    (366, "told of", "delete"),
]
"""(day, audience, action). Never touched: `refreshed weekly` and `legal hold`. The members of
`losing members` are compressed again after some have left on day 40 and the rest was rewritten."""

EXPIRIES = {10: 1, 11: 1, 12: 1, 40: 2}
"""Day → members of `losing members` whose time comes then."""


@dataclass
class World:
    """Everything runs as deployed, in one process, under a clock that is moved."""

    server: LocalServer
    clock: MovableClock
    ann: Caller
    names: dict[str, str] = field(default_factory=dict)

    @property
    def app(self) -> App:
        return self.server.app

    def day(self, number: float) -> datetime:
        return START + timedelta(days=number)

    def audience(self, name: str, members: list[MemberInput], **metadata: Any) -> Audience:
        audience = audience_of(self.app, self.ann, name)
        self.names[audience.audience_id] = name
        if metadata:
            draft = AudienceChanges(metadata=MetadataDraft(**metadata))
            self.app.audiences.update(self.ann, audience.audience_id, draft)
        self.app.members.add(self.ann, audience.audience_id, members)
        return self.app.audiences.set_status(self.ann, audience.audience_id, "active").entity

    def now_of(self, audience: Audience) -> Audience:
        return self.app.audiences.records.get("acme", audience.audience_id).entity

    def tick(self) -> None:
        """What is due by the clock, and all the work that comes of it."""
        self.server.tick()
        while self.server.deliver():
            pass


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock = MovableClock(START)
    settings = Settings(data_folder=str(tmp_path / "data"), log_level="ERROR")
    server = LocalServer(settings, clock=clock)
    yield World(server, clock, caller_of())
    server.stop()


def populated(world: World) -> dict[str, Audience]:
    """One audience of each kind, all made on day 0 at midnight."""
    three = inputs(3)
    losing = [
        one.model_copy(update={"expires_at": world.day(day) - timedelta(hours=1)})
        for one, day in zip(
            inputs(5), [day for day, n in EXPIRIES.items() for _ in range(n)], strict=True
        )
    ]
    made = {
        "active, untouched": world.audience("active, untouched", three),
        "refreshed weekly": world.audience("refreshed weekly", three),
        "paused": world.audience("paused", three),
        "archived by hand": world.audience("archived by hand", three),
        "expiring": world.audience("expiring", three, expires_at=world.day(100)),
        "test": world.audience("test", three, is_test=True),
        "test, used": world.audience("test, used", three, is_test=True),
        "custom policy": world.audience("custom policy", three),
        "promo": world.audience("promo", three, tags=("promo",)),
        "told of": world.audience("told of", three, tags=("watch",)),
        "legal hold": world.audience("legal hold", three, is_test=True),
        "losing members": world.audience("losing members", [*inputs(10, start=5), *losing]),
    }
    app, ann = world.app, world.ann
    app.audiences.set_status(ann, made["paused"].audience_id, "paused")
    app.archives.archive(ann, made["archived by hand"].audience_id, lambda: None)
    own = AudienceRetentionPolicy(archive_after_days=5, retention_days=20)
    app.retention.set_policy(ann, made["custom policy"].audience_id, own)
    app.retention.hold(ann, made["legal hold"].audience_id, "case 7")
    app.retention.set_rules(
        ann, (rule(RetentionAction.DELETE, "promo"), rule(RetentionAction.NOTIFY, "watch"))
    )
    return made


def rule(action: RetentionAction, tag: str) -> RetentionRule:
    return RetentionRule(condition=RetentionCondition(tag=tag), action=action, after_days=10)


ACTIONS = {
    "audience:archive": "archive",
    "function:members:compact": "compress",
    "retention:delete": "delete",
    "retention:notify": "notify",
}


def done_in(world: World) -> list[tuple[int, str, str]]:
    """(day, audience, action), from the audiences' retention logs."""
    found = []
    for audience_id, name in world.names.items():
        for entry in world.app.retention.log("acme", audience_id):
            if entry.action in ACTIONS:
                day = (entry.created_at - START).days
                found.append((day, name, ACTIONS[entry.action]))
    return sorted(found)


@pytest.mark.parametrize("hours", [(4,), pytest.param((2, 4), marks=pytest.mark.nightly)])
def test_four_hundred_days(world: World, hours: tuple[int, ...]) -> None:
    """The scheduler is looked at once or twice a day; what was due between is caught up."""
    made = populated(world)
    sizes: dict[int, int] = {}
    for day in range(DAYS):
        for hour in hours:
            world.clock.set(world.day(day) + timedelta(hours=hour))
            world.tick()
        if day % 7 == 3:
            refresh(world, made["refreshed weekly"], day)
        if day < 8:
            refresh(world, made["test, used"], day)
        sizes[day] = world.now_of(made["losing members"]).size
    found = done_in(world)
    for row in found:
        print("{:>4}  {:<20} {}".format(*row))
    assert found == sorted(TABLE)
    only_definitions_are_left(world, made)
    expired_members_left_on_their_day(sizes)
    every_slot_had_one_run(world)
    nothing_is_stored_that_nothing_names(world, made)


def refresh(world: World, audience: Audience, day: int) -> None:
    world.app.members.add(world.ann, audience.audience_id, inputs(1, start=100 + day))


def only_definitions_are_left(world: World, made: dict[str, Audience]) -> None:
    alive = {"refreshed weekly", "legal hold"}
    for name, audience in made.items():
        after = world.now_of(audience)
        assert after.name == name
        if name in alive:
            assert after.status is AudienceStatus.ACTIVE
            assert len(contents(world.app, after)) == after.size > 0
        else:
            assert (after.size, after.manifest_id, after.archive) == (0, None, None)
            assert after.members_deleted_at is not None


def expired_members_left_on_their_day(sizes: dict[int, int]) -> None:
    left = 15
    for day in range(181):
        left -= EXPIRIES.get(day, 0)
        assert sizes[day] == left, day


def every_slot_had_one_run(world: World) -> None:
    runs = [
        run
        for job in RetentionJob
        for run in everything(world, {"job": job.value})
        if isinstance(run.scheduled_at, datetime)
    ]
    assert {run.status for run in runs} == {RunStatus.COMPLETED}
    counted = {job: sum(run.job is job for run in runs) for job in RetentionJob}
    assert counted == {
        RetentionJob.DAILY: DAYS,
        RetentionJob.WEEKLY: 58,
        RetentionJob.MONTHLY: 13,
        RetentionJob.LOOKAHEAD: 13,
    }
    assert len({(run.job, run.scheduled_at) for run in runs}) == len(runs)
    assert not any(run.report.errors for run in runs)


def everything(world: World, equal: dict[str, str]) -> Iterator[Any]:
    after: str | None = None
    while True:
        page = world.app.retention.list(world.ann, equal, 200, after)
        yield from page.items
        after = page.next_after
        if after is None:
            return


def nothing_is_stored_that_nothing_names(world: World, made: dict[str, Audience]) -> None:
    """The sweeps of the last weeks have taken what retention let go long ago."""
    for area in (world.app.archive_blobs, world.app.member_blobs):
        assert list(area.list("acme")) == []
    kept = {made[name].audience_id for name in ("refreshed weekly", "legal hold")}
    recent = world.day(DAYS - 120)  # followed 7 days later, kept 90, taken by two weekly sweeps
    for audience_id in world.names:
        manifests = manifests_of(world, audience_id)
        assert bool(manifests) is (audience_id in kept)
        assert all(one.created_at > recent for one in manifests[1:])


def manifests_of(world: World, audience_id: str) -> list[Any]:
    from activation.ports import Query

    query = Query("acme", "manifests", {"audience_id": audience_id}, limit=1000)
    records = world.app.members.manifests
    return [records.kind.restored(one.data) for one in world.app.documents.query(query)]
