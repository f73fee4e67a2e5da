"""A store or a platform that is down: 503 with Retry-After, nothing half done, work goes on by
itself afterwards (seed 001, "graceful degradation")."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.errors import StorageUnavailableError
from activation.local import LocalServer
from activation.message_codec import push_body
from activation.ports import Message
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.server import serve
from tests.api.client import Api, Description
from tests.api.test_roles import body_of, filled

STORES = ("documents", "member_blobs", "uploads")
NEEDS_NO_STORE = frozenset(
    {"get_cache", "get_evidence_key", "list_platform_types", "list_operators"}
)


class Outage:
    """A store that can be switched off; the real one is behind it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.down = False

    def __getattr__(self, name: str) -> Any:
        if self.down:
            raise StorageUnavailableError("The store does not answer.")
        return getattr(self._inner, name)


@pytest.fixture
def outages(server: LocalServer) -> Iterator[dict[str, Outage]]:
    """The stores of the server, each behind a switch."""
    found = {name: Outage(getattr(server.app, name)) for name in STORES}
    server.app.__dict__.update(found)
    yield found
    switch(found, down=False)


def switch(outages: dict[str, Outage], *, down: bool) -> None:
    for outage in outages.values():
        outage.down = down


def test_every_route_answers_503_while_the_stores_are_down(
    outages: dict[str, Outage], api: Api, description: Description
) -> None:
    audience_id = api.audience()["audience_id"]
    switch(outages, down=True)
    asked = 0
    for method, path, operation in description.operations:
        name = operation["operationId"]
        body = body_of(name)
        address = filled(path, str(uuid.uuid4()))
        response = api.send(method, address, **({} if body is None else {"json": body}))
        if name in NEEDS_NO_STORE or response.status_code == 422:
            continue  # answered before any store is asked
        asked += 1
        assert response.status_code == 503, name
        assert int(response.headers["Retry-After"]) >= 1, name
        assert response.get_json()["error"]["code"] == "STORAGE_UNAVAILABLE", name
    assert asked > 60
    assert api.server is not None
    switch(outages, down=False)
    assert api.get(f"/audiences/{audience_id}").status_code == 200


def test_a_request_that_met_an_outage_acts_once_when_it_is_repeated(
    outages: dict[str, Outage], api: Api
) -> None:
    keyed = api.with_headers(Idempotency_Key="k1")
    body = {"name": "Buyers", "type": "first_party"}
    switch(outages, down=True)
    assert keyed.post("/audiences", body).status_code == 503
    switch(outages, down=False)
    made = keyed.post("/audiences", body)
    assert made.status_code == 201
    again = keyed.post("/audiences", body)
    assert again.get_json()["audience_id"] == made.get_json()["audience_id"]
    assert api.get("/audiences").get_json()["total"] == 1


@pytest.fixture
def twin(clock: MovableClock) -> FacebookTwin:
    return FacebookTwin(clock, match_delay_seconds=0)


@pytest.fixture
def ordered(api: Api, twin: FacebookTwin) -> Iterator[dict[str, str]]:
    """An audience of two and an account at the twin."""
    running = serve({"facebook": twin})
    audience = api.audience_with_members("a@example.com", "b@example.com")
    platform = api.post(
        "/platforms",
        {
            "platform_type": "facebook",
            "name": "Meta",
            "credentials": {"access_token": "twin-token"},
            "settings": {
                "config": {"ad_account_id": "1001", "api_url": running.url_of("facebook")}
            },
        },
    ).get_json()
    yield {"audience_id": audience["audience_id"], "platform_id": platform["platform_id"]}
    running.close()


def turn(server: LocalServer, clock: MovableClock, rounds: int = 12) -> None:
    """Minutes go by: the clock rings, the bus delivers."""
    for _ in range(rounds):
        clock.sleep(61)
        server.tick()
        while server.deliver():
            pass


def test_a_distribution_outlives_an_outage_of_the_stores(
    server: LocalServer,
    outages: dict[str, Outage],
    api: Api,
    clock: MovableClock,
    ordered: dict[str, str],
    twin: FacebookTwin,
) -> None:
    made = api.post("/distributions", ordered).get_json()
    for name in ("documents", "member_blobs"):
        outages[name].down = True
    data = {"distribution_id": made["distribution_id"]}
    message = Message("distribution-requests", "acme", str(uuid.uuid4()), data, trace_id="t")
    status, wait = server.post("dispatch_distribution", push_body(message, "s", 1))
    assert (status, wait is None or wait >= 1) == (503, True), "the bus delivers it again"
    switch(outages, down=False)
    turn(server, clock)
    done = api.get(f"/distributions/{made['distribution_id']}").get_json()
    assert done["status"] == "completed"
    (audience,) = twin.contents()["audiences"]
    assert audience["members"] == 2


@pytest.mark.usefixtures("hasty")
def test_a_platform_that_is_down_holds_up_nobody_and_is_waited_for(
    server: LocalServer,
    api: Api,
    clock: MovableClock,
    ordered: dict[str, str],
    twin: FacebookTwin,
) -> None:
    twin.faults.plan(Fault("status", status=503, times=1000))
    made = api.post("/distributions", ordered).get_json()
    turn(server, clock, 3)
    path = f"/distributions/{made['distribution_id']}"
    waiting = api.get(path).get_json()
    assert waiting["status"] == "processing"
    assert waiting["error_details"]["error_code"] == "PLATFORM_UNAVAILABLE"
    assert api.get("/audiences").status_code == 200
    twin.faults.clear()
    turn(server, clock, 12)
    assert api.get(path).get_json()["status"] == "completed"
