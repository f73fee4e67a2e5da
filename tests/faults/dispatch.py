"""Flows of distributions: what they find, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import ApprovalDraft, DistributionDraft
from activation.domain.identifier import key_digest
from activation.domain.member_change import MemberReference
from activation.domain.platform import PlatformChanges, PlatformDraft
from activation.domain.retention_run import RetentionJob, RunDraft
from activation.errors import NotFoundError
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.members import member_key
from tests.faults.deliveries import PHONES
from tests.faults.flows import (
    FRESH,
    HELD,
    by_the_system,
    days,
    filled,
    member,
    reference,
    retain,
    suppressed,
    sweep,
)
from tests.faults.lab import Flow
from tests.faults.platforms import KINDS, LANES, platforms_of
from tests.faults.world import ANN, BEN, Answer, Scene, handle, settle

LONG = 50_000
"""Seconds: a pause that is not over when a world has settled."""
LAST = sorted(HELD, key=key_digest)[-2:-1]
"""A member of the last but one of the batches."""


# what flows find ------------------------------------------------------------------------------


def connect(app: App, kind: str, token: str | None = None, **settings: Any) -> str:
    """An account at a twin; `token` instead of the one that it takes."""
    platforms_of(app).opened(kind)
    offered = KINDS[kind]
    credentials = offered.credentials if token is None else {"access_token": token}
    body = {
        "platform_type": kind,
        "name": kind,
        "credentials": credentials,
        "settings": {"config": offered.config, "max_removal_share": 1.0, **settings},
    }
    return app.platforms.create(ANN, PlatformDraft.model_validate(body)).entity.platform_id


def ready(app: App, kind: str = "facebook", **settings: Any) -> Scene:
    """An active audience of five e-mail addresses and a phone number, and an account."""
    scene = filled(app)
    return Scene(scene.audience_id, {"platform": connect(app, kind, **settings)})


def request(app: App, scene: Scene, caller: Caller = ANN, **fields: Any) -> str:
    """Request a distribution."""
    draft = DistributionDraft(
        audience_id=scene.audience_id, platform_id=scene.ids["platform"], **fields
    )
    return app.distributions.create(caller, draft).entity.distribution_id


def with_job(scene: Scene, distribution_id: str) -> Scene:
    """The scene with a distribution that acts are about."""
    return Scene(scene.audience_id, {**scene.ids, "distribution": distribution_id})


def until(app: App, scene: Scene, seconds: float) -> Scene:
    """The scene with an instant to wait for."""
    moment = app.clock.now() + timedelta(seconds=seconds)
    return Scene(scene.audience_id, {**scene.ids, "until": moment.isoformat()})


def sent(app: App, kind: str = "facebook", **settings: Any) -> Scene:
    """The platform holds the audience."""
    scene = ready(app, kind, **settings)
    request(app, scene)
    settle(app)
    return scene


def change(app: App, scene: Scene) -> None:
    """Members come and go."""
    app.members.add(ANN, scene.audience_id, [member(a) for a in FRESH])
    app.members.remove(ANN, scene.audience_id, [*map(reference, HELD[:2])])


def changed(app: App, kind: str = "facebook", **settings: Any) -> Scene:
    """The audience is another one than the platform holds."""
    scene = sent(app, kind, **settings)
    change(app, scene)
    return scene


def with_phones(app: App) -> Scene:
    """A phone number among those who come, and one among those who go."""
    scene = ready(app)
    app.members.add(ANN, scene.audience_id, [phone(PHONES[0])])
    request(app, scene)
    settle(app)
    app.members.add(ANN, scene.audience_id, [member(FRESH[1]), phone(PHONES[1])])
    gone = MemberReference(identifier_type="phone", identifier_value=PHONES[0])
    app.members.remove(ANN, scene.audience_id, [gone, reference(HELD[0])])
    return scene


def at_google(app: App) -> Scene:
    """The same at a platform without sessions, which gives access for a while."""
    return changed(app, "google_ads")


def at_the_trade_desk(app: App) -> Scene:
    """The same at a platform that takes nobody out, and replaces all."""
    return changed(app, "the_trade_desk")


def at_a_receiver(app: App) -> Scene:
    """The same at a receiver of the customer's own, who takes each message once."""
    return changed(app, "webhook")


