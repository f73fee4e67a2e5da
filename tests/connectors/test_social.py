"""What the connectors of TikTok, LinkedIn, Snapchat and Pinterest share, at their twins."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformRowsError,
    PlatformTransientError,
)
from activation.twins.faults import Fault
from activation.twins.members import TwinAudience
from activation.twins.tiktok import TikTokTwin
from tests.connectors.social import KINDS, TOKEN, Stage, emails, staged
from tests.connectors.support import ADD, digest_of, to

REFRESHING = [name for name, kind in KINDS.items() if kind.credentials is not TOKEN]


@pytest.fixture(params=KINDS)
def stage(
    request: pytest.FixtureRequest, clock: MovableClock, registry: ConnectorRegistry
) -> Iterator[Stage]:
    kind = KINDS[request.param]
    with staged(request.param, registry, kind.make(clock)) as stage:
        yield stage


refreshing = pytest.mark.parametrize("stage", REFRESHING, indirect=True)


def test_an_audience_is_made_once_also_by_workers_that_know_nothing_of_each_other(
    stage: Stage,
) -> None:
    for part in range(2):
        connector = stage.connector()
        audience_id = connector.create_audience(stage.account, ADD)
        connector.send(stage.account, to(ADD, audience_id), 1, emails(4, start=4 * part))
        connector.send(stage.account, to(ADD, audience_id), 2, emails(1))
    assert len(stage.audiences) == 1
    assert stage.digest() == digest_of(emails(8))


def test_another_audience_of_the_same_name_is_another(stage: Stage) -> None:
    connector = stage.connector()
    for external_id in ("aa-1", "aa-11"):
        delivery = dataclasses.replace(ADD, external_id=external_id)
        audience_id = connector.create_audience(stage.account, delivery)
        connector.send(stage.account, to(delivery, audience_id), 1, emails(2))
    assert len(stage.audiences) == 2


def test_a_renamed_audience_is_found_again(stage: Stage) -> None:
    connector = stage.connector()
    first = connector.create_audience(stage.account, ADD)
    connector.send(stage.account, to(ADD, first), 1, emails(2))
    renamed = dataclasses.replace(ADD, audience_name="R" * 500)
    found = connector.create_audience(stage.account, renamed)
    assert list(stage.audiences) == [found]


def test_the_final_set_is_what_was_sent_and_a_repeat_changes_nothing(stage: Stage) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD), batches=2, rows=30)
    first, second = emails(20), emails(10, start=20)
    for seq, batch in ((1, first), (1, first), (2, second), (2, second)):
        outcome = connector.send(stage.account, delivery, seq, batch)
        assert (outcome.rejected, outcome.unplaced_rejects) == ({}, {})
    connector.finish(stage.account, delivery)
    assert stage.digest() == digest_of(first, second)


def test_a_removed_member_disappears_and_stays_away(stage: Stage) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    connector.send(stage.account, delivery, 1, emails(10))
    removal = dataclasses.replace(delivery, operation="remove")
    for _ in range(2):
        connector.send(stage.account, removal, 1, emails(4))
    assert stage.digest() == digest_of(emails(6, start=4))


def test_a_batch_as_large_as_the_spec_says_is_taken_and_a_larger_one_is_not(stage: Stage) -> None:
    connector = stage.connector()
    most = connector.spec.max_rows
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    connector.send(stage.account, delivery, 1, emails(most))
    assert stage.digest() == digest_of(emails(most))
    known = to(delivery, next(iter(stage.audiences)))
    with pytest.raises(PlatformError) as caught:
        connector.send(stage.account, known, 2, emails(most + 1))
    assert type(caught.value) is PlatformError
    assert stage.digest() == digest_of(emails(most))


def test_a_batch_that_is_too_long_may_be_halved(stage: Stage) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    connector.send(stage.account, delivery, 1, emails(1))
    known = to(ADD, next(iter(stage.audiences)))
    stage.twin.faults.plan(Fault("limit", path=stage.kind.users_path, size=1000, times=9))
    with pytest.raises(PlatformRowsError) as caught:
        connector.send(stage.account, known, 2, emails(50))
    assert (caught.value.platform_code, caught.value.rows) == ("413", ())
    connector.send(stage.account, known, 2, emails(3))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset"),
        Fault("truncate"),
        Fault("cut"),
        Fault("lost"),
        Fault("status", status=500),
        Fault("status", status=502, body="<html>Bad gateway</html>"),
        Fault("status", status=429, headers={"Retry-After": "1"}),
        Fault("delay", seconds=5),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
def test_one_failure_is_overcome_and_nothing_is_doubled(stage: Stage, fault: Fault) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    connector.send(stage.account, delivery, 1, emails(1))
    known = to(ADD, next(iter(stage.audiences)))
    stage.twin.faults.plan(dataclasses.replace(fault, path=stage.kind.users_path))
    connector.send(stage.account, known, 2, emails(10))
    assert stage.twin.faults.pending() == []
    assert stage.digest() == digest_of(emails(10))


def test_a_creation_whose_answer_is_lost_is_not_repeated_blindly(stage: Stage) -> None:
    """The engine comes again with nothing in its hands, and finds what was made."""
    stage.twin.faults.plan(Fault("lost", method="POST", path=_makes(stage)))
    with pytest.raises(PlatformTransientError):
        _deliver(stage)
    assert len(stage.audiences) == 1
    _deliver(stage)
    assert len(stage.audiences) == 1
    assert stage.digest() == digest_of(emails(3))


def _makes(stage: Stage) -> str:
    """A part of the address at which audiences are made."""
    return {"tiktok": "/segment/audience", "linkedin": "/rest/dmp"}.get(stage.name, "a")


def _deliver(stage: Stage) -> None:
    connector = stage.connector()
    # So that no token request meets the fault.
    account = stage.account_with(TOKEN)
    audience_id = connector.create_audience(account, ADD)
    connector.send(account, to(ADD, audience_id), 1, emails(3))


def test_a_long_pause_is_handed_back(stage: Stage) -> None:
    fault = Fault("status", status=429, headers={"Retry-After": "90"}, path=stage.kind.reads_path)
    stage.twin.faults.plan(fault)
    with pytest.raises(PlatformTransientError) as caught:
        stage.connector().check(stage.account)
    assert caught.value.retry_after_seconds == 90
    assert stage.twin.faults.pending() == []


def test_an_audience_behind_many_others_is_found(stage: Stage) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    connector.send(stage.account, delivery, 1, emails(2))
    ((audience_id, mine),) = stage.audiences.items()
    del stage.audiences[audience_id]
    for number in range(1100):
        other = TwinAudience(
            str(number),
            f"Other {number} [aa-{number}]",
            external_id=f"aa-{number}",
            created_at=mine.created_at,
            details=dict(mine.details),
        )
        stage.audiences[other.audience_id] = other
    stage.audiences[audience_id] = mine
    assert stage.connector().create_audience(stage.account, ADD) == audience_id
    unlike = dataclasses.replace(ADD, external_id="aa-none-of-them")
    made = connector.create_audience(stage.account, unlike)
    connector.send(stage.account, to(unlike, made), 1, emails(1))
    assert len(stage.audiences) == 1102


def test_a_plain_access_token_is_enough(stage: Stage) -> None:
    connector = stage.connector()
    connector.check(stage.account_with(TOKEN))
    with pytest.raises(PlatformAuthError) as caught:
        connector.check(stage.account_with({"access_token": "dead"}))
    assert "dead" not in f"{caught.value!r} {vars(caught.value)}"
    with pytest.raises(PlatformAuthError):
        connector.check(stage.account_with({}))


@refreshing
def test_a_token_is_kept_until_shortly_before_it_ends(stage: Stage, clock: MovableClock) -> None:
    connector = stage.connector()
    for seconds in (0, 3000, 470, 100):
        clock.sleep(seconds)
        connector.check(stage.account)
    assert stage.twin.state()["requests"] == {"POST 200": 2, "GET 200": 4}


@refreshing
def test_a_refused_token_is_replaced_once(stage: Stage) -> None:
    connector = stage.connector()
    connector.check(stage.account)
    assert not isinstance(stage.twin, TikTokTwin)
    stage.twin.tokens.revoke_all()
    connector.check(stage.account)
    assert stage.twin.state()["requests"] == {"POST 200": 2, "GET 200": 2, "GET 401": 1}
    stage.twin.faults.plan(Fault("status", status=401, path=stage.kind.reads_path, times=9))
    with pytest.raises(PlatformAuthError):
        connector.check(stage.account)
    assert stage.twin.faults.pending()[0].times == 7


@refreshing
@pytest.mark.parametrize(
    ("field", "code"), [("refresh_token", "invalid_grant"), ("client_secret", "invalid_client")]
)
def test_a_refused_grant_needs_a_new_login(stage: Stage, field: str, code: str) -> None:
    wrong = stage.account_with({**stage.kind.credentials, field: "stale-secret"})
    with pytest.raises(PlatformAuthError) as caught:
        stage.connector().check(wrong)
    assert caught.value.platform_code == code
    assert "stale-secret" not in str(caught.value)


def test_another_version_of_the_api_is_another_api(stage: Stage) -> None:
    with pytest.raises(PlatformError) as caught:
        stage.connector().check(stage.account_with(TOKEN, api_url=f"{stage.url}/v0"))
    assert not caught.value.retryable


def test_nothing_of_a_request_is_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    connector.send(stage.account, delivery, 1, emails(1))
    secrets = ("twin-token", "twin-secret", "twin-refresh", str(emails(1)["email"][0]))
    assert not [secret for secret in secrets if secret in caplog.text]
