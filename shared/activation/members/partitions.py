"""The Parquet form of stored parts: sorted members or changes, readable by other tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from activation.domain.manifest import PartitionObject, StoredPart
from activation.errors import StorageUnavailableError
from activation.members.layout import CODED, fields_of, stored_schema

ROW_GROUP = 8_192
"""A lookup reads one group: half the time of groups of 16,384, for 0.2 bytes a member."""
CONTENT_TYPE = "application/vnd.apache.parquet"
USUAL_LEVEL = 2

_INCOMPRESSIBLE = ("digest", "alternate", "person")
_REPETITIVE = (
    *("identifier_type", "hash_rule", "consent", "added_at", "expires_at"),
    *("segments.list.element", "change"),
)


def parquet_options(names: Sequence[str], level: int = USUAL_LEVEL) -> dict[str, Any]:
    """How parts of these columns are written."""
    leaves = ["segments.list.element" if name == "segments" else name for name in names]
    packed = [name for name in leaves if name not in _INCOMPRESSIBLE]
    return {
        "compression": {n: "ZSTD" if n in packed else "NONE" for n in leaves},
        "compression_level": dict.fromkeys(packed, level),
        "use_dictionary": [name for name in leaves if name in _REPETITIVE],
        "write_statistics": ["digest"],
        "write_page_index": True,
        "write_page_checksum": True,
        "data_page_size": 128 * 1024,
    }


def encoded(rows: Any, level: int = USUAL_LEVEL, row_group: int = ROW_GROUP) -> Any:
    """Sorted members or changes as a buffer of Parquet; small row groups are for lookups."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    options = parquet_options(rows.schema.names, level)
    parquet.write_table(spelled(rows), sink, row_group_size=row_group, **options)
    return sink.getvalue()


def decoded(content: Any, names: Sequence[str] = ()) -> Any:
    """The inverse of `encoded`; `names`: only these columns."""
    import pyarrow as pa
    from pyarrow import parquet

    file = parquet.ParquetFile(pa.BufferReader(content))
    table = file.read(list(names) or None, use_threads=False)
    return coded(table).combine_chunks()


def decoded_pages(content: Any, part: StoredPart, names: Sequence[str]) -> Any:
    """Some columns of a part of which only the pages read are verified, by their checksums."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        table = file.read(list(names), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise damaged(part) from error
    if table.num_rows != part.rows:
        raise damaged(part)
    return coded(table).combine_chunks()


def damaged(part: StoredPart) -> StorageUnavailableError:
    """The error for an object that is not what its manifest says."""
    name = f"Partition {part.number}" if isinstance(part, PartitionObject) else "A delta"
    return StorageUnavailableError(f"{name} does not hold what was written.", reason="checksum")


def spelled(rows: Any) -> Any:
    """Codes as dictionary-encoded words, for storage."""
    import pyarrow as pa

    stored = stored_schema(fields_of(rows.schema.names))
    columns = []
    for field in stored:
        column = rows.column(field.name)
        if field.name in CODED:
            column = _words(field, column)
        columns.append(column)
    return pa.table(columns, schema=stored)


def _words(field: Any, column: Any) -> Any:
    """A column of codes as words; the dictionary holds those that occur, as there are hundreds."""
    import numpy as np
    import pyarrow as pa

    used = np.flatnonzero(np.bincount(column.drop_null().to_numpy(), minlength=256))
    words = pa.array([CODED[field.name][code].value for code in used.tolist()], pa.string())
    places = np.zeros(256, np.int16)
    places[used] = np.arange(len(used))
    chunks = []
    for codes in column.chunks:
        indices = places[codes.fill_null(0).to_numpy()]
        index = pa.array(indices, mask=codes.is_null().to_numpy(zero_copy_only=False))
        chunks.append(pa.DictionaryArray.from_arrays(index, words))
    return pa.chunked_array(chunks, field.type)


def coded(stored: Any) -> Any:
    """The inverse of `spelled`, for the columns there are."""
    import pyarrow as pa

    kept = fields_of(stored.schema.names)
    columns = [
        _codes(field.name, column) if field.name in CODED else column
        for field, column in zip(kept, stored.columns, strict=True)
    ]
    return pa.table(columns, schema=kept)


def _codes(name: str, column: Any) -> Any:
    import pyarrow as pa

    codes = {word.value: code for code, word in enumerate(CODED[name])}
    chunks = []
    for chunk in column.chunks:
        words = chunk.dictionary.to_pylist()
        if not codes.keys() >= set(words):  # read as null, a no would become an unknown
            raise StorageUnavailableError(f"A part has an unknown {name}.", reason="unknown_word")
        spoken = [codes[word] for word in words]
        chunks.append(pa.array(spoken, pa.uint8()).take(chunk.indices))
    return pa.chunked_array(chunks, pa.uint8())
