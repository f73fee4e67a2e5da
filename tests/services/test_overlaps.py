"""Overlaps of audiences: exact for small ones, estimated with bounds for large ones."""

from __future__ import annotations

import pytest

from activation.app import App
from activation.domain.audience import Archive
from activation.domain.audience_overlap import Basis
from activation.domain.caller import Caller, Role
from activation.errors import InvalidStateError, NotFoundError, ValidationError
from activation.services.overlaps import OverlapService
from tests.conftest import START, caller_of
from tests.services.support import add, audience_of, inputs, set_fields


@pytest.fixture
def three(app: App, ann: Caller) -> list[str]:
    """Members 0-99, 60-159, and none."""
    ids = [audience_of(app, ann, name).audience_id for name in ("one", "two", "none")]
    add(app, ann, ids[0], inputs(100))
    add(app, ann, ids[1], inputs(100, start=60))
    return ids


def test_the_matrix_counts_every_pair(app: App, ann: Caller, three: list[str]) -> None:
    found = app.overlaps.matrix(ann, three)
    assert [(one.name, one.size) for one in found.audiences] == [
        ("one", 100),
        ("two", 100),
        ("none", 0),
    ]
    first, second, third = found.pairs
    assert (first.a, first.b, first.basis) == (three[0], three[1], Basis.EXACT)
    assert (first.both, first.either, first.only_a, first.only_b) == (40, 160, 60, 60)
    assert (first.share_of_a, first.share_of_b, first.jaccard) == (0.4, 0.4, 0.25)
    assert (first.low, first.high, first.standard_error) == (40, 40, 0.0)
    assert (second.both, second.only_a, second.share_of_b) == (0, 100, None)
    assert (third.a, third.b) == (three[1], three[2])


def test_two_empty_audiences_share_nothing(app: App, ann: Caller) -> None:
    ids = [audience_of(app, ann, name).audience_id for name in ("x", "y")]
    (pair,) = app.overlaps.matrix(ann, ids).pairs
    assert (pair.both, pair.either, pair.jaccard, pair.share_of_a) == (0, 0, None, None)


def test_large_audiences_are_estimated_unless_asked_exactly(
    app: App, ann: Caller, three: list[str]
) -> None:
    service = OverlapService(app.audiences, app.store, estimated_above=50)
    (estimate,) = service.matrix(ann, three[:2]).pairs
    (exact,) = service.matrix(ann, three[:2], exact=True).pairs
    assert (exact.basis, exact.both) == (Basis.EXACT, 40)
    assert estimate == exact  # all of so few members is looked at
    for pair in service.matrix(ann, three).pairs:
        assert pair.low <= pair.both <= pair.high


def test_all_audiences_must_be_visible(app: App, ann: Caller, three: list[str]) -> None:
    stranger = caller_of("evil-corp", "eve")
    colleague = caller_of(user="bob", role=Role.EDITOR)
    hers = audience_of(app, stranger).audience_id
    his = audience_of(app, colleague, "his").audience_id
    for caller, ids in (
        (ann, [three[0], hers]),
        (stranger, [hers, three[0]]),
        (colleague, [his, three[0]]),
        (ann, [three[0], "unknown"]),
    ):
        with pytest.raises(NotFoundError) as refused:
            app.overlaps.matrix(caller, ids)
        assert refused.value.message == "There is no such audience."


def test_an_audience_is_not_compared_with_itself(app: App, ann: Caller, three: list[str]) -> None:
    with pytest.raises(ValidationError):
        app.overlaps.matrix(ann, [three[0], three[0]])


def test_archived_members_are_not_taken_for_none(app: App, ann: Caller, three: list[str]) -> None:
    archive = Archive(
        location="x", bytes=1, sha256="0", members=100, manifest_id="m", archived_at=START
    )
    one = app.audiences.find(ann, three[0]).entity
    set_fields(app, one, archive=archive, manifest_id=None, size=0)
    with pytest.raises(InvalidStateError) as refused:
        app.overlaps.matrix(ann, three[:2])
    assert (refused.value.field, refused.value.reason) == ("ids", "archived")
