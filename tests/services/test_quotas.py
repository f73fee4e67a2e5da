"""Quotas: nobody gets past a limit, whatever happens at once, and usage is what is there."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.documents import Collection
from activation.domain.audience import Audience, AudienceDraft
from activation.domain.audit import AuditEntry
from activation.domain.caller import Caller, Role
from activation.domain.distribution import DistributionDraft, DistributionStatus
from activation.domain.entity import new_id
from activation.domain.platform import PlatformDraft
from activation.domain.quota import QuotaDraft, QuotaKind
from activation.errors import NameTakenError, NotFoundError, QuotaExceededError
from activation.ports import ABSENT, Query
from activation.services.organizations import OrganizationService
from activation.services.quotas import GUARDS
from activation.settings import Settings
from tests.api.client import WEBHOOK
from tests.conftest import caller_of
from tests.gate import Gate
from tests.services.support import add, audience_of, inputs

CREATED, REFUSED = "created", "QUOTA_EXCEEDED"
BEN = caller_of(user="ben", role=Role.EDITOR)


def limits(audiences: int | None = None, distributions: int | None = None) -> QuotaDraft:
    return QuotaDraft(max_audiences=audiences, max_distributions_per_month=distributions)


def limited(app: App, admin: Caller, draft: QuotaDraft, user: Caller | None = None) -> None:
    """Set limits of the organization, or of an operator who was seen."""
    if user is None:
        app.quotas.set(admin, None, draft)
        return
    app.operator_accounts.seen(user)
    app.quotas.set(admin, user.user_id, draft)


def filled(app: App, caller: Caller, count: int) -> list[Audience]:
    return [audience_of(app, caller, f"Filled {number}") for number in range(count)]


def usage(app: App, caller: Caller) -> tuple[int, int]:
    """Audiences of the caller, and of his organization."""
    own = app.quotas.own(caller)
    return own.user.current_usage.audiences, own.organization.current_usage.audiences


def at_once(acts: Sequence[Callable[[], Any]]) -> Counter[str]:
    """Let every act begin at the same moment, in a thread each; how they ended."""
    ready = threading.Barrier(len(acts))
    ended: list[str] = []

    def run(act: Callable[[], Any]) -> None:
        ready.wait()
        ended.append(outcome(act))

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(ended)


def outcome(act: Callable[[], Any]) -> str:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - a wrong one is told by the caller
        return getattr(error, "code", repr(error))
    return CREATED


def creating(app: App, caller: Caller, name: str) -> Callable[[], Audience]:
    return lambda: audience_of(app, caller, name)


# one after the other ----------------------------------------------------------------------------


def test_one_more_than_the_limit_is_refused_with_the_numbers(app: App, ann: Caller) -> None:
    limited(app, ann, limits(audiences=2), ann)
    filled(app, ann, 2)
    with pytest.raises(QuotaExceededError) as refused:
        audience_of(app, ann, "Third")
    assert "may have 2 audiences and has 2." in refused.value.message
    assert (refused.value.status, refused.value.field) == (429, "max_audiences")
    assert refused.value.reason == "user"
    assert usage(app, ann) == (2, 2)
    own = app.quotas.own(ann)
    assert (own.user.max_audiences, own.remaining.audiences) == (2, 0)
    assert own.remaining.distributions is None


def test_the_lower_of_both_limits_decides(app: App, ann: Caller) -> None:
    limited(app, ann, limits(audiences=3))
    limited(app, ann, limits(audiences=2), BEN)
    filled(app, BEN, 1)
    assert app.quotas.own(BEN).remaining.audiences == 1
    audience_of(app, BEN, "Second")
    assert outcome(creating(app, BEN, "Third")) == REFUSED
    audience_of(app, ann, "Third")
    with pytest.raises(QuotaExceededError) as refused:
        audience_of(app, ann, "Fourth")
    assert "The organization may have 3 audiences and has 3." in refused.value.message
    assert refused.value.reason == "organization"
    assert app.quotas.own(BEN).remaining.audiences == 0


def test_limits_of_others_do_not_count(app: App, ann: Caller, eve: Caller) -> None:
    limited(app, ann, limits(audiences=0), BEN)
    limited(app, eve, limits(audiences=0))
    filled(app, ann, 2)
    assert outcome(creating(app, BEN, "One")) == REFUSED
    assert outcome(creating(app, eve, "One")) == REFUSED


def test_deleting_gives_a_place_back_and_archiving_does_not(app: App, ann: Caller) -> None:
    limited(app, ann, limits(audiences=2), ann)
    first, second = filled(app, ann, 2)
    app.audiences.set_status(ann, first.audience_id, "archived")
    assert outcome(creating(app, ann, "Third")) == REFUSED
    app.audiences.delete(ann, second.audience_id)
    assert outcome(creating(app, ann, "Third")) == CREATED
    assert outcome(creating(app, ann, "Fourth")) == REFUSED
    assert usage(app, ann) == (2, 2)


def test_a_derived_audience_counts(app: App, ann: Caller) -> None:
    limited(app, ann, limits(audiences=2), ann)
    [source] = filled(app, ann, 1)
    origin = {"source_audience_id": source.audience_id}

    def deriving(name: str) -> Callable[[], Any]:
        fields = {"name": name, "type": "first_party", "derived_from": origin}
        return lambda: app.audiences.create(ann, AudienceDraft.model_validate(fields))

    assert outcome(deriving("Derived")) == CREATED
    assert outcome(deriving("Another")) == REFUSED
    assert app.audiences.find(ann, source.audience_id).entity.derived_count == 1


def test_what_fails_for_another_reason_takes_no_place(app: App, ann: Caller) -> None:
    limited(app, ann, limits(audiences=2), ann)
    audience_of(app, ann, "One")
    with pytest.raises(NameTakenError):
        audience_of(app, ann, "One")
    assert usage(app, ann) == (1, 1)
    assert outcome(creating(app, ann, "Two")) == CREATED


def test_a_limit_counts_what_was_there_before_it(app: App, ann: Caller) -> None:
    filled(app, ann, 3)
    limited(app, ann, limits(audiences=4), ann)
    assert app.quotas.own(ann).remaining.audiences == 1
    assert outcome(creating(app, ann, "Fourth")) == CREATED
    assert outcome(creating(app, ann, "Fifth")) == REFUSED


def test_a_limit_below_what_is_there_takes_nothing_away(app: App, ann: Caller) -> None:
    filled(app, ann, 3)
    limited(app, ann, limits(audiences=1), ann)
    assert usage(app, ann) == (3, 3)
    assert app.quotas.own(ann).remaining.audiences == 0
    assert outcome(creating(app, ann, "Fourth")) == REFUSED


def test_limits_are_raised_lifted_and_set_again(app: App, ann: Caller) -> None:
    limited(app, ann, limits(audiences=1), ann)
    audience_of(app, ann, "One")
    limited(app, ann, limits(audiences=2), ann)
    audience_of(app, ann, "Two")
    limited(app, ann, limits(), ann)
    filled(app, ann, 3)
    assert app.quotas.own(ann).user.max_audiences is None
    limited(app, ann, limits(audiences=5), ann)
    assert outcome(creating(app, ann, "Six")) == REFUSED


def test_an_operator_whom_nobody_has_seen_has_no_quota(app: App, ann: Caller, eve: Caller) -> None:
    app.operator_accounts.seen(eve)
    for user_id in ("anne", eve.user_id):
        with pytest.raises(NotFoundError):
            app.quotas.set(ann, user_id, limits(audiences=1))
        with pytest.raises(NotFoundError):
            app.quotas.get(ann, user_id)


# distributions ----------------------------------------------------------------------------------


@pytest.fixture
def request_one(app: App, ann: Caller) -> Callable[..., Any]:
    """Requests a distribution of an audience with members."""
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, inputs(3))
    app.audiences.set_status(ann, audience.audience_id, "active")
    platform = app.platforms.create(ann, PlatformDraft.model_validate(WEBHOOK)).entity
    draft = DistributionDraft(audience_id=audience.audience_id, platform_id=platform.platform_id)
    return lambda caller=ann: app.distributions.create(caller, draft).entity


def test_distributions_count_by_month_of_utc(
    app: App, ann: Caller, clock: MovableClock, request_one: Callable[..., Any]
) -> None:
    clock.set(datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC))
    limited(app, ann, limits(distributions=2), ann)
    first = request_one()
    app.distributions.set_status(ann, first.distribution_id, DistributionStatus.CANCELLED)
    request_one()
    with pytest.raises(QuotaExceededError) as refused:
        request_one()
    assert "may request 2 distributions a month (UTC) and has requested 2." in (
        refused.value.message
    )
    assert app.quotas.own(ann).resets_at == datetime(2026, 12, 1, tzinfo=UTC)
    clock.set(datetime(2026, 12, 1, tzinfo=UTC))
    own = app.quotas.own(ann)
    assert (own.user.current_usage.distributions, own.remaining.distributions) == (0, 2)
    assert own.resets_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert [outcome(request_one) for _ in range(3)] == [CREATED, CREATED, REFUSED]


def test_an_organization_shares_its_distributions(
    app: App, ann: Caller, request_one: Callable[..., Any]
) -> None:
    limited(app, ann, limits(distributions=2))
    boss = caller_of(user="cem")
    assert outcome(request_one) == CREATED
    assert outcome(lambda: request_one(boss)) == CREATED
    assert outcome(lambda: request_one(boss)) == REFUSED
    own = app.quotas.own(boss)
    used = own.user.current_usage.distributions, own.organization.current_usage.distributions
    assert used == (1, 2)


@pytest.mark.parametrize(("when", "ended"), [("november", REFUSED), ("december", CREATED)])
def test_a_late_slot_counts_in_its_own_month(
    app: App,
    ann: Caller,
    clock: MovableClock,
    request_one: Callable[..., Any],
    when: str,
    ended: str,
) -> None:
    """A refresh of the last of November that comes on the first of December."""
    slot, late = datetime(2026, 11, 30, 23, 30, tzinfo=UTC), datetime(2026, 12, 1, 1, tzinfo=UTC)
    limited(app, ann, limits(distributions=1))
    clock.set(slot if when == "november" else late)
    there = request_one()
    clock.set(late)
    refresh = there.changed(distribution_id=new_id(slot), slot_at=slot, created_at=late)
    assert outcome(lambda: app.distributions.requested(ann, refresh)) == ended
    if ended == CREATED:
        again = refresh.changed(distribution_id=new_id(slot))
        assert outcome(lambda: app.distributions.requested(ann, again)) == REFUSED


def test_the_last_distribution_is_requested_once(
    app: App, ann: Caller, request_one: Callable[..., Any]
) -> None:
    limited(app, ann, limits(distributions=1), ann)
    assert at_once([request_one] * 8) == {CREATED: 1, REFUSED: 7}
    assert app.distributions.count(ann, {}) == 1


# at the same time -------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["user", "organization"])
def test_the_last_place_is_taken_once(app: App, ann: Caller, whose: str) -> None:
    filled(app, ann, 2)
    limited(app, ann, limits(audiences=3), ann if whose == "user" else None)
    ended = at_once([creating(app, ann, f"At once {number}") for number in range(12)])
    assert ended == {CREATED: 1, REFUSED: 11}
    assert usage(app, ann) == (3, 3)


@pytest.mark.embedded("a thousand threads are too many for an emulator")
@pytest.mark.parametrize(("free", "whose"), [(1, "user"), (1, "organization"), (400, "user")])
def test_a_thousand_at_once_take_what_is_free(app: App, ann: Caller, free: int, whose: str) -> None:
    filled(app, ann, 5)
    limited(app, ann, limits(audiences=5 + free), ann if whose == "user" else None)
    ended = at_once([creating(app, ann, f"At once {number}") for number in range(1000)])
    assert ended == {CREATED: free, REFUSED: 1000 - free}
    assert usage(app, ann) == (5 + free, 5 + free)
    assert app.audiences.count(ann, {}) == 5 + free


@pytest.mark.embedded("opens the store of this machine several times")
def test_several_processes_take_what_is_free(app: App, ann: Caller, clock: MovableClock) -> None:
    """Each App has connections and turns of its own, like a process."""
    limited(app, ann, limits(audiences=30), ann)
    with ExitStack() as stack:
        others = [App(Settings(data_folder=app.settings.data_folder), clock) for _ in range(3)]
        for other in others:
            stack.callback(other.close)
        apps = [app, *others]
        ended = at_once(
            [creating(apps[number % 4], ann, f"At once {number}") for number in range(100)]
        )
    assert ended == {CREATED: 30, REFUSED: 70}
    assert usage(app, ann) == (30, 30)


@pytest.mark.parametrize("attempt", range(3))
@pytest.mark.parametrize("whose", ["user", "organization"])
def test_a_limit_that_is_set_while_others_create_holds_at_once(
    app: App, ann: Caller, whose: str, attempt: int
) -> None:
    """There is as much as it allows, or, if that was more, what it found."""
    count = {0: 6, 1: 12, 2: 18}[attempt]
    seen: list[int] = []

    def set_limit() -> None:
        limited(app, ann, limits(audiences=count), ann if whose == "user" else None)
        seen.append(usage(app, ann)[0])

    acts = [creating(app, ann, f"At once {number}") for number in range(24)]
    ended = at_once([*acts[:12], set_limit, *acts[12:]])
    assert ended[CREATED] + ended[REFUSED] == 25
    there = usage(app, ann)[0]
    assert there == ended[CREATED] - 1
    assert there == max(count, seen[0])


@pytest.fixture
def gate(app: App, ann: Caller) -> Iterator[Gate]:
    """Stands before the store once the organization is known there: creations commit once."""
    OrganizationService(app.documents, app.clock).ensure(ann.organization_id)
    gate = Gate(app.documents)
    app.__dict__["documents"] = gate
    yield gate
    app.__dict__["documents"] = gate.inner


@pytest.fixture
def other(app: App, gate: Gate) -> App:
    """Another process, which does not wait for the turn of the first."""
    other = App(app.settings, app.clock)
    other.__dict__.update(documents=gate.inner, bus=app.bus)
    return other


def held(gate: Gate, app: App, caller: Caller, meanwhile: Callable[[], None]) -> str:
    """How a creation ends that comes to its commit before `meanwhile` happens."""
    return gate.held(lambda: outcome(creating(app, caller, "Slow")), meanwhile)


@pytest.mark.parametrize("whose", ["user", "organization"])
def test_who_has_looked_before_the_limit_was_set_does_not_get_past_it(
    app: App, gate: Gate, ann: Caller, whose: str
) -> None:
    """A creation found no limit and is about to commit; the limit is set and used up."""
    filled(app, ann, 1)

    def set_and_used_up() -> None:
        limited(app, ann, limits(audiences=2), ann if whose == "user" else None)
        assert outcome(creating(app, ann, "Second")) == CREATED

    assert held(gate, app, ann, set_and_used_up) == REFUSED
    assert usage(app, ann) == (2, 2)


def test_who_has_looked_before_a_wide_limit_was_set_creates(
    app: App, gate: Gate, ann: Caller
) -> None:
    wide = limits(audiences=2)
    assert held(gate, app, ann, lambda: limited(app, ann, wide, ann)) == CREATED
    assert usage(app, ann) == (1, 1)


def test_who_has_counted_before_another_created_counts_again(
    app: App, gate: Gate, other: App, ann: Caller
) -> None:
    limited(app, ann, limits(audiences=1))

    def used_up() -> None:
        assert outcome(creating(other, BEN, "Fast")) == CREATED

    assert held(gate, app, ann, used_up) == REFUSED
    assert usage(app, BEN) == (1, 1)


def test_a_limit_that_was_lowered_meanwhile_holds(
    app: App, gate: Gate, other: App, ann: Caller
) -> None:
    limited(app, ann, limits(audiences=5), ann)
    filled(app, ann, 2)

    def lowered() -> None:
        other.quotas.set(ann, ann.user_id, limits(audiences=2))

    assert held(gate, app, ann, lowered) == REFUSED
    assert usage(app, ann) == (2, 2)


def test_a_limit_that_was_lifted_meanwhile_holds_nobody_up(
    app: App, gate: Gate, other: App, ann: Caller
) -> None:
    limited(app, ann, limits(audiences=1), ann)

    def lifted() -> None:
        other.quotas.set(ann, ann.user_id, limits())
        filled(other, ann, 1)

    assert held(gate, app, ann, lifted) == CREATED
    assert usage(app, ann) == (2, 2)


def test_without_a_limit_creations_write_nothing_in_common(
    app: App, gate: Gate, ann: Caller
) -> None:
    """What they share is never written: they ask that it stays absent, and mostly each asks for
    another document."""
    filled(app, ann, 1)
    gate.batches.clear()
    for number in range(60):
        audience_of(app, ann, f"More {number}")
    keys = Counter(w.key for batch in gate.batches for w in batch.writes if w.data is not None)
    assert set(keys.values()) == {1}
    asked = Counter(w.key for batch in gate.batches for w in batch.writes if w.data is None)
    assert {write.expected for b in gate.batches for write in b.writes} == {ABSENT}
    assert sum(asked.values()) == 120
    assert GUARDS / 2 < len(asked) <= 2 * GUARDS
    assert max(asked.values()) < 15
    assert app.documents.get(next(iter(asked))) is None


def test_guards_are_there_as_long_as_the_limit(app: App, ann: Caller) -> None:
    def guards() -> int:
        return app.documents.count(Query(ann.organization_id, "quota_guards"))

    limited(app, ann, limits(audiences=1, distributions=1), ann)
    limited(app, ann, limits(audiences=3))
    assert guards() == 3 * GUARDS
    limited(app, ann, limits(distributions=7), ann)
    assert guards() == 2 * GUARDS
    limited(app, ann, limits(), ann)
    limited(app, ann, limits())
    assert guards() == 0


def test_two_admins_at_once_leave_one_of_both_limits(app: App, ann: Caller) -> None:
    app.operator_accounts.seen(ann)

    def setting(maximum: int) -> Callable[[], Any]:
        return lambda: app.quotas.set(ann, ann.user_id, limits(maximum, maximum))

    assert at_once([setting(number) for number in range(1, 9)]) == {CREATED: 8}
    found = app.quotas.get(ann, ann.user_id)
    assert found.max_audiences == found.max_distributions_per_month
    assert found.max_audiences in range(1, 9)


@pytest.mark.parametrize("before", [limits(), limits(3, 4)])
def test_limits_that_two_admins_replace_at_once_are_those_of_one(
    app: App, gate: Gate, other: App, ann: Caller, before: QuotaDraft
) -> None:
    """One changes only this limit, the other one only that: together they are a third quota."""
    app.quotas.set(ann, None, before)
    changes = [
        QuotaDraft.model_validate({**before.model_dump(), name: 9})
        for name in ("max_audiences", "max_distributions_per_month")
    ]
    gate.held(
        lambda: app.quotas.set(ann, None, changes[0]),
        lambda: other.quotas.set(ann, None, changes[1]),
    )
    found = app.quotas.get(ann, None)
    assert (found.max_audiences, found.max_distributions_per_month) == (
        changes[0].max_audiences,
        changes[0].max_distributions_per_month,
    )


def test_setting_a_limit_is_in_the_audit_log(app: App, ann: Caller) -> None:
    limited(app, ann, limits(audiences=1), BEN)
    limited(app, ann, limits(audiences=1), BEN)
    entries = Collection(app.documents, "audit", AuditEntry)
    found = entries.page(Query(ann.organization_id, "audit", {"actor": "ann"})).items
    assert [(e.action, e.details) for e in found] == [
        (
            "api:quota:set",
            {"user_id": "ben", "max_audiences": 1, "max_distributions_per_month": None},
        )
    ]
    assert QuotaKind.AUDIENCES in found[0].target
