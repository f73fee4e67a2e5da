"""Previews: exact on small audiences, honest estimates on larger ones, nobody to be recognised."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pytest

from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.audience_overlap import Basis
from activation.domain.caller import Caller
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.member import MemberInput
from activation.domain.preview import Preview, PreviewDraft
from activation.errors import NotFoundError, ValidationError
from activation.services.previews import apportioned

PEOPLE = 2_000
COUNTRIES = ("DE", "FR", "IT", "US")


def person(number: int) -> MemberInput:
    return MemberInput(
        identifier_type=IdentifierType.EMAIL if number % 5 else IdentifierType.CUSTOMER_ID,
        identifier_value=f"p{number}@example.com" if number % 5 else f"K{number}",
        attributes={"country": COUNTRIES[number % 4], "age": str(number % 90), "n": number},
        segments=("vip",) if number % 10 == 0 else (),
    )


@pytest.fixture
def audience_id(app: App, ann: Caller) -> str:
    draft = AudienceDraft.model_validate(
        {
            "name": "Buyers",
            "type": "first_party",
            "rules": [{"variable_id": "country", "operator": "=", "value": "DE"}],
        }
    )
    made = app.audiences.create(ann, draft).entity.audience_id
    app.members.add(ann, made, [person(number) for number in range(PEOPLE)])
    return made


def asked(*rules: Sequence[Any], **fields: Any) -> PreviewDraft:
    named = [dict(zip(("variable_id", "operator", "value"), rule, strict=True)) for rule in rules]
    return PreviewDraft.model_validate({"rules": named, **fields} if rules else fields)


def preview(app: App, caller: Caller, audience_id: str, draft: PreviewDraft) -> Preview:
    return app.previews.preview(caller, audience_id, draft)


def test_a_small_audience_is_counted_exactly(app: App, ann: Caller, audience_id: str) -> None:
    found = preview(app, ann, audience_id, asked())
    assert (found.basis, found.examined, found.size) == (Basis.EXACT, PEOPLE, PEOPLE)
    assert (found.matched, found.matched_low, found.matched_high) == (500, 500, 500)
    assert found.share == 0.25
    assert found.by_type == {"customer_id": 100, "email": 400}
    assert len(found.sample) == 10


def test_given_rules_take_the_place_of_the_audiences_own(
    app: App, ann: Caller, audience_id: str
) -> None:
    draft = asked(("country", "IN", ["DE", "FR"]), ("member.segments", "EQ", "vip"))
    assert preview(app, ann, audience_id, draft).matched == PEOPLE // 20
    assert preview(app, ann, audience_id, asked(rules=[])).matched == PEOPLE


def test_it_says_which_rule_chooses_nobody_and_why(app: App, ann: Caller, audience_id: str) -> None:
    found = preview(app, ann, audience_id, asked(("country", "EQ", "DE"), ("age", "GT", 18)))
    assert found.matched == 0
    of_country, of_age = found.rules
    assert (of_country.matched, of_country.unreadable) == (500, 0)
    assert (of_age.present, of_age.unreadable, of_age.matched) == (PEOPLE, PEOPLE, 0)


@pytest.mark.parametrize("matched", [0, 40, 500, 1000, PEOPLE])
def test_an_estimate_bounds_the_true_number(
    app: App, ann: Caller, audience_id: str, matched: int
) -> None:
    service = dataclasses.replace(app.previews, sample_size=300)
    draft = asked(("n", "LT", matched), sample=0)
    found = service.preview(ann, audience_id, draft)
    assert (found.basis, found.size) == (Basis.ESTIMATE, PEOPLE)
    assert 200 < found.examined <= 300
    assert found.matched_low <= matched <= found.matched_high
    assert found.matched_high - found.matched_low < PEOPLE / 5
    assert sum(found.by_type.values()) == found.matched
    exact = service.preview(ann, audience_id, asked(("n", "LT", matched), exact=True))
    assert (exact.basis, exact.matched, exact.examined) == (Basis.EXACT, matched, PEOPLE)


def test_an_exact_preview_out_of_time_is_an_estimate(
    app: App, ann: Caller, audience_id: str
) -> None:
    hurried = dataclasses.replace(app.previews, sample_size=100, exact_seconds=-1)
    found = hurried.preview(ann, audience_id, asked(exact=True))
    assert found.basis is Basis.ESTIMATE
    assert 0 < found.examined < PEOPLE
    assert found.matched_low < found.matched < found.matched_high


def test_the_sample_names_nobody(app: App, ann: Caller, audience_id: str) -> None:
    found = preview(app, ann, audience_id, asked(sample=100))
    assert len(found.sample) == 100
    assert {member.attributes for member in found.sample} == {("age", "country", "n")}
    text = json.dumps(found.model_dump(mode="json"))
    for number in range(PEOPLE):
        value = person(number).identifier_value
        assert value not in text
        assert key_digest(value).hex() not in text


def test_an_empty_audience_matches_nobody(app: App, ann: Caller) -> None:
    draft = AudienceDraft.model_validate({"name": "Empty", "type": "first_party"})
    empty = app.audiences.create(ann, draft).entity.audience_id
    found = preview(app, ann, empty, asked(("a", "NEQ", 1)))
    assert (found.basis, found.matched, found.size, found.share) == (Basis.EXACT, 0, 0, None)
    assert [rule.present for rule in found.rules] == [0]


def test_others_see_nothing_and_senseless_rules_are_refused(
    app: App, ann: Caller, eve: Caller, audience_id: str
) -> None:
    with pytest.raises(NotFoundError):
        preview(app, eve, audience_id, asked())
    with pytest.raises(ValidationError):
        preview(app, ann, audience_id, asked(("a", "LIKE", "b")))


def test_shares_add_up() -> None:
    assert apportioned(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    assert apportioned(0, {}) == {}
    assert apportioned(7, {"a": 3, "b": 4}) == {"a": 3, "b": 4}
