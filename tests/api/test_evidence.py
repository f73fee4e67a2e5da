"""Evidence and traffic over HTTP: the bytes that were signed, and nothing for strangers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from activation.domain.caller import Role
from activation.domain.distribution import DistributionType
from activation.domain.entity import new_id
from activation.domain.exchange import KEPT
from activation.members.delivery import Selection, Stored, freeze
from activation.ports import Batch
from activation.services.evidence_check import checked
from activation.services.list_digests import ListDigests
from activation.services.stages import stages_of
from tests.api.client import Api


@pytest.fixture
def path(api: Api) -> str:
    """A distribution into a folder that is done."""
    audience = api.audience_with_members("a@example.com", "b@example.com", "c@example.com")
    platform = api.post(
        "/platforms",
        {
            "platform_type": "file_drop",
            "name": "Drop",
            "credentials": {},
            "settings": {"config": {"folder": "audiences"}},
        },
    ).get_json()
    wanted = {"audience_id": audience["audience_id"], "platform_id": platform["platform_id"]}
    job = api.post("/distributions", wanted).get_json()
    while api.server.deliver():
        pass
    return f"/distributions/{job['distribution_id']}"


def test_the_pack_is_handed_out_as_it_was_signed(api: Api, path: str) -> None:
    response = api.get(f"{path}/evidence")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.headers["Content-Disposition"].startswith('attachment; filename="evidence-')
    key = api.get("/distributions/evidence-key").get_json()
    verdict = checked(response.get_data(), key["public_key"])
    assert (verdict.valid, verdict.trusted) == (True, True)
    signer = orjson.loads(response.get_data())["header"]["signer"]
    assert {name: key[name] for name in signer} == signer
    [digest] = response.get_json()["sections"]["members"]["digests"]
    assert digest["identifiers"] == 3


def test_a_viewer_who_sees_the_distribution_may_take_the_pack(
    public: Api, api: Api, path: str
) -> None:
    audience_id = api.get(path).get_json()["audience_id"]
    vic = public.as_(Role.VIEWER, user="vic")
    assert vic.get(f"{path}/evidence").status_code == 404
    api.put(f"/audiences/{audience_id}/sharing", {"shared_with": ["vic"]})
    platform_id = api.get(path).get_json()["platform_id"]
    wanted = {"audience_id": audience_id, "platform_id": platform_id}
    shared = api.post("/distributions", wanted).get_json()["distribution_id"]
    pack = vic.get(f"/distributions/{shared}/evidence")
    assert pack.status_code == 200
    assert pack.get_json()["header"]["issued_to"] == "vic"


def test_a_list_that_is_still_read_is_202(api: Api, path: str) -> None:
    app = api.server.app
    again = cut_in_three(api, path)
    app.__dict__["evidence"] = replace(app.evidence, digests=again)
    first = api.get(f"{path}/evidence")
    assert (first.status_code, first.headers["Retry-After"]) == (202, "1")
    assert first.get_json() == {"status": "reading", "rows_read": 1, "rows": 3}
    assert api.get(f"{path}/evidence").get_json()["rows_read"] == 2
    assert checked(api.get(f"{path}/evidence").get_data()).valid


def cut_in_three(api: Api, path: str) -> ListDigests:
    """Digests that read one batch a request, of a list with a batch per row."""
    app = api.server.app
    stored = app.distributions.records.get("acme", path.rpartition("/")[2])
    job = stored.entity
    manifest = app.members.manifests.get("acme", job.manifest_id or "").entity
    platform = app.platforms.records.get("acme", job.platform_id).entity
    spec = replace(app.distributions.spec_of(platform), max_rows=1)
    place = Stored(app.store, "acme", "anew", new_id(app.clock.now()), "distributions/anew", 1)
    kind = DistributionType.INITIAL
    prepared = freeze(app.store, manifest, spec, Selection(), None, kind, place)
    after = job.changed(stages=stages_of(prepared, 1))
    app.documents.commit(Batch([stored.replaced_by(after)]))
    return ListDigests(app.documents, app.member_blobs, app.clock, seconds=0)


@pytest.mark.usefixtures("hasty")
def test_exchanges_are_listed(api: Api) -> None:
    audience = api.audience_with_members("a@example.com")
    hook: dict[str, Any] = api.platform()
    wanted = {"audience_id": audience["audience_id"], "platform_id": hook["platform_id"]}
    job = api.post("/distributions", wanted).get_json()
    while api.server.deliver():
        pass
    found = api.get(f"/distributions/{job['distribution_id']}/exchanges").get_json()
    assert found["kept"] == KEPT
    assert {one["status"] for one in found["data"]} == {None}, "nobody listens on that port"
    assert {one["outcome"] for one in found["data"]} == {"PLATFORM_UNAVAILABLE"}
    assert {one["host"] for one in found["data"]} == {"127.0.0.1:9"}
