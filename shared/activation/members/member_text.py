"""Members as NDJSON and back, without losing anything: the text of archives and backups.

One member a line, in the columns of `layout.schema`: bytes are hex, codes are words, instants are
RFC 3339 in UTC, `attributes` is the JSON text as stored; what is null is left out.

Both ways work column by column: a batch costs no Python object per member.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from activation.errors import StorageUnavailableError
from activation.members.layout import CODED, schema
from activation.members.parquet_stream import exact_groups

BATCH_MEMBERS = 10_000
"""Members of one batch of text (A-105, A-125)."""
PIECE_BYTES = 4 * 1024 * 1024

_CONTROL = r"[\x00-\x1f]"
_HEX = b"0123456789abcdef"


def batches_of(tables: Iterator[Any]) -> Iterator[Any]:
    """The members of `tables` in tables of exactly BATCH_MEMBERS, the last one perhaps smaller."""
    return exact_groups(tables, schema(), BATCH_MEMBERS)


def text_of(members: Any) -> bytes:
    """The lines of a table of members."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not members.num_rows:
        return b""
    table = members.combine_chunks()
    pieces = [_entry(field, table.column(field.name).chunk(0)) for field in schema()]
    inner = pc.binary_join_element_wise(*pieces, "")
    lines = pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(inner, 1), "}\n", "")
    joined: bytes = lines.cast(pa.large_string()).buffers()[2].to_pybytes()
    return joined


def table_of(text: bytes) -> Any:
    """The members of some whole lines. Raises StorageUnavailableError for other text."""
    import pyarrow as pa

    if not text:
        return schema().empty_table()
    # What Arrow says of a bad line may quote it: it must not travel with our error.
    with suppress(pa.ArrowException, ValueError):
        return _parsed(text)
    raise StorageUnavailableError(
        "A copy of members does not hold what was written.", reason="checksum"
    )


def _parsed(text: bytes) -> Any:
    import pyarrow as pa
    from pyarrow import json

    how = json.ParseOptions(
        explicit_schema=_text_schema(), unexpected_field_behavior="error", newlines_in_values=False
    )
    whole = json.ReadOptions(use_threads=False, block_size=len(text) + 1)
    read = json.read_json(pa.BufferReader(text), read_options=whole, parse_options=how)
    read = read.combine_chunks()
    columns = [_column(field, read.column(field.name)) for field in schema()]
    table = pa.table(columns, schema=schema())
    table.validate(full=True)
    if any(table.column(f.name).null_count for f in schema() if not f.nullable):
        raise ValueError("incomplete")
    return table


def tables_in(stream: IO[bytes]) -> Iterator[Any]:
    """The members of a text that is read in bounded pieces."""
    rest = b""
    while piece := stream.read(PIECE_BYTES):
        text = rest + piece
        cut = text.rfind(b"\n") + 1
        rest = text[cut:]
        yield table_of(text[:cut])
    if rest:
        yield table_of(rest)


# to text --------------------------------------------------------------------------------------


def _entry(field: Any, column: Any) -> Any:
    """`,"name":value` for each row, nothing where the value is null."""
    import pyarrow.compute as pc

    mark = f',"{field.name}":'
    filled = pc.binary_join_element_wise(mark, _values(field, column), "")
    return pc.coalesce(filled, "")


