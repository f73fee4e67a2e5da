"""`activation webhooks`, against a real receiver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import standardwebhooks
from werkzeug.wrappers import Request, Response

from tests.cli.conftest import Program
from tests.wire.http import served

Taken = list[tuple[dict[str, str], bytes]]


@pytest.fixture(autouse=True)
def _local_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIVATION_ALLOW_PRIVATE_HOSTS", "true")


@pytest.fixture
def statuses() -> list[int]:
    """What the receiver answers next; then 204."""
    return []


@pytest.fixture
def taken() -> Taken:
    return []


@pytest.fixture
def address(taken: Taken, statuses: list[int]) -> Iterator[str]:
    def receive(request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        taken.append((headers, request.get_data()))
        return Response(status=statuses.pop(0) if statuses else 204)

    with served(receive) as url:
        yield f"{url}/in"


def test_the_whole_way_of_a_webhook(
    program: Program, address: str, taken: Taken, statuses: list[int]
) -> None:
    said = program.ok("webhooks", "add", address, "--event", "distribution.failed")
    secret = next(word for word in said.split() if word.startswith("whsec_"))
    assert "not shown again" in said
    listed = program.ok("webhooks", "list")
    assert "distribution.failed" in listed
    assert secret not in listed
    assert "delivered" in program.ok("webhooks", "test", address)
    [(headers, body)] = taken
    assert standardwebhooks.Webhook(secret).verify(body, headers)["type"] == "ping"

    statuses.append(500)
    said = program.fails(1, "webhooks", "test", address)
    assert "did not arrive. (refused)" in said
    failed, delivered = program.json("webhooks", "deliveries", address)
    assert (failed["status"], delivered["status"]) == ("failed", "delivered")
    assert program.json("webhooks", "deliveries", address, "--status", "failed") == [failed]
    assert "500" in program.ok("webhooks", "deliveries", address)
    assert "delivered" in program.ok("webhooks", "replay", address, failed["delivery_id"])
    assert [headers["webhook-id"] for headers, _ in taken[1:]] == [failed["event_id"]] * 2


def test_a_new_secret_is_shown_once_and_signs_beside_the_old_one(
    program: Program, address: str, taken: Taken
) -> None:
    old = program.json("webhooks", "add", address)
    assert old["events"] == []
    assert "all" in program.ok("webhooks", "list")
    new = program.json("webhooks", "rotate", old["webhook_id"])
    assert new["secret"] != old["secret"]
    assert "signs too until" in program.ok("webhooks", "rotate", address)
    program.ok("webhooks", "test", address)
    [(headers, body)] = taken
    for secret in (old["secret"], new["secret"]):
        assert standardwebhooks.Webhook(secret).verify(body, headers)


def test_what_is_wrong_is_said(program: Program, address: str) -> None:
    assert "url must be an https URL" in program.fails(3, "webhooks", "add", "ftp://x.example/in")
    assert "events" in program.fails(3, "webhooks", "add", address, "--event", "audience.gone")
    program.ok("webhooks", "add", address)
    assert "no webhook 'nowhere'" in program.fails(3, "webhooks", "deliveries", "nowhere")
    assert "(not_found)" in program.fails(3, "webhooks", "replay", address, "unknown")
