"""Suppression lists over HTTP: added, asked, removed, and brought as a file."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from werkzeug.test import Client

from activation.domain.caller import Role
from activation.domain.suppression import GLOBAL, MAX_BATCH, SuppressionsDraft
from tests.api.client import Api, code
from tests.api.conftest import MAX_BODY
from tests.api.test_imports import Rows
from tests.conftest import caller_of

CSV = {"content_type": "text/csv"}


def email(address: str, **fields: Any) -> dict[str, Any]:
    return {"identifier_type": "email", "identifier_value": address, **fields}


def added(api: Api, *addresses: str, **fields: Any) -> dict[str, Any]:
    response = api.post("/suppressions", {"suppressions": [email(a, **fields) for a in addresses]})
    assert response.status_code == 200, response.get_json()
    answer: dict[str, Any] = response.get_json()
    return answer


def checked(api: Api, address: str) -> dict[str, Any]:
    answer: dict[str, Any] = api.post("/suppressions/check", email(address)).get_json()
    return answer


def finished(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    while api.server.deliver():
        pass
    found: dict[str, Any] = api.get(f"/jobs/{job['job_id']}").get_json()
    return found


def test_an_identifier_comes_goes_and_is_asked_for(api: Api) -> None:
    answer = added(api, "A@b.de", "nobody", reason="do_not_sell")
    assert answer == {
        "received": 2,
        "accepted": 1,
        "added": 1,
        "updated": 0,
        "duplicate": 0,
        "rejected": 1,
        "rejects": [{"position": 1, "reason": "invalid_email"}],
        "size": 1,
    }
    status = api.get("/suppressions").get_json()
    assert (status["size"], status["by_reason"]) == (1, {"do_not_sell": 1})
    (finding,) = checked(api, "a@b.de")["findings"]
    assert (finding["scope"], finding["reason"]) == ("organization", "do_not_sell")
    hashed = email(hashlib.sha256(b"a@b.de").hexdigest(), hash_rule="plain")
    removed = api.delete("/suppressions", json=hashed).get_json()
    assert removed == {"removed": True, "suppressed": False}
    assert checked(api, "a@b.de") == {"suppressed": False, "findings": []}


def test_the_same_key_acts_once(api: Api) -> None:
    once = api.with_headers(Idempotency_Key="k1")
    first = added(once, "a@b.de")
    assert added(once, "a@b.de") == first
    again = {"suppressions": [email("b@b.de")]}
    assert code(once.post("/suppressions", again)) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert added(api, "a@b.de")["duplicate"] == 1


def test_a_repeated_removal_takes_back_no_later_opt_out(api: Api) -> None:
    added(api, "a@b.de")
    once = api.with_headers(Idempotency_Key="k1")
    first = once.delete("/suppressions", json=email("a@b.de")).get_json()
    added(api, "a@b.de")
    again = once.delete("/suppressions", json=email("a@b.de"))
    assert again.headers["Idempotent-Replay"] == "true"
    assert again.get_json() == first == {"removed": True, "suppressed": False}
    assert checked(api, "a@b.de")["suppressed"]


def test_another_organization_sees_and_feels_nothing(api: Api, stranger: Api) -> None:
    before = stranger.get("/suppressions").get_json()
    added(api, "a@b.de")
    assert stranger.get("/suppressions").get_json() == before
    assert not checked(stranger, "a@b.de")["suppressed"]
    answer = stranger.delete("/suppressions", json=email("a@b.de")).get_json()
    assert answer == {"removed": False, "suppressed": False}
    assert checked(api, "a@b.de")["suppressed"]


def test_no_token_reaches_the_list_of_the_installation(api: Api, public: Api) -> None:
    draft = SuppressionsDraft.model_validate({"suppressions": [email("a@b.de")]})
    api.server.app.suppressions.add(caller_of(GLOBAL, "cli:operator"), draft)
    assert checked(api, "a@b.de")["findings"][0]["scope"] == "global"
    intruder = public.as_(Role.ADMIN, org=GLOBAL)
    for response in (
        intruder.get("/suppressions"),
        intruder.post("/suppressions", {"suppressions": [email("b@b.de")]}),
        intruder.delete("/suppressions", json=email("a@b.de")),
    ):
        assert code(response) == (401, "UNAUTHENTICATED")
    assert api.get("/suppressions").get_json()["global_size"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {"suppressions": []},
        {"suppressions": [email(f"p{n}@b.de") for n in range(MAX_BATCH + 1)]},
        {"suppressions": [email("a@b.de", reason="because")]},
        {"suppressions": [email("a@b.de", list="global")]},
        {"suppressions": [email("a@b.de")], "organization_id": "evil-corp"},
    ],
)
def test_bodies_are_bounded_and_exact(api: Api, body: dict[str, Any]) -> None:
    assert code(api.post("/suppressions", body)) == (422, "VALIDATION_ERROR")
    assert api.get("/suppressions").get_json()["size"] == 0


def test_phones_take_a_default_region(api: Api) -> None:
    phone = {"identifier_type": "phone", "identifier_value": "030 1234567"}
    body = {"suppressions": [phone], "default_region": "DE"}
    assert api.post("/suppressions", body).get_json()["added"] == 1
    asked = {"identifier_type": "phone", "identifier_value": "+49301234567"}
    assert api.post("/suppressions/check", asked).get_json()["suppressed"]


def test_a_file_in_the_body_is_read_as_a_stream(api: Api) -> None:
    rows = Rows(6_000)
    assert rows.length > MAX_BODY
    response = api.post(
        "/suppressions/imports?reason=opt_out",
        input_stream=rows,
        content_length=rows.length,
        **CSV,
    )
    assert response.status_code == 202
    job = finished(api, response.get_json())
    assert (job["kind"], job["status"], job["result"]["added"]) == ("suppress", "completed", 6_000)
    assert rows.largest_read <= 2 * 1024 * 1024
    assert api.get("/suppressions").get_json()["by_reason"] == {"opt_out": 6_000}
    assert checked(api, "user5999@example.com")["suppressed"]


def test_a_repeated_file_is_one_job(api: Api) -> None:
    once = api.with_headers(Idempotency_Key="file")
    jobs = [
        once.post("/suppressions/imports", data=b"email\na@b.de\n", **CSV).get_json()
        for _ in range(2)
    ]
    assert jobs[0]["job_id"] == jobs[1]["job_id"]
    assert finished(api, jobs[0])["result"]["added"] == 1


def test_a_large_file_goes_to_an_address_of_its_own(api: Api, stranger: Api) -> None:
    created = api.post("/suppressions/uploads")
    assert created.status_code == 201
    upload_id, upload = created.get_json()["upload_id"], created.get_json()["upload"]
    body = {"upload_id": upload_id, "reason": "list"}
    assert code(api.post("/suppressions/imports", body)) == (422, "VALIDATION_ERROR")
    put = Client(api.server.wsgi).open(
        upload["url"], method="PUT", data=b"email\na@b.de\nb@b.de\n", headers=upload["headers"]
    )
    assert put.status_code == 201
    while api.server.deliver():
        pass
    assert api.server.app.bus.dead_letters("import_members") == []
    assert code(stranger.post("/suppressions/imports", body)) == (422, "VALIDATION_ERROR")
    job = finished(api, api.post("/suppressions/imports", body).get_json())
    assert job["result"]["added"] == 2


@pytest.mark.parametrize(
    ("content_type", "content", "status"),
    [
        ("text/plain", b"email\na@b.de\n", 415),
        ("text/csv", b"city\nBerlin\n", 422),
        ("text/csv", b"", 422),
    ],
)
def test_what_is_no_such_file_is_refused(
    api: Api, content_type: str, content: bytes, status: int
) -> None:
    response = api.post("/suppressions/imports", data=content, content_type=content_type)
    assert response.status_code == status


def test_columns_may_be_told(api: Api) -> None:
    columns = '[{"column":"x","identifier_type":"email","hash_rule":"plain"}]'
    digest = hashlib.sha256(b"a@b.de").hexdigest()
    response = api.send(
        "POST",
        "/suppressions/imports",
        query_string={"columns": columns, "reason": "erasure"},
        data=f"x,y\n{digest},a@b.de\n".encode(),
        **CSV,
    )
    assert finished(api, response.get_json())["result"]["added"] == 1
    path = f"/audiences/{api.audience()['audience_id']}/members"
    answer = api.post(path, {"members": [email("a@b.de")]}).get_json()
    assert answer["rejects"] == [{"position": 0, "reason": "suppressed"}]
