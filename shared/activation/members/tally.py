"""What is counted of members: by type, by label, by month; what a merge did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from activation.domain.manifest import Manifest
from activation.domain.member import MAX_DISTINCT_SEGMENTS, MAX_DISTINCT_SEGMENTS_BYTES
from activation.errors import ValidationError
from activation.members.layout import REMOVE, TYPES

if TYPE_CHECKING:
    from activation.members.merge import Merged

FAR_TOO_MANY = 4
"""While a merge counts, so many times the labels stop it: some may go again until its end."""


@dataclass(slots=True)
class Tally:
    """Sums over parts of an audience; of the rows of runs added + updated + duplicate."""

    added: int = 0
    updated: int = 0
    duplicate: int = 0
    removed: int = 0
    linked: bool = False
    by_type: Counter[str] = field(default_factory=Counter)
    by_segment: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, manifest: Manifest | None) -> Tally:
        """The members of a manifest."""
        if manifest is None:
            return cls()
        return cls(
            linked=manifest.linked,
            by_type=Counter(manifest.by_type),
            by_segment=Counter(manifest.by_segment),
        )

    @property
    def size(self) -> int:
        """Members counted, less those taken off."""
        return self.by_type.total()

    def add(self, merged: Merged) -> None:
        """Count a merged partition."""
        self.added += merged.added
        self.updated += merged.updated
        self.duplicate += merged.duplicate
        self.count(merged.members)

    def count(self, members: Any) -> None:
        """Count members."""
        self.by_type.update(by_type(members))
        self.by_segment.update(by_segment(members))
        self.linked |= is_linked(members)
        most = FAR_TOO_MANY * MAX_DISTINCT_SEGMENTS
        if len(self.by_segment) > most and len(positive(self.by_segment)) > most:
            raise too_many_labels()

    def take_off(self, members: Any) -> None:
        """Count members no longer."""
        self.by_type.subtract(by_type(members))
        self.by_segment.subtract(by_segment(members))


def by_type(members: Any) -> dict[str, int]:
    """Members by identifier type."""
    import numpy as np

    codes = members.column("identifier_type").to_numpy()
    counts = np.bincount(codes, minlength=len(TYPES)).tolist()
    return {kind.value: rows for kind, rows in zip(TYPES, counts, strict=True) if rows}


def by_segment(members: Any) -> dict[str, int]:
    """Members by label, none when the column is not there."""
    if "segments" not in members.schema.names:
        return {}
    column = members.column("segments")
    if column.null_count == len(column):
        return {}
    import pyarrow.compute as pc

    counts = pc.value_counts(pc.list_flatten(column))
    return dict(
        zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    )


def has_too_many_labels(labels: Collection[str], before: Collection[str]) -> bool:
    """Whether members carry more different labels than an audience may have, and more than
    they did before."""
    if len(labels) <= len(before):
        return False
    length = sum(len(label.encode()) for label in labels)
    return len(labels) > MAX_DISTINCT_SEGMENTS or length > MAX_DISTINCT_SEGMENTS_BYTES


def too_many_labels() -> ValidationError:
    """The error for a change after which an audience would have too many."""
    return ValidationError(
        f"The members of an audience carry at most {MAX_DISTINCT_SEGMENTS} different labels, of "
        f"{MAX_DISTINCT_SEGMENTS_BYTES} bytes together. The audience was not changed.",
        field="segments",
        reason="too_many_segments",
    )


def is_linked(members: Any) -> bool:
    """Whether a member is tied to another one of the same person; no without the column."""
    if "person" not in members.schema.names:
        return False
    column = members.column("person")
    return bool(column.null_count < len(column))


def positive(counts: Counter[str]) -> dict[str, int]:
    """What is left of some counts, by name."""
    return {name: count for name, count in sorted(counts.items()) if count > 0}


@dataclass(slots=True)
class Facts:
    """What a part says of its rows, gathered piece by piece."""

    rows: int = 0
    removals: int = 0
    months: Counter[str] = field(default_factory=Counter)
    next_expiry: datetime | None = None

    def count(self, rows: Any) -> None:
        """Count members or changes."""
        import pyarrow as pa

        self.rows += rows.num_rows
        if "change" in rows.schema.names:
            stays = rows.column("change").to_numpy() != REMOVE
            self.removals += int(len(stays) - stays.sum())
            rows = rows.select(["added_at", "expires_at"]).filter(pa.array(stays))
        self.months.update(_months(rows.column("added_at")))
        self._count_expiry(rows.column("expires_at"))

    def _count_expiry(self, column: Any) -> None:
        import pyarrow.compute as pc

        first = pc.min(column).as_py()
        if first is not None and (self.next_expiry is None or first < self.next_expiry):
            self.next_expiry = first

    def fields(self) -> dict[str, Any]:
        """As fields of a part."""
        return {
            "rows": self.rows,
            "months": dict(sorted(self.months.items())),
            "next_expiry": self.next_expiry,
        }


def facts_of(rows: Any) -> dict[str, Any]:
    """What a part says of these rows."""
    facts = Facts()
    facts.count(rows)
    return facts.fields()


def _months(instants: Any) -> dict[str, int]:
    import numpy as np
    import pyarrow as pa

    if not len(instants):
        return {}
    micros = instants.cast(pa.timestamp("us")).to_numpy()
    months, counts = np.unique(micros.astype("M8[M]"), return_counts=True)
    return dict(zip(months.astype(str).tolist(), counts.tolist(), strict=True))
