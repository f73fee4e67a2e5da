"""A folder with all stores, the processes that come and go on it, and the client that asks them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from activation.adapters.clock import MovableClock
from activation.api import messages
from activation.app import App
from activation.documents import Collection
from activation.domain.caller import Caller, Claim
from activation.domain.distribution import FINAL as ENDED
from activation.domain.distribution import ApprovalStatus, Distribution, DistributionStatus
from activation.domain.entity import Entity
from activation.domain.job import FINAL, JobStatus
from activation.domain.lane import FINAL as LANE_ENDED
from activation.domain.lane import Lane
from activation.domain.ledger import Ledger
from activation.domain.member_import import FINAL as IMPORT_FINAL
from activation.domain.member_import import ImportStatus
from activation.errors import ActivationError
from activation.ports import OUTBOX, Message, Query
from activation.settings import Settings
from tests.conftest import START, caller_of
from tests.faults.platforms import Platforms, TapedConnectors
from tests.faults.ports import Tape, attach

E = TypeVar("E", bound=Entity)

ANN, BEN = caller_of(), caller_of(user="ben")
MANY = 1000
DATABASE_THRESHOLD, SEGMENTED_THRESHOLD = 8, 40
MAX_DELTAS, DELTA_FROM = 2, 16
MAX_SUPPRESSION_PARTS, SUPPRESSION_DOCUMENT_BYTES = 3, 200
"""Four rows are a document."""
ROUND_SECONDS = 700.0
"""Longer than every lease, back-off and pause between looks."""
MAX_ROUNDS = 15
TRIES = 6

HANDLERS: dict[str, Callable[[App, Message], None]] = {
    "member-imports": messages.import_members,
    "audience-jobs": messages.run_job,
    "distribution-requests": messages.dispatch_distribution,
    "user-events": messages.process_events,
    "segment-memberships": messages.follow_segments,
    "segment-updates": lambda _app, _message: None,
}
"""Topic → what the function behind it does with a message."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a flow finds: an audience, and further ids that its acts need."""

    audience_id: str
    ids: Mapping[str, str]


Act = Callable[[App, Caller, Scene], Mapping[str, Any]]
"""One request of a client; returns the answer."""

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class World:
    """All stores of one installation, on disk; every process that opens them is a new App."""

    folder: Path
    clock: MovableClock
    scene: Scene
    platforms: Platforms
    refit: Callable[[App], None] = lambda _app: None
    """What makes each process another one than it should be."""

    @classmethod
    def made(cls, folder: Path, prepare: Callable[[App], Scene]) -> World:
        """A new installation with what `prepare` puts into it."""
        clock = MovableClock(START)
        world = cls(folder, clock, Scene("", {}), Platforms(clock))
        with world.process(Tape()) as app:
            scene = prepare(app)
        settled = replace(world, scene=scene)
        with settled.process(Tape()) as app:
            settle(app)
        return settled

    def copied_to(self, folder: Path) -> World:
        """The same installation once more, with a clock of its own."""
        shutil.copytree(self.folder, folder)
        clock = MovableClock(self.clock.now())
        return replace(self, folder=folder, clock=clock, platforms=self.platforms.copied(clock))

    @contextmanager
    def process(self, tape: Tape) -> Iterator[App]:
        """A process on the installation, for as long as the block runs."""
        settings = Settings(
            data_folder=str(self.folder),
            database_threshold=DATABASE_THRESHOLD,
            segmented_threshold=SEGMENTED_THRESHOLD,
            allow_private_hosts=True,
        )
        app = attach(App(settings, self.clock), tape, self.platforms.witness)
        app.__dict__["connectors"] = TapedConnectors(self.platforms, tape, app)
        app.__dict__["store"] = replace(app.store, max_deltas=MAX_DELTAS, delta_from=DELTA_FROM)
        lists = replace(
            app.suppressions.lists,
            max_parts=MAX_SUPPRESSION_PARTS,
            max_document_bytes=SUPPRESSION_DOCUMENT_BYTES,
        )
        app.__dict__["suppressions"] = replace(app.suppressions, lists=lists)
        self.refit(app)
        try:
            yield app
        finally:
            app.close()

    def removed(self) -> None:
        """Make room for the next one."""
        shutil.rmtree(self.folder)


class Refused(Exception):  # noqa: N818 - an answer, and no error of the test
    """The service said no, for good."""


