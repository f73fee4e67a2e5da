"""A folder with all stores, the processes that come and go on it, and the client that asks them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from activation.adapters.clock import MovableClock
from activation.api import messages
from activation.app import App
from activation.domain.caller import Caller, Claim
from activation.errors import ActivationError
from activation.ports import Message
from activation.settings import Settings
from tests.conftest import START, caller_of
from tests.faults.ports import Tape, attach

ANN = caller_of()
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

    @classmethod
    def made(cls, folder: Path, prepare: Callable[[App], Scene]) -> World:
        """A new installation with what `prepare` puts into it."""
        world = cls(folder, MovableClock(START), Scene("", {}))
        with world.process(Tape()) as app:
            scene = prepare(app)
        settled = cls(folder, world.clock, scene)
        with settled.process(Tape()) as app:
            settle(app)
        return settled

    def copied_to(self, folder: Path) -> World:
        """The same installation once more, with a clock of its own."""
        shutil.copytree(self.folder, folder)
        return World(folder, MovableClock(self.clock.now()), self.scene)

    @contextmanager
    def process(self, tape: Tape) -> Iterator[App]:
        """A process on the installation, for as long as the block runs."""
        settings = Settings(
            data_folder=str(self.folder),
            database_threshold=DATABASE_THRESHOLD,
            segmented_threshold=SEGMENTED_THRESHOLD,
            allow_private_hosts=True,
        )
        app = attach(App(settings, self.clock), tape)
        app.__dict__["store"] = replace(app.store, max_deltas=MAX_DELTAS, delta_from=DELTA_FROM)
        lists = replace(
            app.suppressions.lists,
            max_parts=MAX_SUPPRESSION_PARTS,
            max_document_bytes=SUPPRESSION_DOCUMENT_BYTES,
        )
        app.__dict__["suppressions"] = replace(app.suppressions, lists=lists)
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
    from activation.domain.job import FINAL, JobStatus
    from activation.domain.member_import import FINAL as IMPORT_FINAL
    from activation.domain.member_import import ImportStatus
    from activation.ports import OUTBOX, Query

    def listed(collection: str, status: str) -> int:
        return app.documents.count(Query(ANN.organization_id, collection, {"status": status}))

    waiting = [
        *(("jobs", status) for status in JobStatus if status not in FINAL),
        *(("imports", status) for status in ImportStatus if status not in IMPORT_FINAL),
        *(("distributions", "processing"), ("webhook_deliveries", "pending")),
    ]
    found = [f"{kind} {status}" for kind, status in waiting if listed(kind, status)]
    found += ["outbox"] * app.documents.count(Query(ANN.organization_id, OUTBOX))
    found += ["audience processing"] * listed("audiences", "processing")
    return found
