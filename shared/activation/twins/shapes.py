"""Which JSON a platform knows: the strict half of a twin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Many:
    """A list of values of one shape."""

    shape: Any


@dataclass(frozen=True)
class Choice:
    """An enum: its names, and the numbers that some SDKs send instead."""

    numbers: Mapping[str, int]

    def name(self, value: Any) -> str:
        """The name of a value that `problem` has let pass."""
        if isinstance(value, str):
            return value
        return next(name for name, number in self.numbers.items() if number == value)


@dataclass(frozen=True)
class Problem:
    """Where a document is wrong, and how."""

    path: str
    kind: str
    """unknown | type | enum"""

    def below(self, name: str) -> Problem:
        """The same problem, seen from one level up."""
        dot = "." if self.path and not self.path.startswith("[") else ""
        return Problem(f"{name}{dot}{self.path}", self.kind)


ANY = object()
"""A value that is looked at elsewhere."""


def problem(value: Any, shape: Any) -> Problem | None:
    """The first place where `value` is not of `shape`, or None.

    A shape is a type, a `Choice`, `Many`, `ANY`, or a dictionary of the properties an object may
    have. Absent properties are no problem here.
    """
    if isinstance(shape, dict):
        return _object_problem(value, shape)
    if isinstance(shape, Many):
        return _list_problem(value, shape)
    if isinstance(shape, Choice):
        known = value in shape.numbers or (type(value) is int and value in shape.numbers.values())
        return None if isinstance(value, str | int) and known else Problem("", "enum")
    if shape is ANY or type(value) is shape:
        return None
    return Problem("", "type")


def _object_problem(value: Any, shape: Mapping[str, Any]) -> Problem | None:
    if type(value) is not dict:
        return Problem("", "type")
    for name, inner in value.items():
        found = problem(inner, shape[name]) if name in shape else Problem("", "unknown")
        if found:
            return found.below(name)
    return None


def _list_problem(value: Any, shape: Many) -> Problem | None:
    if type(value) is not list:
        return Problem("", "type")
    for index, item in enumerate(value):
        found = problem(item, shape.shape)
        if found:
            return found.below(f"[{index}]")
    return None
