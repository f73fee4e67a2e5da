"""Locks: one holder at a time over threads and processes, taken over when he is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from werkzeug.wrappers import Request, Response

from activation.adapters.clock import MovableClock, SystemClock
from activation.adapters.connectors.http import PlatformHTTP
from activation.adapters.connectors.tokens import AccessTokens, TokenLock, refresh_grant
from activation.adapters.embedded.documents import SqliteDocuments
from activation.app import App
from activation.errors import PlatformTransientError
from activation.ports import Account, Key
from activation.services.locks import COLLECTION, HELD_SECONDS, SHARED, WAIT_SECONDS, DocumentLock
from activation.twins.oauth import OAuthEndpoint
from tests.wire.http import served

WORKERS = 8
CREDENTIALS = {
    "client_id": "twin-client",
    "client_secret": "twin-secret",
    "refresh_token": "twin-refresh",
}


@pytest.fixture
def lock(app: App) -> DocumentLock:
    return DocumentLock(app.documents, app.clock)


def left(app: App, name: str) -> bool:
    """Whether somebody holds the lock, or died with it."""
    return app.documents.get(Key(SHARED, COLLECTION, name)) is not None


def test_a_lock_is_given_back(app: App, lock: DocumentLock) -> None:
    with lock("p-1"):
        assert left(app, "p-1")
    assert not left(app, "p-1")
    with suppress(RuntimeError), lock("p-1"):
        raise RuntimeError
    assert not left(app, "p-1")


def test_who_waits_too_long_is_told_when_to_come_back(app: App, lock: DocumentLock) -> None:
    with lock("p-1"), lock("p-2"):
        before = app.clock.now()
        with pytest.raises(PlatformTransientError) as refused, lock("p-1"):
            pytest.fail("two hold one lock")
        assert refused.value.retry_after_seconds == WAIT_SECONDS
        waited = app.clock.now() - before
    assert timedelta(seconds=WAIT_SECONDS) <= waited < timedelta(seconds=WAIT_SECONDS + 1)


def test_the_lock_of_a_dead_worker_is_taken_over_when_its_time_is_over(
    app: App, clock: MovableClock, lock: DocumentLock
) -> None:
    address = Key(SHARED, COLLECTION, "p-1")
    lock._taken(address)  # and then the process dies
    clock.sleep(HELD_SECONDS - WAIT_SECONDS - 1)
    with pytest.raises(PlatformTransientError), lock("p-1"):
        pytest.fail("it is not over yet")
    clock.sleep(1)
    with lock("p-1"):
        assert left(app, "p-1")
    assert not left(app, "p-1")


def test_who_was_taken_over_does_not_free_the_lock_of_his_successor(
    app: App, clock: MovableClock, lock: DocumentLock
) -> None:
    slow = lock("p-1")
    slow.__enter__()
    clock.sleep(HELD_SECONDS)
    with lock("p-1"):
        slow.__exit__(None, None, None)
        assert left(app, "p-1")


def at_once(work: Callable[[], None]) -> list[Exception]:
    """Let WORKERS threads do the same at the same moment; what they failed with."""
    ready, failures = threading.Barrier(WORKERS), list[Exception]()

    def run() -> None:
        ready.wait()
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test tells
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def refreshed_by_workers(lock: TokenLock | None) -> int:
    """How often WORKERS who need an access token at once have it renewed."""
    endpoint, asked = OAuthEndpoint(SystemClock()), list[str]()
    another, patience = threading.Event(), 30.0 if lock is None else 0.2

    def respond(request: Request) -> Response:
        asked.append("refresh")
        if len(asked) > 1:
            another.set()
        another.wait(patience)  # slow enough for the others to come
        return endpoint.respond(request)

    account = Account("platform-1", {}, CREDENTIALS)
    with served(respond) as url:
        http = PlatformHTTP(SystemClock(), allow_private_hosts=True)
        tokens = AccessTokens(http, lock)
        used: list[str] = []
        failures = at_once(
            lambda: tokens.authorized(
                account, url, lambda given, _now: refresh_grant(url, given), used.append
            )
        )
        http.close()
    assert failures == []
    assert len(used) == WORKERS
    if lock is not None:
        assert len(set(used)) == 1
    return len(asked)


@pytest.mark.embedded("threads need a clock that moves by itself")
def test_workers_of_one_account_renew_its_token_once(tmp_path: Path) -> None:
    documents = SqliteDocuments(tmp_path / "documents.sqlite", SystemClock())
    assert refreshed_by_workers(DocumentLock(documents, SystemClock())) == 1
    assert refreshed_by_workers(None) > 1, "the test would not see a lock that does nothing"
    documents.close()


@pytest.mark.embedded("threads need a clock that moves by itself")
def test_processes_renew_one_after_the_other(tmp_path: Path) -> None:
    path, inside, most, guard = tmp_path / "documents.sqlite", [0], [0], threading.Lock()

    def work() -> None:
        documents = SqliteDocuments(path, SystemClock())
        with DocumentLock(documents, SystemClock())("p-1"):
            with guard:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            SystemClock().sleep(0.02)
            with guard:
                inside[0] -= 1
        documents.close()

    assert at_once(work) == []
    assert most == [1]


def test_the_app_gives_connectors_this_lock(app: App) -> None:
    tokens = app.connectors._tools.tokens  # type: ignore[attr-defined]
    with tokens._refreshing("p-1"):
        assert left(app, "p-1")
