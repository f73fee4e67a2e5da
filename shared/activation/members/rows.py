"""From blocks of a file to members: the one place where counts of an import are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import SPACES, IdentifierType
from activation.domain.member import RejectReason, fits
from activation.domain.member_import import ColumnMapping, HashRule, ImportCounts
from activation.members import attributes
from activation.members.block import Block
from activation.members.consents import stricter
from activation.members.fields import PARSERS, parsed_column
from activation.members.headers import Role, meaning_of
from activation.members.layout import RULES, TYPES, binary_array, schema
from activation.members.mapping import Columns
from activation.members.normalise import Hashed, code_of, hashed_already, hashed_raw
from activation.members.rejects import Reject, by_reason, rejects_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Positions = npt.NDArray[np.int64]
    Codes = npt.NDArray[np.uint8]

Admission = Callable[[Any], Any]
"""From a table of members (identifier_type, digest, alternate) to a mask of those who may not be
members."""
Refused = Callable[[], Admission | None]
"""Asked for each block; None when nobody is refused."""

_UNUSABLE = (RejectReason.UNKNOWN_TYPE, RejectReason.HASH_RULE_MISMATCH)
"""Why a row with a value may hold no candidate."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The members of a block in the order of its rows, what was not taken, and the counts.

    `counts.accepted` still holds duplicates: those are found when runs are merged.
    """

    members: Any
    rejects: list[Reject]
    counts: ImportCounts


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells of a column that hold identifiers of one type."""

    kind: IdentifierType
    rule: HashRule
    column: str
    values: Any
    chosen: Any


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What became of such cells: the positions of their rows, and codes of reasons (0 is good),
    `outside` where the reason is a fault of the row and not of the identifier."""

    cells: _Cells
    at: Positions
    hashed: Hashed
    reasons: Codes
    outside: Any


@dataclass(slots=True)
class _RowFaults:
    """The first fault of each row that lies outside its identifiers."""

    reasons: Codes
    columns: Positions
    names: list[str] = field(default_factory=list)

    def add(self, column: str, reason: RejectReason, bad: Any) -> None:
        """Note that the rows in mask `bad` are faulty, where nothing was noted before."""
        fresh = bad & (self.reasons == 0)
        self.reasons[fresh] = code_of(reason)
        self.columns[fresh] = len(self.names)
        self.names.append(column)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns blocks of one file into members."""

    columns: Columns
    region: str | None
    now: datetime
    refused: Refused | None = None

    def encode(self, block: Block) -> Encoded:
        """The members of a block."""
        import numpy as np

        if block.late:
            known = replace(self.columns, mappings=(*self.columns.mappings, *block.late))
            return replace(self, columns=known).encode(replace(block, late=()))
        size = len(block.rows)
        faults = _RowFaults(np.zeros(size, np.uint8), np.zeros(size, np.int64))
        chosen = list(self._chosen(block, faults))
        fields = self._fields(block, faults)
        found = [self._hashed(cells, faults) for cells in chosen]
        refuses = self.refused() if self.refused else None
        if refuses is not None:
            found = [self._admitted(candidates, refuses) for candidates in found]
        missing = np.ones(size, bool)
        for candidates in found:
            missing[candidates.at] = False
        rejects = self._rejects(block, found, faults, missing)
        members = self._members(found, fields, size)
        return Encoded(members, rejects, self._counts(block, members, rejects))

    def _counts(self, block: Block, members: Any, rejects: Sequence[Reject]) -> ImportCounts:
        kinds = Counter(members.column("identifier_type").to_numpy().tolist())
        accepted = members.num_rows
        return ImportCounts(
            rows=len(block.rows) + len(block.unreadable),
            received=accepted + len(rejects),
            accepted=accepted,
            rejected=len(rejects),
            rejected_by_reason=by_reason(rejects),
            by_type={TYPES[code].value: count for code, count in sorted(kinds.items())},
        )

    # identifiers --------------------------------------------------------------------------------

    def _chosen(self, block: Block, faults: _RowFaults) -> Iterator[_Cells]:
        if self.columns.is_long:
            yield from self._typed(block, faults)
            return
        for mapping in self.columns.identifiers:
            assert mapping.identifier_type is not None
            cells, present = _cells(block, mapping.column)
            yield _Cells(mapping.identifier_type, mapping.hash_rule, mapping.column, cells, present)

    def _typed(self, block: Block, faults: _RowFaults) -> Iterator[_Cells]:
        """The values of a long file by the type (and rule) in the same row."""
        import numpy as np

        kind_column, value_column = self._named(Role.IDENTIFIER_TYPE), self._value_column
        cells, present = _cells(block, value_column.column)
        kinds = _codes(_cells(block, kind_column.column)[0], _type_code)
        faults.add(kind_column.column, RejectReason.UNKNOWN_TYPE, present & (kinds < 0))
        rules = self._rules(block, kinds)
        odd = present & (kinds >= 0) & (rules < 0)
        faults.add(value_column.column, RejectReason.HASH_RULE_MISMATCH, odd)
        usable = present & (kinds >= 0) & (rules >= 0)
        pairs = np.unique(kinds[usable] * len(RULES) + rules[usable])
        for kind, rule in (divmod(pair, len(RULES)) for pair in pairs.tolist()):
            chosen = usable & (kinds == kind) & (rules == rule)
            yield _Cells(TYPES[kind], RULES[rule], value_column.column, cells, chosen)

    def _rules(self, block: Block, kinds: Positions) -> Positions:
        """Codes of the rules by which values arrive; -1 where a stated one does not fit."""
        import numpy as np

        declared = self._value_column.hash_rule
        by_kind = [declared if fits(kind, declared) else HashRule.RAW for kind in TYPES]
        usual = np.array([RULES.index(rule) for rule in by_kind], np.int64)[kinds]
        column = self.columns.named(Role.HASH_RULE)
        if column is None:
            return usual
        cells, given = _cells(block, column.column)
        stated = _codes(cells, _rule_code)
        fitting = np.array([[fits(kind, rule) for rule in RULES] for kind in TYPES])
        fine = (stated >= 0) & fitting[kinds, stated]
        return np.where(given, np.where(fine, stated, -1), usual)

    def _named(self, role: Role) -> ColumnMapping:
        mapping = self.columns.named(role)
        assert mapping is not None
        return mapping

    @property
    def _value_column(self) -> ColumnMapping:
        return self._named(Role.IDENTIFIER_VALUE)

    def _hashed(self, cells: _Cells, faults: _RowFaults) -> _Candidates:
        import numpy as np
        import pyarrow as pa

        values, chosen = cells.values, cells.chosen
        values = values if chosen.all() else values.filter(pa.array(chosen))
        raw = cells.rule is HashRule.RAW
        hashed = hashed_raw(cells.kind, values, self.region) if raw else hashed_already(values)
        at = np.flatnonzero(chosen)
        outside = (hashed.reasons == 0) & (faults.reasons[at] > 0)
        reasons = np.where(outside, faults.reasons[at], hashed.reasons)
        return _Candidates(cells, at, hashed, reasons, outside)

    def _admitted(self, candidates: _Candidates, refuses: Admission) -> _Candidates:
        """The candidates, with a reason for those that may not be members."""
        import numpy as np

        good = np.flatnonzero(candidates.reasons == 0)
        reasons = candidates.reasons.copy()
        reasons[good[refuses(self._own(candidates))]] = code_of(RejectReason.SUPPRESSED)
        return replace(candidates, reasons=reasons)

    # what rows say beside identifiers ----------------------------------------------------------

    def _fields(self, block: Block, faults: _RowFaults) -> dict[str, Any]:
        """The members' columns that are equal for all identifiers of a row."""
        fields: dict[str, Any] = {}
        for role, (name, _, reason) in PARSERS.items():
            mapping = self.columns.named(role)
            if mapping is not None and mapping.column in block.columns:
                values, bad = parsed_column(role, block.columns[mapping.column])
                fields[name] = stricter(fields[name], values) if name in fields else values
                faults.add(mapping.column, reason, bad)
        objects = self._attributes(block, faults)
        if objects is not None:
            fields["attributes"] = objects
        return fields

    def _attributes(self, block: Block, faults: _RowFaults) -> Any:
        columns = {n: block.columns[n] for n in self.columns.attributes if n in block.columns}
        built = attributes.built(columns, block.literals) if columns else None
        holder = self.columns.named(Role.ATTRIBUTES)
        given, name = block.attributes, holder.column if holder else "attributes"
        if given is None and holder is not None:
            given = block.literals.get(name, block.columns[name])
        if given is not None:
            given, bad = attributes.checked_objects(given)
            faults.add(name, RejectReason.INVALID_ATTRIBUTES, bad)
            built = given if built is None else attributes.merged(given, built)
        if built is not None:
            for reason, bad in attributes.refused_rows(built):
                faults.add(name, reason, bad)
        return built

    # putting together ---------------------------------------------------------------------------

    def _rejects(
        self, block: Block, found: Sequence[_Candidates], faults: _RowFaults, missing: Any
    ) -> list[Reject]:
        import numpy as np

        rejects = [Reject(row, "", reason) for row, reason in block.unreadable]
        for candidates in found:
            bad = np.flatnonzero(candidates.reasons)
            at = candidates.at[bad]
            numbers = zip(
                faults.columns[at].tolist(), candidates.outside[bad].tolist(), strict=True
            )
            names = [faults.names[n] if o else candidates.cells.column for n, o in numbers]
            rejects += rejects_of(block.rows[at], names, candidates.reasons[bad])
        return rejects + self._empty(block, faults, np.flatnonzero(missing))

    def _empty(self, block: Block, faults: _RowFaults, at: Positions) -> list[Reject]:
        """Rows without a usable identifier: of unknown type or unfit rule, or with none at all."""
        import numpy as np

        stated = np.isin(faults.reasons[at], [code_of(reason) for reason in _UNUSABLE])
        none = code_of(RejectReason.NO_IDENTIFIER)
        reasons = np.where(stated, faults.reasons[at], none).astype(np.uint8)
        numbers = zip(faults.columns[at].tolist(), stated.tolist(), strict=True)
        names = [faults.names[number] if known else "" for number, known in numbers]
        return rejects_of(block.rows[at], names, reasons)

    def _members(self, found: Sequence[_Candidates], fields: dict[str, Any], size: int) -> Any:
        """The accepted values of all columns, in the order of rows."""
        import numpy as np
        import pyarrow as pa

        if not found:
            return schema().empty_table()
        if len(found) > 1 and not self.columns.is_long:
            fields = {**fields, "person": _persons(found, self.columns.guessed, size)}
        at = np.concatenate([c.at[c.reasons == 0] for c in found])
        order = np.argsort(at, kind="stable")
        own = pa.concat_tables([self._own(c) for c in found]).take(pa.array(order))
        rows = pa.array(at[order])
        columns = {name: own.column(name) for name in own.schema.names}
        columns |= {name: values.take(rows) for name, values in fields.items()}
        nothing = {f.name: pa.nulls(len(at), f.type) for f in schema() if f.name not in columns}
        return pa.table({**columns, **nothing}).select(schema().names).cast(schema())

    def _own(self, candidates: _Candidates) -> Any:
        """A table of the accepted values of one column, with what does not depend on their rows."""
        import numpy as np
        import pyarrow as pa

        hashed = candidates.hashed
        good = candidates.reasons == 0
        mask, size = pa.array(good), int(good.sum())
        kind, rule = TYPES.index(candidates.cells.kind), RULES.index(candidates.cells.rule)
        return pa.table(
            {
                "digest": binary_array(hashed.digests[good]),
                "identifier_type": np.full(size, kind, np.uint8),
                "value": hashed.values.filter(mask),
                "alternate": hashed.alternate.filter(mask),
                "uid2_alternate": hashed.uid2_alternate.filter(mask),
                "hash_rule": np.full(size, rule, np.uint8),
                "added_at": pa.repeat(pa.scalar(self.now, schema().field("added_at").type), size),
            }
        )


