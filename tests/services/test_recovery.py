"""After a store went back: who opted out is not sent to, and platforms end up with the audience."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionDraft, DistributionStatus
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.ledger import Ledger
from activation.domain.member import MemberInput
from activation.domain.member_change import MemberReference
from activation.domain.platform import PlatformDraft
from activation.domain.recovery import Recovery
from activation.domain.suppression import GLOBAL, SuppressionReference, SuppressionsDraft
from activation.errors import InvalidStateError, StorageUnavailableError
from activation.ports import BlobKey
from activation.twins.catalog import OFFERS
from activation.twins.members import member_key, set_digest
from activation.twins.server import serve
from activation.twins.webhook import WebhookTwin
from activation.twins.wsgi import Twin
from tests.conftest import caller_of
from tests.connectors.support import WEBHOOK_SECRET
from tests.services.rewinding import go_back, state_of
from tests.services.support import contents
from tests.working import work

EMAIL = IdentifierType.EMAIL
OPERATOR = caller_of(GLOBAL, "cli:operator")


def address(number: int) -> str:
    return f"p{number}@example.com"


def suppress(app: App, caller: Caller, *numbers: int, reason: str = "opt_out") -> None:
    given = [
        {"identifier_type": "email", "identifier_value": address(n), "reason": reason}
        for n in numbers
    ]
    app.suppressions.add(caller, SuppressionsDraft.model_validate({"suppressions": given}))


def release(app: App, caller: Caller, number: int) -> None:
    app.suppressions.remove(
        caller, SuppressionReference(identifier_type=EMAIL, identifier_value=address(number))
    )


def hits(app: App, count: int, organization_id: str = "acme") -> list[int]:
    column = [key_digest(address(n)).hex() for n in range(count)]
    return app.suppressions.view(organization_id).hits({EMAIL: column})


def told(app: App, then: Any) -> Recovery:
    """The store went back, and a new process tells it."""
    go_back(app, then)
    app.clock.sleep(60)
    return app.recovery.run(then.at)


# suppressions -------------------------------------------------------------------------------------


def test_who_opted_out_since_is_on_the_list_again(app: App, ann: Caller, eve: Caller) -> None:
    suppress(app, ann, 0, 1)
    then = state_of(app)
    suppress(app, ann, 2, 3, reason="erasure")
    suppress(app, eve, 4)
    suppress(app, OPERATOR, 5)
    release(app, ann, 0)
    before = {c.organization_id: app.suppressions.status(c) for c in (ann, eve, OPERATOR)}
    recovery = told(app, then)
    assert (recovery.journal_entries, recovery.suppressed, recovery.released) == (5, 4, 1)
    assert hits(app, 8) == [1, 2, 3, 5]
    assert hits(app, 8, "evil-corp") == [4, 5]
    for caller in (ann, eve, OPERATOR):
        after, known = app.suppressions.status(caller), before[caller.organization_id]
        assert (after.size, after.by_reason) == (known.size, known.by_reason)


def test_told_again_nothing_changes(app: App, ann: Caller) -> None:
    then = state_of(app)
    suppress(app, ann, 0, 1)
    release(app, ann, 1)
    told(app, then)
    before = state_of(app).documents
    again = app.recovery.run(then.at)
    assert (again.again, again.suppressed, again.released) == (True, 1, 1)
    assert hits(app, 3) == [0]
    size = {key: data for key, data in state_of(app).documents.items() if key not in before}
    assert {key.collection for key in size} <= {"audit", "suppression_parts"}


@pytest.mark.long_on_google
@pytest.mark.parametrize("seed", range(6))
def test_any_history_comes_back_as_it_was(app: App, ann: Caller, seed: int) -> None:
    """Additions of all reasons and removals in any order; the store goes back to any of them."""
    choose, people = random.Random(seed), 12
    states = []
    for _ in range(14):
        states.append(state_of(app))
        chosen = choose.sample(range(people), choose.randint(1, 4))
        if choose.random() < 0.35:
            release(app, ann, chosen[0])
        else:
            suppress(app, ann, *chosen, reason=choose.choice(["list", "opt_out", "erasure"]))
        app.clock.sleep(choose.choice([0, 1, 900]))
    known, listed = app.suppressions.status(ann), hits(app, people)
    told(app, choose.choice(states))
    after = app.suppressions.status(ann)
    assert (after.size, after.by_reason, hits(app, people)) == (known.size, known.by_reason, listed)


SHARING = ("a.b@gmail.com", "ab@gmail.com", "c.d@gmail.com", "e@example.com", "f@example.com")
"""Addresses of which some share a form."""


def listed_of(app: App, caller: Caller) -> list[list[str]]:
    """Why each of SHARING is on the list."""
    references = [SuppressionReference(identifier_type=EMAIL, identifier_value=a) for a in SHARING]
    checked = [app.suppressions.check(caller, one) for one in references]
    return [[finding.reason.value for finding in one.findings] for one in checked]


@pytest.mark.long_on_google
@pytest.mark.parametrize("seed", range(8))
def test_a_history_in_which_the_list_got_other_keys_comes_back(
    app: App, ann: Caller, seed: int
) -> None:
    """Opt-outs from before and after a rotation are played over a list of before or after it."""
    choose = random.Random(seed)
    states = []
    for step in range(14):
        states.append(state_of(app))
        chosen = choose.choice(SHARING)
        if step in (4, 8) or choose.random() < 0.1:
            app.key_rotation.rekey_suppressions("acme")
        elif choose.random() < 0.35:
            app.suppressions.remove(
                ann, SuppressionReference(identifier_type=EMAIL, identifier_value=chosen)
            )
        else:
            reason = choose.choice(["list", "opt_out", "erasure"])
            named = {"identifier_type": "email", "identifier_value": chosen, "reason": reason}
            app.suppressions.add(ann, SuppressionsDraft.model_validate({"suppressions": [named]}))
        app.clock.sleep(choose.choice([1, 900]))
    known, listed = app.suppressions.status(ann), listed_of(app, ann)
    told(app, choose.choice(states))
    after = app.suppressions.status(ann)
    assert listed_of(app, ann) == listed
    assert (after.size, after.by_reason) == (known.size, known.by_reason)


def test_a_journal_under_a_key_that_the_list_never_had_is_told(app: App, ann: Caller) -> None:
    """Somebody rotated before the journal was played back: nothing is passed over."""
    suppress(app, ann, 0)
    then = state_of(app)
    app.key_rotation.rekey_suppressions("acme")
    suppress(app, ann, 1)
    go_back(app, then)
    app.key_rotation.rekey_suppressions("acme")
    app.clock.sleep(60)
    with pytest.raises(StorageUnavailableError) as caught:
        app.recovery.run(then.at)
    assert caught.value.reason == "key"


def test_opt_outs_taken_before_the_journal_was_played_back_stay(app: App, ann: Caller) -> None:
    suppress(app, ann, 0)
    then = state_of(app)
    suppress(app, ann, 1, 2)
    go_back(app, then)
    suppress(app, ann, 3)  # somebody was in a hurry
    app.recovery.run(then.at)
    assert hits(app, 5) == [0, 1, 2, 3]
    assert app.suppressions.status(ann).size == 4


def test_a_list_whose_parts_were_folded_away_since_can_be_read(app: App, ann: Caller) -> None:
    small = replace(app.suppressions.lists, max_parts=3, max_document_bytes=0)
    app.__dict__["suppressions"] = replace(app.suppressions, lists=small)
    for number in range(4):
        suppress(app, ann, number)
    app.clock.sleep(timedelta(days=3).total_seconds())
    then = state_of(app)
    for number in range(4, 16):
        suppress(app, ann, number)
        app.clock.sleep(timedelta(hours=10).total_seconds())
    small.tidy("acme")
    go_back(app, then)
    assert hits(app, 20) == [0, 1, 2, 3]
    app.recovery.run(then.at)
    assert hits(app, 20) == list(range(16))


def test_what_was_refused_is_not_in_the_journal(app: App, ann: Caller) -> None:
    then = state_of(app)
    suppress(app, ann, 0)
    suppress(app, ann, 0)
    entries = dict(app.journal.organizations(then.at))
    assert {name: len(keys) for name, keys in entries.items()} == {"acme": 1}
    app.clock.sleep(timedelta(days=61).total_seconds())
    suppress(app, ann, 1)
    assert app.journal.tidy() == 1
    assert len(dict(app.journal.organizations(then.at))["acme"]) == 1


# erased people ------------------------------------------------------------------------------------


def test_erased_people_leave_what_came_back(app: App, ann: Caller) -> None:
    audience_id = made_audience(app, ann, range(6))
    app.members.add(ann, audience_id, members([6, 7]))
    other = made_audience(app, ann, range(4, 9), "Others")
    then = state_of(app)
    suppress(app, ann, 1, reason="erasure")
    suppress(app, ann, 2)
    recovery = told(app, then)
    assert recovery.erased_members == 1
    left = contents(app, app.audiences.find(ann, audience_id).entity)
    assert key_digest(address(1)).hex() not in left
    assert len(left) == 7
    audience = app.audiences.find(ann, audience_id).entity
    assert (audience.size, audience.members_kept_from) == (7, audience.version)
    assert app.audiences.find(ann, other).entity.size == 5
    assert app.audiences.find(ann, other).entity.members_kept_from == 1


# platforms ----------------------------------------------------------------------------------------


def members(numbers: Any) -> list[MemberInput]:
    return [MemberInput(identifier_type=EMAIL, identifier_value=address(n)) for n in numbers]


def made_audience(app: App, ann: Caller, numbers: Any, name: str = "Buyers") -> str:
    draft = AudienceDraft.model_validate({"name": name, "type": "first_party"})
    audience_id = app.audiences.create(ann, draft).entity.audience_id
    app.members.add(ann, audience_id, members(numbers))
    app.audiences.set_status(ann, audience_id, "active")
    return audience_id


@dataclass
class Sending:
    """An audience of 60 people, and an account at one twin."""

    name: str
    app: App
    ann: Caller
    twin: Twin
    audience_id: str
    platform_id: str

    def change(self, leave: range, come: range) -> None:
        gone = [MemberReference(identifier_type=EMAIL, identifier_value=address(n)) for n in leave]
        self.app.members.remove(self.ann, self.audience_id, gone)
        self.app.members.add(self.ann, self.audience_id, members(come))

    def requested(self, **fields: Any) -> str:
        self.app.clock.sleep(900)
        given = {"distribution_type": "incremental", **fields}
        draft = DistributionDraft.model_validate(
            {"audience_id": self.audience_id, "platform_id": self.platform_id, **given}
        )
        return self.app.distributions.create(self.ann, draft).entity.distribution_id

    def sent(self, **fields: Any) -> Distribution:
        return self.done(self.requested(**fields))

    def done(self, distribution_id: str) -> Distribution:
        work(self.app, distribution_id)
        found = self.app.distributions.get(self.ann, distribution_id).entity
        assert found.status is DistributionStatus.COMPLETED, found.error_details
        return found

    def ledger(self) -> Ledger:
        return self.app.ledgers.get(self.ann, self.audience_id, self.platform_id).entity

    def held(self) -> str:
        (audience,) = self.twin.contents()["audiences"]
        return str(audience["digest"])


def digest(numbers: Any) -> str:
    return set_digest({member_key("email", key_digest(address(n)).hex()) for n in numbers})


@pytest.fixture(params=["google_ads", "facebook", "webhook", "tiktok"])
def sending(request: pytest.FixtureRequest, app: App, ann: Caller) -> Iterator[Sending]:
    name = request.param
    twin = (
        WebhookTwin(app.clock, secrets=[WEBHOOK_SECRET])
        if name == "webhook"
        else OFFERS[name].make(app.clock, 0.5)
    )
    running = serve({name: twin})
    audience_id = made_audience(app, ann, range(60))
    url = running.url_of(name)
    body: dict[str, Any] = (
        {
            "platform_type": name,
            "name": name,
            "credentials": {"signing_secret": WEBHOOK_SECRET},
            "settings": {"config": {"url": f"{url}/in", "list_url": f"{url}/members"}},
        }
        if name == "webhook"
        else {"name": name, **OFFERS[name].account(name, url)}
    )
    settings = {**body["settings"], "free_removals": 1_000}
    draft = PlatformDraft.model_validate({**body, "settings": settings})
    platform_id = app.platforms.create(ann, draft).entity.platform_id
    yield Sending(name, app, ann, twin, audience_id, platform_id)
    running.close()


def test_the_platform_ends_up_with_the_audience(sending: Sending) -> None:
    """In the time that was lost people left, came, opted out and were sent."""
    sending.sent()
    then = state_of(sending.app)
    sending.change(range(10), range(60, 75))
    suppress(sending.app, sending.ann, 20, 21)
    sending.sent()
    recovery = told(sending.app, then)
    assert recovery.ledgers == 1
    assert sending.ledger().uncertain_since is not None
    plan = sending.sent().plan
    assert plan is not None
    assert sending.ledger().uncertain_since is None
    wanted = set(range(60)) - {20, 21}
    extra = set(range(60, 75)) if sending.name == "tiktok" else set()
    assert sending.held() == digest(wanted | extra)
    sending.change(range(30, 33), range(80, 82))
    assert sending.sent().progress.planned == 5, "exact again"
    assert sending.held() == digest((wanted | extra | {80, 81}) - {30, 31, 32})


def test_what_was_under_way_begins_anew_under_another_name(sending: Sending) -> None:
    """It was sent in the time that was lost: the platform knows its names, and would take them for
    the old batches."""
    asked = sending.requested(distribution_type="refresh")
    then = state_of(sending.app)
    sending.done(asked)
    suppress(sending.app, sending.ann, 5)
    recovery = told(sending.app, then)
    assert recovery.distributions == 1
    done = sending.done(asked)
    counts = done.progress
    assert counts.planned == counts.sent + counts.rejected + counts.pending
    if sending.name == "google_ads":
        assert sending.ledger().uncertain_since is not None, "too soon to clear what was just added"
        sending.sent()
    assert sending.ledger().uncertain_since is None
    if sending.name != "tiktok":
        assert sending.held() == digest(set(range(60)) - {5})


def test_an_audience_that_was_first_sent_in_the_lost_time_is_not_new(sending: Sending) -> None:
    then = state_of(sending.app)
    sending.sent()
    told(sending.app, then)
    sending.change(range(10), range(0))
    sending.sent()
    if sending.name != "tiktok":
        assert sending.held() == digest(range(10, 60))


def test_what_was_accepted_may_have_been_swept_meanwhile(sending: Sending) -> None:
    sending.sent()
    then = state_of(sending.app)
    roster = sending.ledger().accepted
    assert roster is not None
    for part in roster.partitions:
        assert sending.app.member_blobs.delete(BlobKey("acme", part.path))
    sending.change(range(10), range(0))
    told(sending.app, then)
    assert sending.ledger().accepted is None
    sending.sent()
    assert sending.held() == digest(range(60))


def test_a_failed_run_may_not_be_retried_after_that(sending: Sending) -> None:
    asked = sending.requested()
    work(sending.app, asked)
    then = state_of(sending.app)
    failed = sending.app.distributions.records.get("acme", asked)
    key = failed.key
    data = {**then.documents[key], "status": "failed"}
    then.documents[key] = data
    told(sending.app, then)
    with pytest.raises(InvalidStateError):
        sending.app.distributions.retry(sending.ann, asked)
