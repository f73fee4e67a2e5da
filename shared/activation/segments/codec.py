"""Columns as bytes and back: a header, the columns one after the other, zstd, and a checksum.

A stored state, a delta (the events of one step) and a list of transitions have this one form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from activation.errors import StorageUnavailableError
from activation.segments.block import EventBlock
from activation.segments.cells import Cells
from activation.segments.engine import EVALUATION
from activation.segments.rulebook import RuleBook
from activation.segments.seen import Run, Seen
from activation.segments.state import ShardState, Transitions, Users
from activation.segments.stays import StayRun, Stays

MARK = b"SEG1"
CHECKSUM_BYTES = 16
CHECKSUM, OTHER_EVALUATION = "checksum", "evaluation"
"""Why bytes cannot be read: they are not what was written, or another release has written them."""

Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Delta:
    """One step of a shard: what `evaluate` was given, so that it can be given it again."""

    number: int
    micros: int
    sweep: int
    block: EventBlock


@dataclass(frozen=True, slots=True)
class Told:
    """The transitions of one step by themselves: readable without the shard."""

    seq: int
    micros: int
    users: tuple[str, ...]
    segment_ids: tuple[str, ...]
    transitions: Transitions
    """`rows` and `segments` are positions in `users` and `segment_ids`."""

    def rows(self) -> Iterator[tuple[int, int, bool, int]]:
        """Each transition: the place of its user and of its segment, whether it is an entry, and
        when it happened."""
        columns = self.transitions
        return zip(
            columns.rows.tolist(),
            columns.segments.tolist(),
            columns.entered.tolist(),
            columns.happened.tolist(),
            strict=True,
        )


def pack(header: Mapping[str, Any], columns: Mapping[str, Column]) -> bytes:
    """A header (what JSON can say) and columns as bytes."""
    about = [[name, column.dtype.str, column.shape] for name, column in columns.items()]
    head = orjson.dumps({**header, "columns": about})
    body = b"".join(np.ascontiguousarray(column).tobytes() for column in columns.values())
    content = len(head).to_bytes(4, "little") + head + body
    packed: bytes = pa.Codec("zstd", compression_level=1).compress(content, asbytes=True)
    payload = len(content).to_bytes(8, "little") + packed
    return MARK + _checksum(payload) + payload


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, Column]]:
    """The reverse of `pack`; StorageUnavailableError when the bytes are not what was written."""
    payload = data[len(MARK) + CHECKSUM_BYTES :]
    if not data.startswith(MARK) or data[len(MARK) :][:CHECKSUM_BYTES] != _checksum(payload):
        raise StorageUnavailableError("A stored state is damaged.", reason=CHECKSUM)
    size = int.from_bytes(payload[:8], "little")
    content = pa.Codec("zstd").decompress(payload[8:], decompressed_size=size, asbytes=True)
    head_size = int.from_bytes(content[:4], "little")
    header: dict[str, Any] = orjson.loads(content[4 : 4 + head_size])
    at = 4 + head_size
    columns: dict[str, Column] = {}
    for name, kind, shape in header.pop("columns"):
        count = int(np.prod(shape, dtype=np.int64))
        columns[name] = np.frombuffer(content, kind, count, at).reshape(shape)
        at += columns[name].nbytes
    return header, columns


def _checksum(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=CHECKSUM_BYTES).digest()


# a shard's state ----------------------------------------------------------------------------------


def state_bytes(state: ShardState) -> bytes:
    """The state; what no window reaches any more is left out."""
    floor = state.micros // 60_000_000
    cells = [one.pruned_at(floor, always=True) for one in state.cells]
    columns: dict[str, Column] = {
        "users": _text_column(state.users.names),
        "ranks": state.ranks,
        "due": state.due,
    }
    for n, one in enumerate(cells):
        columns[f"keys{n}"] = np.diff(one.keys, prepend=0)
        columns[f"numbers{n}"] = one.numbers.T
    for n, run in enumerate(state.seen.runs):
        columns |= {f"ids{n}": run.ids, f"rows{n}": run.rows, f"days{n}": run.days}
    for n, stay in enumerate(state.stays.folded().runs):
        columns |= {
            f"stay_keys{n}": np.diff(stay.keys, prepend=0),
            f"stay_seqs{n}": stay.seqs,
            f"stay_since{n}": stay.since,
        }
    header = {
        "version": state.version,
        "number": state.number,
        "micros": state.micros,
        "bounds": [one.bound for one in cells],
        "day": state.seen.day,
        "runs": len(state.seen.runs),
    }
    return pack(header, columns)


def state_of(data: bytes) -> ShardState:
    """The state from its bytes."""
    header, columns = unpack(data)
    cells = []
    for n, bound in enumerate(header["bounds"]):
        keys = np.cumsum(columns[f"keys{n}"])
        numbers = np.ascontiguousarray(columns[f"numbers{n}"].T)
        cells.append(Cells(keys, numbers, bound, len(keys)))
    runs = [
        Run(columns[f"ids{n}"], columns[f"rows{n}"], columns[f"days{n}"])
        for n in range(header["runs"])
    ]
    names = _texts(columns["users"])
    return ShardState(
        header["version"],
        header["number"],
        header["micros"],
        Users(names, {name: row for row, name in enumerate(names)}),
        tuple(cells),
        columns["ranks"],
        columns["due"],
        Seen(tuple(runs), header["day"]),
        Stays(tuple(_stay_runs(columns))),
    )


def _stay_runs(columns: Mapping[str, Column]) -> Iterator[StayRun]:
    if "stay_keys0" in columns:
        keys = np.cumsum(columns["stay_keys0"])
        entered = np.ones(len(keys), np.bool_)
        yield StayRun(keys, columns["stay_seqs0"], columns["stay_since0"], entered)


# steps --------------------------------------------------------------------------------------------


def delta_bytes(delta: Delta) -> bytes:
    """One step; only events that counted need to be in it."""
    block = delta.block
    header = {
        "evaluation": EVALUATION,
        "number": delta.number,
        "micros": delta.micros,
        "sweep": delta.sweep,
    }
    columns = {
        "users": _text_column(block.users),
        "user": block.user,
        "ids": block.ids,
        "types": block.types,
        "times": block.micros - delta.micros,
        "amounts": block.amounts.T,
    }
    return pack(header, columns)


def delta_of(data: bytes, book: RuleBook) -> Delta:
    """The step from its bytes; `book` is of the version it was made with.

    Raises StorageUnavailableError for a step of another `EVALUATION`.
    """
    header, columns = unpack(data)
    if header["evaluation"] != EVALUATION:
        raise StorageUnavailableError(
            "A step was taken by another release.", reason=OTHER_EVALUATION
        )
    block = EventBlock(
        book.fields,
        _texts(columns["users"]),
        columns["user"],
        columns["ids"],
        columns["types"],
        columns["times"] + header["micros"],
        np.ascontiguousarray(columns["amounts"].T),
    )
    return Delta(header["number"], header["micros"], header["sweep"], block)


def told_by(transitions: Transitions, names: Any, segment_ids: Any, seq: int, micros: int) -> Told:
    """Transitions with the users and segments that are in them, and no others."""
    rows, row_at = np.unique(transitions.rows, return_inverse=True)
    segments, segment_at = np.unique(transitions.segments, return_inverse=True)
    own = Transitions(row_at, segment_at, transitions.entered, transitions.happened)
    users = tuple(names[row] for row in rows.tolist())
    return Told(seq, micros, users, tuple(segment_ids[n] for n in segments.tolist()), own)


def told_bytes(told: Told) -> bytes:
    """Transitions as bytes."""
    columns = {
        "users": _text_column(told.users),
        "segments": _text_column(told.segment_ids),
        "rows": told.transitions.rows.astype(np.int32),
        "at": told.transitions.segments.astype(np.int32),
        "entered": np.packbits(told.transitions.entered),
        "happened": told.transitions.happened - told.micros,
    }
    return pack({"seq": told.seq, "micros": told.micros}, columns)


def told_of(data: bytes) -> Told:
    """Transitions from their bytes."""
    header, columns = unpack(data)
    rows = columns["rows"].astype(np.int64)
    transitions = Transitions(
        rows,
        columns["at"].astype(np.int64),
        np.unpackbits(columns["entered"], count=len(rows)).astype(np.bool_),
        columns["happened"] + header["micros"],
    )
    users, segments = _texts(columns["users"]), _texts(columns["segments"])
    return Told(header["seq"], header["micros"], tuple(users), tuple(segments), transitions)


def _text_column(texts: Any) -> Column:
    """Texts without line breaks, each on its line."""
    return np.frombuffer("\n".join([*texts, ""]).encode(), np.uint8)


def _texts(column: Column) -> list[str]:
    return column.tobytes().decode().split("\n")[:-1]