def _cells(block: Block, column: str) -> tuple[Any, Any]:
    """Trimmed cells of a column, and a mask of those that are not empty."""
    import pyarrow.compute as pc

    cells = pc.ascii_trim(pc.fill_null(block.columns[column], ""), characters=SPACES)
    return cells, pc.greater(pc.binary_length(cells), 0).to_numpy(zero_copy_only=False)


def _codes(cells: Any, code_of_text: Callable[[str], int]) -> Positions:
    """The code of each cell, looked up once per distinct text."""
    import numpy as np

    distinct = cells.dictionary_encode()
    codes = [code_of_text(text) for text in distinct.dictionary.to_pylist()]
    found: Positions = np.array(codes, np.int64)[distinct.indices.to_numpy()]
    return found


def _type_code(name: str) -> int:
    meaning = meaning_of(name)
    return TYPES.index(meaning) if isinstance(meaning, IdentifierType) else -1


def _rule_code(name: str) -> int:
    word = name.lower()
    return RULES.index(HashRule(word)) if word in set(HashRule) else -1


def _persons(found: Sequence[_Candidates], guessed: frozenset[str], size: int) -> Any:
    """For each row the name that ties its identifiers: the first bytes of the digest of the first
    type it holds, so that the same row gives the same name again; null for a single identifier.
    A column that was guessed may hold the same address in many rows, and comes after the others."""
    import numpy as np

    def place(candidates: _Candidates) -> tuple[bool, int]:
        return candidates.cells.column in guessed, TYPES.index(candidates.cells.kind)

    names = np.zeros((size, 8), np.uint8)
    held = np.zeros(size, np.int64)
    for candidates in sorted(found, key=place):
        good = candidates.reasons == 0
        at = candidates.at[good]
        first = held[at] == 0
        names[at[first]] = candidates.hashed.digests[good][first, :8]
        held[at] += 1
    return binary_array(names, held > 1)
