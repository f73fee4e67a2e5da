"""Counted events as bytes: the log of one step, and a Parquet object that other tools read too.

A step keeps its events on the hot path: rows of JSON in one parcel. What is archived are columns.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pydantic_core

from activation.domain.event import MAX_SCHEMA_VERSION, Event
from activation.errors import StorageUnavailableError
from activation.segments.codec import pack, unpack

DAMAGED = "damaged"
"""Reason of an error: trying again does not help."""
ROW_GROUP = 20_000
"""Rows are in order of shard and user, so that one user's are found in one or two groups."""
_FIELDS = (
    *("user_id", "event_type", "timestamp", "event_id", "session_id", "device_id"),
    *("schema_version", "attributes"),
)
_content = attrgetter("__dict__")
_row_of = itemgetter(*_FIELDS)
_INSTANT = pa.timestamp("us", tz="UTC")

SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("timestamp", _INSTANT, nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("session_id", pa.string()),
        pa.field("device_id", pa.string()),
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("number", pa.int64(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("told_at", _INSTANT, nullable=False),
    ]
)
"""`number` is the step of the shard that counted the event, at `told_at`; `position` its place
among those of the step. The three of them name an event for good."""


# the log of a step --------------------------------------------------------------------------------


def log_bytes(events: Sequence[Event], number: int, micros: int) -> bytes:
    """The events that a step counted."""
    rows = list(map(_row_of, map(_content, events)))
    try:
        content = orjson.dumps(rows)
    except TypeError:  # numbers that JSON has and orjson does not write
        content = pydantic_core.to_json(rows)
    return pack({"number": number, "micros": micros}, {"rows": np.frombuffer(content, np.uint8)})


def log_table(data: bytes, shard: int) -> pa.Table:
    """The events of a step as the archive has them."""
    header, columns = unpack(data)
    rows = orjson.loads(columns["rows"].tobytes())
    users, types, times, ids, sessions, devices, versions, attributes = zip(*rows, strict=True)
    count = len(rows)
    instants = pa.array(times, pa.string()).cast(_INSTANT)
    return pa.table(
        [
            pa.array(users, pa.string()),
            pa.array(types, pa.string()),
            instants,
            pa.array(ids, pa.string()),
            pa.array(sessions, pa.string()),
            pa.array(devices, pa.string()),
            pa.array([min(one, MAX_SCHEMA_VERSION) for one in versions], pa.int32()),
            pa.array([orjson.dumps(one).decode() for one in attributes], pa.string()),
            pa.array(np.full(count, shard, np.int32)),
            pa.array(np.full(count, header["number"], np.int64)),
            pa.array(np.arange(count, dtype=np.int32)),
            pa.array(np.full(count, header["micros"], np.int64)).cast(_INSTANT),
        ],
        schema=SCHEMA,
    )


def log_without(data: bytes, user_id: str) -> bytes | None:
    """The log of a step without the events of a user; None when nothing is left, the very same
    bytes when he is not in it."""
    header, columns = unpack(data)
    rows = orjson.loads(columns["rows"].tobytes())
    kept = [row for row in rows if row[0] != user_id]
    if len(kept) == len(rows):
        return data
    content = np.frombuffer(orjson.dumps(kept), np.uint8)
    return pack(header, {"rows": content}) if kept else None


# Parquet ------------------------------------------------------------------------------------------


def in_order(table: pa.Table) -> pa.Table:
    """The events by shard and user, each user's as they were counted."""
    keys = ("shard", "user_id", "number", "position")
    return table.sort_by([(key, "ascending") for key in keys])


def file_bytes(table: pa.Table) -> bytes:
    """A Parquet object of the events; each page has its checksum."""
    import pyarrow.parquet as pq

    target = io.BytesIO()
    pq.write_table(
        in_order(table),
        target,
        row_group_size=ROW_GROUP,
        compression="zstd",
        write_page_checksum=True,
    )
    return target.getvalue()


def file_table(
    source: IO[bytes] | bytes, shard: int | None = None, user_id: str | None = None
) -> pa.Table:
    """The events of an object, of one shard or user alone if asked; what cannot hold any of them
    is not read. StorageUnavailableError when it is damaged."""
    import pyarrow.parquet as pq

    asked = [("shard", "=", shard), ("user_id", "=", user_id)]
    filters = [one for one in asked if one[2] is not None] or None
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        return pq.read_table(
            opened, schema=SCHEMA, filters=filters, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError) as error:
        raise StorageUnavailableError("Archived events are damaged.", reason=DAMAGED) from error


def empty_table() -> pa.Table:
    """No events."""
    return SCHEMA.empty_table()


def of_user(table: pa.Table, user_id: str) -> pa.Table:
    """The events of a user."""
    import pyarrow.compute as pc

    return table.filter(pc.equal(table["user_id"], user_id))


def without_user(table: pa.Table, user_id: str, before: int) -> pa.Table:
    """All events but those of a user that were counted before a step."""
    import pyarrow.compute as pc

    gone = pc.and_(pc.equal(table["user_id"], user_id), pc.less(table["number"], before))
    return table.filter(pc.invert(gone))


def after_erasures(table: pa.Table, erased: Mapping[str, int]) -> pa.Table:
    """The events that came, by their own time too, after the erasure of their user."""
    if not erased:
        return table
    users = table["user_id"].combine_chunks().dictionary_encode()
    of = np.array([erased.get(one, -1) for one in users.dictionary.to_pylist()], np.int64)
    gone = of[users.indices.to_numpy(zero_copy_only=False)]
    times, told = (table[one].cast(pa.int64()).to_numpy() for one in ("timestamp", "told_at"))
    return table.filter(pa.array(gone < np.minimum(times, told)))


def names_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """A number for each event that names it for good: of its shard, step, and place in the step."""
    shard, number, position = (
        table[one].to_numpy().astype(np.int64) for one in ("shard", "number", "position")
    )
    names: npt.NDArray[np.int64] = (shard << 54) | (number << 14) | position
    return names


def last_told(table: pa.Table) -> int:
    """When the last of some events was counted, in microseconds."""
    return int(table["told_at"].cast(pa.int64()).to_numpy().max())


def last_seen(table: pa.Table, found: dict[int, dict[str, int]]) -> None:
    """Note the users of each shard, and when they last came, in microseconds: by when they were
    counted, and by their own time."""
    times, told = (table[one].cast(pa.int64()).to_numpy() for one in ("timestamp", "told_at"))
    came = np.minimum(times, told).tolist()
    shards, users = table["shard"].to_pylist(), table["user_id"].to_pylist()
    for shard, user, at in zip(shards, users, came, strict=True):
        mine = found.setdefault(shard, {})
        mine[user] = max(at, mine.get(user, 0))


def up_to(table: pa.Table, number: int) -> pa.Table:
    """The events that were counted by a step."""
    return table.filter(pa.array(table["number"].to_numpy() <= number))


def between(table: pa.Table, since: int, until: int | None) -> pa.Table:
    """The events that happened in [since, until), in microseconds."""
    times = table["timestamp"].cast(pa.int64()).to_numpy()
    inside = times >= since
    return table.filter(pa.array(inside if until is None else inside & (times < until)))


def by_hour(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """The events of each hour, counted from 1970, that has any."""
    micros = table["timestamp"].cast(pa.int64()).to_numpy()
    hours = micros // 3_600_000_000
    for hour in np.unique(hours).tolist():
        yield hour, table.filter(pa.array(hours == hour))


def shards_in(table: pa.Table) -> list[int]:
    """The shards whose events these are."""
    found: list[int] = table["shard"].unique().to_pylist()
    return sorted(found)


def events_of(table: pa.Table) -> list[Event]:
    """The events one by one, in the order of the table; they were validated before they were
    counted."""
    return [_event(row) for row in table.select(list(_FIELDS)).to_pylist()]


def _event(row: dict[str, Any]) -> Event:
    return Event.model_validate({**row, "attributes": orjson.loads(row["attributes"])})
