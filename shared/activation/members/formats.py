"""Finding out what a file is: format, delimiter, header, and a sample of its cells."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from activation.domain.member_import import FileFormat, ImportOptions
from activation.members.block import Reader
from activation.members.csv_text import CsvReader, blank_records, parsed, valid_utf8
from activation.members.headers import Role
from activation.members.late_keys import LateKeys
from activation.members.limits import MIB, ReadLimits
from activation.members.lines import csv_ends, line_ends
from activation.members.mapping import Columns, check_names, decided
from activation.members.ndjson import NdjsonReader, as_text, decoded
from activation.members.source import Source, refused

__all__ = ["Opened", "ReadLimits", "open_file", "preflight"]

DELIMITERS = (",", ";", "\t", "|")
SAMPLE_ROWS = 1000
PREFLIGHT_BYTES = 16 * MIB
"""How much of a packed file is unpacked before its import is accepted."""
_QUOTED = re.compile(rb'"[^"]*"')
_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Opened:
    """A file ready to be read: its columns, and a reader with the place where rows begin."""

    columns: Columns
    reader: Reader
    position: int
    row: int
    detected: dict[str, Any]


def preflight(raw: IO[bytes], options: ImportOptions) -> None:
    """Raise UploadRefusedError or PayloadTooLargeError when `raw` cannot be an import.

    Looks at the beginning of the file only; reading on may still find it damaged.
    """
    limits = ReadLimits()
    open_file(raw, options, limits)
    source = Source(raw, limits)
    if source.compression is not None:
        while source.position < PREFLIGHT_BYTES and source.read(MIB):
            pass  # bombs and broken archives show themselves while they unpack


def open_file(raw: IO[bytes], options: ImportOptions, limits: ReadLimits) -> Opened:
    """Find out what `raw` is; UploadRefusedError when it cannot be an import."""
    source = Source(raw, limits)
    if source.size == 0:
        raise refused("The file is empty.", "empty_file")
    if source.is_parquet:
        _check_format(options, FileFormat.PARQUET)
        return _parquet(raw, options, limits)
    head = source.read(MIB)
    _check_text(head)
    body = len(_BOM) if head.startswith(_BOM) else 0
    fresh = Source(raw, limits)
    if head[body:].lstrip()[:1] in (b"{", b"["):
        _check_format(options, FileFormat.NDJSON)
        return _ndjson(fresh, head, body, options, limits)
    _check_format(options, FileFormat.CSV)
    return _csv(fresh, head, body, options, limits)


def _check_format(options: ImportOptions, found: FileFormat) -> None:
    if options.format not in (None, found):
        raise refused(f"The file is not {options.format} but looks like {found}.", "wrong_format")


def _check_text(head: bytes) -> None:
    if head.startswith(_WIDE_BOMS):
        raise refused("Text must be UTF-8; this is UTF-16.", "unsupported_encoding")
    if b"\0" in head[:1024]:
        raise refused("The file is not CSV, NDJSON or Parquet.", "unsupported_format")
    if not head.strip():
        raise refused("The file is empty.", "empty_file")


def _parquet(raw: IO[bytes], options: ImportOptions, limits: ReadLimits) -> Opened:
    from activation.members.parquet_file import ParquetReader

    first = next(ParquetReader(raw, limits).blocks(0, 0), None)
    if first is None:
        raise refused("The file has no rows.", "no_rows")
    sample = {n: _texts(c[:SAMPLE_ROWS].to_pylist()) for n, c in first.columns.items()}
    columns = decided(sample, options.columns)
    detected = {"format": FileFormat.PARQUET.value, "compression": None, **columns.described()}
    return Opened(columns, ParquetReader(raw, limits), 0, 0, detected)


def _ndjson(
    source: Source, head: bytes, body: int, options: ImportOptions, limits: ReadLimits
) -> Opened:
    text = head[body : _whole(head, line_ends(head), limits)]
    objects = decoded(text if text.endswith(b"\n") else text + b"\n", 0)[0][:SAMPLE_ROWS]
    if not objects:
        raise refused("The file holds no JSON objects, one per line.", "malformed_json")
    names = list(dict.fromkeys(name for o in objects for name in o))
    _check_count(names, limits)
    sample = {n: _texts([_sampled(o.get(n)) for o in objects]) for n in names}
    columns = decided(sample, options.columns)
    detected = {
        "format": FileFormat.NDJSON.value,
        "compression": source.compression,
        **columns.described(),
    }
    return Opened(columns, _ndjson_reader(source, columns, limits), body, 0, detected)


def _ndjson_reader(source: Source, columns: Columns, limits: ReadLimits) -> NdjsonReader:
    holder = columns.named(Role.ATTRIBUTES)
    ignored = frozenset(m.column for m in columns.mappings if m.role == Role.IGNORE)
    kept = (Role.ATTRIBUTE, Role.ATTRIBUTES, Role.IGNORE)
    names = frozenset(m.column for m in columns.mappings if m.role not in kept)
    nested = holder.column if holder else None
    return NdjsonReader(source, names, nested, ignored, LateKeys(columns, limits), limits)


def _sampled(value: Any) -> str | None:
    return None if isinstance(value, dict | list) else as_text(value)


def _csv(
    source: Source, head: bytes, body: int, options: ImportOptions, limits: ReadLimits
) -> Opened:
    delimiter = options.delimiter or _delimiter(head[body:])
    if len(delimiter.encode()) != 1 or delimiter in '"\r\n':
        raise refused("The delimiter must be one ASCII character.", "invalid_delimiter")
    text = head[body:]
    ends = csv_ends(text, delimiter)
    _whole(text, ends, limits)
    if not len(ends) or ends[-1] != len(text):
        text, ends = _closed(text, ends, len(head) < MIB)
    blanks = blank_records(text, ends)
    first = int(blanks.argmin())  # the header is the first record that is not an empty line
    start = int(ends[first - 1]) if first else 0
    names = _header(text[start : ends[first]], delimiter, limits)
    check_names(names)
    rest = text[ends[first] : ends[-1]]
    sample = _csv_sample(rest, ends[first + 1 :] - ends[first], names, delimiter)
    columns = decided(sample, options.columns)
    detected = {
        "format": FileFormat.CSV.value,
        "compression": source.compression,
        "delimiter": delimiter,
        **columns.described(),
    }
    reader = CsvReader(source, names, delimiter, limits)
    return Opened(columns, reader, body + int(ends[first]), first + 1, detected)


def _closed(text: bytes, ends: Any, complete: bool) -> tuple[bytes, Any]:
    """The whole records of a head; of a complete file the last one may lack its newline."""
    import numpy as np

    if complete:
        return text + b"\n", np.append(ends, len(text) + 1)
    return text[: ends[-1]], ends


def _whole(text: bytes, ends: Any, limits: ReadLimits) -> int:
    cut = int(ends[-1]) if len(ends) else 0
    if len(text) - cut > limits.max_line_bytes:
        raise refused(f"A row is longer than {limits.max_line_bytes} bytes.", "line_too_long")
    return cut or len(text)


def _csv_sample(
    text: bytes, ends: Any, names: Sequence[str], delimiter: str
) -> dict[str, list[str]]:
    if not text.strip():
        raise refused("The file has a header and no rows.", "no_rows")
    block = parsed(text, ends, names, delimiter, 0, 0)
    return {n: _texts(c[:SAMPLE_ROWS].to_pylist()) for n, c in block.columns.items()}


def _texts(cells: Sequence[str | None]) -> list[str]:
    return [cell for cell in cells if cell]


def _delimiter(text: bytes) -> str:
    """The candidate that occurs most often in the first line, outside quotes; a comma when none
    does."""
    first = _QUOTED.sub(b"", text.lstrip().partition(b"\n")[0])
    return max(DELIMITERS, key=lambda mark: first.count(mark.encode()))


def _header(record: bytes, delimiter: str, limits: ReadLimits) -> list[str]:
    text = valid_utf8(record).decode()
    try:
        cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise refused("The header cannot be read.", "invalid_header") from error
    names = [cell.strip() or f"column_{i}" for i, cell in enumerate(cells, 1)]
    _check_count(names, limits)
    return names


def _check_count(names: Sequence[str], limits: ReadLimits) -> None:
    if len(names) > limits.max_columns:
        raise refused(f"The file has more than {limits.max_columns} columns.", "too_many_columns")
