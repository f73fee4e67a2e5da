"""Made-up organizations: segments, and users' events with the moments at which they arrive."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from activation.domain.event import Event, EventType
from activation.domain.segment import Aggregate, Comparison, Segment, SegmentType

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TYPES = tuple(EventType)
OPERATORS = tuple(Comparison)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A batch of events that arrives at one moment."""

    at: datetime
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class World:
    """Segments, and what arrives in the course of so many minutes from NOON."""

    segments: Sequence[Segment]
    arrivals: Sequence[Arrival]
    minutes: int


@dataclass(slots=True)
class Maker:
    """Draws worlds from a source of chance."""

    draw: random.Random
    users: int = 3
    longest_window: int = 9
    minutes: int = 14
    names: list[str] = field(default_factory=list)

    def world(self) -> World:
        """Some segments and some events; duplicates, late ones and ones ahead among them."""
        segments = [self.independent(f"s{n}") for n in range(self.draw.randint(1, 5))]
        for n in range(self.draw.randint(0, 3)):
            segments.append(self.derived(f"d{n}", [one.segment_id for one in segments]))
        self.draw.shuffle(segments)
        arrivals = self.arrivals()
        last = (arrivals[-1].at - NOON) // timedelta(minutes=1)
        return World(segments, arrivals, max(self.minutes, last) + self.longest_window + 2)

    def independent(self, name: str) -> Segment:
        """A segment of one to three rules."""
        return segment(name, rules=[self.rule() for _ in range(self.draw.choice([1, 1, 1, 2, 3]))])

    def derived(self, name: str, others: Sequence[str]) -> Segment:
        """A segment that combines some of the others."""
        return segment(name, expression=self.expression(others, 3))

    def rule(self) -> dict[str, Any]:
        """One rule; its value is near to what a few events make."""
        sums = self.draw.random() < 0.45
        value = (
            self.draw.choice([0, 1, 2, 3, 2.5])
            if not sums
            else self.draw.choice([-1, 0, 0.1, 0.3, 5, 7.25, 10, "12.000001"])
        )
        return {
            "event_type": self.draw.choice(TYPES[:2] if self.draw.random() < 0.7 else TYPES),
            "attribute": Aggregate.SUM if sums else Aggregate.COUNT,
            "field": self.draw.choice(["amount", "tax"]) if sums else None,
            "operator": self.draw.choice(OPERATORS),
            "value": value,
            "window_minutes": self.draw.choice([1, 2, self.draw.randint(1, self.longest_window)]),
        }

    def expression(self, others: Sequence[str], depth: int) -> str:
        """A random expression with parentheses."""
        if depth == 0 or self.draw.random() < 0.3:
            return self.draw.choice(others)
        if self.draw.random() < 0.3:
            return f"NOT ({self.expression(others, depth - 1)})"
        word = self.draw.choice([" AND ", " OR "])
        parts = [self.expression(others, depth - 1) for _ in range(self.draw.randint(2, 3))]
        return "(" + word.join(parts) + ")"

    def arrivals(self) -> list[Arrival]:
        """Events in batches, in order of arrival, which is not the order of time."""
        events = [self.event(n) for n in range(self.draw.randint(1, 24))]
        coming: list[tuple[datetime, Event]] = []
        for event in events:
            late = self.draw.choice([0, 0, 0, 20, 90, 300, 700, -20, -90, -250])
            at = max(NOON, event.timestamp + timedelta(seconds=late))
            coming.append((at, event))
            while self.draw.random() < 0.25:
                again = at + timedelta(seconds=self.draw.choice([0, 5, 200]))
                coming.append((again, self.repeated(event)))
        coming.sort(key=lambda one: (one[0], one[1].event_id))
        return self.batched(coming)

    def batched(self, coming: list[tuple[datetime, Event]]) -> list[Arrival]:
        """Neighbours that arrive together, when their last one does."""
        found: list[Arrival] = []
        while coming:
            size = self.draw.choice([1, 1, 2, 5])
            some, coming = coming[:size], coming[size:]
            found.append(Arrival(some[-1][0], [event for _, event in some]))
        return found

    def event(self, number: int) -> Event:
        """One event; half of them on a whole minute, some to the microsecond."""
        seconds = self.draw.randint(0, 60 * self.minutes)
        instant = NOON + timedelta(seconds=seconds)
        if self.draw.random() < 0.5:
            instant = instant.replace(second=0)
        instant += timedelta(microseconds=self.draw.choice([0, 0, 1, 999_999]))
        amount = self.draw.choice([0, 0.1, 0.2, 5, 7.25, "12.000001", -3, "words", None, True])
        return Event(
            user_id=f"u{self.draw.randrange(self.users)}",
            event_type=self.draw.choice(TYPES[:2] if self.draw.random() < 0.8 else TYPES),
            timestamp=instant,
            attributes={"amount": amount, "tax": self.draw.choice([0.1, 1, 3])},
            event_id=f"e{number}",
        )

    def repeated(self, event: Event) -> Event:
        """The same event again, sometimes with another time: a client that tried twice."""
        if self.draw.random() < 0.7:
            return event
        moved = event.timestamp + timedelta(seconds=self.draw.choice([-60, 30]))
        return event.model_copy(update={"timestamp": moved})


def segment(name: str, **fields: Any) -> Segment:
    """A segment of acme with this id."""
    kind = SegmentType.DERIVED if "expression" in fields else SegmentType.INDEPENDENT
    return Segment.model_validate(
        {
            "organization_id": "acme",
            "created_at": NOON,
            "updated_at": NOON,
            "segment_id": name,
            "name": name,
            "type": kind,
            **fields,
        }
    )