def ask(app: App, scene: Scene, key: str, act: Act) -> Answer:
    """One request under an Idempotency-Key, as api/routes.py treats it."""
    claim = app.idempotency.claim(ANN, "flow", key, "body")
    if not isinstance(claim, Claim):
        return claim
    try:
        answer = act(app, ANN.with_claim(claim), scene)
    except BaseException as error:
        known = app.idempotency.release(ANN, claim)
        if known is None or not isinstance(error, ActivationError):
            raise
        return known
    app.idempotency.finish(ANN, claim, answer)
    return answer


def insist(app: App, scene: Scene, key: str, act: Act) -> Answer:
    """A client who asks until he has an answer. Raises Refused for one that is final."""
    for _ in range(TRIES):
        try:
            return ask(app, scene, key, act)
        except ActivationError as error:
            if not error.retryable:
                raise Refused(error.code) from error
            app.clock.sleep(61)
    raise AssertionError("The client never got an answer.")


def handle(app: App, message: Message) -> None:
    """Deliver one message; an error that passes is raised, the bus would come again."""
    try:
        HANDLERS[message.topic](app, message)
    except ActivationError as error:
        if error.retryable:
            raise


def handle_own(app: App, tape: Tape) -> None:
    """What the workers do with the messages of this process; the bus keeps a copy of each."""
    done = 0
    while done < len(tape.published):
        message, done = tape.published[done], done + 1
        try:
            handle(app, message)
        except ActivationError:
            continue  # the bus delivers its copy later


def settle(app: App) -> None:
    """Let time pass until nothing is left to do: the clock's ticks, and all deliveries."""
    for _ in range(MAX_ROUNDS):
        busy = sum(app.due.run().values())
        busy += app.bus.deliver_due(lambda _to, message, _attempt: handle(app, message), 1000)  # type: ignore[attr-defined]
        app.clock.sleep(ROUND_SECONDS)
        if not busy and not unfinished(app):
            return


def unfinished(app: App) -> Sequence[str]:
    """Work that is under way, and messages that wait."""

    def listed(collection: str, status: str) -> int:
        return app.documents.count(Query(ANN.organization_id, collection, {"status": status}))

    waiting = [
        *(("jobs", status) for status in JobStatus if status not in FINAL),
        *(("imports", status) for status in ImportStatus if status not in IMPORT_FINAL),
        ("webhook_deliveries", "pending"),
    ]
    found = [f"{kind} {status}" for kind, status in waiting if listed(kind, status)]
    found += ["outbox"] * app.documents.count(Query(ANN.organization_id, OUTBOX))
    found += ["audience processing"] * listed("audiences", "processing")
    return [*found, *_undelivered(app)]


def _undelivered(app: App) -> list[str]:
    """Distributions and lanes that are not where they may stay, and turns that nobody gives back.

    A distribution may stay held, unapproved, or scheduled for later.
    """
    found = []
    jobs = {job.distribution_id: job for job in all_of(app, "distributions", Distribution)}
    for job in jobs.values():
        if job.status in ENDED:
            found += ["distribution unsettled"] * (not job.settled)
            awaited = job.match_results.total_records and not job.match_results.final
            found += [LOOKS_AGAIN if job.next_at else "matches forgotten"] * bool(awaited)
        elif job.hold is not None:
            found += ["held, and due"] * (job.stored()["due_at"] is not None)
        elif job.metadata.approval_status is ApprovalStatus.APPROVED:
            later = job.next_at is not None and job.next_at > app.clock.now()
            waits = job.status is DistributionStatus.SCHEDULED and later and job.waiting_for is None
            found += [f"distribution {job.status}"] * (not waits)
    for lane in all_of(app, "lanes", Lane):
        job_of = jobs.get(lane.distribution_id)
        over = job_of is None or (job_of.status in ENDED and job_of.settled)
        found += [f"lane {lane.status}"] * (over and lane.status not in LANE_ENDED)
    for ledger in all_of(app, "ledgers", Ledger):
        active = jobs.get(ledger.active or "")
        lost = ledger.active is not None and (active is None or active.settled)
        found += ["turn never given back"] * lost
    return found


LOOKS_AGAIN = "matches to come"


def all_of(app: App, name: str, kind: type[E]) -> list[E]:
    """All records of the organization in a collection."""
    query = Query(ANN.organization_id, name, limit=MANY)
    return list(Collection(app.documents, name, kind).page(query).items)
