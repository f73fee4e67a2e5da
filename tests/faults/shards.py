"""What the stores say of segments, and whether it holds together: the state of each shard, what was
told of it, the events that were counted, and who was erased."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from activation.app import App
from activation.domain.audience import Audience
from activation.domain.event import Event
from activation.domain.membership import Transition
from activation.domain.segment_record import SegmentRecord
from activation.domain.segment_shard import SHARDS, shard_id
from activation.domain.user_erasure import UserErasure, is_pseudonym
from activation.errors import ActivationError
from activation.members.user_ids import keys_of_user
from activation.ports import BlobKey, Query
from activation.segments.event_file import events_of
from activation.segments.minutes import Moment, micros_of
from activation.services.audience_erasure import Areas, AudienceEraser, Search
from activation.services.erasure_journal import ERASURES
from activation.services.event_archive import Span
from activation.services.event_log import LOG
from activation.services.segment_bindings import followed_as
from activation.services.segment_shards import TRANSITIONS
from activation.services.shard_states import DELTAS, HEADS, STATES, OpenShard
from tests.faults.world import ANN, MANY, all_of
from tests.segments.recount import memberships

ORGANIZATION = ANN.organization_id
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PARCELS = (STATES, DELTAS, TRANSITIONS, LOG, "segment_rules")
"""Collections whose records may lie in objects."""

Pairs = set[tuple[str, str]]


def segments_seen(app: App) -> dict[str, Any]:
    """What a client can learn of segments that does not depend on when."""
    names = {one.segment_id: one.name for one in all_of(app, "segments", SegmentRecord)}
    inside = [pair for opened in shards(app) for pair in inside_of(opened)]
    erasures = all_of(app, "user_erasures", UserErasure)
    return {
        "segments": sorted(
            (one.name, one.status.value, one.version)
            for one in all_of(app, "segments", SegmentRecord)
        ),
        "memberships": sorted((user, names.get(one, "gone")) for user, one in inside),
        "counted": sorted(Counter((one.user_id, one.event_id) for one in counted(app)).items()),
        "erased": sorted(one.user_id or "done" for one in erasures),
    }


def shards(app: App) -> Iterator[OpenShard]:
    """The shards that there are."""
    for shard in range(SHARDS):
        if app.shards.states.heads.find(ORGANIZATION, shard_id(shard)) is not None:
            yield app.shards.states.open(ORGANIZATION, shard)


def inside_of(opened: OpenShard) -> Pairs:
    """Who is in which segment, as the state says."""
    users = opened.state.users.names
    return {(user, one) for user in users for one in opened.state.segments_of(user, opened.book)}


def counted(app: App) -> list[Event]:
    """Every event that was counted and is kept."""
    tables = app.event_archive.events(ORGANIZATION, Span(BEGINNING))
    return [event for table in tables for event in events_of(table)]


def broken_segments(app: App) -> list[str]:
    """What does not hold, at any moment."""
    found: list[str] = []
    try:
        events = counted(app)
        if len({(one.user_id, one.event_id) for one in events}) != len(events):
            found.append("S1 an event was counted twice")
        for opened in shards(app):
            found += _shard_broken(app, opened, events)
        found += _erased_broken(app)
    except ActivationError as error:
        found.append(f"S1 a shard cannot be read: {error}")
    return found


def _erased_broken(app: App) -> list[str]:
    """Whether each request to erase is in the journal, and who was erased in no audience. Whoever
    came back since is looked at as the new user he is."""
    found: list[str] = []
    there = {name for opened in shards(app) for name in opened.state.users.names}
    for erasure in all_of(app, "user_erasures", UserErasure):
        key = BlobKey(ERASURES, f"{ORGANIZATION}/{erasure.entry_id}")
        try:
            user_id = app.erasure_journal.entry(key).user_id
        except ActivationError:
            found.append("S5 an erasure is not in the journal")
            continue
        if erasure.user_id is None and user_id not in there and _in_audience(app, user_id):
            found.append("S6 an audience holds somebody who was erased")
    return found


def _in_audience(app: App, user_id: str) -> bool:
    eraser = AudienceEraser(
        app.member_upkeep, Areas(app.backup_blobs, app.archive_blobs), app.clock
    )
    for audience in all_of(app, "audiences", Audience):
        if rules := followed_as(audience, None):
            keys = keys_of_user(rules, user_id, app.clock.now())
            held = Search(eraser, audience, keys, lambda: None).held()
            if held.members or held.version or held.backup:
                return True
    return False


def _shard_broken(app: App, opened: OpenShard, events: Sequence[Event]) -> list[str]:
    found: list[str] = []
    inside = inside_of(opened)
    stays = {
        (user, one.segment_id)
        for user in opened.state.users.names
        for one in opened.state.memberships_of(user, opened.book)
    }
    if stays != inside:
        found.append("S2 stays are others than ranks say")
    if (told := _in_turns(app, _told(app, opened.shard))) != inside:
        found.append(f"S3 told is {told}, inside are {inside}")
    now = app.clock.now()
    if opened.state.next_due() > Moment(micros_of(now)).tick:
        known = [one for one in events if one.user_id in set(opened.state.users.names)]
        start = now.replace(second=0, microsecond=0)
        end = start if start == now else start + MINUTE
        # Who was not looked at since may still be what he was: his numbers have not changed.
        if memberships(opened.book.segments, known, start, start) != inside and (
            memberships(opened.book.segments, known, start, end) != inside
        ):
            found.append("S4 memberships are others than a recount says")
    return found


def _told(app: App, shard: int) -> list[Transition]:
    query = Query(ORGANIZATION, TRANSITIONS, {"shard": shard}, limit=MANY)
    numbers = sorted(int(one.key.id.split("-")[1]) for one in app.documents.query(query))
    return [one for number in numbers for one in app.shards.told(ORGANIZATION, shard, number)]


def _in_turns(app: App, told: Sequence[Transition]) -> Pairs | str:
    """Who is in by what was told, as a follower reckons who knows users by name: of an exit under
    a pseudonym he looks for whose it is. Why not, when entries and exits do not take turns."""
    inside: Pairs = set()
    for one in told:
        pair = (one.user_id, one.segment_id)
        if is_pseudonym(one.user_id):
            inside -= {(user, at) for user, at in inside if _is_he(app, user, at, one)}
        elif (pair in inside) == one.entered:
            return "not in turns"
        elif one.entered:
            inside.add(pair)
        else:
            inside.remove(pair)
    return inside


def _is_he(app: App, user: str, segment_id: str, exit_: Transition) -> bool:
    name = app.erasure_marks.pseudonym(ORGANIZATION, user)
    return (name, segment_id, False) == (exit_.user_id, exit_.segment_id, exit_.entered)


def named_by_segments(app: App) -> set[str]:
    """Objects that records of segments name."""
    named: set[str] = set()
    for collection in PARCELS:
        for one in app.documents.query(Query(ORGANIZATION, collection, limit=MANY)):
            named |= {str(one.data["object"])} if "object" in one.data else set()
    for one in app.documents.query(Query(ORGANIZATION, HEADS, limit=MANY)):
        named |= set(one.data["retired"])
    for day in app.event_archive.all_days(ORGANIZATION):
        named |= {one.path for one in day.entity.objects}
        named |= {one.path for one in day.entity.retired}
    return named