def refusing_rows(app: App) -> Scene:
    """A platform that will not take two of those who come."""
    scene = at_google(app)
    twin_of(app, "google_ads").refuses = hashes(FRESH[1:])
    return scene


def refusing_batches(app: App) -> Scene:
    """A platform that will not take the batch with one of the members, in a single lane."""
    platforms_of(app).lanes = 1
    scene = ready(app)
    twin_of(app, "facebook").refuses = hashes(LAST)
    return scene


def refusing_in_a_lane(app: App) -> Scene:
    """The same in one of two lanes: how far the other one comes is chance."""
    scene = refusing_batches(app)
    platforms_of(app).lanes = LANES
    return scene


def failed(app: App) -> Scene:
    """A distribution has failed on the way; now the platform would take the rest."""
    scene = refusing_batches(app)
    job = request(app, scene)
    settle(app)
    del twin_of(app, "facebook").refuses
    return with_job(scene, job)


def throttling(app: App) -> Scene:
    """A platform that asks for a pause once it has had a batch."""
    return _throttled(app, ready(app), 300)


def _throttled(app: App, scene: Scene, seconds: int) -> Scene:
    headers = {"Retry-After": str(seconds)}
    pause = Fault("status", path="/users", status=429, headers=headers, after=1)
    platforms_of(app).opened("facebook").faults.plan(pause)
    return scene


def on_the_way(app: App) -> Scene:
    """A distribution that pauses in the middle, for a long time."""
    scene = _throttled(app, changed(app), LONG)
    job = request(app, scene, BEN, distribution_type="incremental")
    settle(app)
    return until(app, with_job(scene, job), LONG)


def paused(app: App) -> Scene:
    """One that somebody has paused in the middle."""
    scene = on_the_way(app)
    pause(app, ANN, scene)
    settle(app)
    app.clock.sleep(LONG)
    return scene


def emptied(app: App) -> Scene:
    """Nearly all members have gone, and the account has a limit for that."""
    scene = sent(app, max_removal_share=0.5, free_removals=0)
    app.members.remove(ANN, scene.audience_id, [*map(reference, HELD[1:])])
    app.members.add(ANN, scene.audience_id, [member(FRESH[1])])
    return scene


def held_back(app: App) -> Scene:
    """A distribution that waits for its release."""
    scene = emptied(app)
    job = request(app, scene, BEN, distribution_type="incremental")
    settle(app)
    return with_job(scene, job)


def unapproved(app: App) -> Scene:
    """A distribution that waits for a second person's word."""
    scene = changed(app)
    job = request(app, scene, BEN, distribution_type="incremental", require_approval=True)
    return with_job(scene, job)


def scheduled(app: App) -> Scene:
    """A distribution that is due in some days."""
    scene = changed(app)
    at = app.clock.now() + timedelta(seconds=days(3))
    job = request(app, scene, distribution_type="incremental", scheduled_at=at)
    return until(app, with_job(scene, job), days(3))


def shut_out(app: App) -> Scene:
    """A platform that refuses the credentials."""
    scene = filled(app)
    account = connect(app, "facebook", "old-token")
    return Scene(scene.audience_id, {"platform": account})


def waiting_for_credentials(app: App) -> Scene:
    """A distribution that waits for new ones."""
    scene = shut_out(app)
    job = request(app, scene)
    settle(app)
    return with_job(scene, job)


def drifted(app: App) -> Scene:
    """A receiver who tells his members has lost one, and has one of his own."""
    scene = sent(app, "webhook")
    platforms_of(app).tampered = True
    (audience,) = twin_of(app, "webhook").audiences.values()
    (members,) = twin_of(app, "webhook").members.values()
    lost, *_ = sorted(members)
    del members[lost]
    audience.keys.discard(lost)
    pair = "email", key_digest("stranger@example.com").hex()
    audience.keys.add(member_key(*pair))
    members[member_key(*pair)] = pair
    return scene


