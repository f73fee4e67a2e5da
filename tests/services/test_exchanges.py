"""The last requests of a distribution: kept, bounded, and free of people and secrets."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from activation import inspection
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import DistributionStatus
from activation.domain.exchange import KEPT, BodyKind, Exchange, is_sampled
from activation.domain.retention_run import RetentionJob, RunDraft
from activation.errors import StorageUnavailableError
from activation.ports import Batch, Query, Revision
from activation.services.exchanges import COLLECTION, FLUSH_AT, ExchangeLogs, about_batch
from activation.twins.faults import Fault
from tests.e2e.scan import leaks
from tests.services.deliveries import ADDRESSES, SECRETS, Deliveries, delivering

JOB = "0198c2a0-0000-7000-8000-00000000d001"


@pytest.fixture
def world(app: App, ann: Caller) -> Iterator[Deliveries]:
    with delivering(app, ann) as found:
        yield found


def kept(app: App, distribution_id: str) -> list[Exchange]:
    return app.exchanges.last("acme", distribution_id)


def stored(app: App) -> int:
    return app.documents.count(Query("acme", COLLECTION))


def test_a_distribution_keeps_what_was_said(world: Deliveries) -> None:
    job = world.delivered("facebook")
    found = kept(world.app, job.distribution_id)
    [sent] = [one for one in found if one.batch]
    assert (sent.method, sent.status, sent.outcome, sent.batch) == ("POST", 200, "OK", "1")
    audience_id = job.match_results.platform_audience_id or ""
    assert sent.path == f"/facebook/v26.0/‹{len(audience_id)} chars›/users"
    assert sent.request is not None
    assert sent.request.content["payload"]["schema"] == ["EMAIL"]
    assert sent.answer is not None
    assert sent.answer.content["num_received"] == len(ADDRESSES)
    assert [one.method for one in found if not one.batch][:2] == ["GET", "POST"]


def test_a_failure_tells_status_code_and_patience(world: Deliveries) -> None:
    throttled = Fault("status", path="/users", status=429, headers={"Retry-After": "900"})
    world.facebook.faults.plan(throttled)
    job = world.delivered("facebook")
    assert job.status is DistributionStatus.PROCESSING
    failed = kept(world.app, job.distribution_id)[-1]
    assert (failed.status, failed.outcome) == (429, "PLATFORM_UNAVAILABLE")
    assert (failed.platform_code, failed.headers) == ("429", {"retry-after": "900"})


def test_of_the_token_endpoint_only_the_status_is_there(world: Deliveries) -> None:
    job = world.delivered("google_ads")
    tokens = [one for one in kept(world.app, job.distribution_id) if one.method is None]
    assert [one.status for one in tokens] == [200]
    assert tokens[0].model_dump(exclude_defaults=True).keys() == {"at", "status"}


@pytest.mark.embedded("looks at files")
def test_no_person_and_no_secret_is_in_any_stored_byte(world: Deliveries, tmp_path: Path) -> None:
    refused = {"error": {"code": 100, "message": f"bad row {ADDRESSES[0]} twin-token"}}
    world.facebook.faults.plan(Fault("status", path="/users", status=400, body=refused))
    world.refuse_rows([3])
    jobs = [world.delivered("facebook"), world.delivered("google_ads")]
    found = [one for job in jobs for one in kept(world.app, job.distribution_id)]
    assert any(one.status == 400 for one in found)
    assert sum(one.request is not None and one.request.kind is BodyKind.JSON for one in found) > 3
    digests = [hashlib.sha256(address.encode()).hexdigest() for address in ADDRESSES]
    text = b"\n".join(orjson.dumps(one.model_dump(mode="json")) for one in found).decode()
    assert [one for one in (*ADDRESSES, *digests, *SECRETS) if one in text] == []
    assert leaks(tmp_path / "data", [*ADDRESSES[:3], *SECRETS]) == []


def exchange(app: App, status: int) -> Exchange:
    app.clock.sleep(1)
    return Exchange(at=app.clock.now(), status=status)


def test_only_the_last_ones_are_kept(app: App) -> None:
    with app.exchanges.recording("acme", JOB):
        listener = inspection.observer()
        assert listener is not None
        for number in range(KEPT * 4 + 7):
            listener.saw(exchange(app, number))
    found = [one.status for one in kept(app, JOB)]
    assert found == list(range(KEPT * 3 + 7, KEPT * 4 + 7))
    assert stored(app) <= KEPT // FLUSH_AT + 2


def test_many_short_runs_keep_as_many(app: App) -> None:
    for number in range(KEPT + 20):
        app.exchanges.add("acme", JOB, [exchange(app, number)])
    assert [one.status for one in kept(app, JOB)] == list(range(20, KEPT + 20))
    assert stored(app) <= KEPT + 1


def test_exchanges_of_one_instant_stay_in_their_order(app: App) -> None:
    at = app.clock.now()
    for number in range(6):
        app.exchanges.add("acme", JOB, [Exchange(at=at, status=number)])
    assert [one.status for one in kept(app, JOB)] == list(range(6))


def test_another_organization_and_another_distribution_see_nothing(app: App) -> None:
    app.exchanges.add("acme", JOB, [exchange(app, 1)])
    assert app.exchanges.last("evil-corp", JOB) == []
    assert app.exchanges.last("acme", JOB.replace("d001", "d002")) == []


def test_of_batches_the_first_and_one_in_twenty_and_all_failures_are_kept(app: App) -> None:
    heard: list[tuple[int, bool]] = []
    with app.exchanges.recording("acme", JOB):
        for seq in range(1, 61):
            with about_batch(f"lane:{seq}", seq):
                listener = inspection.observer()
                assert listener is not None
                heard += [
                    (seq, failed) for failed in (False, True) if listener.wants(failed=failed)
                ]
    assert [seq for seq, failed in heard if not failed] == [1, 20, 40, 60]
    assert [seq for seq, failed in heard if failed] == list(range(1, 61))
    assert [seq for seq in range(1, 61) if is_sampled(seq)] == [1, 20, 40, 60]


def test_without_a_recording_nobody_listens() -> None:
    with about_batch("1", 1):
        assert inspection.observer() is None


class Failing:
    """A document store that takes no exchanges."""

    def __init__(self, app: App) -> None:
        self._documents = app.documents

    def query(self, query: Query) -> object:
        return self._documents.query(query)

    def commit(self, batch: Batch) -> list[Revision]:
        raise StorageUnavailableError(f"{len(batch.writes)} writes fail")


def test_a_store_that_fails_costs_exchanges_and_not_the_work(app: App) -> None:
    logs = ExchangeLogs(Failing(app), app.clock)  # type: ignore[arg-type]
    with logs.recording("acme", JOB):
        listener = inspection.observer()
        assert listener is not None
        listener.saw(exchange(app, 1))
    assert kept(app, JOB) == []


def test_they_go_with_the_distribution_into_the_archive(world: Deliveries) -> None:
    app = world.app
    job = world.matched("facebook")
    world.app.evidence.pack(world.ann, job.distribution_id)
    found = kept(app, job.distribution_id)
    assert found
    app.clock.sleep(timedelta(days=92).total_seconds())
    run = app.retention.start(world.ann, RunDraft(job=RetentionJob.MONTHLY)).entity
    app.job_worker.run("acme", run.run_id, "t")
    assert stored(app) == 0
    assert app.documents.count(Query("acme", "list_digests")) == 0
    [archived] = app.archive_blobs.list("acme", "distributions/")
    line = orjson.loads(gzip.decompress(app.archive_blobs.get(archived.key)))
    assert [Exchange.model_validate(one) for one in line["exchanges"]] == found
