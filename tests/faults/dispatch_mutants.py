"""Wrong ways to send, to count and to settle: kept, so that the lab must find them.

Each makes one part of the engine another one, in every process of its worlds (`Flow.refit`). All
are good as long as nothing goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from activation.app import App
from activation.domain.delivery import Delivery
from activation.domain.distribution import Distribution
from activation.domain.lane import Lane
from activation.domain.ledger import Ledger
from activation.domain.platform import ConnectorSpec
from activation.members.settlement import BatchOutcome, Effect
from activation.ports import Account, Batch, Connector, DocumentStore, Revision, Write
from activation.services.dispatch import Dispatcher
from activation.services.leases import Lease
from activation.services.ledgers import LedgerService
from activation.services.sending import Sender, Sent
from activation.services.settling import Settling
from tests.faults.dispatch import CANCEL, DISPATCH, WORKER
from tests.faults.interleave import Interleaver, Pair
from tests.faults.lab import Flow, Lab, Report, as_it_is

S = TypeVar("S")


def turned_into(kind: type[S], service: Any) -> S:
    """A service as one of another class with the same parts."""
    return kind(**{one.name: getattr(service, one.name) for one in fields(service)})


# sending --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rewriting:
    """Documents that are written in another way than they should be."""

    inner: DocumentStore
    rewrite: Callable[[Write], Write]
    afterwards: Callable[[Batch], None] = lambda _batch: None

    def commit(self, batch: Batch) -> list[Revision]:
        changed = replace(batch, writes=[self.rewrite(write) for write in batch.writes])
        revisions = self.inner.commit(changed)
        self.afterwards(batch)
        return revisions

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def without_intent(app: App) -> None:
    """A batch is sent, then recorded; nobody says before that it will be."""

    def forgotten(write: Write) -> Write:
        if write.key.collection != "lanes" or write.data is None:
            return write
        return replace(write, data={**write.data, "intent": write.data["done"]})

    app.__dict__["documents"] = _Rewriting(app.documents, forgotten)


def without_fence(app: App) -> None:
    """Whoever has read a lane may write it."""

    def unguarded(write: Write) -> Write:
        return replace(write, expected=None) if write.key.collection == "lanes" else write

    app.__dict__["documents"] = _Rewriting(app.documents, unguarded)


class _Late(Sender):
    """Says that a batch is sent, and sends it when told to."""

    __slots__ = ("waiting",)

    waiting: list[Callable[[], Any]]

    def send(
        self,
        organization_id: str,
        connector: Connector,
        account: Account,
        delivery: Delivery,
        seq: int,
        columns: Mapping[str, Sequence[Any]],
        keep: Callable[[], bool],
    ) -> Sent:
        self.waiting.append(lambda: connector.send(account, delivery, seq, columns))
        return Sent()


def record_before_send(app: App) -> None:
    """A batch is recorded as sent, then it is."""
    waiting: list[Callable[[], Any]] = []

    def send(batch: Batch) -> None:
        if any(write.key.collection == "batches" for write in batch.writes):
            while waiting:
                waiting.pop()()

    app.__dict__["documents"] = _Rewriting(app.documents, lambda write: write, send)
    late = turned_into(_Late, app.lane_worker.sender)
    object.__setattr__(late, "waiting", waiting)
    app.__dict__["lane_worker"] = replace(app.lane_worker, sender=late)


# turns and ledgers ----------------------------------------------------------------------------


class _Generous(LedgerService):
    """Always somebody's turn."""

    __slots__ = ()

    def turn(self, job: Distribution) -> tuple[Ledger, Write] | None:
        found = self.records.find(job.organization_id, f"{job.audience_id}.{job.platform_id}")
        if found is None:
            return LedgerService.turn(self, job)
        ledger = found.entity.changed(active=job.distribution_id)
        return ledger, found.replaced_by(ledger)


def two_at_once(app: App) -> None:
    """Nobody looks whose turn it is."""
    app.__dict__["ledgers"] = turned_into(_Generous, app.ledgers)


class _Hopeful(Dispatcher):
    """Takes for accepted what it is about to send (a defect of Multiwoven)."""

    __slots__ = ()

    def _go_to(
        self, caller: Any, lease: Lease[Distribution], number: int, spec: ConnectorSpec
    ) -> None:
        if number == 0:
            stored = self.distributions.ledgers.of(lease.job)
            known = stored.entity.changed(accepted=lease.job.roster)
            self.documents.commit(Batch([stored.replaced_by(known)]))
        Dispatcher._go_to(self, caller, lease, number, spec)


def baseline_first(app: App) -> None:
    """The ledger moves when the lists are made."""
    app.__dict__["dispatcher"] = turned_into(_Hopeful, app.dispatcher)


class _Credulous(Settling):
    """Takes a batch without an answer for one that was accepted."""

    __slots__ = ()

    def _batches(
        self, job: Distribution, lane: Lane, usual: Effect, complete: bool
    ) -> Iterator[BatchOutcome]:
        for outcome in Settling._batches(self, job, lane, usual, complete):
            doubtful = outcome.effect is Effect.DOUBT
            yield replace(outcome, effect=usual) if doubtful else outcome


def unknown_is_accepted(app: App) -> None:
    """Nothing is ever in doubt."""
    settling = turned_into(_Credulous, app.dispatcher.settling)
    app.__dict__["dispatcher"] = replace(app.dispatcher, settling=settling)


RUNS = 25

# how each is found ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WrongWay:
    """A wrong engine, and runs that show it."""

    refit: Callable[[App], None]
    found: Callable[[Lab, Flow, str], Report]
    at: str = ""
    """Where the process dies: at calls named so."""
    right: Flow = DISPATCH["approve"]

    @property
    def name(self) -> str:
        """What is wrong."""
        return self.refit.__name__.replace("_", " ")

    @property
    def flow(self) -> Flow:
        """The right flow, done wrong."""
        return replace(self.right, name=f"{self.right.name}, {self.name}", refit=self.refit)

    def looked_for(self, lab: Lab) -> Report:
        """The runs that should show it."""
        return self.found(lab, self.flow, self.at)


def by_crashes(lab: Lab, flow: Flow, at: str) -> Report:
    """The process dies."""
    right = lab.expected(replace(flow, refit=as_it_is))
    return lab.explored(flow, lab.recorded(flow, right), at=at)


def by_a_cancel(lab: Lab, flow: Flow, at: str) -> Report:
    """The process dies; then somebody cancels."""
    return Interleaver(lab).explored_deaths(Pair(flow, CANCEL, serial=False), at=at)


def by_sleep(lab: Lab, flow: Flow, _at: str) -> Report:
    """A worker falls asleep, another one takes over."""
    return Interleaver(lab).explored_sleeps(Pair(flow, WORKER, serial=False), RUNS)


def by_another(lab: Lab, flow: Flow, _at: str) -> Report:
    """Two distributions of one audience."""
    return Interleaver(lab).explored(Pair(flow, DISPATCH["send"], serial=False), RUNS)


WRONG_WAYS = (
    WrongWay(without_intent, by_a_cancel, "/users"),
    WrongWay(
        record_before_send, by_crashes, "POST webhook", DISPATCH["send changes to a receiver"]
    ),
    WrongWay(unknown_is_accepted, by_a_cancel, "commit lanes"),
    WrongWay(without_fence, by_sleep),
    WrongWay(two_at_once, by_another),
    WrongWay(baseline_first, by_a_cancel, "commit distributions, lanes"),
)
