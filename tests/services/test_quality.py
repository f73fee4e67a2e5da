"""The quality score that an import leaves on its audience."""

from __future__ import annotations

import io

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.member_import import ImportDraft
from tests.services.support import add, audience_of, inputs, renamed


def imported(app: App, caller: Caller, audience_id: str, *cells: str) -> Audience:
    """Import a file of e-mail addresses; the audience afterwards."""
    file = io.BytesIO("\n".join(["email", *cells]).encode())
    job = app.imports.create_direct(caller, audience_id, ImportDraft(), file).entity
    app.import_worker.run(caller.organization_id, job.import_id, "t")
    return app.audiences.find(caller, audience_id).entity


def mails(first: int, last: int) -> list[str]:
    return [f"p{number}@example.com" for number in range(first, last)]


def test_a_bad_file_scores_lower_than_a_clean_one(app: App, ann: Caller) -> None:
    clean = imported(app, ann, audience_of(app, ann, "Clean").audience_id, *mails(0, 10))
    bad = imported(
        app, ann, audience_of(app, ann, "Bad").audience_id, *mails(0, 6), *["nobody"] * 4
    )
    double = imported(
        app, ann, audience_of(app, ann, "Double").audience_id, *mails(0, 5), *mails(0, 5)
    )
    assert clean.metadata.quality_score == 0.95
    assert bad.metadata.quality_score == 0.75
    assert double.metadata.quality_score == 0.875


def test_it_looks_at_all_members_not_only_those_of_the_file(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    audience_id = audience_of(app, ann).audience_id
    assert imported(app, ann, audience_id, *mails(0, 10)).metadata.quality_score == 0.95
    clock.sleep(184 * 86_400)
    older = imported(app, ann, audience_id, *mails(10, 20))
    assert older.metadata.quality_score == 0.925, "half of the members are half a year old"


def test_it_stays_until_the_next_import(app: App, ann: Caller) -> None:
    audience_id = audience_of(app, ann).audience_id
    assert app.audiences.find(ann, audience_id).entity.metadata.quality_score is None
    imported(app, ann, audience_id, *mails(0, 6), *["nobody"] * 4)
    add(app, ann, audience_id, inputs(10, 100))
    renamed(app, ann, audience_id, "Another name")
    assert app.audiences.find(ann, audience_id).entity.metadata.quality_score == 0.75
    assert imported(app, ann, audience_id, *mails(0, 10)).metadata.quality_score == 0.95
