"""Previews of rules: an estimate from a prefix of the key space, or every member.

Digests are uniform, so the members whose digests come first are a random part of the audience
(docs/adr/0002-partition-by-digest.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from activation.domain.audience import AudienceRule
from activation.domain.audience_overlap import Basis
from activation.domain.caller import Caller
from activation.domain.estimate import estimated
from activation.domain.manifest import Manifest
from activation.domain.member import Member
from activation.domain.preview import Preview, PreviewDraft, RulePreview
from activation.ports import Clock
from activation.services.audiences import AudienceService, rules_of
from activation.services.version_records import samples_of

if TYPE_CHECKING:
    from activation.members.rules import RuleTally
    from activation.members.store import MemberStore

SAMPLE = 65_536
"""Members that an estimate looks at."""
EXACT_SECONDS = 200.0
"""An exact preview that takes longer answers with what it has seen until then."""
FIRST_BYTES = 256


@dataclass(frozen=True, slots=True)
class PreviewService:
    """Use cases of previews. Raises NotFoundError for audiences the caller may not see."""

    audiences: AudienceService
    store: MemberStore
    clock: Clock
    sample_size: int = SAMPLE
    exact_seconds: float = EXACT_SECONDS

    def preview(self, caller: Caller, audience_id: str, draft: PreviewDraft) -> Preview:
        """Count the members that the rules choose; InvalidStateError when they lie in an archive.

        An audience of no more than `sample_size` members is always counted exactly.
        """
        audience = self.audiences.find(caller, audience_id).entity
        rules = audience.rules if draft.rules is None else rules_of(draft.rules)
        seen = _Seen(rules, draft.sample)
        manifest = self.audiences.readable_manifest(audience, "audience_id")
        if manifest is None:
            return seen.preview(0)
        exact = draft.exact or manifest.size <= self.sample_size
        for table in self._tables(manifest, seen, exact=exact):
            seen.add(table)
        return seen.preview(manifest.size)

    def _tables(self, manifest: Manifest, seen: _Seen, *, exact: bool) -> Iterator[Any]:
        """All members, range after range, until the time is over; or the first of them."""
        if not exact:
            width = -(-FIRST_BYTES * self.sample_size // manifest.size)
            table = self.store.slice(manifest, range(width), seen.columns)
            yield table.slice(0, self.sample_size)
            return
        deadline = self.clock.monotonic() + self.exact_seconds
        width = FIRST_BYTES // manifest.partition_count
        for first in range(0, FIRST_BYTES, width):
            yield self.store.slice(manifest, range(first, first + width), seen.columns)
            if self.clock.monotonic() > deadline:
                return


@dataclass(slots=True)
class _Seen:
    """What was found so far."""

    rules: Sequence[AudienceRule]
    wanted: int
    examined: int = 0
    matched: int = 0
    tallies: Sequence[RuleTally] = ()
    by_type: Counter[str] = field(default_factory=Counter)
    members: list[Member] = field(default_factory=list)

    @property
    def columns(self) -> Sequence[str]:
        """The columns to look at; all of them as long as members are wanted as a sample."""
        from activation.members.rules import columns_of

        return () if len(self.members) < self.wanted else columns_of(self.rules)

    def add(self, table: Any) -> None:
        """Examine more members; their columns are those asked for."""
        import pyarrow as pa

        from activation.members.layout import TYPES
        from activation.members.reading import members_of
        from activation.members.rules import RuleTally, evaluated

        found = evaluated(table, self.rules)
        pairs = zip(self.tallies or [RuleTally()] * len(self.rules), found.tallies, strict=True)
        self.tallies = [before + more for before, more in pairs]
        self.examined += table.num_rows
        self.matched += int(found.mask.sum())
        chosen = table.filter(pa.array(found.mask))
        for kind in chosen.column("identifier_type").value_counts().to_pylist():
            self.by_type[TYPES[kind["values"]].value] += kind["counts"]
        if len(self.members) < self.wanted:
            self.members += members_of(chosen.slice(0, self.wanted - len(self.members)))

    def preview(self, size: int) -> Preview:
        """The answer, for an audience of this size."""
        found = estimated(self.matched, self.examined, size)
        return Preview(
            basis=Basis.EXACT if self.examined == size else Basis.ESTIMATE,
            size=size,
            examined=self.examined,
            matched=found.value,
            matched_low=found.low,
            matched_high=found.high,
            share=round(found.value / size, 6) if size else None,
            by_type=apportioned(found.value, self.by_type),
            rules=tuple(_shown(*one) for one in self._by_rule()),
            sample=samples_of(self.members),
        )

    def _by_rule(self) -> Iterator[tuple[AudienceRule, RuleTally]]:
        from activation.members.rules import RuleTally

        tallies = self.tallies or [RuleTally()] * len(self.rules)
        return zip(self.rules, tallies, strict=True)


def _shown(rule: AudienceRule, tally: RuleTally) -> RulePreview:
    return RulePreview(
        variable_id=rule.variable_id,
        operator=rule.operator,
        present=tally.present,
        unreadable=tally.unreadable,
        matched=tally.passed,
    )


def apportioned(total: int, counts: Mapping[str, int]) -> dict[str, int]:
    """`total` in the proportions of `counts`, in whole numbers that add up to it."""
    seen = sum(counts.values())
    if not seen:
        return {}
    shares = {name: divmod(total * count, seen) for name, count in sorted(counts.items())}
    left = total - sum(whole for whole, _ in shares.values())
    largest = sorted(shares, key=lambda name: -shares[name][1])[:left]
    return {name: whole + (name in largest) for name, (whole, _) in shares.items() if whole or left}
