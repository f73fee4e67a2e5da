"""Backups of a store of this machine: whole, without keys, and nobody comes back by one."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.disk import walk
from activation.app import App
from activation.domain.distribution import DistributionDraft
from activation.domain.event import Event
from activation.domain.identifier import key_digest
from activation.domain.job import JobKind
from activation.domain.member_import import ImportDraft
from activation.domain.segment_shard import shard_of
from activation.domain.store_backup import KeepRule, kept
from activation.errors import (
    CredentialUnreadableError,
    InvalidStateError,
    NotFoundError,
    StorageUnavailableError,
    ValidationError,
)
from activation.restoring import Keys
from activation.segments.event_file import events_of
from activation.services.event_archive import Span
from activation.settings import Settings
from tests.conftest import START
from tests.contracts.stores import (
    ANN,
    PASSPHRASE,
    TOLD,
    Place,
    filled,
    hits,
    members,
    place,
    rows_of,
    suppress,
    sweep,
)
from tests.e2e.scan import _readings, leaks
from tests.services.support import contents, drained
from tests.working import work

__all__ = ["place"]

# there and back -----------------------------------------------------------------------------------


def test_a_restored_store_is_the_one_that_was_backed_up(place: Place) -> None:
    audience_id = filled(place)
    before = contents(place.app, place.app.audiences.find(ANN, audience_id).entity)
    made = place.made()
    assert (made.missing, made.documents["audiences"], made.organizations) == (0, 2, ("acme",))
    assert place.checked() == [made.backup_id]
    known = rows_of(place.settings)
    settings = place.new_settings()
    back, recovery = place.back(settings)
    assert (back.backup_id, recovery.ledgers, recovery.distributions) == (made.backup_id, 1, 0)
    same = {key: data for key, data in known.items() if key[1] not in TOLD}
    assert {k: d for k, d in rows_of(settings).items() if k[1] not in TOLD} == same
    app = App(settings, place.clock)
    assert contents(app, app.audiences.find(ANN, audience_id).entity) == before
    assert hits(app, 6) == [3]
    archived = next(a for a in app.audiences.list(ANN, {}).items if a.name == "Old")
    drained(app, app.jobs.start(ANN, JobKind.UNARCHIVE, archived.audience_id).entity)
    assert app.audiences.find(ANN, archived.audience_id).entity.size == 30
    for area in ("members", "backup", "archive"):
        there = {
            name: e.stat().st_mtime_ns for name, e in walk(place.settings.data_path / area, "")
        }
        here = {name: e.stat().st_mtime_ns for name, e in walk(settings.data_path / area, "")}
        assert there.items() <= here.items()
    app.close()


def test_counted_events_come_back_with_a_store(place: Place) -> None:
    filled(place)
    shard, now = shard_of("ann"), place.clock.now()
    fields = {"user_id": "ann", "event_type": "orders", "timestamp": now}
    some = [Event.model_validate({**fields, "event_id": f"o{n}"}) for n in range(4)]
    place.app.shards.process(ANN.organization_id, shard, some[:3])
    assert place.app.event_archiver.run(ANN.organization_id, [shard], now=True)
    place.app.shards.process(ANN.organization_id, shard, some)
    made = place.made()
    assert (made.missing, made.areas["events"].objects) == (0, 1)
    settings = place.new_settings()
    place.back(settings)
    app = App(settings, place.clock)
    tables = app.event_archive.events(ANN.organization_id, Span(now))
    assert sorted(one.event_id for t in tables for one in events_of(t)) == ["o0", "o1", "o2", "o3"]
    assert not app.segment_replay.check(ANN.organization_id, shard).differs
    app.close()


def test_what_is_there_is_not_copied_twice(place: Place) -> None:
    audience_id = filled(place)
    first = place.made()
    second = place.made()
    assert first.new_objects == first.total.objects > 5
    assert (second.new_objects, second.total) == (0, first.total)
    place.app.members.add(ANN, audience_id, members(range(100, 130)))
    third = place.made()
    assert 0 < third.new_objects < first.new_objects
    assert place.checked() == [third.backup_id, second.backup_id, first.backup_id]
    place.back(place.new_settings("then"), second.backup_id)
    then = App(place.new_settings("then"), place.clock)
    assert then.audiences.find(ANN, audience_id).entity.size == 63
    then.close()


def test_no_revision_is_given_out_again(place: Place) -> None:
    audience_id = filled(place)
    place.made()
    stored = place.app.audiences.find(ANN, audience_id)
    suppress(place.app, 5)
    settings = place.new_settings()
    place.back(settings)
    app = App(settings, place.clock)
    assert app.audiences.find(ANN, audience_id).revision == stored.revision
    app.audiences.set_status(ANN, audience_id, "paused")
    assert int(app.audiences.find(ANN, audience_id).revision) > int(stored.revision) + 10**8
    app.close()


def test_an_import_whose_file_was_not_backed_up_ends_as_failed(place: Place) -> None:
    audience_id = filled(place)
    file = io.BytesIO(b"email\nx@example.com\n")
    job = place.app.imports.create_direct(ANN, audience_id, ImportDraft(), file).entity
    place.made()
    settings = place.new_settings()
    place.back(settings)
    app = App(settings, place.clock)
    place.clock.sleep(600)
    app.due.run()
    app.import_worker.run("acme", job.import_id, "t")
    failed = app.imports.get(ANN, audience_id, job.import_id).entity
    assert (failed.status, (failed.error or {}).get("reason")) == ("failed", "upload_missing")
    app.members.add(ANN, audience_id, members(range(200, 201)))
    assert app.audiences.find(ANN, audience_id).entity.size == 64
    app.close()


# who must not come back ---------------------------------------------------------------------------


def test_who_opted_out_after_the_backup_is_suppressed_in_the_restored_store(place: Place) -> None:
    filled(place)
    place.made()
    suppress(place.app, 7, 8)
    settings = place.new_settings()
    _, recovery = place.back(settings)
    assert recovery.suppressed == 2
    app = App(settings, place.clock)
    assert hits(app, 10) == [3, 7, 8]
    app.close()


def test_erased_people_are_in_no_byte_of_the_restored_store(place: Place) -> None:
    """Once the sweep has been: older versions and their backups go, as everywhere, a day later."""
    audience_id = filled(place)
    place.made()
    suppress(place.app, 11, reason="erasure")
    settings = place.new_settings()
    _, recovery = place.back(settings)
    assert recovery.erased_members == 1
    app = App(settings, place.clock)
    platform = next(iter(app.platforms.list(ANN, {}).items)).platform_id
    place.clock.sleep(3600)
    draft = DistributionDraft.model_validate(
        {"audience_id": audience_id, "platform_id": platform, "distribution_type": "incremental"}
    )
    work(app, app.distributions.create(ANN, draft).entity.distribution_id)
    canaries = [key_digest("p11@example.com"), key_digest("p12@example.com")]
    for _ in range(4):
        place.clock.sleep(timedelta(hours=30).total_seconds())
        sweep(app)
    app.close()
    found = holding(settings.data_path / "members", canaries)
    assert found[canaries[1]], "the scan finds who is there"
    assert not found[canaries[0]]


def holding(folder: Path, digests: list[bytes]) -> dict[bytes, list[str]]:
    """Files that hold a digest, as stored or in a cell."""
    found: dict[bytes, list[str]] = {digest: [] for digest in digests}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = b"\n".join(_readings(path))
            for digest in digests:
                if digest in data or digest.hex().encode() in data:
                    found[digest].append(str(path.relative_to(folder)))
    return found


def test_a_journal_that_was_saved_from_the_lost_store_is_taken_over(tmp_path: Path) -> None:
    """Where the journal lies in the data folder, it goes back with it."""
    clock = MovableClock(START)
    settings = Settings(data_folder=str(tmp_path / "store"))
    place = Place(tmp_path, clock, settings, App(settings, clock))
    suppress(place.app, 1)
    place.made()
    suppress(place.app, 2)
    place.app.close()
    place.back(place.new_settings("without"))
    place.back(place.new_settings("with"), journal=settings.data_path / "journal")
    for name, listed in (("without", [1]), ("with", [1, 2])):
        app = App(place.new_settings(name), clock)
        assert hits(app, 4) == listed
        app.close()


def test_a_backup_that_the_journal_does_not_reach_back_to_is_refused(place: Place) -> None:
    filled(place)
    place.made()
    place.clock.sleep(timedelta(days=61).total_seconds())
    with pytest.raises(InvalidStateError) as refused:
        place.back(place.new_settings())
    assert refused.value.reason == "too_old"
    assert not place.new_settings().data_path.exists()


# keys and readable data ---------------------------------------------------------------------------


def test_no_key_and_no_address_is_in_a_backup(place: Place) -> None:
    audience_id = filled(place)
    rows = "email\n" + "".join(f"canary{n}@example.com\n" for n in range(40))
    place.app.imports.create_direct(ANN, audience_id, ImportDraft(), io.BytesIO(rows.encode()))
    place.made()
    place.made(None)
    secrets = [path.read_text() for path in place.settings.data_path.glob("*key*")]
    assert len(secrets) >= 1
    texts = ["canary7@example.com", "p7@example.com"]
    texts += [text.split('"')[5] for text in secrets if text.startswith("{")]
    assert all(texts)
    assert leaks(place.folder.root, texts) == []
    assert leaks(place.settings.data_path, texts[:1]), "the scan finds what is there"


def test_a_restore_needs_the_keys_of_this_very_store(place: Place, tmp_path: Path) -> None:
    filled(place)
    made = place.made(None)
    settings = place.new_settings()
    other = App(Settings(data_folder=str(tmp_path / "other")), place.clock)
    suppress(other, 1)
    other.close()
    for keys, error in (
        (Keys(), NotFoundError),
        (Keys(passphrase=PASSPHRASE), NotFoundError),
        (Keys(folder=tmp_path / "other"), InvalidStateError),
    ):
        with pytest.raises(error):
            place.back(settings, made.backup_id, keys=keys)
        assert not settings.data_path.exists()
    sealed = place.made()
    with pytest.raises(CredentialUnreadableError):
        place.back(settings, sealed.backup_id, keys=Keys(passphrase="something else"))
    place.back(settings, made.backup_id, keys=Keys(folder=place.settings.data_path))
    assert settings.data_path.joinpath("keys.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValidationError):
        place.made("short")


def test_a_backup_is_restored_into_an_empty_place_only(place: Place) -> None:
    filled(place)
    place.made()
    settings = place.new_settings()
    settings.data_path.mkdir()
    (settings.data_path / "note.txt").write_text("mine")
    with pytest.raises(InvalidStateError):
        place.back(settings)
    (settings.data_path / "note.txt").unlink()
    place.back(settings)
    with pytest.raises(InvalidStateError):
        place.back(settings)


def test_a_folder_with_something_else_gets_no_backups(place: Place) -> None:
    filled(place)
    place.folder.root.mkdir()
    (place.folder.root / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidStateError):
        place.made()
    with pytest.raises(NotFoundError):
        place.folder.require()


# damage -------------------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_every_damage_is_found_before_anything_is_restored(place: Place) -> None:
    filled(place)
    place.made()
    place.checked()
    whole = place.folder.root.rename(place.root / "whole")
    which = ("objects/members", "objects/archive", "documents", "bus", "objects.nd", "manifest")
    ways: tuple[Callable[[Path], None], ...] = (_flip, _cut, Path.unlink)
    for part, hurt in itertools.product(which, ways):
        shutil.rmtree(place.folder.root, ignore_errors=True)
        shutil.copytree(whole, place.folder.root)
        files = sorted(path for path in place.folder.root.rglob("*") if path.is_file())
        hurt(next(p for p in files if part in str(p.relative_to(place.folder.root))))
        settings = place.new_settings()
        with pytest.raises((StorageUnavailableError, NotFoundError)):
            place.back(settings)
        assert not settings.data_path.exists()


# how long they are kept ---------------------------------------------------------------------------


@given(
    ages=st.lists(st.integers(0, 60 * 24 * 45), unique=True, max_size=80),
    last=st.integers(1, 12),
    hours=st.integers(0, 24),
    days=st.integers(0, 30),
)
def test_the_rule_keeps_what_it_says(ages: list[int], last: int, hours: int, days: int) -> None:
    taken = {f"b{age}": START - timedelta(minutes=age) for age in ages}
    rule = KeepRule(last, hours, days)
    stay = kept(taken, rule, START)
    newest_first = sorted(taken, key=lambda name: taken[name], reverse=True)
    assert stay <= set(taken)
    assert set(newest_first[:1]) <= stay
    young = [name for name in newest_first if START - taken[name] <= rule.max_age]
    assert set(young[:last]) <= stay
    assert not {n for n in stay if n not in young} - set(newest_first[:1])
    assert len(stay) <= last + hours + days + 1
    for period, count in (("%Y%m%d%H", hours), ("%Y%m%d", days)):
        periods = list(dict.fromkeys(taken[n].strftime(period) for n in young))[:count]
        for one in periods:
            assert next(n for n in young if taken[n].strftime(period) == one) in stay


def test_pruning_deletes_what_no_backup_names_any_more(place: Place) -> None:
    audience_id = filled(place)
    old = place.made()
    place.clock.sleep(timedelta(days=2).total_seconds())
    place.app.members.add(ANN, audience_id, members(range(100, 140)))
    new = place.made()
    for _ in range(3):
        place.clock.sleep(timedelta(hours=30).total_seconds())
        sweep(place.app)
    last = place.made()
    with place.folder.alone():
        for one in (old, new):
            place.folder.forget(one.backup_id)
        count, octets = place.folder.sweep()
    assert count >= 0
    assert octets >= 0
    assert place.checked() == [last.backup_id]
    stored = sum(1 for _ in place.folder.objects(last.backup_id))
    pooled = [p for p in (place.folder.root / "objects").rglob("*") if p.is_file()]
    assert len(pooled) == stored
