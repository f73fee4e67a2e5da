"""Dynamic audiences: exactly the users of their segment, whatever happens to either of them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import pytest

from activation import observability
from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.caller import Role
from activation.domain.identifier import Consent, IdentifierType
from activation.domain.member import MemberFilter, MemberInput
from activation.domain.member_change import MemberReference
from activation.domain.member_import import ImportDraft
from activation.domain.segment import SegmentStatus
from activation.domain.segment_record import SegmentDefinition
from activation.domain.segment_shard import shard_of
from activation.domain.suppression import SuppressionReference, SuppressionsDraft
from activation.errors import (
    ActivationError,
    InvalidStateError,
    NotFoundError,
    StorageUnavailableError,
    ValidationError,
)
from activation.members.store import MemberStore, MergeResult
from activation.ports import Batch, Query, Write
from activation.services.segment_followers import mark_write
from tests.conftest import caller_of
from tests.services.following import ANN, BUYS, Shop, address, email, emails
from tests.services.support import contents
from tests.services.test_segment_definitions import outcome


@pytest.fixture
def shop(app: App, clock: MovableClock) -> Shop:
    return Shop(app, clock)


def test_users_come_by_events_and_leave_by_silence(shop: Shop) -> None:
    audience = shop.audience()
    shop.work()
    shop.buys(*emails(1, 2, 3))
    shop.quiet()
    assert shop.require_in_step(audience).members == 3
    shop.minutes(20)
    shop.buys(*emails(3, 4))
    shop.quiet()
    assert shop.require_in_step(audience).members == 4
    shop.minutes(12)
    assert shop.require_in_step(audience).members == 2
    shop.minutes(40)
    assert shop.require_in_step(audience).members == 0


def versions(app: App, audience_id: str) -> int:
    return app.audiences.find(ANN, audience_id).entity.version


def created(app: App, name: str = "Plain", **fields: object) -> str:
    draft = AudienceDraft.model_validate({"name": name, "type": "first_party", **fields})
    return app.audiences.create(ANN, draft).entity.audience_id


def member(number: int) -> MemberInput:
    return MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value=address(number))


def reference(number: int) -> MemberReference:
    return MemberReference(identifier_type=IdentifierType.EMAIL, identifier_value=address(number))


# what is a member ---------------------------------------------------------------------------------


def test_two_spellings_are_one_member_until_both_have_left(shop: Shop) -> None:
    audience = shop.audience()
    shop.work()
    shop.buys(email(9).upper())
    shop.quiet()
    shop.minutes(10)
    shop.buys(f"{email(9)} ", email(1))
    shop.quiet()
    following = shop.require_in_step(audience)
    assert (following.users, following.members, following.shared) == (3, 2, 1)
    shop.minutes(20)
    assert shop.require_in_step(audience).users == 2
    shop.minutes(12)
    assert shop.require_in_step(audience).users == 0


def test_ids_that_are_no_identifiers_are_counted_by_reason(shop: Shop) -> None:
    audience = shop.audience(identifier="phone")
    shop.work()
    shop.buys("0049 170 1234567", "0170 7654321", "nobody", "x" * 255)
    shop.quiet()
    following = shop.require_in_step(audience)
    assert following.members == 1
    assert following.rejected == {"invalid_phone": 1, "phone_needs_region": 1, "too_long": 1}
    shop.minutes(20)
    shop.buys("nobody")
    shop.minutes(15)
    assert shop.require_in_step(audience).rejected == {"invalid_phone": 1}


def test_a_region_completes_phone_numbers(shop: Shop) -> None:
    audience = shop.audience(identifier="phone", default_region="DE")
    shop.buys("0049 170 7654321", "0170 7654321")
    shop.quiet()
    following = shop.require_in_step(audience)
    assert (following.members, following.shared) == (1, 1)


@pytest.mark.parametrize(
    ("identifier", "user"),
    [
        ("maid", "6D92078A-8246-4BA4-AE5B-76104861E7DC"),
        ("customer_id", "C-17"),
        ("cookie_id", "abc.def"),
        ("ramp_id", "XY1000bIBGUmBEBmxP3p1iTBA8xdv8TX9EtmZXj9d"),
    ],
)
def test_every_type_of_identifier_may_be_followed(shop: Shop, identifier: str, user: str) -> None:
    audience = shop.audience(identifier=identifier)
    shop.buys(user)
    shop.quiet()
    assert shop.require_in_step(audience).members == 1


def test_hashed_user_ids_are_taken_as_what_they_are(shop: Shop, app: App) -> None:
    hashed = email(7)
    audience = shop.audience()
    shop.buys(hashed, "ann")
    shop.quiet()
    assert contents(app, shop.record(audience)).keys() == {hashed}
    assert shop.following(audience).rejected == {"not_a_hash": 1}
    with pytest.raises(ValueError, match="not hashed by this rule"):
        shop.audience("Wrong", identifier="maid", hash_rule="plain")


def test_consent_is_what_the_binding_states(shop: Shop, app: App) -> None:
    silent = shop.audience()
    said = shop.audience("Said", ad_user_data="granted", limited_data_use=True)
    shop.buys(email(1))
    shop.quiet()
    (unknown,) = app.members.page(ANN, silent, MemberFilter())[0]
    assert (unknown.consent, unknown.ad_user_data, unknown.limited_data_use) == (None, None, None)
    (known,) = app.members.page(ANN, said, MemberFilter())[0]
    assert (known.ad_user_data, known.ad_personalization) == (Consent.GRANTED, None)
    assert known.limited_data_use is True
    shop.bind(said, ad_user_data="denied")
    shop.quiet()
    (changed,) = app.members.page(ANN, said, MemberFilter())[0]
    assert (changed.ad_user_data, changed.limited_data_use) == (Consent.DENIED, None)
    assert changed.added_at == known.added_at


# the binding --------------------------------------------------------------------------------------


def test_an_audience_with_members_takes_those_of_the_segment(shop: Shop, app: App) -> None:
    audience = created(app)
    app.members.add(ANN, audience, [member(1), member(2)])
    shop.buys(*emails(2, 3))
    shop.quiet()
    shop.bind(audience)
    shop.quiet()
    shop.require_in_step(audience)
    with pytest.raises(InvalidStateError) as refused:
        app.members.add(ANN, audience, [member(4)])
    assert refused.value.reason == "follows_segment"
    with pytest.raises(InvalidStateError):
        app.members.remove(ANN, audience, [reference(2)])
    with pytest.raises(InvalidStateError):
        app.imports.create_direct(ANN, audience, ImportDraft(), io.BytesIO(b"email\na@b.de\n"))
    with pytest.raises(InvalidStateError):
        app.imports.create_upload(ANN, audience, ImportDraft(), "text/csv")


def test_an_audience_that_is_set_free_keeps_its_members(shop: Shop, app: App) -> None:
    audience = shop.audience()
    shop.buys(*emails(1, 2))
    shop.quiet()
    shop.bind(audience, segment=None)
    shop.minutes(45)
    assert shop.users() == set()
    assert shop.record(audience).size == 2
    assert app.members.add(ANN, audience, [member(3)]).added == 1
    assert not app.documents.query(Query("acme", "segment_follows"))
    assert not app.documents.query(Query("acme", "segment_marks"))
    shop.bind(audience)
    shop.quiet()
    assert shop.require_in_step(audience).members == 0


def test_the_same_binding_again_changes_nothing(shop: Shop) -> None:
    audience = shop.audience()
    shop.work()
    before = shop.record(audience).segment
    assert shop.bind(audience).segment == before


def test_what_feeds_an_audience_stays(shop: Shop, app: App) -> None:
    audience = shop.audience("Live one")
    uses = app.segments.used_by(ANN, shop.segment_id)
    assert [(one.kind, one.id, one.name) for one in uses.data] == [
        ("audience", audience, "Live one")
    ]
    with pytest.raises(InvalidStateError, match="audiences: 'Live one'"):
        app.segments.delete(ANN, shop.segment_id)
    with pytest.raises(InvalidStateError, match="audiences: 'Live one'"):
        app.segments.set_status(ANN, shop.segment_id, SegmentStatus.INACTIVE)
    shop.bind(audience, segment=None)
    app.segments.set_status(ANN, shop.segment_id, SegmentStatus.INACTIVE)
    with pytest.raises(InvalidStateError, match="not active"):
        shop.bind(audience)
    app.segments.delete(ANN, shop.segment_id)


def test_a_deleted_audience_lets_go_of_its_segment(shop: Shop, app: App) -> None:
    audience = shop.audience()
    app.audiences.delete(ANN, audience)
    shop.work()
    app.segments.delete(ANN, shop.segment_id)


def test_a_segment_is_bound_or_deleted(shop: Shop, app: App) -> None:
    """At the same time, one of the two is refused."""
    for number in range(8):
        segment = shop.segment(f"Short {number}")
        bind = partial(shop.audience, f"A {number}", segment_id=segment)
        delete = partial(app.segments.delete, ANN, segment)
        with ThreadPoolExecutor(2) as pool:
            found = sorted(pool.map(outcome, [bind, delete]))
        assert found in (["INVALID_STATE", "done"], ["NOT_FOUND", "done"])


def test_who_does_not_see_a_segment_cannot_follow_it(shop: Shop, app: App) -> None:
    bound = {"segment_id": shop.segment_id, "identifier": "email"}
    draft = {"name": "Mine", "type": "first_party", "segment": bound}
    with pytest.raises(NotFoundError):
        app.audiences.create(
            caller_of(user="ben", role=Role.EDITOR), AudienceDraft.model_validate(draft)
        )
    with pytest.raises(NotFoundError):
        app.audiences.create(caller_of("evil-corp"), AudienceDraft.model_validate(draft))


def test_what_cannot_follow_is_refused(shop: Shop, app: App) -> None:
    source = created(app, "Source")
    derived = created(app, "Derived", derived_from={"source_audience_id": source})
    with pytest.raises(InvalidStateError, match="source"):
        shop.bind(derived)
    with pytest.raises(ValueError, match="not from both"):
        created(
            app,
            "Both",
            derived_from={"source_audience_id": source},
            segment={"segment_id": shop.segment_id, "identifier": "email"},
        )
    app.imports.create_direct(ANN, source, ImportDraft(), io.BytesIO(b"email\na@b.de\n"))
    with pytest.raises(InvalidStateError, match="import"):
        shop.bind(source)


def test_an_audience_may_be_derived_from_one_that_follows(shop: Shop, app: App) -> None:
    audience = shop.audience()
    derived = created(app, "Copy", derived_from={"source_audience_id": audience})
    shop.buys(*emails(1, 2))
    shop.quiet()
    assert shop.record(derived).size == 2
    shop.minutes(35)
    assert shop.record(derived).size == 0


# the pace -----------------------------------------------------------------------------------------


def test_one_version_in_an_interval_however_many_changes(shop: Shop, app: App) -> None:
    audience = shop.audience()
    shop.quiet()
    before = versions(app, audience)
    for number in range(30):
        shop.buys(email(number))
        shop.work()
        shop.clock.sleep(1)
    assert versions(app, audience) == before + 1
    assert shop.following(audience).waiting_since is not None
    assert shop.following(audience).steps_behind > 0
    shop.minutes(2)
    assert versions(app, audience) == before + 2
    assert shop.require_in_step(audience).members == 30
    assert shop.following(audience).waiting_since is None
    assert shop.following(audience).steps_behind == 0


def test_who_comes_and_goes_between_two_runs_makes_no_version(shop: Shop, app: App) -> None:
    audience = shop.audience()
    shop.quiet()
    before = versions(app, audience)
    lazy = replace(app.follow_worker, interval=timedelta(hours=1))
    app.__dict__["follow_worker"] = lazy
    shop.buys(email(1))
    shop.minutes(2)
    assert versions(app, audience) == before + 1
    shop.buys(email(2))
    shop.minutes(45)
    assert versions(app, audience) == before + 1, "the first one is to leave"
    shop.minutes(20)
    assert versions(app, audience) == before + 2
    shop.require_in_step(audience)
    shop.buys(email(2))
    shop.minutes(70)
    assert versions(app, audience) == before + 2, "came and went"
    shop.require_in_step(audience)


def test_other_segments_wake_nobody(shop: Shop, app: App) -> None:
    audience = shop.audience()
    other = shop.segment("Clicks", event_type="clicks")
    shop.quiet()
    before = shop.following(audience)
    events = [{"user_id": email(1), "event_type": "clicks", "event_id": "c1"}]
    app.events.accept(ANN, events)
    shop.quiet()
    assert shop.users(other) == {email(1)}
    after = shop.following(audience)
    assert (after.in_step_at, after.waiting_since) == (before.in_step_at, None)


# where the chain of steps is broken ---------------------------------------------------------------


Line = Mapping[str, Any]


@pytest.fixture
def runs() -> Iterator[list[Line]]:
    """What the log says of runs."""
    seen: list[Line] = []

    class Seen:
        def saw(self, message: str, fields: Line) -> None:
            if message == "audience followed":
                seen.append(fields)

    meter = Seen()
    observability.listen(meter)
    yield seen
    observability.unlisten(meter)


def last(runs: list[Line]) -> tuple[str, int, int]:
    """How the audience was brought in step the last time, how many came, and how many left."""
    return runs[-1]["outcome"], runs[-1]["added"], runs[-1]["removed"]


def test_steps_are_followed_and_all_is_compared_once_a_day(shop: Shop, runs: list[Line]) -> None:
    audience = shop.audience()
    shop.buys(email(1))
    shop.quiet()
    assert next(one["outcome"] for one in runs) == "compared"
    shop.buys(email(2))
    shop.quiet()
    assert last(runs) == ("steps", 1, 0)
    shop.clock.sleep(timedelta(days=1).total_seconds())
    shop.minutes(2)
    assert ("compared", 0, 2) in [(r["outcome"], r["added"], r["removed"]) for r in runs[-2:]]
    shop.require_in_step(audience)


def forget(app: App, collection: str) -> int:
    """Delete a whole collection, as retention may in a year."""
    found = app.documents.query(Query("acme", collection, limit=200))
    app.documents.commit(Batch([Write(one.key, None) for one in found]))
    return len(found)


def test_after_a_long_silence_nobody_needs_the_steps(
    shop: Shop, app: App, runs: list[Line]
) -> None:
    audience = shop.audience()
    shop.buys(*emails(1, 2))
    shop.quiet()
    shop.clock.sleep(timedelta(days=400).total_seconds())
    shop.buys(email(3))
    shop.minutes(2)
    assert forget(app, "segment_transitions") > 0
    shop.clock.sleep(timedelta(days=2).total_seconds())
    shop.quiet()
    assert shop.require_in_step(audience).users == 0


def test_lost_steps_are_noticed_by_the_count(shop: Shop, app: App, runs: list[Line]) -> None:
    """A step that is gone although it was to be kept: who leaves was never seen to come."""
    audience = shop.audience()
    shop.quiet()
    app.__dict__["follow_worker"] = replace(app.follow_worker, interval=timedelta(minutes=20))
    shop.buys(*emails(0))
    shop.minutes(2)
    shop.buys(*emails(1, 2, 3))
    shop.minutes(1)
    assert forget(app, "segment_transitions") > 0
    shop.minutes(50)
    assert "broken" in [one["outcome"] for one in runs]
    shop.require_in_step(audience)


def test_after_a_restore_of_the_store_all_is_compared(
    shop: Shop, app: App, runs: list[Line]
) -> None:
    audience = shop.audience()
    shop.buys(email(1))
    shop.quiet()
    app.recovery.run(shop.clock.now())
    shop.buys(email(2))
    shop.quiet()
    assert last(runs)[0] == "compared"
    shop.require_in_step(audience)


def test_shards_that_were_folded_with_numbers_left_out_are_followed(
    shop: Shop, app: App, runs: list[Line]
) -> None:
    audience = shop.audience()
    shop.buys(*emails(*range(20)))
    shop.quiet()
    for shard in {shard_of(email(number)) for number in range(20)}:
        app.shards.fold("acme", shard, skip=1000)
    shop.buys(*emails(*range(10, 30)))
    shop.quiet()
    assert last(runs) == ("steps", 10, 0)
    shop.require_in_step(audience)


def test_changed_rules_are_followed(shop: Shop, app: App, runs: list[Line]) -> None:
    audience = shop.audience()
    shop.buys(*emails(1, 2, 2, 3))
    shop.quiet()
    twice = SegmentDefinition.model_validate(
        {"name": "Buyers", "type": "INDEPENDENT", "rules": [{**BUYS, "value": 2}]}
    )
    app.segments.replace(ANN, shop.segment_id, twice)
    shop.quiet()
    assert last(runs) == ("steps", 0, 2)
    assert shop.require_in_step(audience).members == 1


def test_another_segment_or_type_is_compared(shop: Shop, app: App, runs: list[Line]) -> None:
    other = shop.segment("Often", value=2)
    audience = shop.audience()
    shop.buys(*emails(1, 1, 2))
    shop.quiet()
    shop.bind(audience, segment_id=other)
    shop.quiet()
    assert last(runs) == ("compared", 0, 1)
    shop.require_in_step(audience)
    shop.bind(audience, segment_id=other, identifier="phone")
    shop.quiet()
    assert shop.require_in_step(audience).rejected == {"invalid_phone": 1}


def test_a_restored_version_is_brought_in_step_again(shop: Shop, app: App) -> None:
    audience = shop.audience()
    shop.buys(email(1))
    shop.quiet()
    before = versions(app, audience)
    shop.buys(email(2))
    shop.quiet()
    app.versions.restore(ANN, audience, before)
    assert shop.record(audience).size == 1
    shop.quiet()
    assert shop.require_in_step(audience).members == 2
    assert versions(app, audience) == before + 4


def test_compaction_is_no_change(shop: Shop, app: App, runs: list[Line]) -> None:
    app.__dict__["store"] = replace(app.store, delta_from=8)
    audience = shop.audience()
    shop.buys(*emails(*range(40)))
    shop.quiet()
    shop.buys(email(50))
    shop.quiet()
    assert shop.record(audience).storage.deltas or app.members.audiences.manifest_of(
        shop.record(audience)
    )
    app.member_upkeep.compact(ANN, audience, level=19)
    shop.buys(email(51))
    shop.quiet()
    assert last(runs) == ("steps", 1, 0)
    shop.require_in_step(audience)


def test_an_archived_or_held_audience_waits(shop: Shop, app: App) -> None:
    audience = shop.audience()
    shop.buys(email(1))
    shop.quiet()
    app.retention.hold(ANN, audience, "a court")
    shop.buys(email(2))
    shop.minutes(3)
    assert shop.record(audience).size == 1
    assert shop.following(audience).paused == "legal_hold"
    app.retention.lift(ANN, audience)
    shop.quiet()
    assert shop.require_in_step(audience).paused is None
    app.audiences.set_status(ANN, audience, "archived")
    shop.buys(email(3))
    shop.minutes(40)
    assert shop.record(audience).size == 2
    assert shop.following(audience).paused == "archived"
    app.audiences.set_status(ANN, audience, "active")
    shop.quiet()
    assert shop.require_in_step(audience).paused is None


# who was erased -----------------------------------------------------------------------------------


def erase(app: App, *numbers: int) -> None:
    """Erase people as a whole: suppress them, then take them out of all audiences."""
    given = [
        {"identifier_type": "email", "identifier_value": address(n), "reason": "erasure"}
        for n in numbers
    ]
    app.suppressions.add(ANN, SuppressionsDraft.model_validate({"suppressions": given}))
    app.recovery.erased.taken_out("acme")


def test_who_was_erased_does_not_come_back_until_that_is_lifted(shop: Shop, app: App) -> None:
    audience = shop.audience()
    shop.buys(*emails(1, 2))
    shop.quiet()
    erase(app, 1, 3)
    assert shop.record(audience).size == 1
    shop.buys(*emails(3, 4))
    shop.quiet()
    following = shop.require_in_step(audience, erased=emails(1, 3))
    assert (following.members, following.rejected) == (2, {"suppressed": 2})
    shop.buys(email(1).upper())
    shop.quiet()
    following = shop.require_in_step(audience, erased=emails(1, 3))
    assert (following.members, following.rejected) == (2, {"suppressed": 3})
    lifted = SuppressionReference(identifier_type=IdentifierType.EMAIL, identifier_value=address(1))
    app.suppressions.remove(ANN, lifted)
    shop.buys(email(5))
    shop.quiet()
    following = shop.require_in_step(audience, erased=emails(3))
    assert (following.members, following.shared) == (4, 1)


def test_erased_users_leave_the_counts_when_they_leave_the_segment(shop: Shop, app: App) -> None:
    audience = shop.audience()
    shop.work()
    erase(app, 1)
    shop.buys(*emails(1, 2))
    shop.quiet()
    assert shop.require_in_step(audience, erased=emails(1)).rejected == {"suppressed": 1}
    shop.minutes(20)
    shop.buys(email(2))
    shop.minutes(15)
    following = shop.require_in_step(audience, erased=emails(1))
    assert (following.members, following.rejected) == (1, {})


def test_who_only_opted_out_stays_a_member_and_is_never_sent(shop: Shop, app: App) -> None:
    audience = shop.audience()
    given = [{"identifier_type": "email", "identifier_value": address(1), "reason": "opt_out"}]
    app.suppressions.add(ANN, SuppressionsDraft.model_validate({"suppressions": given}))
    shop.buys(*emails(1, 2))
    shop.quiet()
    assert shop.require_in_step(audience).members == 2


# when it fails ------------------------------------------------------------------------------------


class Failing(MemberStore):
    """A store whose merges fail while there are errors left."""

    errors: ClassVar[list[ActivationError]] = []

    def merge(self, *args: Any, **options: Any) -> MergeResult:
        if self.errors:
            raise self.errors.pop()
        return super().merge(*args, **options)


@pytest.fixture
def failing(app: App) -> Iterator[list[ActivationError]]:
    """Errors of merges that are to come, the last one first."""
    store = app.store
    Failing.errors.clear()
    app.__dict__["store"] = Failing(store.blobs, store.documents, store.clock, store.limits)
    yield Failing.errors
    Failing.errors.clear()


def test_an_error_that_passes_is_tried_again_soon(
    shop: Shop, failing: list[ActivationError]
) -> None:
    audience = shop.audience()
    shop.quiet()
    failing += [StorageUnavailableError("Not now.")] * 3
    shop.buys(*emails(1, 2))
    shop.minutes(6)
    assert failing == []
    following = shop.require_in_step(audience)
    assert (following.members, following.error) == (2, None)


def test_any_other_error_is_shown_and_tried_again_in_an_hour(
    shop: Shop, failing: list[ActivationError]
) -> None:
    regulars = shop.segment("Regulars", window_minutes=1440)
    audience = shop.audience(segment_id=regulars)
    shop.quiet()
    failing += [ValidationError("Never.", field="x", reason="y")]
    shop.buys(*emails(1, 2))
    shop.minutes(3)
    assert shop.following(audience).error == "VALIDATION_ERROR"
    assert shop.record(audience).size == 0
    shop.minutes(61)
    following = shop.require_in_step(audience)
    assert (following.members, following.error) == (2, None)


def test_a_worker_that_lost_its_lease_changes_nothing(shop: Shop, app: App) -> None:
    audience = shop.audience()
    shop.quiet()
    shop.buys(email(1))
    shop.minutes(1)
    before = shop.record(audience)
    stored = app.follow_worker.records.get("acme", audience)
    held = stored.entity.changed(lease_until=shop.clock.now() + timedelta(seconds=60))
    app.documents.commit(Batch([stored.replaced_by(held)]))
    app.follow_worker.run("acme", audience, "t")
    assert shop.record(audience).version == before.version
    shop.minutes(3)
    shop.require_in_step(audience)


def test_a_mark_that_came_after_the_end_is_taken_away(shop: Shop, clock: MovableClock) -> None:
    """Whoever marks may have read that the audience follows just before it did no longer."""
    audience = shop.audience()
    shop.buys(*emails(1, 2))
    shop.quiet()
    shop.bind(audience, segment=None)
    write = mark_write("acme", audience, clock.now(), fresh=True)
    shop.app.documents.commit(Batch([write]))
    shop.minutes(2)
    assert shop.app.documents.get(write.key) is None
    assert shop.app.due.run()["segment_follows"] == 0


def test_all_that_are_due_are_woken_in_their_minute(app: App, clock: MovableClock) -> None:
    """However many audiences follow segments: each is promised to be in step within two minutes."""
    names = [f"audience-{number}" for number in range(450)]
    for start in range(0, len(names), 150):
        some = names[start : start + 150]
        app.documents.commit(Batch([mark_write("acme", name, clock.now()) for name in some]))
    assert app.due.run()["segment_follows"] == len(names)
