"""What people said, on its way to the platforms: sent with what they said, or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import DistributionDraft, Plan, PlanDraft
from activation.domain.identifier import IdentifierType
from activation.domain.member import MemberInput
from activation.domain.member_import import ImportDraft
from activation.domain.suppression import SuppressionsDraft
from tests.services.deliveries import PEOPLE, Deliveries, delivering
from tests.services.support import audience_of
from tests.unit.test_tcf import Fields
from tests.working import work


@pytest.fixture
def deliveries(app: App, ann: Caller) -> Iterator[Deliveries]:
    with delivering(app, ann) as made:
        yield made


def say(deliveries: Deliveries, number: int, **fields: Any) -> None:
    """Let one of the people say something."""
    one = MemberInput(
        identifier_type=IdentifierType.EMAIL,
        identifier_value=f"p{number}@example.com",
        **fields,
    )
    deliveries.app.members.add(deliveries.ann, deliveries.audience_id, [one])


def suppress(deliveries: Deliveries, *numbers: int) -> None:
    named = [
        {"identifier_type": "email", "identifier_value": f"p{number}@example.com"}
        for number in numbers
    ]
    draft = SuppressionsDraft.model_validate({"suppressions": named})
    deliveries.app.suppressions.add(deliveries.ann, draft)


def said_by_some(deliveries: Deliveries) -> None:
    say(deliveries, 0, consent="granted")
    say(deliveries, 1, ad_user_data="granted", ad_personalization="denied")
    say(deliveries, 2, consent="denied")
    say(deliveries, 3, limited_data_use=True)
    say(deliveries, 4, tcf=Fields(vendors=(793, 21)).encoded())


def test_google_gets_what_people_said_and_not_who_said_no(deliveries: Deliveries) -> None:
    said_by_some(deliveries)
    done = deliveries.delivered("google_ads")
    assert done.plan is not None
    assert done.plan.withheld == {
        "consent_denied": 1,
        "limited_data_use": 1,
        "vendor_denied": 1,
    }
    (held,) = deliveries.google.contents()["audiences"]
    assert held["members"] == done.progress.sent == PEOPLE - 3
    assert held["consents"] == {
        "granted/granted": 1,
        "granted/denied": 1,
        "unspecified/unspecified": PEOPLE - 5,
    }


def test_meta_is_told_of_limited_use_and_gets_nobody_who_limited_more(
    deliveries: Deliveries,
) -> None:
    said_by_some(deliveries)
    done = deliveries.delivered("facebook")
    assert done.plan is not None
    assert done.plan.withheld == {"consent_denied": 2}
    (held,) = deliveries.facebook.contents()["audiences"]
    assert held["members"] == PEOPLE - 2
    assert deliveries.facebook.contents()["limited_rows"] == 1


@pytest.mark.parametrize("platform", ["google_ads", "facebook"])
def test_whoever_is_suppressed_is_taken_out_by_the_next_run(
    deliveries: Deliveries, platform: str
) -> None:
    deliveries.delivered(platform)
    suppress(deliveries, 7, 8)
    say(deliveries, 9, consent="denied")
    done = deliveries.delivered(platform, distribution_type="incremental")
    assert done.plan is not None
    assert (done.plan.removes, done.plan.adds, done.plan.kept) == (3, 0, PEOPLE - 3)
    assert done.plan.withheld == {"suppressed": 2, "consent_denied": 1}
    twin = deliveries.google if platform == "google_ads" else deliveries.facebook
    (held,) = twin.contents()["audiences"]
    assert held["members"] == PEOPLE - 3


def plan_of(deliveries: Deliveries, audience_id: str, platform: str) -> Plan:
    draft = PlanDraft(audience_id=audience_id, platform_id=deliveries.platforms[platform])
    return deliveries.app.distributions.plan(deliveries.ann, draft)


def test_a_no_by_one_identifier_holds_for_all_of_the_person(deliveries: Deliveries) -> None:
    """Who withdraws his consent does so by e-mail; his phone number is his, too."""
    app, ann = deliveries.app, deliveries.ann
    audience_id = audience_of(app, ann, "Linked").audience_id
    rows = [f"q{n}@example.com,+49301234{n:03}" for n in range(10)]
    file = "\n".join(["email,phone", *rows]).encode()
    job = app.imports.create_direct(ann, audience_id, ImportDraft(), io.BytesIO(file)).entity
    app.import_worker.run("acme", job.import_id, "test-trace")
    said: list[dict[str, Any]] = [
        {"ad_user_data": "denied"},
        {"ad_personalization": "denied"},
        {"limited_data_use": True},
        {"tcf": Fields(vendors=(793, 21)).encoded()},
    ]
    members = [
        MemberInput(
            identifier_type=IdentifierType.EMAIL, identifier_value=f"q{n}@example.com", **fields
        )
        for n, fields in enumerate(said)
    ]
    app.members.add(ann, audience_id, members)
    google, meta = (plan_of(deliveries, audience_id, name) for name in ("google_ads", "facebook"))
    assert google.withheld == {"consent_denied": 2, "limited_data_use": 2, "vendor_denied": 2}
    assert meta.withheld == {"consent_denied": 4}
    draft = DistributionDraft(
        audience_id=audience_id, platform_id=deliveries.platforms["google_ads"]
    )
    made = app.distributions.create(ann, draft).entity
    work(app, made.distribution_id)
    (held,) = deliveries.google.contents()["audiences"]
    assert held["members"] == 14
    assert held["consents"]["unspecified/denied"] == 1, "one row, with both identifiers"
