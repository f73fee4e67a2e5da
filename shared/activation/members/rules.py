"""Rules over the members of a table: each distinct attribute text is parsed and judged once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from activation.domain.audience import AudienceRule
from activation.domain.operators import MEMBER_FIELDS, Operator, ValueType, member_field
from activation.domain.rules import Judge, Verdict, instant, judge_of, negated, positive, value_at
from activation.members.layout import CODED, CONSENTS, KEY_COLUMNS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]
    Verdicts = npt.NDArray[np.uint8]
    """A `Verdict` per member."""

ATTRIBUTES = "attributes"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RuleTally:
    """How many members had a value for a rule, one that it could not compare, and passed it."""

    present: int = 0
    unreadable: int = 0
    passed: int = 0

    def __add__(self, other: RuleTally) -> RuleTally:
        return RuleTally(
            self.present + other.present,
            self.unreadable + other.unreadable,
            self.passed + other.passed,
        )


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Members against rules: who passes them all, and a tally of each rule by itself."""

    mask: Mask
    tallies: tuple[RuleTally, ...]


def columns_of(rules: Sequence[AudienceRule]) -> list[str]:
    """The columns that `matching` looks at; never empty."""
    fields = {member_field(rule.variable_id) or ATTRIBUTES for rule in rules}
    return [*KEY_COLUMNS, *sorted(fields - set(KEY_COLUMNS))]


def matching(table: Any, rules: Sequence[AudienceRule]) -> Mask:
    """Which members every rule holds for; all of them when there are none."""
    return evaluated(table, rules).mask


def evaluated(table: Any, rules: Sequence[AudienceRule]) -> Evaluated:
    """The same with the tallies. Needs the columns of `columns_of`."""
    import numpy as np

    by_attributes = [rule for rule in rules if member_field(rule.variable_id) is None]
    found = iter(_of_attributes(table, by_attributes) if by_attributes else ())
    mask, tallies = np.ones(table.num_rows, bool), []
    for rule in rules:
        field = member_field(rule.variable_id)
        verdicts = next(found) if field is None else _of_field(table.column(field), field, rule)
        passed = (verdicts == Verdict.YES) != negated(rule)
        counts = np.bincount(verdicts, minlength=len(Verdict)).tolist()
        present = table.num_rows - counts[Verdict.MISSING]
        tallies.append(RuleTally(present, counts[Verdict.UNREADABLE], int(passed.sum())))
        mask &= passed
    return Evaluated(mask, tuple(tallies))


def _of_attributes(table: Any, rules: Sequence[AudienceRule]) -> list[Verdicts]:
    import numpy as np
    import orjson

    texts = table.column(ATTRIBUTES).combine_chunks().dictionary_encode()
    judges = [(rule.variable_id, judge_of(rule)) for rule in rules]
    missing = len(texts.dictionary)  # one more code, for members without attributes
    found = [bytearray(missing + 1) for _ in rules]
    for code, text in enumerate(texts.dictionary.to_pylist()):
        attributes = orjson.loads(text)
        for (path, judge), verdicts in zip(judges, found, strict=True):
            verdicts[code] = judge(value_at(attributes, path))
    codes = texts.indices.fill_null(missing).to_numpy()
    return [np.frombuffer(verdicts, np.uint8)[codes] for verdicts in found]


def _of_field(column: Any, field: str, rule: AudienceRule) -> Verdicts:
    column = column.combine_chunks()
    if field in CODED:
        return _of_codes(column, _words(field), judge_of(rule))
    if field == "segments":
        return _of_labels(column, judge_of(rule))
    return _of_numbers(column, rule)


def _words(field: str) -> list[str | None]:
    """What rules see for each code; of all that a member carries of consent, the one word."""
    if field == "consent":
        return [consent.ad_user_data for consent in CONSENTS]
    return [word.value for word in CODED[field]]


def _of_codes(column: Any, words: Sequence[str | None], judge: Judge) -> Verdicts:
    import numpy as np

    judged = [Verdict.MISSING if word is None else judge(word) for word in words]
    verdicts = np.array([*judged, Verdict.MISSING], np.uint8)
    found: Verdicts = verdicts[column.fill_null(len(words)).to_numpy()]
    return found


def _of_labels(column: Any, judge: Judge) -> Verdicts:
    """A list of labels is judged like any list; every distinct label is judged once."""
    import numpy as np
    import pyarrow.compute as pc

    found = np.zeros(len(column), np.uint8)
    labels = pc.list_flatten(column).dictionary_encode()
    if len(labels):
        verdicts = [judge([label]) for label in labels.dictionary.to_pylist()]
        each = np.array(verdicts, np.uint8)[labels.indices.to_numpy()]
        np.maximum.at(found, pc.list_parent_indices(column).to_numpy(), each)
    return found


def _of_numbers(column: Any, rule: AudienceRule) -> Verdicts:
    import numpy as np

    present = column.is_valid().to_numpy(zero_copy_only=False)
    holds = present if positive(rule) is Operator.EXISTS else _compared(column, rule)
    found: Verdicts = np.where(present, np.where(holds, Verdict.YES, Verdict.NO), Verdict.MISSING)
    return found.astype(np.uint8)


def _compared(column: Any, rule: AudienceRule) -> Mask:
    import numpy as np

    code = positive(rule)
    operands = rule.value if isinstance(rule.value, list | tuple) else [rule.value]
    if MEMBER_FIELDS[member_field(rule.variable_id) or ""] is ValueType.INSTANT:
        values = column.cast("int64").fill_null(0).to_numpy()
        bounds = np.array([_microseconds(text) for text in operands], np.int64)
    else:
        values = column.fill_null(0.0).to_numpy()
        bounds = np.array(operands, np.float64)
    if code is Operator.BETWEEN:
        low, high = bounds
        between: Mask = (values >= low) & (values <= high)
        return between
    if code in (Operator.EQ, Operator.IN):
        return np.isin(values, bounds)
    compare = {
        Operator.GT: np.greater,
        Operator.LT: np.less,
        Operator.GTE: np.greater_equal,
        Operator.LTE: np.less_equal,
    }[code]
    mask: Mask = compare(values, bounds[0])
    return mask


def _microseconds(text: Any) -> int:
    found = instant(text)
    assert found is not None  # the rule was checked when it was made
    since = found - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
