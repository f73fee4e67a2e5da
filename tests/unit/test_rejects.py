"""Refused rows: all of them are accounted for, and whether a retry can help is not invented."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.domain.distribution import BatchRecord, BatchState
from activation.domain.rejects import REJECT_COLUMNS, Retriable, rejects_of, retriable

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("INVALID_SHA256_FORMAT", Retriable.NO),
        ("NO_IDENTIFIERS_PROVIDED", Retriable.NO),
        ("TOO_MANY_USER_IDENTIFIERS", Retriable.NO),
        ("refused_by_platform", Retriable.NO),
        ("UserOptedOut", Retriable.UNKNOWN),
        ("OPTED_OUT", Retriable.NO),
        ("INTERNAL_ERROR", Retriable.YES),
        ("RATE_LIMIT_EXCEEDED", Retriable.YES),
        ("ThrottledRow", Retriable.YES),
        ("TEMPORARILY_UNAVAILABLE", Retriable.YES),
        ("suppressed", Retriable.NO),
        ("refused_with_others", Retriable.YES),
        ("413", Retriable.UNKNOWN),
        ("", Retriable.UNKNOWN),
    ],
)
def test_a_reason_says_whether_a_retry_can_help(reason: str, expected: Retriable) -> None:
    assert retriable(reason) is expected


reasons = st.sampled_from(["INVALID_FORMAT", "INTERNAL_ERROR", "7"])


@given(st.lists(reasons, max_size=20), st.dictionaries(reasons, st.integers(1, 50)))
def test_the_file_adds_up_to_what_was_rejected(placed: list[str], unplaced: dict[str, int]) -> None:
    counts = dict(unplaced)
    for reason in placed:
        counts[reason] = counts.get(reason, 0) + 1
    batch = BatchRecord(
        organization_id="o",
        created_at=NOW,
        updated_at=NOW,
        distribution_id="d",
        seq=4,
        state=BatchState.DONE,
        rows=2000,
        rejected=sum(counts.values()),
        rejected_by_reason=counts,
        rejected_rows=tuple(enumerate(placed, 1)),
    )
    rejects = list(rejects_of(batch))
    assert sum(one.rows for one in rejects) == batch.rejected
    assert [one.row for one in rejects if one.row] == list(range(1, len(placed) + 1))
    lines = b"".join(one.line() for one in rejects).decode().splitlines()
    columns = REJECT_COLUMNS.decode().strip().split(",")
    assert all(len(line.split(",")) == len(columns) for line in lines)


def test_a_reason_that_is_no_code_does_not_break_the_file() -> None:
    batch = BatchRecord(
        organization_id="o",
        created_at=NOW,
        updated_at=NOW,
        distribution_id="d",
        seq=1,
        state=BatchState.DONE,
        rows=1,
        rejected=1,
        rejected_by_reason={'=cmd,"\n': 1},
        rejected_rows=((1, '=cmd,"\n'),),
    )
    assert [one.line() for one in rejects_of(batch)] == [b"1,add,1,_cmd___,unknown,1\n"]
