"""Shards whose store went back, or whose state is lost, and what is seen of them."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from activation.app import App
from activation.domain.segment_shard import shard_id, step_id
from activation.ports import Batch, BlobKey, Key, Write
from activation.segments.codec import pack, unpack
from activation.segments.state import ShardState
from activation.services.kept_states import KeptStates
from activation.services.shard_states import DELTAS, HEADS
from tests.services.rewinding import Then, go_back
from tests.services.test_user_erasures import (
    BOB,
    OTHERS,
    SHARD,
    come,
    told,
)

CLARA, DAVE, EVE = OTHERS[:3]


def fresh(app: App) -> None:
    """Another process: it remembers no state."""
    states = replace(app.shards.states, kept=KeptStates())
    object.__setattr__(app.shards, "states", states)


def in_objects(app: App) -> None:
    """States, deltas and steps lie in objects."""
    object.__setattr__(app.shards.parcels, "inline_bytes", 10)


def went_back(app: App, then: Then) -> None:
    """The store is as it was, an hour later, for a new process."""
    go_back(app, then)
    app.clock.sleep(3600)
    fresh(app)


def state(app: App) -> ShardState:
    """The shard's state, with everybody looked at."""
    while app.shards.sweep_shard("acme", SHARD):
        pass
    return app.shards.states.open("acme", SHARD).state


def head(app: App) -> dict[str, Any]:
    """The head of the shard."""
    found = app.documents.get(Key("acme", HEADS, shard_id(SHARD)))
    assert found is not None
    return dict(found.data)


def lose(app: App) -> None:
    """The objects that the head names are gone, and nobody has the state in memory."""
    objects = head(app)["objects"]
    assert objects
    for name in objects:
        app.member_blobs.delete(BlobKey("acme", name))
    fresh(app)


def damage(app: App) -> None:
    """The objects that the head names are not what was written."""
    for name in head(app)["objects"]:
        key = BlobKey("acme", name)
        data = app.member_blobs.get(key)
        app.member_blobs.delete(key)
        app.member_blobs.put(key, data[:-1] + b"?")
    fresh(app)


def lose_to_another_release(app: App) -> None:
    """A delta was written by a release that evaluates in another way."""
    key = Key("acme", DELTAS, step_id(SHARD, head(app)["number"]))
    found = app.documents.get(key)
    assert found is not None
    header, columns = unpack(app.shards.parcels.opened(found))
    data = base64.b64encode(pack({**header, "evaluation": 999}, columns)).decode()
    content = {name: value for name, value in found.data.items() if name != "object"}
    app.documents.commit(Batch([Write(key, {**content, "data": data})]))
    fresh(app)


def stays(app: App, user: str) -> list[tuple[str, int, Any]]:
    """Where a user is: segment, seq and since."""
    opened = app.shards.states.open("acme", SHARD)
    return [
        (one.segment_id, one.seq, one.entered_at)
        for one in opened.state.memberships_of(user, opened.book)
    ]


def heard(app: App) -> dict[tuple[str, str, int], bool]:
    """What somebody knows who has heard everything: (user, segment, seq) to in or out."""
    return {(one.user_id, one.segment_id, one.seq): one.entered for one in told(app)}


def history(app: App) -> None:
    """Bob and the others enter, some events are archived, and time goes by."""
    for number in (1, 2, 3):
        come(app, [BOB, *OTHERS], number)
        app.clock.sleep(60)
    assert app.event_archiver.run("acme", [SHARD], now=True)
    come(app, [CLARA], 4)
    app.clock.sleep(60)
