"""Follows one shard through a world and compares it with the oracle, minute by minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from activation.domain.event import Event
from activation.segments.block import block_of, empty_block
from activation.segments.engine import Evaluation, evaluate
from activation.segments.minutes import Moment, micros_of
from activation.segments.rulebook import RuleBook, rule_book
from activation.segments.state import ShardState, empty_state
from tests.segments.recount import MINUTE, memberships
from tests.segments.worlds import NOON, World

SWEEP = 2
"""How many users a sweep looks at: few, so that several are needed."""


@dataclass(slots=True)
class Follower:
    """A shard with what it told so far, and all events in order of arrival."""

    book: RuleBook
    state: ShardState
    known: list[Event] = field(default_factory=list)
    told: set[tuple[str, str]] = field(default_factory=set)
    since: dict[tuple[str, str], tuple[int, datetime]] = field(default_factory=dict)
    entries: dict[str, int] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    counted: int = 0
    duplicates: int = 0

    def arrive(self, events: Sequence[Event], now: datetime) -> None:
        """Events come."""
        block, refused = block_of(events, self.book.fields)
        assert not refused
        self.known += events
        step = evaluate(self.state, block, self.book, micros_of(now))
        self._follow(step)
        counted = zip(events, step.counted.tolist(), strict=True)
        self._compare({event.user_id for event, new in counted if new}, now)

    def _compare(self, users: set[str], now: datetime) -> None:
        """Users who just did something are right in the middle of a minute, too."""
        start = now.replace(second=0, microsecond=0)
        end = start if start == now else start + MINUTE
        mine = [event for event in self.known if event.user_id in users]
        told = {pair for pair in self.told if pair[0] in users}
        segments = self.book.segments
        assert told == memberships(segments, mine, start, end), f"at {now}"

    def sweep(self, now: datetime, limit: int = SWEEP) -> None:
        """Look at all who are due, a few at a time."""
        micros = micros_of(now)
        while self.state.next_due() <= Moment(micros).tick:
            nothing = empty_block(self.book.fields)
            self._follow(evaluate(self.state, nothing, self.book, micros, sweep=limit))

    def _follow(self, step: Evaluation) -> None:
        self.state = step.state
        self.counted += int(step.counted.sum())
        self.duplicates += int(step.duplicate.sum())
        names = [segment.segment_id for segment in self.book.segments]
        listed = step.transitions.listed(
            step.state.users.names, names, step.state.number, step.state.micros
        )
        for one in listed:
            self.since[one.user_id, one.segment_id] = (one.seq, one.happened_at)
            pair = (one.user_id, one.segment_id)
            assert (pair not in self.told) == one.entered, "entries and exits take turns"
            (self.told.add if one.entered else self.told.discard)(pair)
            counts = self.entries if one.entered else self.exits
            counts[one.segment_id] = counts.get(one.segment_id, 0) + 1
            assert one.happened_at <= one.told_at

    def current(self) -> set[tuple[str, str]]:
        """What the state says of itself, which must be what was told."""
        users = self.state.users.names
        found = set()
        for user in users:
            stays = self.state.memberships_of(user, self.book)
            inside = self.state.segments_of(user, self.book)
            assert [one.segment_id for one in stays] == inside
            for one in stays:
                assert (one.seq, one.entered_at) == self.since[user, one.segment_id]
            found |= {(user, one) for one in inside}
        return found


def follower_of(world: World) -> Follower:
    """A shard in which nothing happened yet."""
    book = rule_book(world.segments, "1")
    return Follower(book, empty_state(book))


def followed(world: World) -> Follower:
    """Live through a world; at every whole minute the shard must agree with the oracle."""
    shard = follower_of(world)
    coming = list(world.arrivals)
    for minute in range(world.minutes + 1):
        now = NOON + timedelta(minutes=minute)
        while coming and coming[0].at <= now:
            arrival = coming.pop(0)
            shard.arrive(arrival.events, arrival.at)
        shard.sweep(now)
        expected = memberships(world.segments, shard.known, now, now)
        assert shard.told == expected, f"minute {minute}"
        assert shard.current() == expected
    assert not coming
    assert shard.counted == len({(one.user_id, one.event_id) for one in shard.known})
    assert shard.counted + shard.duplicates == len(shard.known)
    return shard
