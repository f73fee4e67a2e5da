"""Sub-segments: labels on members, counted right whatever happens, and usable to choose."""

from __future__ import annotations

import io
import random
from collections import Counter

import pytest

from activation.app import App
from activation.domain.audience import (
    Audience,
    AudienceChanges,
    AudienceDraft,
    AudienceStatus,
)
from activation.domain.caller import Caller
from activation.domain.distribution import PlanDraft
from activation.domain.identifier import IdentifierType
from activation.domain.member import MAX_DISTINCT_SEGMENTS, Member, MemberFilter, MemberInput
from activation.domain.member_change import MemberReference
from activation.domain.member_import import ImportDraft, ImportStatus
from activation.domain.platform import PlatformDraft
from activation.errors import ValidationError
from tests.api.client import WEBHOOK

LABELS = ("vip", "new", "PRIZM-01", "at risk")


def person(number: int, *labels: str) -> MemberInput:
    return MemberInput(
        identifier_type=IdentifierType.CUSTOMER_ID, identifier_value=f"K{number}", segments=labels
    )


def members(app: App, caller: Caller, audience_id: str, label: str | None = None) -> list[Member]:
    page, _ = app.members.page(caller, audience_id, MemberFilter(segment=label), 1000)
    return list(page)


def recount(app: App, caller: Caller, audience_id: str) -> Audience:
    """The audience, after its segments were compared with a count of its members."""
    audience = app.audiences.find(caller, audience_id).entity
    found = members(app, caller, audience_id)
    counts = Counter(label for member in found for label in member.segments)
    shown = {one.segment_id: (one.size, one.size_percentage) for one in audience.segments}
    assert {label for label, (size, _) in shown.items() if size} == set(counts)
    for label, size in counts.items():
        assert shown[label] == (size, round(100 * size / len(found), 2))
    return audience


@pytest.fixture
def audience_id(app: App, ann: Caller) -> str:
    draft = AudienceDraft.model_validate(
        {
            "name": "Buyers",
            "type": "first_party",
            "segments": [{"segment_id": "vip", "name": "Best", "prizm_segments": ["01", "02"]}],
        }
    )
    return app.audiences.create(ann, draft).entity.audience_id


def test_sizes_equal_a_recount_after_every_change(app: App, ann: Caller, audience_id: str) -> None:
    draw = random.Random(5)
    for _ in range(6):
        added = [
            person(draw.randrange(60), *draw.sample(LABELS, draw.randrange(3))) for _ in range(20)
        ]
        app.members.add(ann, audience_id, added)
        recount(app, ann, audience_id)
        gone = [
            MemberReference(
                identifier_type=IdentifierType.CUSTOMER_ID,
                identifier_value=f"K{draw.randrange(60)}",
            )
            for _ in range(8)
        ]
        app.members.remove(ann, audience_id, gone)
        recount(app, ann, audience_id)


def test_an_import_brings_its_labels(app: App, ann: Caller, audience_id: str) -> None:
    file = io.BytesIO(b"customer_id,segments\nK1,vip|new\nK2,new\nK3,\n")
    job = app.imports.create_direct(ann, audience_id, ImportDraft(), file).entity
    app.import_worker.run("acme", job.import_id, "trace")
    audience = recount(app, ann, audience_id)
    vip, new = audience.segments
    assert (vip.segment_id, vip.name, vip.prizm_segments) == ("vip", "Best", ("01", "02"))
    assert (new.segment_id, new.name, new.size, new.size_percentage) == ("new", "", 2, 66.67)


def test_declaring_others_does_not_hide_what_members_carry(
    app: App, ann: Caller, audience_id: str
) -> None:
    app.members.add(ann, audience_id, [person(1, "vip"), person(2, "new")])
    changes = AudienceChanges.model_validate(
        {"segments": [{"segment_id": "later"}, {"segment_id": "new", "name": "New ones"}]}
    )
    app.audiences.update(ann, audience_id, changes)
    shown = [(s.segment_id, s.name, s.size) for s in recount(app, ann, audience_id).segments]
    assert shown == [("later", "", 0), ("new", "New ones", 1), ("vip", "", 1)]


def test_labels_narrow_lists_and_distributions(app: App, ann: Caller, audience_id: str) -> None:
    app.members.add(ann, audience_id, [person(n, *LABELS[: n % 3]) for n in range(9)])
    app.audiences.set_status(ann, audience_id, "active")
    found = members(app, ann, audience_id, "new")
    assert {member.identifier_value for member in found} == {"K2", "K5", "K8"}
    webhook = PlatformDraft.model_validate(WEBHOOK)
    platform = app.platforms.create(ann, webhook).entity.platform_id
    draft = {"audience_id": audience_id, "platform_id": platform}
    plan = app.distributions.plan(
        ann, PlanDraft.model_validate({**draft, "segments_distributed": ["new"]})
    )
    assert (plan.members, plan.identifiers, plan.withheld) == (9, 3, {"not_selected": 6})
    with pytest.raises(ValidationError):
        app.distributions.plan(
            ann, PlanDraft.model_validate({**draft, "segments_distributed": ["nobody"]})
        )


def test_more_labels_than_an_audience_may_have_are_refused(
    app: App, ann: Caller, audience_id: str
) -> None:
    each = MAX_DISTINCT_SEGMENTS // 50
    full = [person(n, *(f"L{n}-{one}" for one in range(each))) for n in range(50)]
    app.members.add(ann, audience_id, full)
    before = app.audiences.find(ann, audience_id)
    with pytest.raises(ValidationError) as refused:
        app.members.add(ann, audience_id, [person(51, "one more")])
    assert refused.value.reason == "too_many_segments"
    assert app.audiences.find(ann, audience_id) == before
    app.members.add(ann, audience_id, [person(51, "L0-0")])
    replaced = [person(0, "new"), person(52, "newer")]
    assert app.members.add(ann, audience_id, replaced).added == 1


def test_an_import_with_a_label_per_member_fails_and_says_so(
    app: App, ann: Caller, audience_id: str
) -> None:
    app.members.add(ann, audience_id, [person(1, "vip")])
    before = members(app, ann, audience_id)
    lines = (f"K{number},label {number}\n" for number in range(30_000))
    file = io.BytesIO(("customer_id,segments\n" + "".join(lines)).encode())
    job = app.imports.create_direct(ann, audience_id, ImportDraft(), file).entity
    app.import_worker.run("acme", job.import_id, "trace")
    failed = app.imports.get(ann, audience_id, job.import_id).entity
    assert failed.status is ImportStatus.FAILED
    assert failed.error is not None
    assert failed.error["reason"] == "too_many_segments"
    audience = app.audiences.find(ann, audience_id).entity
    assert (audience.status, audience.size) == (AudienceStatus.ERROR, 1)
    assert members(app, ann, audience_id) == before
    assert not list(app.member_blobs.list("acme"))


def test_long_labels_are_refused_before_a_manifest_outgrows_its_document(
    app: App, ann: Caller, audience_id: str
) -> None:
    labels = [f"{number:05}".ljust(100, "\N{SNOWMAN}") for number in range(2_000)]
    many = [person(n, *labels[100 * n : 100 * n + 100]) for n in range(20)]
    with pytest.raises(ValidationError) as refused:
        app.members.add(ann, audience_id, many)
    assert refused.value.reason == "too_many_segments"
