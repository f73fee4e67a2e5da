"""A drill: events, a backup, more events, a restore. What segments tell after it is new."""

from __future__ import annotations

import itertools

from activation.app import App
from activation.domain.segment_shard import SHARDS
from tests.contracts.stores import ANN, Place, place
from tests.services.following import Shop, email, emails

__all__ = ["place"]

NOBODY = dict.fromkeys(range(SHARDS), 0)
Heard = dict[tuple[str, str, int], bool]


def heard(app: App) -> Heard:
    """What somebody knows who has heard of every step."""
    numbers = app.segment_changes.look("acme", range(SHARDS)).numbers
    steps = app.segment_changes.steps("acme", NOBODY, numbers)
    changes = [change for step in steps for _, change in step.changes()]
    return {(one.user_id, one.segment_id, one.seq): one.entered for one in changes}


def test_a_restored_store_tells_nothing_under_a_number_of_the_lost_time(place: Place) -> None:
    """Some shards begin before the backup, some in the lost time, some after the restore."""
    shop = Shop(place.app, place.clock, ANN)
    audience_id = shop.audience()
    shop.buys(*emails(*range(20)))
    shop.quiet()
    place.made()
    before = heard(place.app)
    place.clock.sleep(1_800)
    shop.quiet()
    shop.buys(*emails(*range(10, 40)))
    shop.quiet()
    lost = heard(place.app).keys() - before.keys()
    assert len(lost) > 40
    settings = place.new_settings()
    _, recovery = place.back(settings)
    assert recovery.shards > 0
    again = App(settings, place.clock)
    fresh = Shop(again, place.clock, ANN, itertools.count(1_000), shop.segment_id)
    fresh.quiet()
    fresh.buys(*emails(*range(30, 60)))
    fresh.quiet()
    told = heard(again)
    assert before.items() <= told.items()
    assert not lost & told.keys()
    assert fresh.users() == {email(number) for number in range(30, 60)}
    fresh.require_in_step(audience_id)
    again.close()
