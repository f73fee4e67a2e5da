"""Keys of NDJSON that come up after the rows from which the meaning of columns was decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from activation.domain.identifier import IdentifierType
from activation.domain.member_import import ColumnMapping
from activation.members.fields import PARSERS
from activation.members.headers import meaning_of
from activation.members.limits import ReadLimits
from activation.members.mapping import MAX_HEADER, Columns
from activation.members.source import refused


class LateKeys:
    """Reads them as if they had been there from the start: a no that stands in one row of a
    thousand is a no. What a name means depends on nothing but the columns and the row, so that a
    file that is read on elsewhere gives the same members."""

    def __init__(self, columns: Columns, limits: ReadLimits) -> None:
        self._names = frozenset(m.column for m in columns.mappings)
        self._is_long = columns.is_long
        self._roles = frozenset(
            role
            for role in PARSERS
            if columns.named(role) is None and role.value not in self._names
        )
        self._most = limits.max_columns

    def taken(
        self, objects: Sequence[dict[str, Any]]
    ) -> tuple[Mapping[str, list[Any]], tuple[ColumnMapping, ...]]:
        """The values of such keys by column, taken out of `objects`, and what the columns hold.

        Of several keys of a row with the same role the first counts. Raises UploadRefusedError
        when there are more columns than a file may have.
        """
        fresh = set[str]().union(*objects) - self._names
        found = {key: mapping for key in sorted(fresh) if (mapping := self._mapping(key))}
        columns = {mapping.column: mapping for mapping in found.values()}
        if len(columns) + len(self._names) > self._most:
            raise refused(f"The file has more than {self._most} columns.", "too_many_columns")
        values: dict[str, list[Any]] = {name: [None] * len(objects) for name in columns}
        for row, source in enumerate(objects if found else ()):
            for key in [key for key in source if key in found]:
                cells = values[found[key].column]
                if cells[row] is None:
                    cells[row] = source.pop(key)
        return values, tuple(columns.values())

    def _mapping(self, key: str) -> ColumnMapping | None:
        if len(key) > MAX_HEADER or not key.isprintable():
            return None
        meaning = meaning_of(key)
        if isinstance(meaning, IdentifierType):
            return None if self._is_long else ColumnMapping(column=key, identifier_type=meaning)
        if meaning is None or meaning not in self._roles:
            return None
        return ColumnMapping(column=meaning.value, role=meaning)
