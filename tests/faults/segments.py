"""Flows of events and segments: what they find, and what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.caller import Caller
from activation.domain.entity import timestamp
from activation.domain.segment_record import NewSegmentDraft, SegmentDefinition
from activation.domain.segment_shard import shard_of
from activation.errors import NotFoundError
from tests.conftest import START
from tests.faults.flows import by_the_system
from tests.faults.lab import Flow
from tests.faults.world import ANN, Answer, Scene

FIRST = shard_of("ann")
NEAR = [name for name in (f"u{n}" for n in range(900)) if shard_of(name) == FIRST][:2]
BOB = NEAR[0]
"""Who is erased. He is in the shard of Ann."""
EVE = next(name for name in (f"v{n}" for n in range(900)) if shard_of(name) != FIRST)
"""A user of another shard."""
USERS = ("ann", *NEAR, EVE)
DAY = 1440


def definition(name: str, least: int, window: int = DAY) -> dict[str, Any]:
    """Who has ordered so often."""
    rule = {"event_type": "orders", "operator": "GTE", "value": least, "window_minutes": window}
    return {"name": name, "type": "INDEPENDENT", "rules": [rule]}


def orders(users: Sequence[str], first: int) -> list[dict[str, Any]]:
    """An order of each, at the beginning of time; the numbers name them."""
    return [
        {
            "user_id": user,
            "event_type": "orders",
            "timestamp": timestamp(START),
            "event_id": f"{user}-{first + number}",
            "attributes": {"amount": 5},
        }
        for number, user in enumerate(users)
    ]


def small(app: App) -> None:
    """Records of segments lie in objects, and states are stored every second step."""
    object.__setattr__(app.shards.parcels, "inline_bytes", 10)
    object.__setattr__(app.shards.states, "fold_every", 2)


# what flows find ----------------------------------------------------------------------------------


def defined(app: App) -> Scene:
    """Two segments, one of them on the other, and nobody yet."""
    buyers = app.segments.create(ANN, NewSegmentDraft.model_validate(definition("Buyers", 2)))
    others = {"name": "Others", "type": "DERIVED", "expression": 'NOT "Buyers"'}
    made = app.segments.create(ANN, NewSegmentDraft.model_validate(others))
    ids = {"buyers": buyers.entity.segment_id, "others": made.entity.segment_id}
    return Scene("", ids)


def peopled(app: App) -> Scene:
    """Users in both."""
    scene = defined(app)
    app.events.accept(ANN, orders([*USERS, "ann", BOB], 0))
    return scene


def followed(app: App) -> Scene:
    """Users in both, and two audiences that follow one, each with its own kind of version."""
    scene = peopled(app)
    for name, more in (("Live", {}), ("Sent", {"distribute_every_minutes": 5})):
        bound = {"segment_id": scene.ids["buyers"], "identifier": "customer_id", **more}
        draft = {"name": name, "type": "first_party", "segment": bound}
        app.audiences.create(ANN, AudienceDraft.model_validate(draft))
    return scene


def leaving(app: App) -> Scene:
    """Users in a segment which they leave by silence, in ten hours."""
    draft = NewSegmentDraft.model_validate(definition("Recent", 1, 600))
    made = app.segments.create(ANN, draft).entity
    app.events.accept(ANN, orders(USERS, 0))
    return Scene("", {"buyers": made.segment_id})


# what is asked ------------------------------------------------------------------------------------


def accept(app: App, caller: Caller, scene: Scene) -> Answer:
    """Events of users in two shards, one of them twice."""
    del scene
    rows = orders([*USERS, "ann", BOB, EVE], 20)
    receipt = app.events.accept(caller, [*rows, rows[0]])
    return {"accepted": receipt.accepted, "duplicate": receipt.duplicate}


def sweep_segments(app: App, caller: Caller, scene: Scene) -> Answer:
    """The clock looks at those who are due."""
    del caller, scene
    app.clock.set(max(app.clock.now(), START + timedelta(hours=11)))  # type: ignore[attr-defined]
    app.due.segment_shards()
    return {}


def replace_rules(app: App, caller: Caller, scene: Scene) -> Answer:
    """Fewer orders do."""
    draft = SegmentDefinition.model_validate(definition("Buyers", 1))
    return app.segments.replace(caller, scene.ids["buyers"], draft).entity.public()


def delete_segment(app: App, caller: Caller, scene: Scene) -> Answer:
    """The one that stands on the other."""
    try:
        app.segments.delete(caller, scene.ids["others"])
    except NotFoundError:
        return {}
    return {}


def erase(app: App, caller: Caller, scene: Scene) -> Answer:
    """Bob is erased."""
    del scene
    return app.user_erasures.request(caller, BOB).entity.public()


def archive_events(app: App, caller: Caller, scene: Scene) -> Answer:
    """All that was counted goes into the archive."""
    del scene
    app.event_archiver.run(caller.organization_id, range(64), now=True)
    return {}


SEGMENTS: Mapping[str, Flow] = {
    flow.name: flow
    for flow in (
        Flow("accept events", defined, accept, refit=small),
        Flow("accept more events", peopled, accept, refit=small),
        Flow("leave by silence", leaving, sweep_segments, asks=by_the_system, refit=small),
        Flow("change the rules", peopled, replace_rules, refit=small),
        Flow("delete a segment", peopled, delete_segment, asks=by_the_system, refit=small),
        Flow("erase a user", peopled, erase, refit=small),
        Flow("erase a user from audiences", followed, erase, refit=small, exact=False, ages=True),
        Flow("archive events", peopled, archive_events, asks=by_the_system, refit=small),
    )
}
