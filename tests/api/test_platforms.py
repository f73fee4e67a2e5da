"""Platform accounts over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.client import SECRET, WEBHOOK, Api, code


def test_credentials_go_in_and_never_out(api: Api, tmp_path: Path) -> None:
    created = api.platform()
    path = f"/platforms/{created['platform_id']}"
    answers = [api.get(path), api.get("/platforms"), api.patch(path, {"name": "Other"})]
    assert created["credentials"]["fields"] == ["signing_secret"]
    assert created["credentials"]["account_id"] == "crm-1"
    assert SECRET not in str(created)
    assert not [one for one in answers if SECRET in one.get_data(as_text=True)]
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]


def test_new_credentials_make_a_new_record_version(api: Api) -> None:
    created = api.platform()
    path = f"/platforms/{created['platform_id']}"
    changed = api.patch(path, {"credentials": WEBHOOK["credentials"]}).get_json()
    assert changed["credentials"]["version"] == created["credentials"]["version"] + 1


def test_refused_credentials_are_not_repeated(api: Api) -> None:
    body = {**WEBHOOK, "credentials": {"signing_secret": SECRET, "bob@example.com": "x"}}
    response = api.post("/platforms", body)
    assert response.status_code == 422
    assert SECRET not in response.get_data(as_text=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("last_sync", "2026-01-01T00:00:00Z"),
        ("sync_status", "success"),
        ("health", {}),
        ("user_id", "bob"),
        ("organization_id", "evil-corp"),
        ("status", "inactive"),
    ],
)
def test_fields_that_are_ours_cannot_be_sent(field: str, value: object, api: Api) -> None:
    response = api.post("/platforms", {**WEBHOOK, field: value})
    assert code(response) == (422, "VALIDATION_ERROR")
    assert response.get_json()["error"]["details"]["field"] == field


def test_unknown_type_is_422(api: Api) -> None:
    response = api.post("/platforms", {**WEBHOOK, "platform_type": "carrier_pigeon"})
    assert response.get_json()["error"]["details"]["field"] == "platform_type"


def test_status_sharing_and_delete(api: Api) -> None:
    path = f"/platforms/{api.platform()['platform_id']}"
    assert api.put(f"{path}/status", {"status": "inactive"}).get_json()["status"] == "inactive"
    assert api.get("/platforms?status=inactive").get_json()["total"] == 1
    assert api.get("/platforms?status=active").get_json()["total"] == 0
    shared = api.put(f"{path}/sharing", {"shared_with": ["bob"]}).get_json()
    assert shared["shared_with"] == ["bob"]
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def test_check_of_credentials_is_done_by_the_dispatcher(api: Api) -> None:
    path = f"/platforms/{api.platform()['platform_id']}"
    response = api.post(f"{path}/test")
    assert (response.status_code, response.get_json()["health"]["status"]) == (202, "checking")


def test_types_say_which_fields_they_ask_for(api: Api) -> None:
    types = {one["platform_type"]: one for one in api.get("/platform-types").get_json()["data"]}
    assert {"the_trade_desk", "google_ads", "facebook", "webhook", "file_drop"} <= set(types)
    secret = [field["name"] for field in types["webhook"]["credentials"] if field["secret"]]
    assert "signing_secret" in secret


def test_credentials_tell_when_they_end(api: Api) -> None:
    given = {"signing_secret": SECRET, "expires_at": "2027-01-31T01:00:00+01:00"}
    platform = api.platform(credentials=given)
    assert platform["credentials"]["expires_at"] == "2027-01-31T00:00:00.000000Z"
    assert platform["credentials"]["fields"] == ["signing_secret"]
    path = f"/platforms/{platform['platform_id']}"
    refused = api.patch(path, {"credentials": {**given, "expires_at": "2026-01-31T00:00:00Z"}})
    assert refused.get_json()["error"]["details"]["field"] == "credentials.expires_at"


def with_settings(**settings: object) -> dict[str, object]:
    return {"settings": {**WEBHOOK["settings"], **settings}}  # type: ignore[dict-item]


def test_refreshes_are_set_in_either_spelling(api: Api) -> None:
    snake = {
        "auto_refresh": True,
        "refresh_frequency": "monthly",
        "refresh_type": "incremental",
        "refresh_at": "23:45",
        "refresh_weekday": 7,
        "refresh_day": 31,
        "require_approval": True,
        "max_removal_share": 0.05,
        "free_removals": 0,
    }
    camel = {"".join(_capitals(name)): value for name, value in snake.items()}
    for number, sent in enumerate((snake, camel)):
        made = api.platform(f"Hook {number}", **with_settings(**sent))
        assert made["settings"].items() >= snake.items()


def _capitals(name: str) -> list[str]:
    first, *rest = name.split("_")
    return [first, *map(str.capitalize, rest)]


def test_an_account_that_says_nothing_of_refreshes_has_careful_ones(api: Api) -> None:
    assert (
        api.platform()["settings"].items()
        >= {
            "auto_refresh": False,
            "refresh_frequency": None,
            "refresh_type": "refresh",
            "refresh_at": "03:00",
            "refresh_weekday": 1,
            "refresh_day": 1,
            "require_approval": False,
            "max_removal_share": 0.3,
            "free_removals": 100,
        }.items()
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("refresh_at", "24:00"),
        ("refresh_at", "3:00"),
        ("refresh_at", "03:60"),
        ("refresh_at", "03:00\n04:00"),
        ("refresh_at", "\u0660\u0663:\u0660\u0660"),
        ("refresh_at", ""),
        ("refresh_at", None),
        ("refresh_weekday", 0),
        ("refresh_weekday", 8),
        ("refresh_weekday", "monday"),
        ("refresh_day", 0),
        ("refresh_day", 32),
        ("refresh_day", 1.5),
        ("refresh_type", "initial"),
        ("refresh_frequency", "hourly"),
        ("max_removal_share", -0.01),
        ("max_removal_share", 1.01),
        ("free_removals", -1),
        ("require_approval", None),
    ],
)
def test_a_refresh_that_is_no_such_thing_is_422(field: str, value: object, api: Api) -> None:
    response = api.post("/platforms", {**WEBHOOK, **with_settings(**{field: value})})
    assert code(response) == (422, "VALIDATION_ERROR")
    assert response.get_json()["error"]["details"]["field"] == f"settings.{field}"


def test_a_refresh_by_itself_needs_its_frequency(api: Api) -> None:
    path = f"/platforms/{api.platform()['platform_id']}"
    response = api.patch(path, with_settings(auto_refresh=True))
    assert code(response) == (422, "VALIDATION_ERROR")
    assert "refresh_frequency" in response.get_json()["error"]["message"]
    assert api.get(path).get_json()["settings"]["auto_refresh"] is False
