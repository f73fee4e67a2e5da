"""The organization over HTTP: its time zone, and its operators."""

from __future__ import annotations

from datetime import timedelta

import pytest

from activation.adapters.clock import MovableClock
from activation.domain.caller import Role
from tests.api.client import Api, code


def test_an_organization_has_a_time_zone(api: Api, viewer: Api, stranger: Api) -> None:
    found = viewer.get("/organization").get_json()
    assert (found["organization_id"], found["time_zone"]) == ("acme", "UTC")
    assert api.put("/organization", {"time_zone": "Asia/Tokyo"}).status_code == 200
    changed = api.put("/organization", {"timeZone": "Asia/Kathmandu"})
    assert (changed.status_code, changed.get_json()["time_zone"]) == (200, "Asia/Kathmandu")
    assert viewer.get("/organization").get_json() == changed.get_json()
    assert stranger.get("/organization").get_json()["time_zone"] == "UTC"


@pytest.mark.parametrize(
    "name",
    [
        "Europe/Atlantis",
        "europe/berlin",
        "Europe",
        "+02:00",
        "../UTC",
        "/usr/share/zoneinfo/UTC",
        "localtime",
        "Factory",
        "posixrules",
        "UTC\u0000",
        "",
        None,
        1,
    ],
)
def test_what_is_no_time_zone_is_422(api: Api, name: object) -> None:
    response = api.put("/organization", {"time_zone": name})
    assert code(response)[0] == 422
    assert api.get("/organization").get_json()["time_zone"] == "UTC"


def test_a_stale_change_is_412(api: Api) -> None:
    old = api.get("/organization").headers["ETag"]
    api.put("/organization", {"time_zone": "Europe/Berlin"}, headers={"If-Match": old})
    late = api.put("/organization", {"time_zone": "Asia/Tokyo"}, headers={"If-Match": old})
    assert code(late) == (412, "PRECONDITION_FAILED")
    assert api.get("/organization").get_json()["time_zone"] == "Europe/Berlin"


def test_retention_rules_and_the_time_zone_leave_each_other_alone(api: Api) -> None:
    rules = [{"condition": {"tag": "x"}, "action": "notify", "after_days": 3}]
    api.put("/retention/rules", {"rules": rules})
    api.put("/organization", {"time_zone": "Europe/Berlin"})
    assert len(api.get("/retention/rules").get_json()["rules"]) == 1
    api.put("/retention/rules", {"rules": []})
    assert api.get("/organization").get_json()["time_zone"] == "Europe/Berlin"


def test_operators_are_noted_at_most_once_an_hour(
    api: Api, public: Api, stranger: Api, clock: MovableClock
) -> None:
    bob = public.as_(Role.EDITOR, user="bob@example.com")
    stranger.get("/audiences")
    first = clock.now()
    bob.get("/audiences")
    clock.set(first + timedelta(minutes=59))
    bob.get("/audiences")
    public.as_(Role.ADMIN, user="bob@example.com").get("/audiences")
    assert _listed(api)["bob@example.com"] == (first.isoformat()[:19], "editor", first)
    clock.set(first + timedelta(minutes=60))
    public.as_(Role.APPROVER, user="bob@example.com").get("/audiences/none")
    later = clock.now()
    assert _listed(api.as_())["bob@example.com"] == (later.isoformat()[:19], "approver", first)
    assert set(_listed(api.as_())) == {"ann", "bob@example.com"}


def _listed(api: Api) -> dict[str, tuple[str, str, object]]:
    """Operator → last login, role, and when he was first seen."""
    from pydantic import TypeAdapter

    from activation.domain.entity import Instant

    instants = TypeAdapter(Instant)
    found = api.get("/operator-accounts").get_json()
    assert found["total"] == len(found["data"])
    return {
        one["user_id"]: (
            one["last_login"][:19],
            one["role"],
            instants.validate_python(one["created_at"]),
        )
        for one in found["data"]
    }


def test_an_account_shows_what_its_role_includes(api: Api) -> None:
    [found] = api.get("/operator-accounts").get_json()["data"]
    assert found["permissions"] == ["viewer", "editor", "approver", "admin"]
    assert set(found) == {
        *("organization_id", "user_id", "role", "permissions"),
        *("created_at", "updated_at", "last_login"),
    }


def test_accounts_come_page_by_page(api: Api, public: Api) -> None:
    for number in range(5):
        public.as_(Role.VIEWER, user=f"user-{number}").get("/quota")
    seen: list[str] = []
    query = "?limit=2"
    while True:
        page = api.get(f"/operator-accounts{query}").get_json()
        seen += [one["user_id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        query = f"?limit=2&cursor={page['next_cursor']}"
    assert sorted(seen) == ["ann", *(f"user-{number}" for number in range(5))]


def test_who_is_refused_at_the_door_is_not_noted(api: Api, public: Api) -> None:
    bad = public.with_headers(Authorization="Bearer x.y.z")
    assert bad.get("/quota").status_code == 401
    assert list(_listed(api)) == ["ann"]
