"""Files that cannot be imports are refused by a stable reason, quickly and in little memory."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zlib
from collections import deque
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from activation.domain.member_import import ImportOptions
from activation.errors import PayloadTooLargeError, UploadRefusedError
from activation.members.formats import open_file, preflight
from activation.members.limits import MIB, ReadLimits
from tests.members.support import Workbench, csv_file

GOOD = b"email\nann@example.com\n" + b"bob@example.com\n" * 100
HEX = "ab" * 32


def parquet_bytes(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


REFUSED = {
    "empty": (b"", "empty_file"),
    "blank": (b"\n \n", "empty_file"),
    "header only": (b"email,city\n", "no_rows"),
    "header without newline": (b"email,city", "no_rows"),
    "header and blank lines": (b"email,city\n\n\n", "no_rows"),
    "no header": (b"ann@example.com\nbob@example.com\n", "header_required"),
    "utf-16": (GOOD.decode().encode("utf-16"), "unsupported_encoding"),
    "utf-16 without mark": (GOOD.decode().encode("utf-16-le"), "unsupported_format"),
    "zip": (b"PK\x03\x04" + bytes(60), "unsupported_format"),
    "duplicate header": (b"email,email\na@b.de,c@d.ef\n", "duplicate_header"),
    "too many columns": (csv_file([[f"c{i}" for i in range(51)], ["x"] * 51]), "too_many_columns"),
    "a billion columns": (b"," * 2 * MIB, "line_too_long"),
    "no identifiers": (b"city,tier\nBerlin,gold\n", "no_identifier_column"),
    "undeclared hashes": (f"email\n{HEX}\n".encode(), "hash_rule_required"),
    "undeclared hashes elsewhere": (f"email,h\na@b.de,{HEX}\n".encode(), "hash_rule_required"),
    "value without type": (b"identifier_value\na@b.de\n", "column_missing"),
    "long line": (b"email\n" + b"x" * 200_000 + b"\n", "line_too_long"),
    "open quote": (b'email,city\na@b.de,"' + b"x\n" * 100_000, "line_too_long"),
    "json array": (b'[{"email": "a@b.de"}]', "malformed_json"),
    "not json": (b"{email: a@b.de}\n", "malformed_json"),
    "deep json": (b'{"a":' * 200_000, "line_too_long"),
    "truncated gzip": (gzip.compress(GOOD)[:-4], "truncated"),
    "gzip with junk": (gzip.compress(GOOD) + b"junk", "damaged"),
    "gzip with bad checksum": (gzip.compress(GOOD)[:-8] + bytes(8), "damaged"),
    "truncated zstd": (pa.compress(GOOD, "zstd", asbytes=True)[:-3], "truncated"),
    "zstd with junk": (pa.compress(GOOD, "zstd", asbytes=True) + b"junk", "damaged"),
    "gzip in name only": (b"\x1f\x8b" + bytes(50), "damaged"),
    "parquet without footer": (b"PAR1" + bytes(50), "damaged"),
    "parquet without rows": (parquet_bytes({"email": pa.array([], pa.string())}), "no_rows"),
    "wide parquet": (parquet_bytes({f"c{i}": ["x"] for i in range(51)}), "too_many_columns"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_is_no_import_is_refused(bench: Workbench, content: bytes, reason: str) -> None:
    with pytest.raises(UploadRefusedError) as refused:
        bench.read(content)
    assert refused.value.reason == reason
    assert "@" not in refused.value.message


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"format": "ndjson"}, "wrong_format"),
        ({"delimiter": '"'}, "invalid_delimiter"),
        ({"columns": [{"column": "mail", "identifier_type": "email"}]}, "column_missing"),
        ({"columns": [{"column": "email", "role": "boss"}]}, "unknown_role"),
        ({"columns": [{"column": "email"}]}, "invalid_mapping"),
        (
            {"columns": [{"column": "email", "identifier_type": "email", "hash_rule": "e164"}]},
            "hash_rule_mismatch",
        ),
    ],
)
def test_declarations_must_fit_the_file(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UploadRefusedError) as refused:
        preflight(io.BytesIO(GOOD), ImportOptions.model_validate(options))
    assert refused.value.reason == reason


class Zeros(io.RawIOBase):
    """A gzip bomb or an endless line, made while it is read: `size` bytes without a newline."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (self._size if whence == 2 else 0)
        return self._at

    def read(self, size: int = -1) -> bytes:
        count = max(0, min(size, self._size - self._at))
        self._at += count
        return b"x" * count

    def readable(self) -> bool:
        return True


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def read_through(source: IO[bytes], limits: ReadLimits) -> None:
    """Read all blocks of a file and keep none."""
    opened = open_file(source, ImportOptions(), limits)
    deque(opened.reader.blocks(opened.position, opened.row), maxlen=0)


def peak_of(source: IO[bytes], limits: ReadLimits) -> int:
    """Bytes that Python held at most until `source` is refused; what is read passes there."""
    tracemalloc.reset_peak()
    with pytest.raises((UploadRefusedError, PayloadTooLargeError)):
        read_through(source, limits)
    return tracemalloc.get_traced_memory()[1]


def bomb(header: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    packed = packer.compress(header)
    packed += b"".join(packer.compress(b"a@b.de\n" * 150_000) for _ in range(250))
    return packed + packer.flush()


def test_a_bomb_is_refused_before_it_unpacks(traced: None) -> None:
    packed = bomb(b"email\n")
    assert len(packed) < MIB
    assert peak_of(io.BytesIO(packed), ReadLimits()) < 64 * MIB


def test_a_two_gigabyte_line_is_refused_after_its_beginning(traced: None) -> None:
    source: Any = Zeros(2 * 1024 * MIB)
    assert peak_of(source, ReadLimits()) < 16 * MIB


def test_unpacked_bytes_are_limited(traced: None) -> None:
    content = b"email\n" + b"".join(b"p%d@example.com\n" % i for i in range(40_000))
    limits = ReadLimits(max_unpacked_bytes=200_000, block_bytes=50_000)
    assert peak_of(io.BytesIO(gzip.compress(content)), limits) < 16 * MIB


def test_a_repeated_long_text_in_parquet_is_refused(bench: Workbench) -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 60_000), pa.array(["x" * 60_000]))
    content = parquet_bytes({"email": ["a@b.de"] * 60_000, "note": long})
    assert len(content) < MIB
    with pytest.raises(UploadRefusedError) as refused:
        bench.read(content)
    assert refused.value.reason == "line_too_long"
