"""The reject file of a distribution: batch, row, reason, and that it adds up."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution
from activation.twins.faults import Fault
from tests.services.deliveries import PEOPLE, Deliveries, delivering


@pytest.fixture
def world(app: App, ann: Caller) -> Iterator[Deliveries]:
    with delivering(app, ann) as found:
        yield found


def rejects(world: Deliveries, job: Distribution) -> list[dict[str, str]]:
    text = b"".join(world.app.distributions.rejects(world.ann, job.distribution_id)).decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_rows_that_a_platform_names_are_told_by_number(world: Deliveries) -> None:
    world.refuse_rows([3, 7], "INVALID_SHA256_FORMAT")
    job = world.delivered("google_ads")
    assert rejects(world, job) == [
        {
            "batch": "1",
            "operation": "add",
            "row": str(row),
            "reason": "INVALID_SHA256_FORMAT",
            "retriable": "no",
            "rows": "1",
        }
        for row in (4, 8)
    ]


def test_rows_that_a_platform_only_counts_are_told_by_their_number(world: Deliveries) -> None:
    answer = {"num_received": PEOPLE, "num_invalid_entries": 5, "session_id": "1"}
    world.facebook.faults.plan(Fault("status", path="/users", status=200, body=answer))
    job = world.delivered("facebook")
    assert job.progress.rejected == 5
    [counted] = rejects(world, job)
    assert (counted["row"], counted["reason"], counted["rows"]) == ("", "invalid_entry", "5")


def test_without_rejects_there_are_only_the_names_of_columns(world: Deliveries) -> None:
    assert rejects(world, world.delivered("facebook")) == []
