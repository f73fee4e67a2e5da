"""Audiences over HTTP."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from activation.domain.caller import Role
from tests.api.client import Api, code

STORED_FIELDS = {
    "status": "active",
    "size": 5,
    "organization_id": "evil-corp",
    "audience_id": "x",
    "user_id": "bob",
    "version": 7,
    "manifest_id": "x",
    "storage": {},
    "shared_with": ["bob"],
    "created_at": "2026-01-01T00:00:00Z",
    "resting_status": "active",
    "total_audience_size": 3,
}


def test_new_audience_shows_every_field_with_its_default(api: Api) -> None:
    created = api.audience("Buyers", original_query="people who bought", subtype="crm")
    shown = api.get(f"/audiences/{created['audience_id']}").get_json()
    assert shown == created
    assert (shown["status"], shown["size"], shown["version"]) == ("draft", 0, 1)
    assert (shown["data_type"], shown["type"]) == ("first_party", "first_party")
    assert shown["original_query"] == "people who bought"
    assert shown["organization_id"] == "acme"
    assert shown["metadata"]["created_by"] == "ann"


@pytest.mark.parametrize("spelling", ["1st-party", "first_party", "FIRST_PARTY", "1ST-Party"])
@pytest.mark.parametrize("field", ["type", "data_type", "dataType"])
def test_every_spelling_of_the_type_has_one_answer(spelling: str, field: str, api: Api) -> None:
    response = api.post("/audiences", {"name": "x", field: spelling})
    assert response.get_json()["data_type"] == "first_party"


def test_camel_case_is_accepted_and_snake_case_comes_back(api: Api) -> None:
    rules = [{"variableId": "v1", "operator": "=", "value": 1, "valueType": "number"}]
    created = api.audience(selectedVariables=["AGE"], rules=rules)
    assert created["selected_variables"] == ["AGE"]
    assert created["rules"][0]["variable_id"] == "v1"


def test_rules_keep_their_order(api: Api) -> None:
    rules = [{"variable_id": f"v{n}", "operator": ">", "value": n} for n in range(20)]
    created = api.audience(rules=rules)
    assert [(rule["order"], rule["value"]) for rule in created["rules"]] == [
        (n, n) for n in range(20)
    ]


def test_markup_is_kept_as_text(api: Api) -> None:
    name = "<script>alert(1)</script> {{7*7}} '; DROP TABLE audiences;--"
    assert api.audience(name)["name"] == name


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_update_changes_only_what_was_sent(method: str, api: Api) -> None:
    created = api.audience(description="old", metadata={"tags": ["a"], "notes": "n"})
    path = f"/audiences/{created['audience_id']}"
    changed = api.send(method, path, json={"metadata": {"tags": ["b"]}}).get_json()
    assert changed["metadata"]["tags"] == ["b"]
    assert changed["metadata"]["notes"] == "n"
    assert (changed["description"], changed["version"]) == ("old", 2)


@pytest.mark.parametrize("field", sorted(STORED_FIELDS))
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_fields_that_are_ours_cannot_be_sent(field: str, method: str, api: Api) -> None:
    body: dict[str, Any] = {field: STORED_FIELDS[field]}
    if method == "POST":
        response = api.post("/audiences", {"name": "x", "type": "first_party", **body})
    else:
        response = api.patch(f"/audiences/{api.audience()['audience_id']}", body)
    assert code(response) == (422, "VALIDATION_ERROR")
    assert response.get_json()["error"]["details"]["field"] == field


class TestRevisions:
    def test_stale_revision_is_412_and_changes_nothing(self, api: Api) -> None:
        path = f"/audiences/{api.audience()['audience_id']}"
        first = api.get(path).headers["ETag"]
        second = api.patch(path, {"description": "a"}, headers={"If-Match": first})
        assert second.status_code == 200
        late = api.patch(path, {"description": "b"}, headers={"If-Match": first})
        assert code(late) == (412, "PRECONDITION_FAILED")
        assert api.get(path).get_json()["description"] == "a"
        assert second.headers["ETag"] == api.get(path).headers["ETag"] != first

    @pytest.mark.parametrize("tag", ["abc", 'W/"x"', '"', "", '"a", "b"'])
    def test_other_forms_of_if_match_do_not_pass(self, tag: str, api: Api) -> None:
        path = f"/audiences/{api.audience()['audience_id']}"
        response = api.patch(path, {"description": "b"}, headers={"If-Match": tag})
        assert code(response) == (412, "PRECONDITION_FAILED")

    def test_star_matches_whatever_there_is(self, api: Api) -> None:
        path = f"/audiences/{api.audience()['audience_id']}"
        assert api.patch(path, {"name": "y"}, headers={"If-Match": "*"}).status_code == 200

    def test_stale_delete_is_412(self, api: Api) -> None:
        path = f"/audiences/{api.audience()['audience_id']}"
        old = api.get(path).headers["ETag"]
        api.patch(path, {"description": "a"})
        assert code(api.delete(path, headers={"If-Match": old})) == (412, "PRECONDITION_FAILED")
        assert api.get(path).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_status_moves_where_the_machine_allows(method: str, api: Api) -> None:
    path = f"/audiences/{api.audience()['audience_id']}/status"
    assert api.send(method, path, json={"status": "ACTIVE"}).get_json()["status"] == "active"
    assert api.send(method, path, json={"status": "paused"}).get_json()["status"] == "paused"
    assert code(api.send(method, path, json={"status": "draft"})) == (409, "INVALID_STATE")
    assert code(api.send(method, path, json={"status": "error"})) == (422, "VALIDATION_ERROR")


def test_deleted_audience_is_gone_and_its_name_free(api: Api) -> None:
    created = api.audience()
    response = api.delete(f"/audiences/{created['audience_id']}")
    assert (response.status_code, response.data) == (204, b"")
    assert code(api.get(f"/audiences/{created['audience_id']}")) == (404, "NOT_FOUND")
    assert api.get("/audiences").get_json()["total"] == 0
    assert api.audience()["audience_id"] != created["audience_id"]


def test_name_is_unique_in_an_organization(api: Api, stranger: Api) -> None:
    api.audience("Buyers")
    taken = api.post("/audiences", {"name": "Buyers", "type": "first_party"})
    assert code(taken) == (409, "NAME_TAKEN")
    assert stranger.audience("Buyers")


def test_of_sixteen_that_want_one_name_one_gets_it(api: Api) -> None:
    statuses: list[int] = []

    def create() -> None:
        response = api.post("/audiences", {"name": "Wanted", "type": "first_party"})
        statuses.append(response.status_code)

    threads = [threading.Thread(target=create) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [409] * 15
    assert api.get("/audiences").get_json()["total"] == 1


def test_every_change_is_a_version(api: Api) -> None:
    path = f"/audiences/{api.audience()['audience_id']}"
    api.patch(path, {"description": "a"})
    made = api.post(f"{path}/versions", {"description": "Before the campaign"})
    assert made.status_code == 201
    assert made.get_json()["description"] == "Before the campaign"
    listed = api.get(f"{path}/versions").get_json()
    assert {version["version"] for version in listed["data"]} == {1, 2, 3}
    assert listed["total"] == 3


class TestSharing:
    def test_colleague_sees_what_is_shared_with_him(self, api: Api, public: Api) -> None:
        bob = public.as_(Role.EDITOR, user="bob")
        path = f"/audiences/{api.audience()['audience_id']}"
        assert bob.get(path).status_code == 404
        assert bob.get("/audiences").get_json()["total"] == 0
        api.put(f"{path}/sharing", {"shared_with": ["bob"]})
        assert bob.get(path).status_code == 200
        assert bob.get("/audiences").get_json()["total"] == 1
        api.put(f"{path}/sharing", {"shared_with": []})
        assert bob.get(path).status_code == 404

    def test_only_the_owner_shares(self, public: Api) -> None:
        owner, bob = public.as_(Role.EDITOR, user="edd"), public.as_(Role.EDITOR, user="bob")
        path = f"/audiences/{owner.audience()['audience_id']}/sharing"
        assert owner.put(path, {"shared_with": ["bob"]}).status_code == 200
        assert code(bob.put(path, {"shared_with": ["eve"]})) == (403, "FORBIDDEN")


class TestLists:
    def test_cursor_walks_250_while_others_are_inserted(self, api: Api) -> None:
        created = {api.audience(f"A{number}")["audience_id"] for number in range(250)}
        seen: list[str] = []
        cursor, pages = "", 0
        while pages < 10:
            page = api.get(f"/audiences?limit=100{cursor}").get_json()
            seen += [one["audience_id"] for one in page["data"]]
            pages += 1
            assert page["limit"] == 100
            assert page["total"] == 250 + pages - 1
            api.server.app.clock.sleep(1)
            api.audience(f"late {pages}")
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert pages == 3
        assert len(seen) == len(set(seen)) == 250
        assert set(seen) == created

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("status=active", {"B"}),
            ("data_type=3rd-party", {"B"}),
            ("subtype=crm", {"A"}),
            ("tag=vip", {"A", "B"}),
            ("campaign_id=c1", {"A"}),
            ("tag=vip&status=draft", {"A"}),
            ("tag=nothing", set()),
        ],
    )
    def test_filters_narrow_the_list(self, query: str, expected: set[str], api: Api) -> None:
        api.audience("A", subtype="crm", metadata={"tags": ["vip"], "campaign_id": "c1"})
        other = api.audience("B", type="3rd-party", metadata={"tags": ["vip", "new"]})
        api.put(f"/audiences/{other['audience_id']}/status", {"status": "active"})
        api.audience("C", metadata={"tags": ["vips"]})
        found = api.get(f"/audiences?{query}").get_json()
        assert {one["name"] for one in found["data"]} == expected
        assert found["total"] == len(expected)

    def test_created_after_leaves_out_the_old(self, api: Api) -> None:
        api.audience("old")
        api.server.app.clock.sleep(60)
        since = api.server.app.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        api.audience("new")
        found = api.get(f"/audiences?created_after={since}").get_json()
        assert [one["name"] for one in found["data"]] == ["new"]
        assert found["total"] == 1

    @pytest.mark.parametrize("cursor", ["!!!", "YQ==%00", "Li4v", "%F0%9F%92%A9", "x" * 401, "_w"])
    def test_foreign_cursor_is_422(self, cursor: str, api: Api) -> None:
        response = api.get(f"/audiences?cursor={cursor}")
        assert code(response) == (422, "VALIDATION_ERROR")
        assert response.get_json()["error"]["details"]["field"] == "cursor"
