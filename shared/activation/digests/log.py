"""A log of events with the instants at which they were received, and the segments in force."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import orjson
from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticError

from activation.domain.entity import Instant
from activation.domain.segment import Segment, SegmentType
from activation.errors import ValidationError
from activation.segments.rulebook import rule_book

ORGANIZATION = "digest"
RECEIVED_AT = "received_at"
MAX_BATCH = 1_000
MAX_BATCH_BYTES = 500_000
"""A batch fits into one message, so that it is one step of a shard for every engine."""
MINUTE = timedelta(minutes=1)
_INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Rows that were received at one instant."""

    at: datetime
    rows: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Log:
    """What an engine is given. Silence is looked at up to `end`, a whole minute."""

    segments: tuple[Segment, ...]
    batches: tuple[LogBatch, ...]
    end: datetime

    @property
    def start(self) -> datetime:
        """When the first rows were received."""
        return self.batches[0].at

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(len(batch.rows) for batch in self.batches)


def log_of(
    rows: Iterable[tuple[datetime, Any]], segments: Sequence[Segment], end: datetime | None = None
) -> Log:
    """A log of rows, each with the instant at which it was received; those of one instant stay in
    their order. It ends at the whole minute after the last row, unless an earlier or later `end`
    is asked for: what was received after it is left out.

    Raises ValidationError without rows, and for segments that cannot be in force together.
    """
    ordered = sorted(rows, key=lambda one: one[0])
    if end is not None:
        ordered = [one for one in ordered if one[0] <= _minute(end)]
    if not ordered:
        raise ValidationError("The log has no events.", reason="empty")
    rule_book(segments, "1")
    last = _minute(end) if end is not None else _minute(ordered[-1][0], up=True)
    batches = [
        LogBatch(at, part)
        for at, together in groupby(ordered, key=lambda one: one[0])
        for part in _parts([row for _, row in together])
    ]
    return Log(tuple(segments), tuple(batches), last)


def read_log(
    lines: Iterable[bytes], segments: Sequence[Segment], end: datetime | None = None
) -> Log:
    """The log of a file, one event a line. A line may say when it was received (`received_at`);
    without it, it came when it happened. What is no event goes along, to be refused.

    Raises ValidationError, with the line's number, when a first line has no time at all.
    """
    rows: list[tuple[datetime, Any]] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row, at = _parsed(line)
            if at is None and not rows:
                raise ValidationError(f"Line {number} does not say when.", reason="no_time")
            rows.append((at or rows[-1][0], row))
    return log_of(rows, segments, end)


def read_segments(data: bytes) -> list[Segment]:
    """Segments of a JSON list: `name`, and `rules` or an `expression` of the other names. A
    `segment_id` may stand beside, and then stands in expressions.

    Raises ValidationError for anything else.
    """
    try:
        found = orjson.loads(data)
        segments = [_segment(one) for one in found] if isinstance(found, list) else []
    except (orjson.JSONDecodeError, TypeError, AttributeError) as error:
        raise ValidationError("The rules are no JSON list of segments.") from error
    except PydanticError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValidationError(
            "A segment is not valid.", field=where, reason=first["type"]
        ) from error
    if not segments or len({one.segment_id for one in segments}) < len(segments):
        raise ValidationError("The rules are no list of segments with names of their own.")
    return segments


def _segment(data: Any) -> Segment:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    kind = SegmentType.DERIVED if data.get("expression") else SegmentType.INDEPENDENT
    about = {
        "organization_id": ORGANIZATION,
        "created_at": epoch,
        "updated_at": epoch,
        "segment_id": data.get("segment_id", data.get("name")),
        "name": data.get("name", data.get("segment_id")),
        "type": kind,
    }
    given = {name: data[name] for name in ("rules", "expression", "status") if data.get(name)}
    return Segment.model_validate({**about, **given})


def _parsed(line: bytes) -> tuple[Any, datetime | None]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return "not JSON", None
    if not isinstance(row, dict):
        return row, None
    at = row.pop(RECEIVED_AT, row.get("timestamp"))
    try:
        return row, _INSTANT.validate_python(at)
    except PydanticError:
        return row, None


def _parts(rows: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Rows in parts that fit into a message each."""
    part: list[Any] = []
    size = 0
    for row in rows:
        length = len(orjson.dumps(row))
        if part and (len(part) == MAX_BATCH or size + length > MAX_BATCH_BYTES):
            yield tuple(part)
            part, size = [], 0
        part.append(row)
        size += length
    yield tuple(part)


def _minute(at: datetime, *, up: bool = False) -> datetime:
    """The whole minute of an instant, or the next one."""
    minute = at.replace(second=0, microsecond=0)
    return minute + MINUTE if up and minute != at else minute
