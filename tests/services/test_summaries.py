"""Summaries against a recount in plain Python."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from activation.app import App
from activation.domain.audience import Audience, AudienceChanges
from activation.domain.audience_overlap import Basis
from activation.domain.caller import Caller
from activation.domain.identifier import IdentifierType
from activation.domain.member import MemberInput
from activation.domain.summary import AudienceSummary
from activation.errors import InvalidStateError
from activation.members.profile import COLUMNS, MAX_DISTINCT, MAX_NAMES, Profile, value_of
from tests.services.support import add, audience_of, contents, inputs, never

KINDS = (IdentifierType.EMAIL, IdentifierType.CUSTOMER_ID, IdentifierType.MAID)


def rich(count: int) -> list[MemberInput]:
    """Members of three types, with attributes of all JSON types and labels that overlap."""
    found = []
    for number in range(count):
        attributes: dict[str, Any] = {"city": ("Köln", "Bonn", "Ulm")[number % 3], "n": number % 7}
        if number % 2:
            attributes["vip"] = True
        if number % 5 == 0:
            attributes |= {"tags": ["a", {"b": None}], "note": "x" * 300}
        found.append(
            MemberInput.model_validate(
                {
                    **dict(inputs(1, number, KINDS[number % 3])[0]),
                    "attributes": attributes if number % 4 else None,
                    "segments": ("red", "red", "blue")[: number % 4],
                }
            )
        )
    return found


def recounted(app: App, audience: Audience) -> dict[str, Any]:
    """What the summary has to say, from every stored row."""
    import orjson

    from activation.members.layout import TYPES

    rows = list(contents(app, audience).values())
    names: Counter[str] = Counter()
    values: dict[str, Counter[bytes]] = {}
    labels: Counter[str] = Counter()
    for row in rows:
        for name, value in orjson.loads(row["attributes"] or b"{}").items():
            names[name] += 1
            values.setdefault(name, Counter())[orjson.dumps(value)] += 1
        labels.update(set(row["segments"] or ()))
    return {
        "size": len(rows),
        "unique_identifiers": len({(row["digest"], row["identifier_type"]) for row in rows}),
        "identifier_breakdown": Counter(TYPES[row["identifier_type"]].value for row in rows),
        "attributes": names,
        "values": {
            name: {text: count for text, count in found.items() if len(text) <= 200}
            for name, found in values.items()
        },
        "segments": labels,
    }


def shown(summary: AudienceSummary) -> dict[str, Any]:
    """The summary in the shape of `recounted`."""
    import orjson

    attributes = summary.top_attributes
    return {
        "size": summary.size,
        "unique_identifiers": summary.unique_identifiers,
        "identifier_breakdown": summary.identifier_breakdown,
        "attributes": {name: found.count for name, found in attributes.items()},
        "values": {
            name: {orjson.dumps(one.value): one.count for one in found.values}
            for name, found in attributes.items()
        },
        "segments": {segment.segment_id: segment.count for segment in summary.segments},
    }


def test_equals_a_recount_after_every_kind_of_change(app: App, ann: Caller) -> None:
    audience_id = audience_of(app, ann).audience_id
    for members in (rich(120), rich(40), inputs(30, 500)):
        audience = add(app, ann, audience_id, members)
        summary = app.summaries.summary(ann, audience_id)
        assert shown(summary) == recounted(app, audience)
        assert summary.basis is Basis.EXACT
        assert summary.examined == audience.size
        assert summary.last_updated == audience.updated_at


def test_attributes_and_labels_come_with_the_largest_first(app: App, ann: Caller) -> None:
    audience_id = audience_of(app, ann).audience_id
    segments = ({"segment_id": "green", "name": "Nobody"}, {"segment_id": "red", "name": "Red"})
    app.audiences.update(ann, audience_id, AudienceChanges.model_validate({"segments": segments}))
    add(app, ann, audience_id, rich(120))
    summary = app.summaries.summary(ann, audience_id)
    counts = [found.count for found in summary.top_attributes.values()]
    assert counts == sorted(counts, reverse=True)
    assert [(one.segment_id, one.name, one.count) for one in summary.segments] == [
        ("red", "Red", 90),
        ("blue", "", 30),
        ("green", "Nobody", 0),
    ]
    assert summary.segments[0].share == 0.75
    assert summary.top_attributes["note"].values == ()


def test_few_of_many_attributes_are_listed(app: App, ann: Caller) -> None:
    wide = {f"a{number:02d}": number for number in range(30)}
    member = MemberInput.model_validate({**dict(inputs(1)[0]), "attributes": wide})
    many = [
        MemberInput.model_validate({**dict(one), "attributes": {"k": number}})
        for number, one in enumerate(inputs(15, 1))
    ]
    audience = add(app, ann, audience_of(app, ann).audience_id, [member, *many])
    summary = app.summaries.summary(ann, audience.audience_id)
    assert len(summary.top_attributes) == 20
    assert next(iter(summary.top_attributes)) == "k"
    assert len(summary.top_attributes["k"].values) == 10


def test_a_large_audience_is_judged_by_a_part_and_says_so(app: App, ann: Caller) -> None:
    audience = add(app, ann, audience_of(app, ann).audience_id, rich(3000))
    service = replace(app.summaries, examined=1500)
    summary = service.summary(ann, audience.audience_id)
    exact = recounted(app, audience)
    assert summary.basis is Basis.ESTIMATE
    assert 1300 < summary.examined <= 1500
    assert summary.size == exact["size"] == 3000
    assert summary.identifier_breakdown == exact["identifier_breakdown"]
    estimates = shown(summary)
    assert set(estimates["attributes"]) == set(exact["attributes"])
    for name, count in exact["attributes"].items():
        assert estimates["attributes"][name] == pytest.approx(count, rel=0.25)
    assert estimates["segments"] == exact["segments"]


def test_an_empty_audience_has_an_empty_summary(app: App, ann: Caller) -> None:
    audience = audience_of(app, ann)
    summary = app.summaries.summary(ann, audience.audience_id)
    assert (summary.size, summary.examined, summary.basis) == (0, 0, Basis.EXACT)
    assert summary.top_attributes == {}


def test_an_archived_audience_has_to_be_brought_back_first(app: App, ann: Caller) -> None:
    audience = add(app, ann, audience_of(app, ann).audience_id, inputs(5))
    app.audiences.set_status(ann, audience.audience_id, "active")
    app.archives.archive(ann, audience.audience_id, never)
    with pytest.raises(InvalidStateError):
        app.summaries.summary(ann, audience.audience_id)


def test_a_profile_of_nothing_is_empty() -> None:
    from activation.members.layout import schema

    profile = Profile()
    profile.add(schema().empty_table().select(COLUMNS))
    assert profile == Profile()


def test_what_is_counted_of_a_profile_is_bounded() -> None:
    texts = [f'{{"k": {number}, "city": "Bonn"}}' for number in range(MAX_DISTINCT + 50)]
    texts += [f'{{"n{number}": null}}' for number in range(MAX_NAMES)]
    profile = Profile()
    profile.add(_table(texts))
    assert profile.examined == len(texts)
    assert profile.distinct == MAX_DISTINCT == sum(map(len, profile.values.values()))
    assert len(profile.attributes) == MAX_NAMES
    assert profile.attributes["k"] == profile.attributes["city"] == MAX_DISTINCT + 50
    ((form, count),) = profile.values["city"].items()
    assert (value_of(form), count) == ("Bonn", MAX_DISTINCT + 50)
    assert set(profile.by_type.values()) == {len(texts)}


VALUES = ("1", 1, True, None, 1.5, '"', "", ["a"], {"b": 1, "a": 2})


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_of_different_types_are_told_apart(value: Any) -> None:
    import orjson

    profile = Profile()
    profile.add(_table([orjson.dumps({"k": value}).decode(), '{"k": "other"}']))
    assert [value_of(form) for form in profile.values["k"]] == [value, "other"]


def _table(attributes: list[str]) -> Any:
    """Members with these attributes."""
    import pyarrow as pa

    from activation.members.layout import schema

    count = len(attributes)
    columns = {
        "identifier_type": pa.array([0] * count, pa.uint8()),
        "attributes": pa.array(attributes, pa.string()),
        "segments": pa.nulls(count, pa.list_(pa.string())),
    }
    return pa.table(columns, pa.schema([schema().field(name) for name in columns]))
