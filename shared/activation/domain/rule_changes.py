"""What became of the rules of an audience between two states of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from activation.domain.audience import AudienceRule
from activation.domain.entity import Value


class RuleChange(Value):
    """A rule on the same variable that says something else now."""

    before: AudienceRule
    after: AudienceRule


class RulesDiff(Value):
    """Rules by what they say (variable, operator, value). All rules must hold, so their order
    chooses no other members: moving a rule is no change of the rules, and told by `reordered`."""

    added: tuple[AudienceRule, ...] = ()
    removed: tuple[AudienceRule, ...] = ()
    modified: tuple[RuleChange, ...] = ()
    reordered: bool = False

    @property
    def changed(self) -> bool:
        """Whether the rules may choose other members now."""
        return bool(self.added or self.removed or self.modified)


def rules_diff(before: Sequence[Any], after: Sequence[Any]) -> RulesDiff:
    """What became of the rules `before`, in the order of the rules; both as snapshots hold them."""
    old, new = ([AudienceRule.model_validate(rule) for rule in rules] for rules in (before, after))
    stayed = Counter(map(_said, old)) & Counter(map(_said, new))
    old_kept, removed = _parted(old, stayed)
    new_kept, added = _parted(new, stayed)
    modified = []
    for rule in list(removed):
        same = next((other for other in added if other.variable_id == rule.variable_id), None)
        if same is not None:
            modified.append(RuleChange(before=rule, after=same))
            removed.remove(rule)
            added.remove(same)
    return RulesDiff(
        added=tuple(added),
        removed=tuple(removed),
        modified=tuple(modified),
        reordered=[_said(rule) for rule in old_kept] != [_said(rule) for rule in new_kept],
    )


def _said(rule: AudienceRule) -> str:
    return json.dumps([rule.variable_id, rule.operator, rule.value], sort_keys=True)


def _parted(
    rules: Sequence[AudienceRule], stayed: Counter[str]
) -> tuple[list[AudienceRule], list[AudienceRule]]:
    """Rules that the other state has as well, as often as it has them, and the rest."""
    left, kept, rest = Counter(stayed), list[AudienceRule](), list[AudienceRule]()
    for rule in rules:
        said = _said(rule)
        (kept if left[said] else rest).append(rule)
        left[said] -= 1 if left[said] else 0
    return kept, rest
