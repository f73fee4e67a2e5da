"""Counts of what members have in common: attributes and their values, labels, types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from activation.domain.summary import MAX_VALUE_CHARACTERS
from activation.members.layout import TYPES

COLUMNS = ("identifier_type", "attributes", "segments")


@dataclass(slots=True)
class Profile:
    """What `add` has seen so far."""

    examined: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    attributes: Counter[str] = field(default_factory=Counter)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    """Attribute → JSON text of a value → members."""
    segments: Counter[str] = field(default_factory=Counter)

    def add(self, table: Any) -> None:
        """Count more members; needs the columns COLUMNS."""
        self.examined += table.num_rows
        for code, count in _counted(table.column("identifier_type")):
            self.by_type[TYPES[code].value] += count
        for text, count in _counted(table.column("attributes")):
            self._add_attributes(text, count)
        for label, count in _counted(_labels(table.column("segments"))):
            self.segments[label] += count

    def _add_attributes(self, text: str, count: int) -> None:
        import orjson

        for name, value in orjson.loads(text).items():
            self.attributes[name] += count
            shown = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
            if len(shown) <= MAX_VALUE_CHARACTERS:
                self.values.setdefault(name, Counter())[shown] += count


def _counted(column: Any) -> Iterator[tuple[Any, int]]:
    """Each distinct value that is there, and how often; a text is parsed once for all its rows."""
    for found in column.value_counts().to_pylist():
        if found["values"] is not None:
            yield found["values"], found["counts"]


def _labels(column: Any) -> Any:
    """The labels of all members; one that stands twice on a member counts once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = column.combine_chunks()
    pairs = pa.table({"row": pc.list_parent_indices(lists), "label": pc.list_flatten(lists)})
    return pairs.group_by(["row", "label"]).aggregate([]).column("label")
