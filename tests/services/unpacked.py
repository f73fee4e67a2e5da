"""All that is stored, unpacked, so that a test can look for somebody in it."""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Iterator

import orjson
from pyarrow import parquet

from activation.adapters.embedded.bus import SqliteBus
from activation.app import App
from activation.indexes import INDEXES, SWEPT, UNFILTERED
from activation.ports import Query
from activation.segments.codec import MARK, unpack
from activation.segments.event_file import file_table
from activation.services.dead_events import WORKER
from activation.services.erasure_journal import ERASURES
from activation.services.event_log import LOG
from activation.services.segment_shards import TRANSITIONS
from activation.services.suppression_journal import JOURNAL

PACKED = ("segment_states", "segment_deltas", TRANSITIONS, "segment_rules", LOG, "member_parts")
MANY = 1_000
PARQUET, GZIP = b"PAR1", b"\x1f\x8b"


def everything(app: App, organization_id: str = "acme") -> Iterator[bytes]:
    """All that the stores hold of an organization."""
    yield from documents(app, organization_id)
    for area in (app.member_blobs, app.uploads, app.backup_blobs, app.archive_blobs):
        for info in area.list(organization_id):
            yield plain(area.get(info.key))
    for info in app.event_blobs.list(organization_id):
        yield repr(file_table(app.event_blobs.get(info.key)).to_pylist()).encode()
    yield from messages(app)
    for folder in (ERASURES, JOURNAL):
        for info in app.journal_blobs.list(folder, organization_id):
            yield str(info.key).encode() + app.journal_blobs.get(info.key)


def documents(app: App, organization_id: str) -> Iterator[bytes]:
    """What the document store holds, as it is and unpacked."""
    for name in {*INDEXES, *SWEPT, *UNFILTERED, "audit", "member_parts"}:
        for one in app.documents.query(Query(organization_id, name, limit=MANY)):
            yield repr(one).encode()
            packed = one.data.get("data", one.data.get("content"))
            if isinstance(packed, str) and name in PACKED:
                yield plain(base64.b64decode(packed))


def messages(app: App) -> Iterator[bytes]:
    """What waits on a bus of this machine: in queues, and as dead letters."""
    if not isinstance(app.bus, SqliteBus):
        return
    for letter in app.bus.dead_letters(WORKER, MANY):
        yield repr(letter).encode()


def plain(packed: bytes) -> bytes:
    """Packed bytes as they read."""
    if packed.startswith(MARK):
        header, columns = unpack(packed)
        return orjson.dumps(header) + b"".join(column.tobytes() for column in columns.values())
    if packed.startswith(PARQUET):
        rows = parquet.read_table(io.BytesIO(packed)).to_pylist()
        return b"".join(repr(row).encode() + row["digest"].hex().encode() for row in rows)
    if packed.startswith(GZIP):
        return gzip.decompress(packed)
    return packed


def holds(app: App, *names: str) -> bool:
    """Whether anything that is stored has any of these texts in it."""
    needles = [name.encode() for name in names]
    return any(needle in content for content in everything(app) for needle in needles)
