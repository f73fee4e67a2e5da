"""Which role may use which route: every cell of the table, taken from the description."""

from __future__ import annotations

import uuid

import pytest

from activation.domain.caller import Role
from tests.api.client import Api, Description

NEEDS = {
    "add_members": Role.EDITOR,
    "add_suppressions": Role.EDITOR,
    "approve_distribution": Role.APPROVER,
    "approve_distribution_patch": Role.APPROVER,
    "archive_audience": Role.EDITOR,
    "cancel_import": Role.EDITOR,
    "check_platform": Role.ADMIN,
    "check_suppression": Role.EDITOR,
    "clear_retention_policy": Role.EDITOR,
    "compact_audience": Role.EDITOR,
    "compare_versions": Role.VIEWER,
    "create_audience": Role.EDITOR,
    "create_distribution": Role.EDITOR,
    "create_import": Role.EDITOR,
    "create_platform": Role.ADMIN,
    "create_suppression_upload": Role.EDITOR,
    "create_version": Role.EDITOR,
    "create_webhook": Role.ADMIN,
    "delete_audience": Role.ADMIN,
    "delete_platform": Role.ADMIN,
    "delete_webhook": Role.ADMIN,
    "find_member": Role.VIEWER,
    "forget_ledger": Role.ADMIN,
    "get_audience": Role.VIEWER,
    "get_cache": Role.ADMIN,
    "get_distribution": Role.VIEWER,
    "get_distribution_rejects": Role.VIEWER,
    "get_evidence": Role.VIEWER,
    "get_evidence_key": Role.VIEWER,
    "get_import": Role.VIEWER,
    "get_import_rejects": Role.VIEWER,
    "get_job": Role.VIEWER,
    "get_ledger": Role.VIEWER,
    "get_organization": Role.VIEWER,
    "get_organization_quota": Role.ADMIN,
    "get_overlap": Role.VIEWER,
    "get_own_quota": Role.VIEWER,
    "get_platform": Role.VIEWER,
    "get_quota": Role.ADMIN,
    "get_summary": Role.VIEWER,
    "get_suppressions": Role.VIEWER,
    "get_version": Role.VIEWER,
    "get_storage": Role.VIEWER,
    "get_version_diff": Role.EDITOR,
    "get_retention": Role.VIEWER,
    "get_retention_rules": Role.VIEWER,
    "get_retention_run": Role.ADMIN,
    "get_webhook": Role.ADMIN,
    "get_webhook_delivery": Role.ADMIN,
    "import_suppressions": Role.EDITOR,
    "lift_legal_hold": Role.ADMIN,
    "list_audiences": Role.VIEWER,
    "list_distributions": Role.VIEWER,
    "list_exchanges": Role.VIEWER,
    "list_imports": Role.VIEWER,
    "list_jobs": Role.VIEWER,
    "list_ledgers": Role.VIEWER,
    "list_match_rates": Role.VIEWER,
    "list_members": Role.VIEWER,
    "list_operator_accounts": Role.ADMIN,
    "list_operators": Role.VIEWER,
    "list_platform_types": Role.VIEWER,
    "list_platforms": Role.VIEWER,
    "list_retention_runs": Role.ADMIN,
    "list_versions": Role.VIEWER,
    "list_webhook_deliveries": Role.ADMIN,
    "list_webhooks": Role.ADMIN,
    "ping_webhook": Role.ADMIN,
    "pause_distribution": Role.EDITOR,
    "pause_refresh": Role.EDITOR,
    "place_legal_hold": Role.ADMIN,
    "plan_distribution": Role.EDITOR,
    "preview_audience": Role.VIEWER,
    "reconcile_ledger": Role.EDITOR,
    "release_distribution": Role.APPROVER,
    "release_retention_run": Role.ADMIN,
    "remove_members": Role.EDITOR,
    "remove_suppression": Role.ADMIN,
    "restore_version": Role.EDITOR,
    "replay_webhook_delivery": Role.ADMIN,
    "resume_distribution": Role.EDITOR,
    "resume_refresh": Role.EDITOR,
    "retry_distribution": Role.EDITOR,
    "rotate_webhook_secret": Role.ADMIN,
    "set_audience_status": Role.EDITOR,
    "set_audience_status_patch": Role.EDITOR,
    "set_distribution_status": Role.EDITOR,
    "set_distribution_status_patch": Role.EDITOR,
    "set_organization_quota": Role.ADMIN,
    "set_platform_status": Role.ADMIN,
    "set_platform_status_patch": Role.ADMIN,
    "set_quota": Role.ADMIN,
    "set_retention_policy": Role.EDITOR,
    "set_retention_rules": Role.ADMIN,
    "set_webhook_status": Role.ADMIN,
    "set_webhook_status_patch": Role.ADMIN,
    "share_audience": Role.EDITOR,
    "share_platform": Role.ADMIN,
    "unarchive_audience": Role.EDITOR,
    "start_retention_run": Role.ADMIN,
    "update_audience": Role.EDITOR,
    "update_audience_put": Role.EDITOR,
    "update_organization": Role.ADMIN,
    "update_platform": Role.ADMIN,
    "update_platform_put": Role.ADMIN,
    "update_webhook": Role.ADMIN,
    "update_webhook_put": Role.ADMIN,
    "warm_cache": Role.EDITOR,
}
"""The table of rights, written down a second time: a changed right must be changed here too."""

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
    "create_version": {"description": "x"},
    "create_webhook": {"url": "https://hooks.example.com/in"},
    "find_member": {"identifier_type": "email", "identifier_value": "a@b.de"},
    "import_suppressions": {"upload_id": "00000000-0000-4000-8000-000000000000"},
    "place_legal_hold": {"reason": "x"},
    "plan_distribution": {"audience_id": "x", "platform_id": "x"},
    "preview_audience": {"sample": 1},
    "remove_members": {"members": [{"identifier_type": "email", "identifier_value": "a@b.de"}]},
    "remove_suppression": {"identifier_type": "email", "identifier_value": "a@b.de"},
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


def test_every_route_states_the_role_of_the_table(description: Description) -> None:
    stated = {
        operation["operationId"]: Role(operation["x-required-role"])
        for _, _, operation in description.operations
    }
    assert stated == NEEDS


@pytest.mark.parametrize("role", list(Role))
def test_role_opens_exactly_its_routes(role: Role, public: Api, description: Description) -> None:
    caller, roles = public.as_(role, user="one"), list(Role)
    for method, path, operation in description.operations:
        name = operation["operationId"]
        body = body_of(name)
        address = filled(path, str(uuid.uuid4()))
        response = caller.send(method, address, **({} if body is None else {"json": body}))
        allowed = roles.index(role) >= roles.index(NEEDS[name])
        assert (response.status_code == 403) is not allowed, name
        assert response.status_code < 500, name