def _values(field: Any, column: Any) -> Any:
    """The JSON text of each value; null stays null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if field.name in CODED:
        words = pa.array([f'"{word.value}"' for word in CODED[field.name]], pa.string())
        return words.take(column)
    if pa.types.is_fixed_size_binary(field.type):
        return pc.binary_join_element_wise('"', _hex(column), '"', "")
    if pa.types.is_timestamp(field.type):
        return pc.binary_join_element_wise('"', _instants(column), 'Z"', "")
    if pa.types.is_list(field.type):
        return _lists(column)
    if pa.types.is_string(field.type):
        return _quoted(column)
    return column.cast(pa.string())


def _hex(column: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    from activation.members.layout import digests_of

    digits = np.frombuffer(_HEX, np.uint8)
    octets = digests_of(column)
    text = np.empty((len(column), 2 * octets.shape[1]), np.uint8)
    text[:, 0::2], text[:, 1::2] = digits[octets >> 4], digits[octets & 15]
    offsets = np.arange(len(column) + 1, dtype=np.int32) * text.shape[1]
    valid = pa.py_buffer(np.packbits(column.is_valid().to_numpy(False), bitorder="little"))
    return pa.StringArray.from_buffers(
        len(column), pa.py_buffer(offsets), pa.py_buffer(text), valid
    )


def _instants(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = column.cast(pa.timestamp("us")).cast(pa.string())
    return pc.replace_substring(text, " ", "T", max_replacements=1)


def _lists(column: Any) -> Any:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    ends = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    quoted = pa.ListArray.from_arrays(pa.array(ends), _quoted(column.flatten()))
    joined = pc.binary_join(quoted, ",")
    filled = pc.binary_join_element_wise("[", joined, "]", "")
    return pc.if_else(column.is_valid(), filled, None)


def _quoted(texts: Any) -> Any:
    """JSON strings; only those that hold control characters are written one by one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    safe = pc.replace_substring(pc.replace_substring(texts, "\\", "\\\\"), '"', '\\"')
    quoted = pc.binary_join_element_wise('"', safe, '"', "")
    special = pc.fill_null(pc.match_substring_regex(texts, _CONTROL), False)
    if not pc.any(special).as_py():
        return quoted
    import orjson

    written = [orjson.dumps(text).decode() for text in texts.filter(special).to_pylist()]
    return pc.replace_with_mask(quoted, special, pa.array(written, pa.string()))


# from text ------------------------------------------------------------------------------------


@functools.cache
def _text_schema() -> Any:
    import pyarrow as pa

    kept = (pa.bool_(), pa.float64(), pa.list_(pa.string()))
    return pa.schema(
        [pa.field(f.name, f.type if f.type in kept else pa.string()) for f in schema()]
    )


def _column(field: Any, texts: Any) -> Any:
    """The values of a column of `_text_schema`; ValueError where one is none of ours."""
    import pyarrow as pa

    column = texts.chunk(0) if texts.num_chunks else pa.array([], texts.type)
    if field.name in CODED:
        return _codes(field.name, column)
    if pa.types.is_fixed_size_binary(field.type):
        return _bytes(column, field.type.byte_width)
    if pa.types.is_timestamp(field.type):
        return _moments(column)
    return column


def _codes(name: str, words: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pa.array([word.value for word in CODED[name]], pa.string())
    codes = pc.index_in(words, value_set=known)
    if codes.null_count != words.null_count:
        raise ValueError(name)
    return codes.cast(pa.uint8())


def _bytes(texts: Any, width: int) -> Any:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from activation.members.layout import binary_array

    filled = pc.fill_null(texts, "0" * 2 * width)
    if pc.any(pc.not_equal(pc.binary_length(filled), 2 * width)).as_py():
        raise ValueError(width)
    nibbles = np.full(256, 255, np.uint8)
    nibbles[np.frombuffer(_HEX, np.uint8)] = np.arange(16)
    flat = pa.concat_arrays([filled]).buffers()[2]
    digits = nibbles[np.frombuffer(flat, np.uint8)[: len(texts) * 2 * width]]
    if (digits > 15).any():
        raise ValueError(width)
    pairs = digits.reshape(len(texts), 2 * width)
    octets = (pairs[:, 0::2] << 4 | pairs[:, 1::2]).astype(np.uint8)
    present = None if not texts.null_count else texts.is_valid().to_numpy(False)
    return binary_array(octets, present)


def _moments(texts: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.all(pc.fill_null(pc.ends_with(texts, "Z"), True)).as_py():
        raise ValueError("zone")
    naive = pc.binary_replace_slice(texts, -1, 2**31, "").cast(pa.string())
    return naive.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.timestamp("us", tz="UTC"))
