"""Deciding what every column of a file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activation.domain.identifier import HASHED_TYPES, IdentifierType
from activation.domain.member import fits
from activation.domain.member_import import ColumnMapping, HashRule
from activation.members.headers import (
    Role,
    looks_hashed,
    looks_like,
    meaning_of,
    speaks_of_refusal,
)
from activation.members.source import refused

MAX_HEADER = 100


@dataclass(frozen=True, slots=True)
class Columns:
    """The meaning of every column. A file is long (type and value columns) or wide (one column
    per identifier type, several identifiers of one person in a row)."""

    mappings: tuple[ColumnMapping, ...]
    guessed: frozenset[str] = frozenset()
    """Identifier columns that only their contents speak for."""
    declared: frozenset[str] = frozenset()
    """Columns whose meaning the caller told."""

    @property
    def is_long(self) -> bool:
        """Whether a row is one identifier with its type next to it."""
        return self.named(Role.IDENTIFIER_VALUE) is not None

    @property
    def identifiers(self) -> list[ColumnMapping]:
        """The identifier columns of a wide file."""
        return [m for m in self.mappings if m.identifier_type is not None]

    @property
    def attributes(self) -> list[str]:
        """Columns that become attributes under their own name."""
        return [m.column for m in self.mappings if m.role == Role.ATTRIBUTE]

    @property
    def warnings(self) -> list[str]:
        """What to tell of guesses that may name somebody else than the person of the row, and of
        columns that may say no and are not heard."""
        strangers = [
            f"Column {m.column!r} was read as {m.identifier_type} for its contents. If it does not "
            f"identify the person of its row, map it to `ignore` and import again."
            for m in self.identifiers
            if m.column in self.guessed and len(self.identifiers) > 1
        ]
        refusals = [
            f"Column {name!r} is kept as an attribute and withholds nobody. If it says who wants "
            f"no advertising, suppress these people (`suppressions import`)."
            for name in self.attributes
            if speaks_of_refusal(name) and name not in self.declared
        ]
        return [*strangers, *refusals]

    def named(self, role: Role) -> ColumnMapping | None:
        """The column of a role, if there is one."""
        return next((m for m in self.mappings if m.role == role), None)

    def described(self) -> dict[str, Any]:
        """What was decided, for the record of the import."""
        columns = [m.model_dump(mode="json", exclude_none=True) for m in self.mappings]
        return {"shape": "long" if self.is_long else "wide", "columns": columns}


def decided(
    sample: Mapping[str, Sequence[str]], declared: Sequence[ColumnMapping] | None
) -> Columns:
    """The meaning of the columns of a file, given some of their cells.

    Declarations win, then names, then contents; what is left is an attribute. Raises
    UploadRefusedError when no identifier is found, a declaration does not fit, or values arrive
    hashed without a declared rule.
    """
    check_names(list(sample))
    given = {mapping.column: mapping for mapping in declared or ()}
    for mapping in given.values():
        _check_declared(mapping, sample)
    mappings = _unique_roles([given.get(name) or _guessed(name, sample[name]) for name in sample])
    guessed = (m.column for m in mappings if m.identifier_type and not meaning_of(m.column))
    columns = Columns(tuple(mappings), frozenset(guessed) - given.keys(), frozenset(given))
    _check_shape(columns)
    ruled = columns.named(Role.HASH_RULE) is not None
    for mapping in mappings:
        stated = ruled and mapping.role == Role.IDENTIFIER_VALUE
        if mapping.role != Role.IGNORE and not stated:
            _check_rule_declared(mapping, sample[mapping.column])
    return columns


def check_names(names: Sequence[str]) -> None:
    """Raise UploadRefusedError for names that cannot be a header."""
    if any(looks_like([name]) is not None for name in names):
        raise refused("The first row must be a header; it holds identifiers.", "header_required")
    if len(set(names)) < len(names):
        raise refused("Two columns have the same name.", "duplicate_header")
    if any(len(name) > MAX_HEADER or not name.isprintable() for name in names):
        raise refused(
            f"Column names are printable text of at most {MAX_HEADER} characters.",
            "invalid_header",
        )


def _guessed(name: str, cells: Sequence[str]) -> ColumnMapping:
    meaning = meaning_of(name) or looks_like(cells) or Role.ATTRIBUTE
    if isinstance(meaning, IdentifierType):
        return ColumnMapping(column=name, identifier_type=meaning)
    return ColumnMapping(column=name, role=meaning)


def _unique_roles(mappings: Sequence[ColumnMapping]) -> list[ColumnMapping]:
    """Only the first column of a role has it; a second one is an attribute."""
    taken: set[str] = set()
    result = []
    for mapping in mappings:
        repeated = mapping.role in taken and mapping.role not in (Role.ATTRIBUTE, Role.IGNORE)
        taken |= {mapping.role} if mapping.role else set()
        result.append(
            ColumnMapping(column=mapping.column, role=Role.ATTRIBUTE) if repeated else mapping
        )
    return result


def _check_declared(mapping: ColumnMapping, sample: Mapping[str, Sequence[str]]) -> None:
    if mapping.column not in sample:
        raise refused("A mapped column is not in the file.", "column_missing", mapping.column)
    if (mapping.identifier_type is None) == (mapping.role is None):
        raise refused(
            "A mapping names an identifier type or a role.", "invalid_mapping", mapping.column
        )
    if mapping.role is not None and mapping.role not in set(Role):
        raise refused("There is no such role.", "unknown_role", mapping.column)
    kind = mapping.identifier_type
    if kind is not None and not fits(kind, mapping.hash_rule):
        raise refused(
            f"Values of type {kind} are not hashed by the rule {mapping.hash_rule}.",
            "hash_rule_mismatch",
            mapping.column,
        )


def _check_shape(columns: Columns) -> None:
    kind, value = columns.named(Role.IDENTIFIER_TYPE), columns.named(Role.IDENTIFIER_VALUE)
    if (kind is None) != (value is None):
        raise refused("Columns for identifier type and value go together.", "column_missing")
    if value is None and not columns.identifiers:
        raise refused("No column of the file holds identifiers.", "no_identifier_column")
    if value is not None and columns.identifiers:
        raise refused(
            "A file has columns for type and value or one column per type, not both.",
            "mixed_shapes",
        )


def _check_rule_declared(mapping: ColumnMapping, cells: Sequence[str]) -> None:
    kind = mapping.identifier_type
    pseudonym = kind is not None and kind not in HASHED_TYPES
    if mapping.hash_rule is HashRule.RAW and not pseudonym and looks_hashed(cells):
        raise refused(
            f"The values of column {mapping.column!r} arrive hashed: say by which rule.",
            "hash_rule_required",
            mapping.column,
        )
