"""Message doors: who may deliver, in which form, and what the bus is told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from activation.api.doors import ENVIRON
from activation.domain.caller import Role
from activation.function_manifest import functions
from activation.local import LocalServer
from activation.message_codec import push_body
from activation.ports import Message
from tests.api.client import Api, require_envelope

EVENT_FUNCTIONS = [one.name for one in functions() if one.trigger != "http"]
MESSAGE_FUNCTIONS = [one.name for one in functions() if one.trigger == "topic"]


class Bus:
    """Delivers to one function, as the bus of the cloud would."""

    def __init__(self, server: LocalServer, function: str) -> None:
        self.server, self.function = server, function
        self.token = server.issuer.service_token(function)

    def deliver(self, **options: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        overrides = {ENVIRON: self.server._doors, **options.pop("environ_overrides", {})}
        method = options.pop("method", "POST")
        return Client(self.server._functions[self.function]).open(
            "/", method=method, headers=headers, environ_overrides=overrides, **options
        )

    def send(self, data: dict[str, Any], organization: str = "acme") -> TestResponse:
        message = Message("topic", organization, "m-1", data, trace_id="trace-of-message")
        return self.deliver(json=push_body(message, self.function))


@pytest.fixture
def imports(server: LocalServer) -> Bus:
    return Bus(server, "import_members")


@pytest.mark.parametrize("function", EVENT_FUNCTIONS)
class TestWhoMayDeliver:
    def test_nobody_without_a_token(self, function: str, server: LocalServer) -> None:
        response = Client(server._functions[function]).post(
            "/", json={}, environ_overrides={ENVIRON: server._doors}
        )
        assert response.status_code == 401
        require_envelope(response)

    def test_no_operator_not_even_an_admin(self, function: str, server: LocalServer) -> None:
        bus = Bus(server, function)
        bus.token = server.issuer.token("acme", "ann", Role.ADMIN)
        response = bus.deliver(json={})
        assert response.status_code == 403
        require_envelope(response)

    @pytest.mark.parametrize("method", ["GET", "PUT", "TRACE"])
    def test_messages_are_posted(self, method: str, function: str, server: LocalServer) -> None:
        response = Bus(server, function).deliver(method=method)
        assert response.status_code == 405
        require_envelope(response)

    def test_health_is_told_to_everybody_and_does_nothing(
        self, function: str, server: LocalServer
    ) -> None:
        client, doors = Client(server._functions[function]), {ENVIRON: server._doors}
        response = client.get("/health", environ_overrides=doors)
        assert (response.status_code, response.get_json()) == (200, {"status": "ok"})
        for method, path in (("POST", "/health"), ("GET", "/healthy"), ("GET", "/ready")):
            refused = client.open(path, method=method, json={}, environ_overrides=doors)
            assert refused.status_code in (401, 405)
            require_envelope(refused)

    def test_huge_message_is_413(self, function: str, server: LocalServer) -> None:
        length = {"CONTENT_LENGTH": str(20 * 1024 * 1024)}
        response = Bus(server, function).deliver(data=b"x", environ_overrides=length)
        assert response.status_code == 413


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"\xff",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "no message": b"{}",
    "message is text": b'{"message":"x","subscription":"s"}',
    "no subscription": b'{"message":{"data":"e30="}}',
    "data is not base64": b'{"message":{"data":"!"},"subscription":"s"}',
    "data is not JSON": b'{"message":{"data":"AAAA"},"subscription":"s"}',
    "data nests deeply": json.dumps(
        {"message": {"data": base64.b64encode(b"[" * 9999).decode()}, "subscription": "s"}
    ).encode(),
    "event without data": b'{"specversion":"1.0","type":"t","source":"s","id":"1"}',
}


@pytest.mark.parametrize("function", MESSAGE_FUNCTIONS)
@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_malformed_message_is_refused_and_ends_as_a_dead_letter(
    name: str, function: str, server: LocalServer
) -> None:
    response = Bus(server, function).deliver(data=MALFORMED[name], content_type="application/json")
    assert response.status_code == 400
    assert response.get_json()["error"]["code"] in ("BAD_REQUEST", "MALFORMED_JSON")


@pytest.mark.parametrize("function", MESSAGE_FUNCTIONS)
@pytest.mark.parametrize(
    "data",
    [
        {},
        {"import_id": 7, "distribution_id": 7, "job_id": 7},
        {"import_id": 7, "webhook_delivery_id": 7, "job_id": 7},
        {"kind": "storage#object", "name": "acme/other/thing"},
        {"kind": "storage#object", "name": 7},
    ],
)
def test_message_without_a_meaning_is_refused(
    data: dict[str, Any], function: str, server: LocalServer
) -> None:
    assert Bus(server, function).send(data, "acme").status_code == 400


@pytest.mark.parametrize("function", sorted({*MESSAGE_FUNCTIONS} - {"process_events"}))
@pytest.mark.parametrize(
    "data",
    [
        {"import_id": "../x", "distribution_id": "../x", "job_id": "../x"},
        {"import_id": "unknown", "distribution_id": "unknown", "job_id": "unknown"},
        {"platform_id": "unknown", "import_id": "unknown", "job_id": "unknown"},
        {"webhook_delivery_id": "unknown", "import_id": "unknown", "job_id": "unknown"},
        {"webhook_delivery_id": "../x", "import_id": "unknown", "job_id": "unknown"},
        {"followed": "unknown", "import_id": "unknown", "follow": "unknown"},
        {"followed": "../x", "import_id": "unknown", "follow": "../x"},
    ],
)
@pytest.mark.parametrize("organization", ["acme", "", "../evil"])
def test_message_about_nothing_we_have_is_acknowledged(
    organization: str, data: dict[str, Any], function: str, server: LocalServer
) -> None:
    step = {"shard": 63, "number": 7} if function == "follow_segments" else {}
    assert Bus(server, function).send({**data, **step}, organization).status_code == 204


@pytest.mark.parametrize("organization", ["acme", "", "../evil"])
def test_events_of_no_organization_become_dead_letters(
    organization: str, server: LocalServer
) -> None:
    event = {"user_id": "ann", "event_type": "orders"}
    response = Bus(server, "process_events").send(event, organization)
    assert response.get_json()["error"]["details"]["reason"] == "unknown_organization"
    assert response.status_code == 400


class TestForms:
    """The same message in every form in which a bus may bring it starts the same import."""

    @pytest.fixture
    def job(self, api: Api) -> dict[str, Any]:
        path = f"/audiences/{api.audience()['audience_id']}/imports"
        created = api.post(path, data=b"email\na@example.com\n", content_type="text/csv")
        answer: dict[str, Any] = created.get_json()
        return answer

    @pytest.fixture
    def body(self, job: dict[str, Any]) -> dict[str, Any]:
        message = Message("member-imports", "acme", "m-1", {"import_id": job["import_id"]})
        return push_body(message, "import_members")

    def require_imported(self, api: Api, job: dict[str, Any]) -> None:
        path = f"/audiences/{job['audience_id']}/imports/{job['import_id']}"
        assert api.get(path).get_json()["status"] == "completed"

    def test_push_request(
        self, imports: Bus, api: Api, job: dict[str, Any], body: dict[str, Any]
    ) -> None:
        assert imports.deliver(json=body).status_code == 204
        self.require_imported(api, job)

    def test_binary_cloud_event(
        self, imports: Bus, api: Api, job: dict[str, Any], body: dict[str, Any]
    ) -> None:
        headers = {
            "ce-specversion": "1.0",
            "ce-id": "m-1",
            "ce-source": "//pubsub.googleapis.com/projects/p/topics/member-imports",
            "ce-type": "google.cloud.pubsub.topic.v1.messagePublished",
        }
        assert imports.deliver(json=body, headers=headers).status_code == 204
        self.require_imported(api, job)

    def test_structured_cloud_event(
        self, imports: Bus, api: Api, job: dict[str, Any], body: dict[str, Any]
    ) -> None:
        event = {"specversion": "1.0", "id": "m-1", "source": "s", "type": "t", "data": body}
        kind = "application/cloudevents+json"
        response = imports.deliver(data=json.dumps(event), content_type=kind)
        assert response.status_code == 204
        self.require_imported(api, job)

    def test_notification_of_the_bucket(self, imports: Bus, api: Api, job: dict[str, Any]) -> None:
        name = f"acme/imports/{job['import_id']}/source"
        data = base64.b64encode(json.dumps({"kind": "storage#object", "name": name}).encode())
        message = {
            "data": data.decode(),
            "messageId": "1",
            "attributes": {"eventType": "OBJECT_FINALIZE", "objectId": name},
        }
        body = {"message": message, "subscription": "projects/p/subscriptions/import_members"}
        assert imports.deliver(json=body).status_code == 204
        self.require_imported(api, job)

    def test_delivered_five_times_it_is_done_once(
        self, imports: Bus, api: Api, job: dict[str, Any], body: dict[str, Any]
    ) -> None:
        for _ in range(5):
            assert imports.deliver(json=body).status_code == 204
        path = f"/audiences/{job['audience_id']}"
        assert api.get(path).get_json()["size"] == 1
        versions = api.get(f"{path}/versions").get_json()["data"]
        assert [one["size"] for one in versions if one["size"]] == [1]


def test_store_that_is_down_asks_for_another_delivery(imports: Bus, server: LocalServer) -> None:
    server.app.documents.ping()
    server.app.close()
    response = imports.send({"import_id": "any"})
    assert response.status_code == 503
    assert response.get_json() == {"retry": "STORAGE_UNAVAILABLE"}


def test_trace_of_the_message_is_the_trace_of_the_answer(imports: Bus) -> None:
    assert imports.send({"import_id": "x"}).headers["X-Trace-Id"] == "trace-of-message"


def test_tick_says_what_it_found(server: LocalServer) -> None:
    response = Bus(server, "run_due").deliver(json={})
    assert response.status_code == 200
    assert response.get_json()["outbox"] == 0
