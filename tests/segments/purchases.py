"""A log of purchases, one a line, and the memberships it leads to: by the shard, and by a recount.

The lines are those of the public CDNOW sample: customer, customer in the sample, date (YYYYMMDD),
pieces, dollars. Dates have no time of day: the purchases of a day are spread evenly over it, in
the order of the file.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from activation.domain.event import Event
from activation.domain.segment import Segment
from activation.segments.block import block_of, empty_block
from activation.segments.engine import evaluate
from activation.segments.minutes import MICROS, NEVER
from activation.segments.rulebook import rule_book
from activation.segments.state import empty_state
from tests.segments.recount import memberships
from tests.segments.worlds import segment

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)

Change = tuple[datetime, str, str, bool]
"""When, who, which segment, whether he entered."""


def purchases(lines: Iterable[str]) -> list[Event]:
    """The events of a log, by time; blank lines are passed over."""
    rows = [line.split() for line in lines if line.strip()]
    on_day = Counter(row[2] for row in rows)
    seen: Counter[str] = Counter()
    events = []
    for number, (customer, _, date, pieces, dollars) in enumerate(rows):
        share = seen[date] / on_day[date]
        seen[date] += 1
        events.append(
            Event.model_validate(
                {
                    "user_id": customer,
                    "event_type": "orders",
                    "timestamp": datetime.strptime(date, "%Y%m%d").replace(tzinfo=UTC)
                    + timedelta(seconds=int(share * DAY.total_seconds())),
                    "attributes": {"amount": dollars, "pieces": int(pieces)},
                    "event_id": f"line-{number}",
                }
            )
        )
    return sorted(events, key=lambda event: event.timestamp)


def made_up(customers: int, lines: int, seed: int = 1) -> Iterator[str]:
    """A log of the same form, in which people often buy again within hours."""
    draw = random.Random(seed)
    first = datetime(1997, 1, 1, tzinfo=UTC)
    for _ in range(lines):
        customer = draw.randrange(customers)
        day = first + draw.randrange(1 + lines // customers) * DAY
        pieces, dollars = draw.randint(1, 6), draw.choice([14.96, draw.gammavariate(2, 18)])
        yield f" {customer:05} {customer:04} {day:%Y%m%d} {pieces:2} {dollars:7.2f}"


def _rule(operator: str, value: float, window: int, field: str | None = None) -> dict[str, object]:
    kind = {"attribute": "count"} if field is None else {"attribute": "sum", "field": field}
    about = {"event_type": "orders", "operator": operator, "value": value}
    return {**about, **kind, "window_minutes": window}


RULES: dict[str, list[dict[str, object]]] = {
    "bought today": [_rule("GTE", 1, 1440)],
    "bought this hour": [_rule("GT", 0, 60)],
    "twice in a day": [_rule("GTE", 2, 1440)],
    "twice in six hours": [_rule("GTE", 2, 360)],
    "exactly one": [_rule("EQ", 1, 720)],
    "spent 30 in a day": [_rule("GTE", 30, 1440, "amount")],
    "spent 100 in a day": [_rule("GT", 100, 1440, "amount")],
    "under 12.77": [_rule("LT", 12.77, 300, "amount"), _rule("GTE", 1, 300)],
    "exactly 14.96": [_rule("EQ", 14.96, 1440, "amount")],
    "not 14.96": [_rule("NEQ", 14.96, 1440, "amount"), _rule("GTE", 1, 1440)],
    "five pieces": [_rule("GTE", 5, 1440, "pieces")],
    "quiet for 12 hours": [_rule("LTE", 0, 720)],
    "one dear piece": [_rule("LTE", 1, 1440, "pieces"), _rule("GT", 15, 1440, "amount")],
}
EXPRESSIONS = {
    "returned": '"twice in a day" AND NOT "bought this hour"',
    "big or often": '"spent 100 in a day" OR "twice in six hours" OR "five pieces"',
}


def segments_of_purchases() -> list[Segment]:
    """Segments that bite on purchases."""
    ruled = [segment(name, rules=rules) for name, rules in RULES.items()]
    return ruled + [segment(name, expression=text) for name, text in EXPRESSIONS.items()]


def told_by_shard(segments: Sequence[Segment], events: Sequence[Event]) -> list[Change]:
    """What a shard tells, when each event comes by the end of its minute and every minute at
    which somebody is due is swept."""
    book = rule_book(segments, "1")
    state, nothing = empty_state(book), empty_block(book.fields)
    told: list[Change] = []

    def step(minute: int, some: Sequence[Event]) -> None:
        nonlocal state
        block = block_of(some, book.fields)[0] if some else nothing
        found = evaluate(state, block, book, minute * MICROS, sweep=10_000)
        state = found.state
        listed = found.transitions.listed(state.users.names, book.segment_ids, 1, state.micros)
        told.extend((one.told_at, one.user_id, one.segment_id, one.entered) for one in listed)

    by_minute: dict[int, list[Event]] = defaultdict(list)
    for event, minute in zip(
        events, block_of(events, book.fields)[0].minutes.tolist(), strict=True
    ):
        by_minute[minute].append(event)
    for minute in sorted(by_minute):
        while state.next_due() < 2 * minute:
            step(-(-state.next_due() // 2), ())
        step(minute, by_minute[minute])
    while state.next_due() < NEVER:
        step(-(-state.next_due() // 2), ())
    return sorted(told)


def told_by_recount(segments: Sequence[Segment], events: Sequence[Event]) -> list[Change]:
    """The same by counting anew, for each user, at every minute at which anything may change and
    at the one before it, at which nothing may."""
    windows = {rule.window_minutes for one in segments for rule in one.rules}
    by_user: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_user[event.user_id].append(event)
    told: list[Change] = []
    for user, mine in by_user.items():
        closed = [_closed(event.timestamp) for event in mine]
        turns = sorted({at + window * MINUTE for at in closed for window in {0, *windows}})
        before: set[str] = set()
        for turn in turns:
            assert turn == turns[0] or _inside(segments, mine, turn - MINUTE) == before
            now = _inside(segments, mine, turn)
            told += [(turn, user, one, True) for one in now - before]
            told += [(turn, user, one, False) for one in before - now]
            before = now
    return sorted(told)


def _inside(segments: Sequence[Segment], mine: Sequence[Event], at: datetime) -> set[str]:
    known = [event for event in mine if event.timestamp <= at]
    return {segment_id for _, segment_id in memberships(segments, known, at, at)}


def _closed(instant: datetime) -> datetime:
    minute = instant.replace(second=0, microsecond=0)
    return minute if minute == instant else minute + MINUTE
