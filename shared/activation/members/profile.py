"""Counts of what members have in common: attributes and their values, types."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from activation.domain.summary import MAX_VALUE_CHARACTERS
from activation.members.layout import TYPES

COLUMNS = ("identifier_type", "attributes")
MAX_NAMES = 10_000
MAX_DISTINCT = 200_000
"""Different values of all attributes that are counted; later ones are not. Members come in random
order, so what is left out is rare."""
_TEXT = '"'
"""Before a value that is a text; no JSON of any other value begins with it."""


@dataclass(slots=True)
class Profile:
    """What `add` has seen so far."""

    examined: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    attributes: Counter[str] = field(default_factory=Counter)
    values: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Attribute → value, in the form that `value_of` reads → members."""
    distinct: int = 0

    def add(self, table: Any) -> None:
        """Count more members; needs the columns COLUMNS."""
        self.examined += table.num_rows
        for code, count in _counted(table.column("identifier_type")):
            self.by_type[TYPES[code].value] += count
        for text, count in _counted(table.column("attributes")):
            self._add_attributes(text, count)

    def _add_attributes(self, text: str, count: int) -> None:
        import orjson

        for name, value in orjson.loads(text).items():
            if name not in self.attributes and len(self.attributes) == MAX_NAMES:
                continue
            self.attributes[name] += count
            held = self.values[name]
            form = _TEXT + value if isinstance(value, str) else _json(value)
            if form in held:
                held[form] += count
            elif len(form) <= MAX_VALUE_CHARACTERS and self.distinct < MAX_DISTINCT:
                held[form] = count
                self.distinct += 1


def _json(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def value_of(form: str) -> Any:
    """A value from the form in which profiles count it."""
    import orjson

    return form.removeprefix(_TEXT) if form.startswith(_TEXT) else orjson.loads(form)


def _counted(column: Any) -> Iterator[tuple[Any, int]]:
    """Each distinct value that is there, and how often; a text is parsed once for all its rows."""
    for found in column.value_counts().to_pylist():
        if found["values"] is not None:
            yield found["values"], found["counts"]
