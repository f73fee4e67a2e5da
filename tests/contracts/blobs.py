"""The contract of the port BlobStore; each back-end's test file runs it unchanged."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import IO, cast

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from activation.adapters.clock import MovableClock
from activation.errors import ConflictError, NotFoundError, PayloadTooLargeError, ValidationError
from activation.ports import BlobInfo, BlobKey, BlobStore, UploadTarget

ORG, OTHER = "org-a", "org-b"
KEY = BlobKey(ORG, "manifests/m-1/part-0.parquet")
MINUTE = timedelta(minutes=1)


class BrokenError(Exception):
    """What a source says when it breaks."""


class Trickle(io.RawIOBase):
    """A source that gives less than it is asked for, as a socket does, and may break."""

    def __init__(self, data: bytes, breaks_after: int | None = None) -> None:
        self.source = io.BytesIO(data)
        self.breaks_after = breaks_after
        self.largest = 0

    def read(self, size: int = -1) -> bytes:
        self.largest = max(self.largest, size if size >= 0 else 1 << 62)
        if self.breaks_after is not None and self.source.tell() >= self.breaks_after:
            raise BrokenError
        return self.source.read(min(size, 100_003))

    def stream(self) -> IO[bytes]:
        return cast("IO[bytes]", self)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def names(blobs: BlobStore, organization_id: str = ORG, prefix: str = "") -> list[str]:
    return [info.key.path for info in blobs.list(organization_id, prefix)]


def nothing_is_stored(blobs: BlobStore, key: BlobKey = KEY) -> bool:
    return blobs.stat(key) is None and names(blobs) == []


def at_once(count: int, act: Callable[[int], bool]) -> list[bool]:
    """What `act` returns for 0 to count - 1, all begun at the same moment."""
    start = threading.Barrier(count)

    def run(number: int) -> bool:
        start.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def send(target: UploadTarget, content: bytes, **headers: str) -> int:
    """PUT as a client would who knows nothing but the target; returns the status."""
    answer = httpx.request(
        target.method, target.url, content=content, headers={**target.headers, **headers}
    )
    return answer.status_code


class BlobStoreContract:
    """Subclasses give `blobs`, an empty store whose `stream_bytes` is the piece it reads, and
    `clock`, which tells the store and its upload addresses the time."""

    stream_bytes = 1024 * 1024

    @pytest.fixture
    def clock(self) -> MovableClock:
        raise NotImplementedError

    @pytest.fixture
    def blobs(self, clock: MovableClock) -> BlobStore:
        raise NotImplementedError

    def test_what_was_put_comes_back(self, blobs: BlobStore) -> None:
        blobs.put(KEY, b"content")
        assert blobs.get(KEY) == b"content"

    def test_an_empty_object_is_an_object(self, blobs: BlobStore) -> None:
        blobs.put(KEY, b"")
        with blobs.open(KEY) as file:
            assert (blobs.get(KEY), blobs.get(KEY, 0, 5), file.read()) == (b"", b"", b"")
        assert [info.size_bytes for info in blobs.list(ORG)] == [0]

    def test_put_stat_and_list_tell_the_same(self, blobs: BlobStore, clock: MovableClock) -> None:
        told = blobs.put(
            KEY,
            b"12345",
            content_type="text/csv; charset=utf-8",
            metadata={"sha256": "ab", "note": "größer = schöner"},
            storage_class="NEARLINE",
        )
        assert told == blobs.stat(KEY) == next(blobs.list(ORG))
        assert abs(told.created_at - clock.now()) < timedelta(milliseconds=1)
        assert replace(told, created_at=clock.now()) == BlobInfo(
            key=KEY,
            size_bytes=5,
            created_at=clock.now(),
            storage_class="NEARLINE",
            metadata={"sha256": "ab", "note": "größer = schöner"},
            content_type="text/csv; charset=utf-8",
        )

    def test_what_is_not_said_has_defaults(self, blobs: BlobStore) -> None:
        told = blobs.put(KEY, b"")
        assert told == blobs.stat(KEY)
        assert told.content_type == "application/octet-stream"
        assert (told.storage_class, told.metadata) == ("STANDARD", {})

    @pytest.mark.parametrize(
        ("start", "end"), [(0, None), (0, 4), (3, 7), (9, 10), (4, None), (8, 99), (10, 12), (5, 5)]
    )
    def test_a_range_is_half_open(self, blobs: BlobStore, start: int, end: int | None) -> None:
        blobs.put(KEY, b"0123456789")
        assert blobs.get(KEY, start, end) == b"0123456789"[start:end]

    def test_a_missing_object_is_not_found(self, blobs: BlobStore) -> None:
        for read in (blobs.get, blobs.open):
            with pytest.raises(NotFoundError):
                read(KEY)
        with pytest.raises(NotFoundError):
            blobs.get(KEY, 4, 4)
        with pytest.raises(NotFoundError):
            blobs.set_class(KEY, "ARCHIVE")
        assert blobs.stat(KEY) is None
        assert blobs.delete(KEY) is False

    def test_a_folder_is_not_an_object(self, blobs: BlobStore) -> None:
        blobs.put(BlobKey(ORG, "folder/object"), b"")
        folder = BlobKey(ORG, "folder")
        assert blobs.stat(folder) is None
        with pytest.raises(NotFoundError):
            blobs.get(folder)
        with pytest.raises(NotFoundError):
            blobs.get(BlobKey(ORG, "folder/object/below"))
        assert blobs.delete(folder) is False

    def test_a_taken_name_is_refused_and_its_object_stays(self, blobs: BlobStore) -> None:
        first = blobs.put(KEY, b"first", metadata={"from": "first"})
        with pytest.raises(ConflictError):
            blobs.put(KEY, b"second", metadata={"from": "second"}, content_type="text/plain")
        with pytest.raises(ConflictError):
            blobs.put(KEY, Trickle(noise(self.stream_bytes * 2)).stream())
        assert (blobs.get(KEY), blobs.stat(KEY)) == (b"first", first)

    def test_of_eight_writers_one_wins(self, blobs: BlobStore) -> None:
        def write(number: int) -> bool:
            try:
                blobs.put(KEY, b"%d" % number * 1000, metadata={"writer": str(number)})
            except ConflictError:
                return False
            return True

        won = at_once(8, write)
        assert won.count(True) == 1
        winner = won.index(True)
        stored = blobs.stat(KEY)
        assert stored is not None
        assert stored.metadata == {"writer": str(winner)}
        assert blobs.get(KEY) == b"%d" % winner * 1000

    def test_a_stream_is_read_in_bounded_pieces(self, blobs: BlobStore) -> None:
        data = noise(self.stream_bytes * 3 + 17)
        source = Trickle(data)
        assert blobs.put(KEY, source.stream()).size_bytes == len(data)
        assert blobs.get(KEY) == data
        assert 0 < source.largest <= self.stream_bytes

    @pytest.mark.parametrize("pieces", [1, 2])
    def test_a_stream_of_whole_pieces_is_stored_whole(self, blobs: BlobStore, pieces: int) -> None:
        data = noise(self.stream_bytes * pieces)
        blobs.put(KEY, Trickle(data).stream(), max_bytes=len(data), metadata={"a": "b"})
        assert blobs.get(KEY) == data
        assert next(blobs.list(ORG)).metadata == {"a": "b"}

    @pytest.mark.parametrize("pieces", [0, 2])
    def test_too_long_a_stream_leaves_nothing(self, blobs: BlobStore, pieces: int) -> None:
        data = noise(self.stream_bytes * pieces + 11)
        source = Trickle(data + noise(self.stream_bytes * 4))
        with pytest.raises(PayloadTooLargeError):
            blobs.put(KEY, source.stream(), max_bytes=len(data))
        assert source.source.tell() <= len(data) + self.stream_bytes
        assert nothing_is_stored(blobs)
        with pytest.raises(PayloadTooLargeError):
            blobs.put(KEY, data, max_bytes=len(data) - 1)
        assert nothing_is_stored(blobs)

    @pytest.mark.parametrize("pieces", [0, 2])
    def test_a_broken_stream_leaves_nothing(self, blobs: BlobStore, pieces: int) -> None:
        data = noise(self.stream_bytes * 3)
        with pytest.raises(BrokenError):
            blobs.put(KEY, Trickle(data, breaks_after=self.stream_bytes * pieces).stream())
        assert nothing_is_stored(blobs)
        blobs.put(KEY, b"the name is still free")

    def test_a_list_is_in_the_order_of_whole_names(self, blobs: BlobStore) -> None:
        paths = ["a/b", "a-b", "a.b/c", "a=1/x.parquet", "a=1.z", "ab", "a/b.c", "A", "a/b-/c"]
        paths += [f"many/{number}" for number in range(25)]
        for path in random.Random(7).sample(paths, len(paths)):
            blobs.put(BlobKey(ORG, path), path.encode())
        listed = list(blobs.list(ORG))
        assert [info.key.path for info in listed] == sorted(paths)
        assert [info.size_bytes for info in listed] == [len(path) for path in sorted(paths)]

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            ("im", ["imports/1/a", "imports/1/b", "imports/12/a"]),
            ("imports/1", ["imports/1/a", "imports/1/b", "imports/12/a"]),
            ("imports/1/", ["imports/1/a", "imports/1/b"]),
            ("imports/1/b", ["imports/1/b"]),
            ("imports/1/b/", []),
            ("../" + OTHER, []),
            ("x", []),
        ],
    )
    def test_a_prefix_is_compared_as_text(
        self, blobs: BlobStore, prefix: str, expected: list[str]
    ) -> None:
        for path in ("imports/1/a", "imports/1/b", "imports/12/a", "members/1"):
            blobs.put(BlobKey(ORG, path), b"")
        assert names(blobs, prefix=prefix) == expected

    def test_an_organization_sees_its_own_objects_only(self, blobs: BlobStore) -> None:
        longer = ORG + "2"
        for organization_id in (ORG, OTHER, longer):
            blobs.put(BlobKey(organization_id, "same"), organization_id.encode())
        assert [info.key for info in blobs.list(ORG)] == [BlobKey(ORG, "same")]
        assert blobs.get(BlobKey(OTHER, "same")) == OTHER.encode()
        assert blobs.delete(BlobKey(OTHER, "same"))
        assert blobs.get(BlobKey(ORG, "same")) == ORG.encode()
        assert names(blobs, "org-unknown") == []

    @pytest.mark.parametrize("organization_id", ["", "..", ".about", "a/b", "org*"])
    def test_an_organization_that_is_none_cannot_be_listed(
        self, blobs: BlobStore, organization_id: str
    ) -> None:
        with pytest.raises(ValidationError):
            list(blobs.list(organization_id))

    def test_composed_objects_are_joined_in_order(self, blobs: BlobStore) -> None:
        parts = [BlobKey(ORG, f"chunks/{number}") for number in range(32)]
        for number, part in enumerate(parts):
            blobs.put(part, b"%02d," % number, content_type="text/csv")
        target = BlobKey(ORG, "joined")
        told = blobs.compose(parts[::-1], target)
        assert told == blobs.stat(target)
        assert (told.size_bytes, told.content_type, told.metadata) == (96, "text/csv", {})
        assert blobs.get(target) == b"".join(b"%02d," % n for n in reversed(range(32)))
        assert blobs.get(parts[3]) == b"03,"

    def test_compose_refuses_what_it_cannot_join(self, blobs: BlobStore) -> None:
        blobs.put(KEY, b"there")
        absent, target = BlobKey(ORG, "absent"), BlobKey(ORG, "target")
        for sources in ([absent], [KEY, absent]):
            with pytest.raises(NotFoundError):
                blobs.compose(sources, target)
        for count in (0, 33):
            with pytest.raises(ValueError, match="composed"):
                blobs.compose([KEY] * count, target)
        assert blobs.stat(target) is None
        with pytest.raises(ConflictError):
            blobs.compose([KEY], KEY)

    def test_another_class_leaves_the_object_as_it_is(self, blobs: BlobStore) -> None:
        before = blobs.put(KEY, b"cold", content_type="text/plain", metadata={"a": "b"})
        for storage_class in ("ARCHIVE", "ARCHIVE", "STANDARD", "COLDLINE"):
            blobs.set_class(KEY, storage_class)
            after = blobs.stat(KEY)
            assert after is not None
            assert replace(after, created_at=before.created_at) == replace(
                before, storage_class=storage_class
            )
        assert blobs.get(KEY) == b"cold"

    def test_an_unknown_class_is_our_mistake(self, blobs: BlobStore) -> None:
        with pytest.raises(ValueError, match="FROZEN"):
            blobs.put(KEY, b"", storage_class="FROZEN")
        blobs.put(KEY, b"")
        with pytest.raises(ValueError, match="FROZEN"):
            blobs.set_class(KEY, "FROZEN")

    def test_what_is_deleted_is_gone(self, blobs: BlobStore) -> None:
        blobs.put(KEY, b"", metadata={"a": "b"})
        assert blobs.delete(KEY) is True
        assert nothing_is_stored(blobs)
        assert blobs.delete(KEY) is False

    def test_a_reader_gives_any_part(self, blobs: BlobStore) -> None:
        data, chance = noise(1_500_000), random.Random(3)
        blobs.put(KEY, data)
        with blobs.open(KEY) as file:
            for _ in range(60):
                start, size = chance.randrange(1_600_000), chance.choice((0, 1, 700, 90_000))
                assert file.seek(start) == start
                assert file.read(size) == data[start : start + size]
                assert file.tell() == start + len(data[start : start + size])
            file.seek(-10, io.SEEK_END)
            assert file.read() == data[-10:]
            file.seek(0)
            assert file.read() == data

    def test_a_reader_gives_lines(self, blobs: BlobStore) -> None:
        lines = [b"%d,%s\n" % (number, b"x" * (number % 97)) for number in range(9000)]
        blobs.put(KEY, b"".join(lines))
        with blobs.open(KEY) as file:
            assert list(file) == lines

    def test_parquet_columns_are_read_in_place(self, blobs: BlobStore) -> None:
        table = pa.table({"id": pa.array(range(5000)), "text": [noise(40).hex()] * 5000})
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=1000)
        blobs.put(KEY, sink.getvalue())
        with blobs.open(KEY) as file:
            assert pq.read_table(file, columns=["id"]) == table.select(["id"])

    def test_a_client_puts_an_object_by_itself(self, blobs: BlobStore) -> None:
        target = self.target(blobs)
        assert 200 <= send(target, b"a,b\n1,2\n") < 300
        stored = blobs.stat(KEY)
        assert stored is not None
        assert (stored.size_bytes, stored.content_type) == (8, "text/csv")
        assert blobs.get(KEY) == b"a,b\n1,2\n"

    def test_an_upload_address_serves_once(self, blobs: BlobStore) -> None:
        target = self.target(blobs)
        assert send(target, b"first") < 300
        assert 400 <= send(target, b"second") < 500
        assert blobs.get(KEY) == b"first"

    def test_an_upload_may_not_be_too_large(self, blobs: BlobStore) -> None:
        target = self.target(blobs, max_bytes=100)
        assert 400 <= send(target, b"x" * 101) < 500
        assert nothing_is_stored(blobs)
        assert send(target, b"x" * 100) < 300

    def test_an_upload_may_not_be_late(self, blobs: BlobStore, clock: MovableClock) -> None:
        target = self.target(blobs)
        clock.sleep(120)
        assert 400 <= send(target, b"late") < 500
        assert nothing_is_stored(blobs)

    def test_an_upload_may_not_have_another_type(self, blobs: BlobStore) -> None:
        target = self.target(blobs)
        assert 400 <= send(target, b"", **{"Content-Type": "text/html"}) < 500
        assert nothing_is_stored(blobs)

    def test_an_upload_address_names_one_object(self, blobs: BlobStore) -> None:
        target = self.target(blobs)
        address = len("http://127.0.0.1:12345/")
        for position in random.Random(5).sample(range(address, len(target.url)), 15):
            changed = "B" if target.url[position] in "aA" else "A"
            url = target.url[:position] + changed + target.url[position + 1 :]
            assert 400 <= send(replace(target, url=url), b"") < 500, url
        assert nothing_is_stored(blobs)

    def test_a_store_that_works_answers(self, blobs: BlobStore) -> None:
        blobs.ping()
        blobs.put(KEY, b"")
        blobs.ping()
        assert names(blobs) == [KEY.path]

    def target(self, blobs: BlobStore, max_bytes: int = 1000) -> UploadTarget:
        return blobs.upload_target(
            KEY, content_type="text/csv", max_bytes=max_bytes, lifetime=MINUTE
        )
