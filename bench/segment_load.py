"""Made-up segments and events for measurements: skewed users, thresholds over a wide range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from activation.domain.event import Event, EventType
from activation.domain.segment import Segment, SegmentType
from activation.domain.segment_shard import shard_of

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TYPES = tuple(EventType)
EIGHT = (1, 5, 15, 30, 60, 120, 360, 1440)
SHARE_OF_EVENTS = (0.80, 0.03, 0.05, 0.12)
SHARE_OF_RULES = (0.40, 0.10, 0.25, 0.25)


def windows(count: int) -> list[int]:
    """So many different windows between a minute and a day."""
    if count <= len(EIGHT):
        return list(EIGHT[:count])
    more = np.round(np.geomspace(2, 1440, 2 * count)).astype(int).tolist()
    return sorted([*EIGHT, *[one for one in dict.fromkeys(more) if one not in EIGHT]][:count])


def segments(
    count: int, window_count: int, *, many_changes: bool = False, seed: int = 1
) -> list[Segment]:
    """Segments of one rule each, half on counts and half on sums; a tenth is derived.

    With `many_changes` thresholds begin so low that a single order crosses one in ten of those
    on its sum; without, hardly anybody crosses any.
    """
    draw = np.random.default_rng(seed)
    found: list[Segment] = []
    for number in range(count):
        if number >= 10 and number % 10 == 0:
            a, b = (f"s{n:05}" for n in draw.choice(number, 2, replace=False))
            word = "AND NOT" if number % 20 else "OR"
            found.append(_segment(f"s{number:05}", expression=f"{a} {word} {b}"))
            continue
        sums = bool(draw.random() < 0.5)
        low, high = (20, 30_000) if sums else (2, 1_000)
        if not many_changes:
            low, high = 100 * low, 100 * high
        rule = {
            "event_type": TYPES[int(draw.choice(4, p=SHARE_OF_RULES))],
            "attribute": "sum" if sums else "count",
            "operator": "GTE",
            "value": int(np.exp(draw.uniform(np.log(low), np.log(high)))),
            "window_minutes": int(draw.choice(windows(window_count))),
        }
        found.append(_segment(f"s{number:05}", rules=[rule]))
    return found


def _segment(name: str, **fields: object) -> Segment:
    kind = SegmentType.DERIVED if "expression" in fields else SegmentType.INDEPENDENT
    about = {"organization_id": "bench", "created_at": START, "updated_at": START, "type": kind}
    return Segment.model_validate({**about, "segment_id": name, "name": name, **fields})


@dataclass(frozen=True, slots=True)
class Load:
    """So many events of so many users, spread evenly over so many minutes."""

    users: int
    events: int
    minutes: int
    shards: int
    seed: int = 2

    def chunks(self, size: int) -> Iterator[tuple[datetime, dict[int, list[Event]]]]:
        """Events by shard as they come, and the moment at which they have."""
        draw = np.random.default_rng(self.seed)
        shards = [shard_of(f"user-{n}", self.shards) for n in range(self.users)]
        step = timedelta(minutes=self.minutes) / self.events
        for first in range(0, self.events, size):
            count = min(size, self.events - first)
            users = (self.users * draw.random(count) ** 2).astype(int).tolist()
            types = draw.choice(4, count, p=SHARE_OF_EVENTS).tolist()
            amounts = np.round(draw.gamma(2, 20, count), 2).tolist()
            found: dict[int, list[Event]] = {}
            for n, (user, kind, amount) in enumerate(zip(users, types, amounts, strict=True)):
                event = Event.model_construct(
                    user_id=f"user-{user}",
                    event_type=TYPES[kind],
                    timestamp=START + (first + n) * step,
                    attributes={"amount": amount} if kind > 1 else {"value": 1},
                    event_id=f"e{first + n:012}",
                )
                found.setdefault(shards[user], []).append(event)
            yield START + (first + count) * step, found


def naive_rate(some: Sequence[Segment], load: Load, seconds: float) -> float:
    """Events a CPU second when each event is held against each rule of its type, in memory only:
    no derived segments, nothing is stored, nobody leaves but with an event of his own."""
    import time

    rules: dict[EventType, list[tuple[str, bool, int, float]]] = {kind: [] for kind in TYPES}
    for segment in some:
        for rule in segment.rules:
            sums = rule.field is not None
            row = (segment.segment_id, sums, rule.window_minutes, float(rule.value))
            rules[rule.event_type].append(row)
    kept: dict[tuple[str, EventType], dict[int, list[float]]] = {}
    inside: set[tuple[str, str]] = set()
    count, began = 0, time.process_time()
    for _, by_shard in load.chunks(2_000):
        for event in (event for some_events in by_shard.values() for event in some_events):
            minute = int(event.timestamp.timestamp() // 60)
            buckets = kept.setdefault((event.user_id, event.event_type), {})
            bucket = buckets.setdefault(minute, [0, 0.0])
            bucket[0] += 1
            bucket[1] += event.attributes.get("amount", 1)
            for segment_id, sums, window, value in rules[event.event_type]:
                number = sum(b[sums] for m, b in buckets.items() if m > minute - window)
                pair = (event.user_id, segment_id)
                (inside.add if number >= value else inside.discard)(pair)
            count += 1
        if time.process_time() - began > seconds:
            break
    return count / (time.process_time() - began)
