"""Webhooks over HTTP, up to a receiver that really gets the events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import standardwebhooks
from werkzeug.wrappers import Request, Response

from activation.domain.caller import Role
from activation.settings import Settings
from tests.api.client import Api, code
from tests.wire.http import served


@pytest.fixture
def taken() -> list[tuple[dict[str, str], bytes]]:
    """What the receiver got: headers and body."""
    return []


@pytest.fixture
def refusals() -> list[int]:
    """What the receiver answers next; then 204."""
    return []


@pytest.fixture
def address(taken: list[tuple[dict[str, str], bytes]], refusals: list[int]) -> Iterator[str]:
    def receive(request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        taken.append((headers, request.get_data()))
        return Response(status=refusals.pop(0) if refusals else 204)

    with served(receive) as url:
        yield f"{url}/events"


def delivered(api: Api) -> None:
    """Hand out everything that waits."""
    while api.server.deliver():
        pass


def test_events_reach_the_receiver_through_the_functions(
    api: Api, address: str, taken: list[tuple[dict[str, str], bytes]]
) -> None:
    webhook = api.webhook(url=address, description="CRM")
    path = f"/webhooks/{webhook['webhook_id']}"
    audience = api.audience_with_members("a@example.com", "b@example.com")
    drop = {
        "platform_type": "file_drop",
        "name": "Drop",
        "credentials": {},
        "settings": {"config": {"folder": "audiences"}},
    }
    platform = api.post("/platforms", drop).get_json()
    wanted = {"audience_id": audience["audience_id"], "platform_id": platform["platform_id"]}
    assert api.post("/distributions", wanted).status_code == 202
    delivered(api)
    log = api.get(f"{path}/deliveries?status=delivered").get_json()
    assert [one["event_type"] for one in reversed(log["data"])] == [
        "distribution.scheduled",
        "distribution.started",
        "distribution.completed",
    ]
    assert log["total"] == 3
    assert sorted(one["event_id"] for one in log["data"]) == sorted(
        h["webhook-id"] for h, _ in taken
    )
    verifier = standardwebhooks.Webhook(webhook["secret"])
    for headers, body in taken:
        signed = verifier.sign(headers["webhook-id"], api.server.app.clock.now(), body.decode())
        assert headers["webhook-signature"] == signed
        assert b"example.com" not in body
        assert b"Buyers" not in body


def test_the_secret_is_told_once(api: Api, address: str) -> None:
    keyed = api.with_headers(Idempotency_Key="key-1")
    first = keyed.post("/webhooks", {"url": address})
    created = first.get_json()
    assert (first.status_code, created["secret"][:6]) == (201, "whsec_")
    again = keyed.post("/webhooks", {"url": address})
    assert again.headers["Idempotent-Replay"] == "true"
    assert again.get_json() == {**created, "secret": None}
    path = f"/webhooks/{created['webhook_id']}"
    rotated = keyed.post(f"{path}/rotate").get_json()
    assert rotated["secret"] not in (None, created["secret"])
    assert keyed.post(f"{path}/rotate").get_json() == {**rotated, "secret": None}
    assert rotated["webhook_id"] == created["webhook_id"]
    shown = [api.get(path), api.get("/webhooks"), api.patch(path, {"description": "x"})]
    for answer in shown:
        text = answer.get_data(as_text=True)
        assert "whsec_" not in text
        assert '"secret_info":{"version":2' in text


@pytest.mark.parametrize("field", ["secret", "status", "webhook_id", "organization_id", "user_id"])
def test_fields_that_are_ours_cannot_be_sent(field: str, api: Api, address: str) -> None:
    response = api.post("/webhooks", {"url": address, field: "x"})
    assert code(response) == (422, "VALIDATION_ERROR")
    assert response.get_json()["error"]["details"]["field"] == field


@pytest.mark.parametrize("events", [["audience.renamed"], ["ping"], "all", [7]])
def test_unknown_events_are_refused(events: object, api: Api, address: str) -> None:
    assert code(api.post("/webhooks", {"url": address, "events": events}))[0] == 422


def test_changes_are_guarded_and_deleting_ends_it(api: Api, address: str) -> None:
    path = f"/webhooks/{api.webhook(url=address)['webhook_id']}"
    tag = api.get(path).headers["ETag"]
    changed = api.patch(path, {"events": ["platform.recovered"]}, headers={"If-Match": tag})
    assert changed.get_json()["events"] == ["platform.recovered"]
    assert code(api.put(path, {"events": []}, headers={"If-Match": tag}))[0] == 412
    assert api.put(path, {"events": []}).get_json()["events"] == []
    off = api.put(f"{path}/status", {"status": "disabled"}).get_json()
    assert (off["status"], off["disabled_reason"]) == ("disabled", "operator")
    assert code(api.post(f"{path}/test")) == (409, "INVALID_STATE")
    assert api.patch(f"{path}/status", {"status": "active"}).get_json()["status"] == "active"
    assert api.delete(path).status_code == 204
    assert code(api.get(f"{path}/deliveries")) == (404, "NOT_FOUND")


def test_a_test_and_a_replay_are_followed_by_their_delivery(
    api: Api, address: str, taken: list[tuple[dict[str, str], bytes]]
) -> None:
    path = f"/webhooks/{api.webhook(url=address)['webhook_id']}"
    asked = api.post(f"{path}/test")
    assert (asked.status_code, asked.get_json()["status"]) == (202, "pending")
    one = f"{path}/deliveries/{asked.get_json()['delivery_id']}"
    delivered(api)
    done = api.get(one).get_json()
    assert (done["status"], done["response_status"], done["attempts"]) == ("delivered", 204, 1)
    keyed = api.with_headers(Idempotency_Key="again")
    first, second = keyed.post(f"{one}/replay"), keyed.post(f"{one}/replay")
    assert (first.status_code, second.get_json()) == (202, first.get_json())
    delivered(api)
    assert api.get(one).get_json()["replays"] == 1
    assert [headers["webhook-id"] for headers, _ in taken] == [done["event_id"]] * 2


def test_what_was_refused_is_tried_again_by_the_clock(
    api: Api, address: str, refusals: list[int], taken: list[tuple[dict[str, str], bytes]]
) -> None:
    path = f"/webhooks/{api.webhook(url=address)['webhook_id']}"
    refusals.append(503)
    wanted = {
        "audience_id": api.audience_with_members("a@example.com")["audience_id"],
        "platform_id": api.platform()["platform_id"],
        "scheduled_at": "2027-01-01T00:00:00Z",
    }
    assert api.post("/distributions", wanted).status_code == 202
    delivered(api)
    [waiting] = api.get(f"{path}/deliveries").get_json()["data"]
    assert (waiting["event_type"], waiting["status"]) == ("distribution.scheduled", "pending")
    assert (waiting["response_status"], waiting["error"]) == (503, "refused")
    api.server.app.clock.sleep(10)
    api.server.tick()
    delivered(api)
    [done] = api.get(f"{path}/deliveries").get_json()["data"]
    assert (done["status"], done["attempts"], len(taken)) == ("delivered", 2, 2)


def test_the_log_has_pages(api: Api, address: str) -> None:
    path = f"/webhooks/{api.webhook(url=address)['webhook_id']}"
    sent = [api.post(f"{path}/test").get_json()["delivery_id"] for _ in range(5)]
    first = api.get(f"{path}/deliveries?limit=3").get_json()
    rest = api.get(f"{path}/deliveries?limit=3&cursor={first['next_cursor']}").get_json()
    seen = [one["delivery_id"] for one in (*first["data"], *rest["data"])]
    assert (seen, first["total"], rest["next_cursor"]) == (sent[::-1], 5, None)


class TestAsInProduction:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(data_folder=str(tmp_path / "data"))

    @pytest.mark.parametrize(
        "url",
        [
            "http://hooks.example.com/in",
            "https://hooks.example.com:22/in",
            "https://127.0.0.1/in",
            "https://169.254.169.254/latest/",
            "https://[::1]/in",
            "https://user@hooks.example.com/in",
            "gopher://hooks.example.com/",
        ],
    )
    def test_addresses_that_lead_inside_are_refused(self, url: str, api: Api) -> None:
        webhook = api.webhook(url="https://hooks.example.com/in")
        for answer in (
            api.post("/webhooks", {"url": url}),
            api.patch(f"/webhooks/{webhook['webhook_id']}", {"url": url}),
        ):
            assert code(answer) == (422, "VALIDATION_ERROR")
            details = answer.get_json()["error"]["details"]
            assert details == {"field": "url", "reason": "URL_NOT_ALLOWED"}
        assert api.get("/webhooks").get_json()["total"] == 1


@pytest.mark.parametrize("role", [Role.VIEWER, Role.EDITOR, Role.APPROVER])
def test_only_admins_see_where_events_go(role: Role, api: Api, public: Api) -> None:
    path = f"/webhooks/{api.webhook()['webhook_id']}"
    other = public.as_(role, user="vic")
    for asked in (path, "/webhooks", f"{path}/deliveries"):
        assert code(other.get(asked)) == (403, "FORBIDDEN")
