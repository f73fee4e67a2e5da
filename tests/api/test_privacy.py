"""What people entrust to us is in no log line and in no error, whatever goes wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from activation.observability import LOGGER
from tests.api.client import SECRET, Api
from tests.api.test_local import Lines

ADDRESS = "canary.person@example.com"
DIGEST = hashlib.sha256(ADDRESS.encode()).hexdigest()
MEMBER = {"identifier_type": "email", "identifier_value": ADDRESS}


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines, level = Lines(), LOGGER.level
    LOGGER.addHandler(lines)
    LOGGER.setLevel("DEBUG")
    yield lines
    LOGGER.removeHandler(lines)
    LOGGER.setLevel(level)


def test_no_log_line_and_no_error_repeats_a_secret_or_a_person(api: Api, lines: Lines) -> None:
    path = f"/audiences/{api.audience()['audience_id']}"
    mistakes = [
        api.post("/audiences", {"name": ADDRESS, "type": "first_party"}),
        api.post("/audiences", {"name": "x", "type": ADDRESS}),
        api.post("/audiences", {"name": "x", ADDRESS: SECRET}),
        api.post(f"{path}/members", {"members": [{**MEMBER, "hash_rule": ADDRESS}]}),
        api.post(f"{path}/members", {"members": [{**MEMBER, "identifier_type": ADDRESS}]}),
        api.post(f"{path}/members/lookup", MEMBER),
        api.post(
            f"{path}/members", data=f'{{"{ADDRESS}"'.encode(), content_type="application/json"
        ),
        api.post("/suppressions", {"suppressions": [{**MEMBER, "hash_rule": "plain"}, MEMBER, {}]}),
        api.post("/suppressions", {"suppressions": [{**MEMBER, "reason": ADDRESS}]}),
        api.post("/suppressions/check", {**MEMBER, "identifier_type": "phone"}),
        api.delete("/suppressions", json={**MEMBER, "hash_rule": "plain"}),
        api.post("/suppressions/imports", data=f"x\n{ADDRESS}\n".encode() * 2, content_type="x/y"),
        api.post("/suppressions/imports", data=f"{ADDRESS}\n".encode(), content_type="text/csv"),
        api.get(f"/audiences?status={ADDRESS}"),
        api.get(f"/audiences?{ADDRESS}=1"),
        api.get(f"/audiences/{ADDRESS}"),
        api.get(f"/{ADDRESS}"),
        api.post("/platforms", {"platform_type": "webhook", "credentials": {"x": SECRET}}),
        api.get("/audiences", headers={"Authorization": f"Bearer {SECRET}"}),
        api.post(f"{path}/versions", {"description": "x"}, headers={"Idempotency-Key": "é"}),
    ]
    assert {response.status_code for response in mistakes} <= {400, 401, 404, 415, 422}
    api.post(f"{path}/members", {"members": [MEMBER]})
    api.post("/suppressions", {"suppressions": [MEMBER]})
    api.post("/suppressions/check", MEMBER)
    api.delete("/suppressions", json=MEMBER)
    api.platform()
    path = f"/webhooks/{(webhook := api.webhook())['webhook_id']}"
    secrets = (webhook["secret"], api.post(f"{path}/rotate").get_json()["secret"])
    mistakes.append(api.post("/webhooks", {"url": f"https://user:{SECRET}@hooks.example.com"}))
    api.post(f"{path}/test")
    while api.server.deliver():
        pass
    texts = [response.get_data(as_text=True) for response in mistakes] + lines.texts
    assert len(lines.texts) >= len(mistakes)
    for canary in (ADDRESS, DIGEST, SECRET, *secrets):
        assert not [text for text in texts if canary in text]
