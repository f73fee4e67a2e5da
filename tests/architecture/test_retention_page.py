"""docs/retention.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from activation.domain.audience import AudienceStatus
from activation.domain.retention import POLICIES, RetentionAction, RetentionCondition
from activation.domain.retention_decision import INACTIVE
from activation.domain.retention_run import SCHEDULES
from activation.services.audience_sweep import GRACE
from activation.services.distribution_archive import KEPT_DAYS

PAGE = (Path(__file__).parents[2] / "docs/retention.md").read_text()


def rows(first: str) -> dict[str, list[str]]:
    """The table whose head begins with a cell, by its first column."""
    table = PAGE[PAGE.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {name: rest for name, *rest in cells}


def test_the_limits_are_those_of_the_policies() -> None:
    shown = {name: tuple(cells[:3]) for name, cells in rows("class").items()}
    assert shown == {
        kind.value: tuple(
            "-" if days is None else str(days)
            for days in (
                policy.compression_after_days,
                policy.archive_after_days,
                policy.retention_days,
            )
        )
        for kind, policy in POLICIES.items()
    }
    assert all(p.delete_after_days in (None, p.retention_days) for p in POLICIES.values())


def test_every_status_has_its_class() -> None:
    table = rows("class")
    inactive = set(table["inactive"][3].split(", "))
    assert inactive == {status.value for status in INACTIVE}
    assert set(table["active"][3].split(", ")) == {s.value for s in AudienceStatus} - inactive


def test_jobs_actions_and_conditions_are_all_there() -> None:
    assert {job: cells[0].strip("`") for job, cells in rows("job").items()} == {
        job.value: text for job, text in SCHEDULES.items()
    }
    assert set(rows("action")) == {action.value for action in RetentionAction}
    named = PAGE[PAGE.index("may name") : PAGE.index("all that is named")]
    assert set(re.findall(r"`(\w+)`", named)) == set(RetentionCondition.model_fields)


def test_days_and_hours_are_those_of_the_code() -> None:
    assert f"more than {KEPT_DAYS} days ago" in PAGE
    assert f"deleted {GRACE.total_seconds() / 3600:.0f} hours after" in PAGE
