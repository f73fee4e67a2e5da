"""A drill: events, a dynamic audience, a backup, an erasure, a restore. Nobody asks again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from activation.app import App
from activation.domain.entity import timestamp
from activation.domain.retention_run import RetentionJob, RunDraft
from activation.domain.segment_shard import shard_of
from activation.errors import NotFoundError
from activation.ports import Message
from activation.services.dead_events import WORKER
from activation.services.event_messages import USER_EVENTS
from tests.contracts.stores import ANN, Place, place
from tests.services.following import Shop, email, emails
from tests.services.support import contents, drained
from tests.services.unpacked import holds

__all__ = ["place"]

BOB, CARL = email(7), email(8)
OTHERS = emails(*range(1, 7))


def buried(app: App, place: Place, users: Sequence[str]) -> None:
    """A message with events of these users that failed on every try."""
    now = timestamp(place.clock.now())
    rows = [{"user_id": user, "event_type": "orders", "timestamp": now} for user in users]
    data = {"shard": shard_of(users[0]), "received_at": now, "events": rows}
    app.bus.publish([Message(USER_EVENTS, "acme", "fails", data)])
    while not app.bus.dead_letters(WORKER):
        place.clock.sleep(60)
        app.bus.deliver_due(_fail, only=(WORKER,))  # type: ignore[attr-defined]


def _fail(_name: str, _message: Message, _attempt: int) -> None:
    raise RuntimeError


def shop_of(app: App, place: Place) -> Shop:
    """The shop with a live audience and its users."""
    shop = Shop(app, place.clock, ANN)
    shop.audience()
    shop.audience("By customer", identifier="customer_id")
    for _ in range(2):
        shop.buys(BOB, CARL, *OTHERS)
        shop.quiet()
    return shop


@pytest.mark.parametrize("inline_bytes", [pytest.param(10, marks=pytest.mark.slow), 500_000])
def test_who_was_erased_since_the_backup_is_gone_from_the_restored_store(
    place: Place, inline_bytes: int
) -> None:
    app = place.app
    object.__setattr__(app.shards.parcels, "inline_bytes", inline_bytes)
    shop = shop_of(app, place)
    buried(app, place, [BOB, CARL])
    app.event_archiver.run("acme", range(64), now=True)
    place.made()
    shop.minutes(2)
    drained(app, app.user_erasures.request(ANN, BOB).entity)
    pseudonym = app.erasure_marks.pseudonym("acme", BOB)

    settings = place.new_settings()
    _, recovery = place.back(settings)
    assert (recovery.users_erased, recovery.erasures_waiting) == (1, 0)
    again = App(settings, place.clock)
    with pytest.raises(NotFoundError):
        again.memberships.of_user(ANN, BOB)
    assert again.memberships.of_user(ANN, CARL).user_id == CARL
    assert again.erasure_marks.pseudonym("acme", BOB) == pseudonym
    (letter,) = again.bus.dead_letters(WORKER)
    assert [one["user_id"] for one in letter.message.data["events"]] == [CARL]
    audiences = again.audiences.list(ANN, {}).items
    live = [one for one in audiences if one.segment is not None]
    assert len(live) == 2
    for one in live:
        assert len(contents(again, one)) == 7
        assert one.members_kept_from == one.version
    fresh = Shop(again, place.clock, ANN, itertools.count(1_000), shop.segment_id)
    fresh.quiet()
    assert fresh.users() == {CARL, *OTHERS}
    for one in live:
        fresh.require_in_step(one.audience_id)
    for _ in range(4):
        place.clock.sleep(timedelta(days=1).total_seconds())
        again.retention.start(ANN, RunDraft(job=RetentionJob.DAILY))
        fresh.minutes(2)
    assert not holds(again, BOB)
    again.close()
    assert not holding(settings.data_path, BOB)
    assert holding(settings.data_path, CARL)


def holding(folder: Path, name: str) -> list[Path]:
    """Files of a store that have a text in them as it is."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if name.encode() in path.read_bytes()]


@pytest.mark.slow
def test_without_its_journal_a_restore_brings_him_back(place: Place) -> None:
    """The drill sees what it looks for."""
    shop = shop_of(place.app, place)
    place.made()
    drained(place.app, place.app.user_erasures.request(ANN, BOB).entity)
    for info in list(place.app.journal_blobs.list("_erasures")):
        place.app.journal_blobs.delete(info.key)
    settings = place.new_settings()
    _, recovery = place.back(settings)
    assert recovery.users_erased == 0
    again = App(settings, place.clock)
    assert holds(again, BOB)
    fresh = Shop(again, place.clock, ANN, itertools.count(1_000), shop.segment_id)
    assert BOB in fresh.users()
    again.close()
