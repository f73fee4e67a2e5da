"""The audience's rules: statuses, types, tiers, kinds of change, no personal data."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError as SchemaError

from activation.domain.audience import (
    TRANSITIONS,
    Audience,
    AudienceDraft,
    AudienceMetadata,
    AudienceStatus,
    AudienceType,
)
from activation.domain.entity import first_id, new_id
from activation.domain.manifest import StorageTier, TierLimits
from activation.domain.personal_data import refuse_personal_data
from activation.errors import InvalidStateError, ValidationError

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def audience(status: AudienceStatus) -> Audience:
    return Audience(
        organization_id="acme",
        audience_id=new_id(NOW),
        user_id="ann",
        name="Buyers",
        data_type=AudienceType.FIRST_PARTY,
        metadata=AudienceMetadata(created_by="ann"),
        status=status,
        created_at=NOW,
        updated_at=NOW,
    )


@pytest.mark.parametrize("current", AudienceStatus)
@pytest.mark.parametrize("wanted", AudienceStatus)
def test_only_listed_transitions_are_allowed(
    current: AudienceStatus, wanted: AudienceStatus
) -> None:
    if wanted in TRANSITIONS[current]:
        assert audience(current).moved_to(wanted) is wanted
    else:
        with pytest.raises(InvalidStateError) as refused:
            audience(current).moved_to(wanted)
        assert refused.value.field == "status"


def test_archived_audiences_come_back_only_as_active_or_paused() -> None:
    back = {AudienceStatus.ACTIVE, AudienceStatus.PAUSED}
    assert TRANSITIONS[AudienceStatus.ARCHIVED] == back


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("1st-party", AudienceType.FIRST_PARTY),
        ("3rd-party", AudienceType.THIRD_PARTY),
        ("clean-room", AudienceType.CLEAN_ROOM),
        ("first_party", AudienceType.FIRST_PARTY),
        ("FIRST_PARTY", AudienceType.FIRST_PARTY),
    ],
)
@pytest.mark.parametrize("field", ["data_type", "dataType", "type"])
def test_every_spelling_of_the_type_has_one_form(
    field: str, spelling: str, canonical: AudienceType
) -> None:
    draft = AudienceDraft.model_validate({"name": "x", field: spelling})
    assert draft.data_type is canonical


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "first_party"}, "name"),
        ({"name": "x" * 256, "type": "first_party"}, "name"),
        ({"name": "x"}, "data_type"),
        ({"name": "x", "type": "4th-party"}, "type"),
        ({"name": "x", "type": "first_party", "size": 5}, "size"),
        ({"name": "x", "type": "first_party", "organization_id": "b"}, "organization_id"),
        ({"name": "x", "type": "first_party", "subtype": "s" * 51}, "subtype"),
    ],
)
def test_bad_drafts_name_the_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(SchemaError) as refused:
        AudienceDraft.model_validate(body)
    assert field in {str(error["loc"][0]) for error in refused.value.errors()}


@pytest.mark.parametrize(
    ("size", "tier"),
    [
        (0, StorageTier.DATABASE),
        (99_999, StorageTier.DATABASE),
        (100_000, StorageTier.SEGMENTED),
        (9_999_999, StorageTier.SEGMENTED),
        (10_000_000, StorageTier.EXTERNAL),
    ],
)
def test_tiers_are_half_open(size: int, tier: StorageTier) -> None:
    assert TierLimits().tier_for(size) is tier


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": "Mails to jo@example.com"}, "personal_data"),
        ({"metadata": {"notes": "call +49 170 1234567"}}, "personal_data"),
        ({"name": "bell\x07"}, "control_characters"),
    ],
)
def test_definitions_hold_no_personal_data(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        refuse_personal_data(fields)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "text", ["Buyers @ 2026", "<script>alert(1)</script>", "A+B 100-200", "2026-11-21", "50% + 10"]
)
def test_ordinary_text_passes(text: str) -> None:
    refuse_personal_data({"name": text})


def test_ids_sort_by_time() -> None:
    later = datetime(2026, 11, 21, 0, 0, 1, tzinfo=UTC)
    early, late = new_id(NOW), new_id(later)
    assert early < first_id(later) <= late
    many = [new_id(NOW) for _ in range(1000)]
    assert sorted(set(many)) == many, "in one millisecond, in the order they were made"
    assert all(uuid.UUID(value).version == 7 for value in many)
