"""Archives and backups as files: batch by batch, never held as a whole, damage found."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from activation.errors import StorageUnavailableError
from activation.members import archive, member_text
from activation.members.layout import binary_array, schema
from activation.ports import BlobKey
from tests.members.support import ORGANIZATION, Workbench

KEY = BlobKey(ORGANIZATION, "audience-1/one/data.tar.gz")
PEOPLE = 25_001


def people(count: int) -> Any:
    """Members with random digests."""
    digests = np.random.default_rng(7).integers(0, 256, (count, 32), dtype=np.uint8)
    at = pa.array(np.full(count, 1_763_715_600_000_000), pa.int64())
    known = {
        "digest": binary_array(digests),
        "identifier_type": pa.array(np.zeros(count, np.uint8)),
        "hash_rule": pa.array(np.ones(count, np.uint8)),
        "added_at": at.cast(pa.timestamp("us", tz="UTC")),
    }
    columns = [known.get(f.name, pa.nulls(count, f.type)) for f in schema()]
    return pa.table(columns, schema=schema())


MEMBERS = people(PEOPLE)


def partitions(size: int = 7_000) -> Iterator[Any]:
    for start in range(0, MEMBERS.num_rows, size):
        yield MEMBERS.slice(start, size)


def never() -> None:
    """The heartbeat of work that nobody watches."""


def described(batches: Any) -> bytes:
    return orjson.dumps({"batches": list(batches)})


def packed(bench: Workbench, key: BlobKey = KEY) -> archive.StoredCopy:
    pieces = archive.archive_pieces(partitions(), described, never)
    how = {"content_type": "application/gzip", "storage_class": "COLDLINE"}
    return archive.store_copy(bench.blobs, key, pieces, archive.ARCHIVE_LEVEL, **how)


def test_an_archive_has_batches_of_ten_thousand(bench: Workbench) -> None:
    copy = packed(bench)
    data = bench.blobs.get(KEY)
    assert len(data) == copy.bytes
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as file:
        texts = {e.name: member.read() for e in file if (member := file.extractfile(e))}
    assert [(name, text.count(b"\n")) for name, text in texts.items()] == [
        ("members/batch-0001.ndjson", 10_000),
        ("members/batch-0002.ndjson", 10_000),
        ("members/batch-0003.ndjson", 5_001),
        ("metadata.json", 0),
    ]
    back = list(archive.archived_members(bench.blobs, KEY, copy.sha256))
    assert pa.concat_tables(back).equals(MEMBERS)
    archive.require_equal(iter(back), partitions(), PEOPLE, never)


def test_a_copy_is_made_while_it_is_read() -> None:
    pulled: list[int] = []

    def tables() -> Iterator[Any]:
        for number in range(100):
            pulled.append(number)
            yield MEMBERS.slice(0, member_text.BATCH_MEMBERS)

    stream = archive._PieceStream(archive._gzipped(archive.backup_pieces(tables(), never), 1))
    assert len(stream.read(10)) == 10
    assert len(pulled) <= archive.PACKERS + 2
    while stream.read(1 << 20):
        pass
    assert len(pulled) == 100


def test_a_backup_is_one_file_of_lines(bench: Workbench) -> None:
    pieces = archive.backup_pieces(partitions(), never)
    how = {"content_type": "application/gzip", "storage_class": "ARCHIVE"}
    copy = archive.store_copy(bench.blobs, KEY, pieces, archive.BACKUP_LEVEL, **how)
    assert gzip.decompress(bench.blobs.get(KEY)).count(b"\n") == PEOPLE
    back = archive.backed_up_members(bench.blobs, KEY, copy.sha256)
    archive.require_equal(back, partitions(), PEOPLE, never)


def test_an_empty_copy_is_a_file_too(bench: Workbench) -> None:
    how = {"content_type": "application/gzip", "storage_class": "ARCHIVE"}
    copy = archive.store_copy(bench.blobs, KEY, [], archive.BACKUP_LEVEL, **how)
    assert list(archive.backed_up_members(bench.blobs, KEY, copy.sha256)) == []


@pytest.mark.parametrize("lost", [0, 9_999, PEOPLE - 1])
def test_a_member_too_few_is_found(lost: int) -> None:
    rest = pa.concat_tables([MEMBERS.slice(0, lost), MEMBERS.slice(lost + 1)])
    for copied, originals in ((rest, MEMBERS), (MEMBERS, rest)):
        with pytest.raises(StorageUnavailableError):
            archive.require_equal(iter([copied]), iter([originals]), PEOPLE, never)


def test_equal_copies_of_too_few_members_are_found() -> None:
    with pytest.raises(StorageUnavailableError):
        archive.require_equal(iter([MEMBERS]), iter([MEMBERS]), PEOPLE + 1, never)


def test_every_altered_byte_is_found(bench: Workbench) -> None:
    copy = packed(bench)
    data = bytearray(bench.blobs.get(KEY))
    draw = np.random.default_rng(3)
    for number, place in enumerate(draw.integers(0, len(data), 8).tolist()):
        altered = bytearray(data)
        altered[place] ^= 1 << (number % 8)
        key = BlobKey(ORGANIZATION, f"altered/{number}")
        bench.blobs.put(key, bytes(altered))
        with pytest.raises(StorageUnavailableError):
            list(archive.archived_members(bench.blobs, key, copy.sha256))
        assert not archive.is_intact(bench.blobs, key, copy.sha256)
    assert archive.is_intact(bench.blobs, KEY, copy.sha256)


def test_runs_of_a_damaged_copy_are_removed(bench: Workbench) -> None:
    packed(bench)
    tables = archive.archived_members(bench.blobs, KEY, "0" * 64)
    with pytest.raises(StorageUnavailableError):
        archive.write_runs(bench.blobs, ORGANIZATION, "audience-1", tables, never)
    assert [info.key for info in bench.blobs.list(ORGANIZATION)] == [KEY]