def long_ago(app: App) -> Scene:
    """Distributions that ended more than a quarter ago."""
    scene = changed(app)
    request(app, scene, distribution_type="incremental")
    settle(app)
    app.clock.sleep(days(100))
    return scene


def idle_and_sent(app: App) -> Scene:
    """The platform holds an audience that nobody has used for more than a year."""
    scene = changed(app)
    app.clock.sleep(days(366))
    return scene


def refreshed_monthly(app: App) -> Scene:
    """An account that is refreshed by the clock, before its slot."""
    scene = ready(app, auto_refresh=True, refresh_frequency="monthly")
    request(app, scene)
    settle(app)
    change(app, scene)
    return until(app, scene, days(12))


def unmatched(app: App) -> Scene:
    """A platform that has not said yet whom it knows."""
    platforms_of(app).twins["facebook"] = FacebookTwin(app.clock, match_delay_seconds=LONG)
    return until(app, sent(app), LONG)


def twin_of(app: App, name: str) -> Any:
    """A twin, as the one it is."""
    return platforms_of(app).opened(name)


def phone(number: str) -> Any:
    """A member by his phone number."""
    return member(number, identifier_type="phone")


def hashes(addresses: Iterable[str]) -> frozenset[str]:
    """What a platform is sent for e-mail addresses."""
    return frozenset(key_digest(address).hex() for address in addresses)


# what is asked --------------------------------------------------------------------------------


def distribute(app: App, caller: Caller, scene: Scene) -> Answer:
    return _made(app, caller, scene, "initial")


def send_changes(app: App, caller: Caller, scene: Scene) -> Answer:
    return _made(app, caller, scene, "incremental")


def refresh(app: App, caller: Caller, scene: Scene) -> Answer:
    return _made(app, caller, scene, "refresh")


def _made(app: App, caller: Caller, scene: Scene, kind: str) -> Answer:
    draft = DistributionDraft(
        audience_id=scene.audience_id,
        platform_id=scene.ids["platform"],
        distribution_type=kind,
    )
    return app.distributions.create(caller, draft).entity.public()


def cancel(app: App, caller: Caller, scene: Scene) -> Answer:
    job = scene.ids["distribution"]
    answer = app.distributions.set_status(caller, job, "cancelled").entity.public()
    platforms_of(app).witness.stopped(job)
    return answer


def pause(app: App, caller: Caller, scene: Scene) -> Answer:
    job = scene.ids["distribution"]
    answer = app.distributions.pause(caller, job).entity.public()
    platforms_of(app).witness.stopped(job)
    return answer


def resume(app: App, caller: Caller, scene: Scene) -> Answer:
    job = scene.ids["distribution"]
    platforms_of(app).witness.goes_on(job)
    return app.distributions.resume(caller, job).entity.public()


def release(app: App, caller: Caller, scene: Scene) -> Answer:
    return app.distributions.release(caller, scene.ids["distribution"]).entity.public()


def approve(app: App, caller: Caller, scene: Scene) -> Answer:
    word = ApprovalDraft(status="approved")
    return app.distributions.approve(caller, scene.ids["distribution"], word).entity.public()


def retry(app: App, caller: Caller, scene: Scene) -> Answer:
    return app.distributions.retry(caller, scene.ids["distribution"]).entity.public()


def give_credentials(app: App, caller: Caller, scene: Scene) -> Answer:
    changes = PlatformChanges(credentials=KINDS["facebook"].credentials)
    return app.platforms.update(caller, scene.ids["platform"], changes).entity.public()


def have_them_tested(app: App, scene: Scene, _answer: Answer) -> None:
    """The client has the new credentials tested, unless that was asked for."""
    account = app.platforms.get(ANN, scene.ids["platform"]).entity
    if account.health is None:
        app.platforms.test(ANN, account.platform_id)


