"""Two processes, each with its own memory, on one store and one Redis: neither is ever behind."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.memory_cache import MemoryCache
from activation.app import App
from activation.domain.audience import Audience, SharingDraft
from activation.domain.caller import Caller, Role
from activation.domain.identifier import IdentifierType
from activation.domain.member import MemberFilter
from activation.domain.member_change import MemberReference
from activation.domain.member_import import ImportDraft
from activation.errors import NotFoundError
from activation.services.cached import CachedValues
from activation.services.reads import ReadService
from activation.services.summaries import SummaryService
from activation.settings import Settings
from tests.conftest import caller_of
from tests.redis_server import RedisServer
from tests.services.support import add, audience_of, inputs, never, renamed

ALL = MemberFilter()


@dataclass(frozen=True)
class Pair:
    """Two processes."""

    one: App
    two: App


@pytest.fixture(params=["memory", "redis"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, clock: MovableClock) -> Iterator[Pair]:
    """Two Apps on one folder; their caches have nothing in common, or a Redis."""
    url = ""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.url
    settings = Settings(data_folder=str(tmp_path / "data"), redis_url=url)
    pair = Pair(App(settings, clock), App(settings, clock))
    yield pair
    pair.one.close()
    pair.two.close()


@pytest.fixture
def shared(
    redis_server: RedisServer, tmp_path: Path, clock: MovableClock
) -> Iterator[tuple[Pair, RedisServer]]:
    settings = Settings(data_folder=str(tmp_path / "data"), redis_url=redis_server.url)
    pair = Pair(App(settings, clock), App(settings, clock))
    yield pair, redis_server
    pair.one.close()
    pair.two.close()


def read(app: App, caller: Caller, audience_id: str) -> list[object]:
    """All that is cached of an audience."""
    first = app.reads.page(caller, audience_id, ALL, 10)
    second = first.next_after and app.reads.page(caller, audience_id, ALL, 10, first.next_after)
    shown = app.reads.audience(caller, audience_id)
    return [shown, first, second, app.summaries.summary(caller, audience_id)]


def recounted(app: App, caller: Caller, audience_id: str) -> list[object]:
    """The same without a cache."""
    nothing = CachedValues(MemoryCache(app.clock, 0))
    reads = ReadService(app.audiences, app.members, nothing)
    summary = SummaryService(app.audiences, app.store, nothing).summary(caller, audience_id)
    first = reads.page(caller, audience_id, ALL, 10)
    second = first.next_after and reads.page(caller, audience_id, ALL, 10, first.next_after)
    return [app.audiences.get(caller, audience_id), first, second, summary]


def imported(app: App, caller: Caller, audience_id: str) -> None:
    file = io.BytesIO(b"email\nx@example.com\ny@example.com\n")
    job = app.imports.create_direct(caller, audience_id, ImportDraft(), file).entity
    app.import_worker.run(caller.organization_id, job.import_id, "t")


def removed(app: App, caller: Caller, audience_id: str) -> None:
    gone = MemberReference.model_validate(
        {"identifier_type": IdentifierType.EMAIL, "identifier_value": "p3@example.com"}
    )
    assert app.members.remove(caller, audience_id, [gone]).removed == 1


WRITES: dict[str, Callable[[App, Caller, str], object]] = {
    "rename": lambda app, caller, one: renamed(app, caller, one, "Another name"),
    "add": lambda app, caller, one: add(app, caller, one, inputs(5, 100)),
    "remove": removed,
    "import": imported,
    "status": lambda app, caller, one: app.audiences.set_status(caller, one, "active"),
    "share": lambda app, caller, one: app.audiences.share(
        caller, one, SharingDraft(shared_with=("bob",))
    ),
    "restore": lambda app, caller, one: app.versions.restore(caller, one, 2),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_in_one_process_is_seen_by_both_at_once(
    pair: Pair, ann: Caller, write: str
) -> None:
    audience_id = audience_of(pair.one, ann).audience_id
    add(pair.one, ann, audience_id, inputs(15))
    app_ids = (pair.one, pair.two)
    if write == "restore":
        add(pair.one, ann, audience_id, inputs(3, 50))
    before = [read(app, ann, audience_id) for app in (*app_ids, *app_ids)]
    assert all(found == before[0] for found in before)
    WRITES[write](pair.one, ann, audience_id)
    for app in app_ids:
        found = read(app, ann, audience_id)
        assert found == recounted(app, ann, audience_id)
        assert found != before[0]


def test_the_system_s_own_upkeep_is_seen_too(pair: Pair, ann: Caller) -> None:
    audience_id = audience_of(pair.one, ann).audience_id
    for number in range(3):
        add(pair.one, ann, audience_id, inputs(10, 10 * number))
    read(pair.two, ann, audience_id)
    before = pair.two.reads.audience(ann, audience_id).entity.manifest_id
    assert pair.one.member_upkeep.compact(ann, audience_id, level=19) is not None
    assert pair.two.reads.audience(ann, audience_id).entity.manifest_id != before
    assert read(pair.two, ann, audience_id) == recounted(pair.two, ann, audience_id)


def test_readers_never_see_less_than_what_was_acknowledged(pair: Pair, ann: Caller) -> None:
    audience_id = add(pair.one, ann, audience_of(pair.one, ann).audience_id, inputs(12)).audience_id
    acknowledged = [pair.one.audiences.find(ann, audience_id).entity]
    behind: list[str] = []
    done = threading.Event()

    def look(app: App) -> None:
        while not done.is_set():
            known = acknowledged[-1]
            shown = app.reads.audience(ann, audience_id).entity
            listed = len(app.reads.page(ann, audience_id, ALL, 1000).members)
            counted = app.summaries.summary(ann, audience_id).size
            if shown.version < known.version or min(listed, counted) < known.size:
                behind.append(f"{known.version}: {shown.version}, {listed}, {counted}")

    readers = [threading.Thread(target=look, args=(app,)) for app in (pair.one, pair.two) * 2]
    for reader in readers:
        reader.start()
    for number in range(6):
        renamed(pair.one, ann, audience_id, f"Name {number}")
        acknowledged.append(add(pair.two, ann, audience_id, inputs(3, 100 * (number + 1))))
    done.set()
    for reader in readers:
        reader.join()
    assert behind == []
    assert pair.two.reads.audience(ann, audience_id).entity.size == 12 + 18


def test_a_slow_reader_puts_nothing_old_in_the_place_of_the_new(pair: Pair, ann: Caller) -> None:
    audience_id = add(pair.one, ann, audience_of(pair.one, ann).audience_id, inputs(3)).audience_id
    old = pair.two.audiences.find(ann, audience_id)
    renamed(pair.one, ann, audience_id, "Another name")
    read(pair.one, ann, audience_id)
    pair.two.reads.keep(ann, old)
    for app in (pair.one, pair.two):
        assert app.reads.audience(ann, audience_id).entity.name == "Another name"


def test_a_deleted_or_archived_audience_is_gone_from_the_cache(pair: Pair, ann: Caller) -> None:
    kept = add(pair.one, ann, audience_of(pair.one, ann, "Kept").audience_id, inputs(15))
    deleted = add(pair.one, ann, audience_of(pair.one, ann, "Gone").audience_id, inputs(15))
    pair.one.audiences.set_status(ann, kept.audience_id, "active")
    for one in (kept, deleted):
        read(pair.two, ann, one.audience_id)
    pair.one.audiences.delete(ann, deleted.audience_id)
    pair.one.archives.archive(ann, kept.audience_id, never)
    with pytest.raises(NotFoundError):
        pair.two.reads.audience(ann, deleted.audience_id)
    with pytest.raises(NotFoundError):
        pair.two.reads.page(ann, deleted.audience_id, ALL, 10)
    assert pair.two.reads.page(ann, kept.audience_id, ALL, 10).members == []
    assert pair.two.reads.audience(ann, kept.audience_id).entity.archive is not None


def test_who_is_no_longer_shared_with_sees_nothing_any_more(pair: Pair, ann: Caller) -> None:
    bob = caller_of(user="bob", role=Role.VIEWER)
    audience = add(pair.one, ann, audience_of(pair.one, ann).audience_id, inputs(3))
    pair.one.audiences.share(ann, audience.audience_id, SharingDraft(shared_with=("bob",)))
    read(pair.two, bob, audience.audience_id)
    pair.one.audiences.share(ann, audience.audience_id, SharingDraft(shared_with=()))
    with pytest.raises(NotFoundError):
        read(pair.two, bob, audience.audience_id)


def test_what_one_process_made_the_other_finds(
    shared: tuple[Pair, RedisServer], ann: Caller
) -> None:
    pair, _ = shared
    audience = filled(pair.one, ann)
    made = read(pair.one, ann, audience.audience_id)
    assert read(pair.two, ann, audience.audience_id) == made
    _, redis = pair.two.cache.layers()
    assert {kind: counts.misses for kind, counts in redis.kinds.items()} == {
        "members": 0,
        "metadata": 0,
        "summary": 0,
    }


def test_redis_shows_the_documented_names_and_no_member(
    shared: tuple[Pair, RedisServer], ann: Caller
) -> None:
    pair, server = shared
    audience = filled(pair.one, ann)
    read(pair.one, ann, audience.audience_id)
    stored = pair.one.audiences.find(ann, audience.audience_id)
    held = server.held()
    by_manifest = f"acme:audience:{audience.audience_id}:{audience.manifest_id}"
    by_revision = f"acme:audience:{audience.audience_id}:{audience.version}.{stored.revision}"
    (other,) = held.keys() - {
        f"{by_manifest}:members:first:10",
        f"{by_manifest}:parts",
        f"{by_manifest}:summary",
        f"{by_revision}:metadata",
    }
    assert len(held) == 5
    assert other.startswith(f"{by_manifest}:members:other:10:")
    everything = repr(held).lower()
    for member in pair.one.members.page(ann, audience.audience_id, ALL, 100)[0]:
        assert member.digest not in everything
        assert repr(bytes.fromhex(member.digest))[2:-1].lower() not in everything
    assert audience.name.lower() not in everything


def test_without_redis_reads_stay_right(
    shared: tuple[Pair, RedisServer], ann: Caller, clock: MovableClock
) -> None:
    pair, server = shared
    audience = filled(pair.one, ann)
    read(pair.two, ann, audience.audience_id)
    server.stop()
    renamed(pair.one, ann, audience.audience_id, "Another name")
    add(pair.one, ann, audience.audience_id, inputs(5, 100))
    for app in (pair.one, pair.two):
        assert read(app, ann, audience.audience_id) == recounted(app, ann, audience.audience_id)
        assert [layer.reachable for layer in app.cache.layers()] == [True, False]
    server.start()
    clock.sleep(60)
    renamed(pair.one, ann, audience.audience_id, "A third name")
    for app in (pair.one, pair.two):
        assert read(app, ann, audience.audience_id) == recounted(app, ann, audience.audience_id)
        assert [layer.reachable for layer in app.cache.layers()] == [True, True]


def filled(app: App, caller: Caller) -> Audience:
    return add(app, caller, audience_of(app, caller).audience_id, inputs(15))
