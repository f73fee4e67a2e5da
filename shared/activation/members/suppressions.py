"""Suppression lists in memory: which members and which outgoing values are on one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import HASHED_TYPES, IdentifierType, digest_from, key_digest
from activation.domain.manifest import Manifest
from activation.domain.suppression import SuppressionReason
from activation.members.layout import digests_of, leading, whole
from activation.members.suppression_rows import (
    GONE,
    Rows,
    code_of,
    forms_of,
    joined,
    keyed,
    settled,
)

if TYPE_CHECKING:
    from activation.members.store import MemberStore
    from activation.members.suppression_rows import Codes, Mask, Positions, Words

    Column = Sequence[str | None]
    Columns = Mapping[IdentifierType, Column] | Mapping[str, Column]

_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
MEMBER_COLUMNS = ("identifier_type", "digest", "alternate", "person")
"""Columns of members that are looked at."""
MOST_KEPT = 1_000_000
"""Members of an audience on a list that are kept in memory; more are looked for again."""


@dataclass(frozen=True, slots=True)
class LoadedPart:
    """The sorted rows of one part; 41 bytes a row."""

    first: Words
    """The first number of each form, by which it is searched for."""
    rest: Words
    """(n, 3), the other numbers."""
    owners: Words
    reasons: Codes

    @classmethod
    def of(cls, blocks: Iterable[tuple[int, Rows]], count: int) -> LoadedPart:
        """The `count` rows of some blocks, copied block by block."""
        import numpy as np

        first, owners = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
        rest, reasons = np.zeros((count, 3), np.uint64), np.zeros(count, np.uint8)
        at = 0
        for _, rows in blocks:
            place = slice(at, at + len(rows))
            first[place], rest[place] = rows.forms[:, 0], rows.forms[:, 1:]
            owners[place], reasons[place] = rows.owners, rows.reasons
            at += len(rows)
        return cls(first, rest, owners, reasons)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self.first.nbytes + self.rest.nbytes + self.owners.nbytes + self.reasons.nbytes)

    def found(self, forms: Words, owners: Words | None) -> Iterator[tuple[Positions, Positions]]:
        """Where some forms stand (with `owners`: as forms of these): positions in `forms` and
        here, in steps that name none of `forms` twice."""
        import numpy as np

        left = self._likely(forms[:, 0])
        here = np.searchsorted(self.first, forms[left, 0], "left")
        ends = np.searchsorted(self.first, forms[left, 0], "right")
        while len(left):
            same = (self.rest[here] == forms[left, 1:]).all(1)
            if owners is not None:
                same &= self.owners[here] == owners[left]
            yield left[same], here[same]
            here += 1
            more = here < ends
            left, here, ends = left[more], here[more], ends[more]

    def _likely(self, first: Words) -> Positions:
        """Positions of those that stand here as the first number of a form."""
        import numpy as np

        if not len(self.first):
            return np.zeros(0, np.int64)
        places = np.minimum(np.searchsorted(self.first, first), len(self.first) - 1)
        return np.flatnonzero(self.first[places] == first)

    def rows(self, chosen: Mask) -> Rows:
        """Some of the rows; when they were added is not known here."""
        import numpy as np

        forms = np.column_stack([self.first[chosen], self.rest[chosen]])
        nothing = np.zeros(len(forms), np.int64)
        return Rows(forms, self.owners[chosen], nothing, self.reasons[chosen])


@dataclass(frozen=True, slots=True)
class ListInForce:
    """All that one list says: its parts, without the rows that a later part takes away."""

    parts: tuple[LoadedPart, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[LoadedPart]) -> ListInForce:
        """The list of some parts, oldest first."""
        reasons = [part.reasons for part in parts]
        for number, part in enumerate(parts):
            gone = part.reasons == GONE
            if gone.any():
                taken = part.rows(gone)
                for older in range(number):
                    reasons[older] = _without(parts[older], reasons[older], taken)
        kept = zip(parts, reasons, strict=True)
        return cls(tuple(LoadedPart(p.first, p.rest, p.owners, codes) for p, codes in kept))

    def after(self, rows: Rows) -> ListInForce:
        """The list with sorted rows in one more part."""
        return ListInForce.of([*self.parts, LoadedPart.of([(0, rows)], len(rows))])

    def strongest(self, forms: Words, owners: Words | None = None) -> Codes:
        """For each form the code of the strongest reason that it is on the list for (as a form
        of the owner, where owners are given), 0 when it is not."""
        import numpy as np

        order = np.argsort(forms[:, 0])  # searched for in order, they lie near each other
        forms, owners = forms[order], owners if owners is None else owners[order]
        found = np.zeros(len(forms), np.uint8)
        for part in self.parts:
            for asked, places in part.found(forms, owners):
                found[asked] = np.maximum(found[asked], part.reasons[places])
        codes = np.zeros(len(forms), np.uint8)
        codes[order] = found
        return codes

    def owned(self, owners: Words) -> Rows:
        """Every row in force of some identifiers."""
        import numpy as np

        chosen = [np.isin(part.owners, owners) & (part.reasons != GONE) for part in self.parts]
        return joined([part.rows(mask) for part, mask in zip(self.parts, chosen, strict=True)])


def _without(part: LoadedPart, reasons: Codes, taken: Rows) -> Codes:
    left = reasons.copy()
    for _, places in part.found(taken.forms, taken.owners):
        left[places] = GONE
    return left


@dataclass(frozen=True, slots=True)
class SuppressionView:
    """The lists that hold for one organization, as they were at one moment."""

    epoch: str
    size: int
    """Identifiers on the lists."""
    lists: tuple[tuple[bytes, ListInForce], ...] = ()
    """Key and content of each list that is not empty."""
    has_erased: bool = False
    """Whether anybody is on a list because he was erased."""

    def hits(self, columns: Columns) -> list[int]:
        """Zero-based positions of rows with at least one suppressed identifier.

        `columns` hold what is about to be sent: hashes as 64 hexadecimal digits, other values as
        text. A name is an identifier type; `email.key` and the like are further forms of the
        same type.
        """
        found: set[int] = set()
        for name, values in columns.items():
            kind = IdentifierType(str(name).partition(".")[0])
            found |= self._hit_in(kind, values)
        return sorted(found)

    def mask(self, members: Any) -> Mask:
        """Which stored members are on a list."""
        mask: Mask = self._codes(members) > 0
        return mask

    def erased(self, members: Any) -> Mask:
        """Which members are on a list because they were erased."""
        mask: Mask = self._codes(members) == code_of(SuppressionReason.ERASURE)
        return mask

    def over(self, store: MemberStore, manifest: Manifest) -> SuppressionView | Excluded:
        """Who stays of an audience: those on a list, and with one identifier all those of the
        person. Looked for once; then members are compared with those that were found."""
        if not self.lists:
            return self
        return _excluded(self, store, manifest)

    def _hit_in(self, kind: IdentifierType, values: Sequence[str | None]) -> set[int]:
        import numpy as np

        if not self.lists:
            return set()
        asked = [
            (row, digest)
            for row, value in enumerate(values)
            if value is not None
            for digest in _digests(kind, value)
        ]
        rows = np.array([row for row, _ in asked], np.int64)
        codes = np.zeros(len(asked), np.uint8)
        for key, listed in self.lists:
            forms = keyed(key, kind, [digest for _, digest in asked])
            codes = np.maximum(codes, listed.strongest(forms))
        return set(rows[codes > 0].tolist())

    def _codes(self, members: Any) -> Codes:
        """The strongest reason of each member, in any of its forms."""
        import numpy as np

        codes = np.zeros(members.num_rows, np.uint8)
        for key, listed in self.lists:
            main, other, has_other = forms_of(members, key)
            codes = np.maximum(codes, listed.strongest(main))
            codes[has_other] = np.maximum(codes[has_other], listed.strongest(other))
        return codes


@dataclass(frozen=True, slots=True)
class Excluded:
    """The members of one audience to whom nothing is sent."""

    view: SuppressionView
    people: Words
    """The names of people with an identifier on a list, sorted."""
    found: LoadedPart | None
    """The members on a list, as (digest, type); None when they are too many to keep."""

    def mask(self, members: Any) -> Mask:
        """Which members are on a list, or belong to somebody who is."""
        person = whole(members.column("person"))
        tied = person.is_valid().to_numpy(zero_copy_only=False).astype(bool)
        mask: Mask = tied & _among(leading(digests_of(person)), self.people)
        if self.found is None:
            return mask | self.view.mask(members)
        for asked, _ in self.found.found(*_keys(members)):
            mask[asked] = True
        return mask


def _excluded(view: SuppressionView, store: MemberStore, manifest: Manifest) -> Excluded:
    import numpy as np
    import pyarrow as pa

    names, keys, count = [np.zeros(0, np.uint64)], list[Rows](), 0
    for members in store.iter_batches(manifest, MEMBER_COLUMNS):
        hit = members.filter(pa.array(view.mask(members))).combine_chunks()
        person = whole(hit.column("person"))
        tied = person.is_valid().to_numpy(zero_copy_only=False).astype(bool)
        names.append(np.unique(leading(digests_of(person))[tied]))
        count += hit.num_rows
        if count <= MOST_KEPT:
            keys.append(_as_rows(*_keys(hit)))
    people = np.unique(np.concatenate(names))
    if count > MOST_KEPT:
        return Excluded(view, people, None)
    found = settled(keys, keeps_gone=True)
    return Excluded(view, people, LoadedPart.of([(0, found)], len(found)))


def _keys(members: Any) -> tuple[Words, Words]:
    """Digests as numbers, and codes of types."""
    import numpy as np

    digests = np.ascontiguousarray(digests_of(whole(members.column("digest"))))
    words = digests.view(">u8").astype(np.uint64).reshape(-1, 4)
    return words, members.column("identifier_type").to_numpy().astype(np.uint64)


def _as_rows(forms: Words, owners: Words) -> Rows:
    import numpy as np

    count = len(owners)
    return Rows(forms, owners, np.zeros(count, np.int64), np.ones(count, np.uint8))


def _among(names: Words, people: Words) -> Mask:
    import numpy as np

    if not len(people):
        return np.zeros(len(names), bool)
    places = np.minimum(np.searchsorted(people, names), len(people) - 1)
    mask: Mask = people[places] == names
    return mask


def _digests(kind: IdentifierType, value: str) -> Iterator[bytes]:
    """What an outgoing value may be the digest of, or is one of: of types that are stored as
    given, the text, which may be a digest as well."""
    if kind in HASHED_TYPES:
        yield digest_from(value) or key_digest(value)
        return
    yield key_digest(value)
    if _HEX_DIGEST.fullmatch(value):
        yield bytes.fromhex(value)