def retain_monthly(app: App, caller: Caller, scene: Scene) -> Answer:
    del scene
    return app.retention.start(caller, RunDraft(job=RetentionJob.MONTHLY)).entity.public()


def reconcile(app: App, caller: Caller, scene: Scene) -> Answer:
    ids = scene.audience_id, scene.ids["platform"]
    return app.reconciliations.request(caller, *ids).entity.public()


def opt_out(app: App, caller: Caller, scene: Scene) -> Answer:
    """One of those who come, and one of those who were there, want to hear no more."""
    del scene
    return app.suppressions.add(caller, suppressed([FRESH[1], HELD[3]])).public()


def disconnect(app: App, caller: Caller, scene: Scene) -> Answer:
    """The account goes, with its credentials."""
    with suppress(NotFoundError):
        app.platforms.delete(caller, scene.ids["platform"])
    return {}


def switch_off(app: App, caller: Caller, scene: Scene) -> Answer:
    account = scene.ids["platform"]
    return app.platforms.set_status(caller, account, "inactive").entity.public()


def let_time_pass(app: App, caller: Caller, scene: Scene) -> Answer:
    """The clock's tick, when the time of the scene has come."""
    del caller
    left = datetime.fromisoformat(scene.ids["until"]) - app.clock.now()
    app.clock.sleep(max(0.0, left.total_seconds()))
    app.due.run()
    return {}


def do_what_waits(app: App, caller: Caller, scene: Scene) -> Answer:
    """Another worker: whatever is on the bus, or due."""
    del caller, scene
    for _ in range(3):
        app.due.run()
        app.bus.deliver_due(lambda _to, message, _attempt: handle(app, message), 1000)  # type: ignore[attr-defined]
    return {}


DISPATCH: Mapping[str, Flow] = {
    flow.name: flow
    for flow in (
        Flow("send", ready, distribute),
        Flow("send changes", changed, send_changes),
        Flow("send changed phones", with_phones, send_changes),
        Flow("send changes to google", at_google, send_changes),
        Flow("send changes to a receiver", at_a_receiver, send_changes),
        Flow("refresh", at_a_receiver, refresh),
        Flow("refresh as of an instant", at_google, refresh),
        Flow("refresh by session", changed, refresh),
        Flow("refresh without removing", at_the_trade_desk, refresh),
        Flow("send with rejects", refusing_rows, send_changes),
        Flow("send and fail", refusing_batches, distribute),
        Flow("send and fail in a lane", refusing_in_a_lane, distribute, exact=False),
        Flow("send and be throttled", throttling, distribute),
        Flow("go on after a pause", on_the_way, let_time_pass, asks=by_the_system),
        Flow("cancel in the middle", on_the_way, cancel),
        Flow("pause in the middle", on_the_way, pause),
        Flow("resume", paused, resume),
        Flow("send too many removals", emptied, send_changes),
        Flow("release", held_back, release),
        Flow("approve", unapproved, approve),
        Flow("send by the clock", scheduled, let_time_pass, asks=by_the_system),
        Flow("retry", failed, retry),
        Flow("send and be refused", shut_out, distribute),
        Flow("new credentials", waiting_for_credentials, give_credentials, have_them_tested),
        Flow("reconcile", drifted, reconcile),
        Flow("sweep after sending", changed, sweep),
        Flow("look at matches", unmatched, let_time_pass, asks=by_the_system),
        Flow("archive distributions", long_ago, retain_monthly),
        Flow("archive the idle", idle_and_sent, retain),
        Flow("disconnect", changed, disconnect, asks=by_the_system),
        Flow("switch off", changed, switch_off),
        Flow("opt out", changed, opt_out),
        Flow("refresh by the schedule", refreshed_monthly, let_time_pass, asks=by_the_system),
    )
}
"""By name."""

CANCEL = Flow("cancel", unapproved, cancel)
PAUSE = Flow("pause", unapproved, pause)
WORKER = Flow("another worker", unapproved, do_what_waits, asks=by_the_system)
