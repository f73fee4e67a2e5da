"""Stages of a distribution: what is planned becomes lanes, each with a record of its own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from activation.documents import Stored
from activation.domain.distribution import (
    CLEAR,
    Distribution,
    ErrorDetails,
    Plan,
    Progress,
    Stage,
)
from activation.domain.lane import Lane, LaneStatus, lane_id
from activation.ports import ABSENT, Clock, Key, Message, Write
from activation.services.distributions import lane_message

if TYPE_CHECKING:
    from activation.members.delivery import Prepared


def stages_of(prepared: Prepared, full: int) -> tuple[Stage, ...]:
    """The steps of a preparation as stages; a full batch has `full` rows."""
    stages, first = [], 0
    for step in prepared.steps:
        stages.append(
            Stage(
                operation=step.operation,
                rows=step.rows,
                batches=step.batches,
                first=first,
                path=step.frozen.path if step.frozen else None,
                sha256=step.frozen.sha256 if step.frozen else None,
                full=full,
                cuts=tuple((cut.basis, cut.batches, cut.rows) for cut in step.cuts),
            )
        )
        first += step.batches if step.operation != CLEAR else 0
    return tuple(stages)


def nothing_sent(plan: Plan, prepared: Prepared) -> Progress:
    """The progress of a run that has just been planned."""
    batches = sum(step.batches for step in prepared.steps if step.operation != CLEAR)
    return Progress(planned=plan.rows, pending=plan.rows, batches=batches)


def _new_lane(
    job: Distribution, number: int, place: int, first: int, batches: int, now: datetime
) -> Lane:
    stage = job.stages[number]
    rows = sum(_sizes(stage)[first - 1 : first - 1 + batches])
    return Lane(
        organization_id=job.organization_id,
        created_at=now,
        updated_at=now,
        lane_id=lane_id(job.distribution_id, number, place),
        distribution_id=job.distribution_id,
        platform_id=job.platform_id,
        stage=number,
        number=place,
        operation=stage.operation,
        first=stage.first + first - 1,
        first_of_stage=first - 1,
        batches=batches,
        rows=rows,
        pending=rows,
        next_at=now,
        trace_id=job.trace_id,
    )


def _sizes(stage: Stage) -> list[int]:
    """The rows of every batch of a stage: each but the last of a cut is full."""
    sizes: list[int] = []
    for _, batches, rows in stage.cuts:
        sizes += [stage.full] * (batches - 1) + [rows - stage.full * (batches - 1)]
    return sizes


def lanes_of_stage(
    job: Distribution, number: int, known: Sequence[Stored[Lane]], clock: Clock
) -> tuple[list[Write], list[Message]]:
    """The records of a stage's lanes, made or taken up again, and what wakes their workers."""
    stage, now = job.stages[number], clock.now()
    before = {lane.key.id: lane for lane in known}
    writes, messages = [], []
    for place, (first, batches) in enumerate(stage.lanes):
        id = lane_id(job.distribution_id, number, place)  # noqa: A001 - of the record
        old = before.get(id)
        if old is not None and old.entity.status is LaneStatus.DONE:
            continue
        if old is not None:
            lane = old.entity.changed(
                status=LaneStatus.WAITING,
                next_at=now,
                lease_until=None,
                pauses=0,
                error_details=ErrorDetails(),
                updated_at=now,
            )
        else:
            lane = _new_lane(job, number, place, first, batches, now)
        key = Key(job.organization_id, "lanes", id)
        writes.append(Write(key, lane.stored(), old.revision if old else ABSENT))
        messages.append(lane_message(lane, clock))
    return writes, messages
