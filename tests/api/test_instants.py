"""Instants at the edges: zones, none at all, the first and the last there are."""

from __future__ import annotations

import pytest

from tests.api.client import Api, code

BEYOND = ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"]
FIRST, LAST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"


@pytest.mark.parametrize("instant", BEYOND)
def test_an_instant_that_is_none_in_utc_is_refused(instant: str, api: Api) -> None:
    fields = {"name": "x", "type": "first_party", "metadata": {"expires_at": instant}}
    assert code(api.post("/audiences", fields)) == (422, "VALIDATION_ERROR")
    path = f"/audiences/{api.audience_with_members('a@example.com')['audience_id']}"
    for query in ("members?added_after=", "members?as_of=", "versions?as_of="):
        asked = f"{path}/{query}{instant.replace('+', '%2B')}"
        assert code(api.get(asked)) == (422, "VALIDATION_ERROR")


@pytest.mark.parametrize("instant", [FIRST, LAST])
def test_the_first_and_the_last_instant_come_back(instant: str, api: Api) -> None:
    audience = api.audience(metadata={"expires_at": instant})
    path = f"/audiences/{audience['audience_id']}"
    shown = api.get(path).get_json()["metadata"]["expires_at"]
    assert shown == instant.replace("Z", ".000000Z")
    assert api.get(f"{path}/retention").status_code == 200
    [listed] = api.get("/audiences").get_json()["data"]
    assert listed["metadata"]["expires_at"] == shown


def test_an_instant_without_a_zone_is_utc(api: Api) -> None:
    audience = api.audience_with_members("a@example.com")
    path = f"/audiences/{audience['audience_id']}"
    [version] = api.get(f"{path}/versions?as_of=2027-03-28T02:30:00").get_json()["data"]
    assert version["version"] == audience["version"]
    assert code(api.get(f"{path}/members?as_of=2026-03-29T02:30:00")) == (404, "NOT_FOUND")
    early = api.get(f"/audiences?created_after={FIRST}").get_json()
    assert early["total"] == 1
