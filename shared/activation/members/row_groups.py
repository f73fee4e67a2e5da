"""A stored part opened by range: row groups found by digest, every page checked."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from activation.domain.manifest import StoredPart
from activation.members.deltas import between
from activation.members.layout import KEY_COLUMNS
from activation.members.partitions import coded, damaged
from activation.members.parts import PartStore

FOOTER_SPREAD = 12
"""So many times as large as in the file is a footer in memory (measured: 10 to 11)."""


@dataclass(frozen=True, slots=True)
class Footer:
    """The end of a part: where its row groups and columns lie, and which digests they hold."""

    metadata: Any
    columns: tuple[str, ...]
    least: tuple[bytes, ...]
    greatest: tuple[bytes, ...]

    @property
    def nbytes(self) -> int:
        """About what it takes in memory."""
        return FOOTER_SPREAD * int(self.metadata.serialized_size)

    @classmethod
    def read(cls, part: StoredPart, handle: Any) -> Footer:
        """The footer of a part."""
        from pyarrow import parquet

        metadata = parquet.read_metadata(handle)
        if metadata.num_rows != part.rows:
            raise damaged(part)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        statistics = [group.column(0).statistics for group in groups]
        return cls(
            metadata=metadata,
            columns=tuple(metadata.schema.to_arrow_schema().names),
            least=tuple(s.min for s in statistics),
            greatest=tuple(s.max for s in statistics),
        )


class RowGroups:
    """The row groups of an opened part."""

    def __init__(self, part: StoredPart, file: Any, footer: Footer) -> None:
        self.part = part
        self._file = file
        self.columns = footer.columns
        self._least, self._greatest = footer.least, footer.greatest

    def __len__(self) -> int:
        return len(self._least)

    def least(self, group: int) -> bytes:
        """The first digest of a row group."""
        first: bytes = self._least[group]
        return first

    def greatest(self, group: int) -> bytes:
        """The last digest of a row group."""
        last: bytes = self._greatest[group]
        return last

    def within(self, low: bytes, high: bytes | None = None) -> range:
        """Row groups that may hold digests with low <= digest < high; None is the end."""
        start = bisect.bisect_left(self._greatest, low)
        stop = len(self) if high is None else bisect.bisect_left(self._least, high)
        return range(start, max(start, stop))

    def read(self, groups: Sequence[int], columns: Sequence[str] = ()) -> Any:
        """Row groups, or some columns of them."""
        with readable(self.part):
            table = self._file.read_row_groups(
                list(groups), columns=list(columns) or None, use_threads=False
            )
            return coded(table).combine_chunks()

    def row(self, group: int, place: int, columns: Sequence[str]) -> Any:
        """One row of a row group."""
        with readable(self.part):
            table = self._file.read_row_group(group, columns=list(columns), use_threads=False)
            return coded(table.slice(place, 1))

    def between(self, low: bytes, high: bytes | None, columns: Sequence[str]) -> Any:
        """The rows with low <= digest < high."""
        groups = self.within(low, high)
        names = columns if "digest" in columns else (*columns, *KEY_COLUMNS)
        return between(self.read(groups, names), low, high).select(columns)


@contextmanager
def opened(store: PartStore, organization_id: str, part: StoredPart) -> Iterator[RowGroups]:
    """A part; whatever Arrow cannot read of it is reported as damage."""
    import pyarrow as pa
    from pyarrow import parquet

    with store.open(organization_id, part) as source:
        with readable(part):
            handle = pa.PythonFile(source, "r")
            footer = store.kept.get(
                organization_id, part, "footer", lambda: Footer.read(part, handle)
            )
            file = parquet.ParquetFile(
                handle,
                metadata=footer.metadata,
                pre_buffer=False,
                page_checksum_verification=True,
            )
        yield RowGroups(part, file, footer)


@contextmanager
def readable(part: StoredPart) -> Iterator[None]:
    """What Arrow cannot read is damage of the part."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise damaged(part) from error
