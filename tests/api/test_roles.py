"""Which role may use which route: every cell of the table, asked of the real functions."""

from __future__ import annotations

import uuid

import pytest
from werkzeug.test import TestResponse

from activation.domain.caller import Role
from tests.api.client import PREFIX, Api, Description, code
from tests.api.rights import Route, parsed, rights

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})

SEGMENT = {
    "name": "x",
    "type": "INDEPENDENT",
    "rules": [{"event_type": "orders", "operator": "GT", "value": 0, "window_minutes": 5}],
}
EVENT = {"user_id": "ann", "event_type": "orders"}
NO_LIMITS = {"max_audiences": None, "max_distributions_per_month": None}
BODIES = {
    "add_members": {"members": [{"identifier_type": "email", "identifier_value": "a@b.de"}]},
    "add_suppressions": {
        "suppressions": [{"identifier_type": "email", "identifier_value": "a@b.de"}]
    },
    "check_suppression": {"identifier_type": "email", "identifier_value": "a@b.de"},
    "approve_distribution": {"status": "approved"},
    "create_audience": {"name": "x", "type": "first_party"},
    "create_distribution": {"audience_id": "x", "platform_id": "x"},
    "create_import": {},
    "create_platform": {
        "platform_type": "webhook",
        "name": "x",
        "credentials": {"signing_secret": "x"},
    },
    "create_segment": SEGMENT,
    "create_version": {"description": "x"},
    "create_webhook": {"url": "https://hooks.example.com/in"},
    "find_member": {"identifier_type": "email", "identifier_value": "a@b.de"},
    "import_suppressions": {"upload_id": "00000000-0000-4000-8000-000000000000"},
    "place_legal_hold": {"reason": "x"},
    "plan_distribution": {"audience_id": "x", "platform_id": "x"},
    "preview_audience": {"sample": 1},
    "remove_members": {"members": [{"identifier_type": "email", "identifier_value": "a@b.de"}]},
    "remove_suppression": {"identifier_type": "email", "identifier_value": "a@b.de"},
    "replace_segment": SEGMENT,
    "send_event": EVENT,
    "send_events": {"events": [EVENT]},
    "set_segment_status": {"status": "active"},
    "set_audience_status": {"status": "active"},
    "set_distribution_status": {"status": "cancelled"},
    "set_organization_quota": NO_LIMITS,
    "set_platform_status": {"status": "inactive"},
    "set_quota": NO_LIMITS,
    "set_retention_policy": {"archive_after_days": 5},
    "set_retention_rules": {"rules": []},
    "set_webhook_status": {"status": "disabled"},
    "share_audience": {"shared_with": []},
    "share_platform": {"shared_with": []},
    "start_retention_run": {"dry_run": True},
    "update_audience": {"name": "x"},
    "update_organization": {"time_zone": "Europe/Berlin"},
    "update_platform": {"name": "x"},
    "update_webhook": {"description": "x"},
    "warm_cache": {"audience_ids": ["00000000-0000-4000-8000-000000000000"]},
}
"""A body that passes the schema, per operation that takes one."""


def body_of(operation_id: str) -> object:
    """The body for an operation, also under its second method."""
    return BODIES.get(operation_id.removesuffix("_put").removesuffix("_patch"))


def filled(path: str, identity: str) -> str:
    """A path template with `identity` for every id, below the prefix."""
    parts = path.removeprefix("/api/v1").split("/")
    filling = {"{number}": "1"}
    return "/".join(filling.get(part, identity) if part.startswith("{") else part for part in parts)


@pytest.fixture(scope="session")
def names(description: Description) -> dict[Route, str]:
    """The operation of every route."""
    return {
        (method, path): operation["operationId"]
        for method, path, operation in description.operations
    }


def asked(caller: Api, route: Route, names: dict[Route, str]) -> TestResponse:
    """The answer to a request that only the role can be refused for."""
    method, path = route
    body = body_of(names[route])
    options = {} if body is None else {"json": body}
    return caller.send(method, filled(path, str(uuid.uuid4())), **options)


def test_every_route_has_its_row_and_states_its_role(description: Description) -> None:
    stated = {
        (method, path): frozenset(
            role for role in Role if Role(operation["x-required-role"]) in role.included
        )
        for method, path, operation in description.operations
    }
    assert stated == rights()


@pytest.mark.parametrize("role", list(Role))
def test_role_opens_exactly_its_routes(role: Role, public: Api, names: dict[Route, str]) -> None:
    caller = public.as_(role, user="one")
    for route, open_to in rights().items():
        status = asked(caller, route, names).status_code
        assert status < 500, route
        assert (status == 403) is (role not in open_to), route
        assert status not in (401, 405, 415), route


def test_without_a_token_no_route_opens(public: Api, names: dict[Route, str]) -> None:
    for route in rights():
        assert code(asked(public, route, names)) == (401, "UNAUTHENTICATED"), route


@pytest.mark.parametrize("function", ["run_due", "dispatch_distribution"])
def test_a_service_is_no_operator(function: str, public: Api, names: dict[Route, str]) -> None:
    token = public.server.issuer.service_token(function)
    service = public.with_headers(Authorization=f"Bearer {token}")
    for route in rights():
        assert code(asked(service, route, names)) == (403, "FORBIDDEN"), route


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ADMIN])
def test_no_address_takes_a_method_without_a_row(
    role: Role, public: Api, description: Description
) -> None:
    caller = public.as_(role, user="one")
    for address in {filled(path, str(uuid.uuid4())) for _, path in rights()}:
        offered = {one for one in METHODS if description.operation(one, PREFIX + address)}
        for method in METHODS - offered:
            response = caller.send(method, address)
            assert code(response) == (405, "METHOD_NOT_ALLOWED"), (method, address)
            allowed = set(response.headers["Allow"].split(", "))
            assert allowed - {"HEAD", "OPTIONS"} == offered, address


@pytest.mark.parametrize("role", list(Role))
def test_head_needs_what_get_needs(role: Role, public: Api) -> None:
    caller = public.as_(role, user="one")
    for (method, path), open_to in rights().items():
        if method == "GET":
            status = caller.send("HEAD", filled(path, str(uuid.uuid4()))).status_code
            assert (status == 403) is (role not in open_to), path


def test_the_page_is_read_strictly() -> None:
    head = "| method | route | v | e | a | d |\n|---|---|---|---|---|---|\n"
    row = "| GET | `/x` | no | yes | yes | yes |\n"
    open_to = frozenset({Role.EDITOR, Role.APPROVER, Role.ADMIN})
    assert parsed(head + row) == {("GET", "/api/v1/x"): open_to}
    for wrong in (row + row, row.replace("no", "maybe"), row.replace("| no ", "")):
        with pytest.raises(AssertionError):
            parsed(head + wrong)
