"""Idempotency keys over HTTP."""

from __future__ import annotations

import hashlib
import threading

import orjson
import pytest
from werkzeug.test import TestResponse

from activation.domain.caller import Caller, Role
from activation.ports import Batch, Query
from tests.api.client import Api, code
from tests.gate import Gate

BODY = {"name": "Buyers", "type": "first_party"}


@pytest.fixture
def keyed(api: Api) -> Api:
    return api.with_headers(Idempotency_Key="key-1")


def test_repeated_post_gets_the_first_answer(api: Api, keyed: Api) -> None:
    first = keyed.post("/audiences", BODY)
    api.patch(f"/audiences/{first.get_json()['audience_id']}", {"description": "changed"})
    again = keyed.post("/audiences", BODY)
    assert (again.status_code, again.get_json()) == (201, first.get_json())
    assert again.headers["Idempotent-Replay"] == "true"
    assert "Idempotent-Replay" not in first.headers
    assert api.get("/audiences").get_json()["total"] == 1


def test_other_body_under_the_key_is_422(keyed: Api) -> None:
    keyed.post("/audiences", BODY)
    response = keyed.post("/audiences", {**BODY, "name": "Others"})
    assert code(response) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_key_counts_per_route_and_operator(api: Api, keyed: Api, public: Api) -> None:
    first = keyed.post("/audiences", BODY).get_json()
    path = f"/audiences/{first['audience_id']}/versions"
    assert keyed.post(path, {"description": "x"}).status_code == 201
    bob = public.as_(Role.EDITOR, user="bob").with_headers(Idempotency_Key="key-1")
    assert code(bob.post("/audiences", BODY)) == (409, "NAME_TAKEN")


def test_both_prefixes_share_a_key(api: Api, keyed: Api) -> None:
    first = keyed.post("/audiences", BODY)
    assert keyed.at("/api").post("/audiences", BODY).get_json() == first.get_json()


def test_failed_request_frees_its_key(api: Api, keyed: Api) -> None:
    blocker = api.audience("Buyers")
    assert code(keyed.post("/audiences", BODY)) == (409, "NAME_TAKEN")
    api.delete(f"/audiences/{blocker['audience_id']}")
    assert keyed.post("/audiences", BODY).status_code == 201


def test_refused_request_takes_no_key(api: Api, keyed: Api) -> None:
    assert keyed.post("/audiences", {"name": ""}).status_code == 422
    assert api.server.app.documents.count(Query("acme", "idempotency")) == 0


def test_key_of_a_running_request_is_409(api: Api, keyed: Api) -> None:
    body = orjson.dumps(BODY)
    ann = Caller("acme", "ann", Role.ADMIN, "test")
    digest = hashlib.sha256(b"\n" + body).hexdigest()
    api.server.app.idempotency.claim(ann, "POST /api/v1/audiences ann", "key-1", digest)
    response = keyed.post("/audiences", data=body, content_type="application/json")
    assert code(response) == (409, "IDEMPOTENCY_IN_PROGRESS")
    assert int(response.headers["Retry-After"]) >= 1
    api.server.app.clock.sleep(61)
    late = keyed.post("/audiences", data=body, content_type="application/json")
    assert late.status_code == 201


def test_parallel_requests_under_one_key_act_once(api: Api, keyed: Api) -> None:
    answers: list[tuple[int, str | None]] = []

    def create() -> None:
        response = keyed.post("/audiences", BODY)
        answers.append((response.status_code, response.get_json().get("audience_id")))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} <= {201, 409}
    assert len({audience_id for status, audience_id in answers if status == 201}) == 1
    assert api.get("/audiences").get_json()["total"] == 1


def test_request_that_was_overtaken_by_its_own_repetition_gets_the_answer(
    api: Api, keyed: Api
) -> None:
    """The repetition has taken the name; the first is told what it did, and not that."""
    app = api.server.app
    gate = Gate(app.documents)
    app.__dict__["documents"] = gate
    answers: list[TestResponse] = []

    def repeated() -> None:
        app.clock.sleep(61)
        answers.append(keyed.post("/audiences", BODY))

    first = gate.held(lambda: keyed.post("/audiences", BODY), repeated, _creates_an_audience)
    assert [answer.status_code for answer in (first, *answers)] == [201, 201]
    assert first.get_json() == answers[0].get_json()
    assert first.headers["Idempotent-Replay"] == "true"
    assert api.get("/audiences").get_json()["total"] == 1


def _creates_an_audience(batch: Batch) -> bool:
    return any(write.key.collection == "audiences" for write in batch.writes)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "ä"])
def test_malformed_key_is_422(key: str, api: Api) -> None:
    response = api.post("/audiences", BODY, headers={"Idempotency-Key": key})
    assert code(response) == (422, "VALIDATION_ERROR")


def test_key_is_kept_for_a_day(api: Api, keyed: Api) -> None:
    first = keyed.post("/audiences", BODY).get_json()
    api.server.app.clock.sleep(24 * 3600 - 1)
    api.server.tick()
    fresh = api.as_().with_headers(Idempotency_Key="key-1")
    assert fresh.post("/audiences", BODY).get_json() == first
    api.server.app.clock.sleep(2)
    api.server.tick()
    assert code(api.as_().with_headers(Idempotency_Key="key-1").post("/audiences", BODY)) == (
        409,
        "NAME_TAKEN",
    )
