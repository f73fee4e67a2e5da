"""Cached reads: kept as long as they may be, and never older than the record."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import Audience, AudienceChanges
from activation.domain.cache import CacheTotals, report_of
from activation.domain.caller import Caller, Role
from activation.domain.member import MemberFilter, MemberInput
from activation.errors import NotFoundError
from activation.ports import Batch, Key, Write
from activation.services.cached import TTL_SECONDS
from activation.services.reads import MemberPage
from tests.conftest import caller_of
from tests.services.support import add, audience_of, inputs, renamed

ALL = MemberFilter()


@pytest.fixture
def full(app: App, ann: Caller) -> Audience:
    return add(app, ann, audience_of(app, ann).audience_id, inputs(25))


def totals(app: App, kind: str) -> CacheTotals:
    """What readers of one kind met so far."""
    return report_of(app.cache.layers()).totals[kind]


def asked(app: App, kind: str) -> tuple[int, int]:
    """Hits and misses."""
    found = totals(app, kind)
    return found.hits, found.misses


def without_manifests(app: App, *audiences: Audience) -> None:
    """Take away what every read below the record needs: only the cache can answer now."""
    for audience in audiences:
        assert audience.manifest_id is not None
        key = Key(audience.organization_id, "manifests", audience.manifest_id)
        app.documents.commit(Batch([Write(key, None)]))


def page(app: App, caller: Caller, audience: Audience, after: str | None = None) -> MemberPage:
    return app.reads.page(caller, audience.audience_id, ALL, 10, after)


def values(found: MemberPage) -> list[str]:
    return [member["digest"] for member in found.members]


def test_a_miss_stores_and_the_next_read_hits(app: App, ann: Caller, full: Audience) -> None:
    first = app.reads.audience(ann, full.audience_id)
    assert asked(app, "metadata") == (0, 1)
    without_manifests(app, full)
    second = app.reads.audience(ann, full.audience_id)
    assert asked(app, "metadata") == (1, 1)
    assert second == first
    assert sum(part.size for part in second.entity.storage.partitions) == 25


def test_every_page_hits_with_the_same_rows_in_the_same_order(
    app: App, ann: Caller, full: Audience
) -> None:
    expected, after = app.members.page(ann, full.audience_id, ALL, 25)
    assert after is None
    for _ in range(2):
        first = page(app, ann, full)
        second = page(app, ann, full, first.next_after)
        third = page(app, ann, full, second.next_after)
        assert third.next_after is None
        found = [*values(first), *values(second), *values(third)]
        assert found == [member.digest for member in expected]
        assert first.size == 25
        if full.manifest_id and asked(app, "members") == (0, 3):
            without_manifests(app, full)
    assert asked(app, "members") == (3, 3)


def test_filters_and_sizes_do_not_share_a_page(app: App, ann: Caller, full: Audience) -> None:
    labelled = [
        MemberInput.model_validate({**dict(one), "segments": ("vip",)}) for one in inputs(5)
    ]
    add(app, ann, full.audience_id, labelled)
    vip = MemberFilter(segment="vip")
    for _ in range(2):
        assert len(app.reads.page(ann, full.audience_id, vip).members) == 5
        assert (
            len(app.reads.page(ann, full.audience_id, MemberFilter(segment="other")).members) == 0
        )
        assert len(app.reads.page(ann, full.audience_id, MemberFilter(segment="")).members) == 0
        assert len(app.reads.page(ann, full.audience_id, ALL).members) == 25
        assert len(app.reads.page(ann, full.audience_id, ALL, 7).members) == 7
    assert asked(app, "members") == (5, 5)


@pytest.mark.parametrize(
    ("kind", "seconds"), [("metadata", 3600), ("members", 1800), ("summary", 7200), ("parts", 3600)]
)
def test_a_value_is_served_until_its_time_is_over(
    app: App, ann: Caller, full: Audience, clock: MovableClock, kind: str, seconds: int
) -> None:
    def misses() -> int:
        """So many, after one more read of everything."""
        if kind == "parts":
            renamed(app, ann, full.audience_id, f"As of {clock.now()}")
        app.reads.audience(ann, full.audience_id)
        page(app, ann, full)
        app.summaries.summary(ann, full.audience_id)
        return totals(app, kind).misses

    assert TTL_SECONDS[kind] == seconds
    found = [misses()]
    for pause in (seconds - 1, 1, seconds):
        clock.sleep(pause)
        found.append(misses())
    assert found == [1, 1, 2, 3]


def test_members_that_expire_leave_a_page_at_once(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    soon = {"identifier_type": "maid", "identifier_value": "00000000-0000-4000-8000-000000000001"}
    short = MemberInput.model_validate({**soon, "expires_at": "2026-11-21T09:01:00Z"})
    audience = add(app, ann, audience_of(app, ann).audience_id, [*inputs(3), short])

    def alive() -> int:
        wanted = MemberFilter(not_expired=True, now=clock.now())
        return len(app.reads.page(ann, audience.audience_id, wanted).members)

    assert alive() == 4
    clock.sleep(61)
    assert alive() == 3


def test_forty_threads_cause_one_computation(app: App, ann: Caller, full: Audience) -> None:
    found: list[list[str]] = []
    together = threading.Barrier(40)

    def read() -> None:
        together.wait()
        found.append(values(page(app, ann, full)))

    threads = [threading.Thread(target=read) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert all(one == found[0] for one in found)
    (layer,) = app.cache.layers()
    assert (layer.kinds["members"].misses, layer.kinds["members"].sets) == (1, 1)


def test_threads_that_waited_get_the_failure_and_the_next_one_tries_again(
    app: App, ann: Caller, full: Audience
) -> None:
    without_manifests(app, full)
    for _ in range(2):
        with pytest.raises(NotFoundError):
            page(app, ann, full)
    assert asked(app, "members") == (0, 2)


def test_what_a_caller_may_not_see_is_not_found_in_the_cache_either(
    app: App, ann: Caller, eve: Caller, full: Audience
) -> None:
    colleague = caller_of(user="bob", role=Role.EDITOR)
    app.reads.audience(ann, full.audience_id)
    page(app, ann, full)
    app.summaries.summary(ann, full.audience_id)
    for stranger in (eve, colleague):
        with pytest.raises(NotFoundError):
            app.reads.audience(stranger, full.audience_id)
        with pytest.raises(NotFoundError):
            page(app, stranger, full)
        with pytest.raises(NotFoundError):
            app.summaries.summary(stranger, full.audience_id)
    assert totals(app, "members").hits == 0


def test_a_record_just_written_is_cached(app: App, ann: Caller, full: Audience) -> None:
    app.reads.audience(ann, full.audience_id)
    changes = AudienceChanges(name="Another name")
    app.reads.keep(ann, app.audiences.update(ann, full.audience_id, changes))
    hits, misses = asked(app, "metadata")
    without_manifests(app, full)
    shown = app.reads.audience(ann, full.audience_id).entity
    assert shown.name == "Another name"
    assert sum(part.size for part in shown.storage.partitions) == 25
    assert asked(app, "metadata") == (hits + 1, misses)


def test_what_cannot_be_cached_after_a_write_is_logged(
    app: App, ann: Caller, full: Audience, caplog: pytest.LogCaptureFixture
) -> None:
    without_manifests(app, full)
    with caplog.at_level(logging.WARNING, logger="activation"):
        app.reads.keep(ann, app.audiences.find(ann, full.audience_id))
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    fields: dict[str, Any] = record.__dict__["fields"]
    assert fields["audience_id"] == full.audience_id
    assert fields["trace_id"] == ann.trace_id
