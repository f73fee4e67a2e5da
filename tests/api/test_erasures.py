"""A user who was erased over HTTP: in nothing that is stored, cached, answered or logged."""

from __future__ import annotations

from datetime import timedelta

from activation.adapters.clock import MovableClock
from activation.domain.entity import timestamp
from tests.api.client import Api
from tests.api.test_privacy import lines
from tests.services.unpacked import holds

__all__ = ["lines"]

BOB = "bob-the-user-to-be-forgotten"
SEGMENT = {
    "name": "Buyers",
    "type": "INDEPENDENT",
    "rules": [{"event_type": "orders", "operator": "GTE", "value": 1, "window_minutes": 600}],
}


def order(number: int, clock: MovableClock, user: str, **about: object) -> dict[str, object]:
    """An event of now."""
    at = timestamp(clock.now())
    return {
        "user_id": user,
        "event_type": "orders",
        "timestamp": at,
        "event_id": f"e{number}",
        "session_id": "s1",
        **about,
    }


def delivered(api: Api) -> None:
    """Hand out all messages that there are."""
    while api.server.deliver():
        pass


def asked(api: Api, segment_id: str) -> list[int]:
    """Everything that tells of a user; the statuses."""
    paths = (
        f"/users/{BOB}/segments",
        f"/users/{BOB}/segments/{segment_id}/explain",
        f"/users/{BOB}/sessions",
        f"/users/{BOB}/sessions/s1",
        f"/segments/{segment_id}/members",
        f"/segments/{segment_id}/changes",
        f"/segments/{segment_id}/history",
    )
    return [api.get(path).status_code for path in paths]


def test_he_is_in_nothing_that_a_request_leaves_behind(
    api: Api, clock: MovableClock, lines: object
) -> None:
    app = api.server.app
    segment_id = api.post("/segments", SEGMENT).get_json()["segment_id"]
    late = timestamp(clock.now() - timedelta(days=3))
    late_order = order(9, clock, BOB, timestamp=late)
    wrong = [{"user_id": BOB}, order(8, clock, BOB, event_type=BOB), late_order]
    batch = {"events": [order(1, clock, BOB), order(2, clock, "ann"), *wrong]}
    for _ in range(2):
        assert api.post("/events", batch, headers={"Idempotency-Key": "k1"}).status_code < 300
    delivered(api)
    assert set(asked(api, segment_id)) == {200}
    assert holds(app, BOB)
    once = {"headers": {"Idempotency-Key": "k2"}}
    answer, again = (api.delete(f"/users/{BOB}", **once) for _ in range(2))
    assert (answer.status_code, again.get_json()) == (202, answer.get_json())
    delivered(api)
    job = api.get(f"/jobs/{answer.get_json()['job_id']}").get_json()
    assert job["status"] == "completed"
    assert not holds(app, BOB)
    assert asked(api, segment_id) == [404, 404, 404, 404, 200, 200, 200]
    for path in ("members", "changes", "history"):
        assert BOB not in api.get(f"/segments/{segment_id}/{path}").get_data(as_text=True)
    for path in ("/audit", "/events/health", f"/jobs/{job['job_id']}"):
        assert BOB not in api.get(path).get_data(as_text=True)
    assert not [text for text in lines.texts if BOB in text]  # type: ignore[attr-defined]
