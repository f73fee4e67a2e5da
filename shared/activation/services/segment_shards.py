"""Evaluates events durably: state, seen ids, transitions and messages of a step in one commit.

The guard of every commit is the revision of the shard's head. Whoever comes second, because a
message was delivered twice or two workers met, finds the head moved on and takes his step again,
on what the first one left: then his events are known.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import compress
from typing import TypeVar

from activation.domain.caller import Caller
from activation.domain.event import Event
from activation.domain.membership import Transition
from activation.domain.segment_shard import SegmentShard, shard_id, shard_key, shard_of, step_id
from activation.errors import ConflictError, StorageUnavailableError
from activation.ports import Batch, Clock, Document, DocumentStore, Key, Message, Query, Write
from activation.segments.block import EventBlock, block_of, empty_block
from activation.segments.codec import Delta, Told, told_by, told_bytes, told_of
from activation.segments.engine import Evaluation, evaluate
from activation.segments.event_file import DAMAGED
from activation.segments.forgetting import farewells, without_users
from activation.segments.minutes import MICROS, RETAINED_MINUTES, Moment, instant_of, micros_of
from activation.segments.past import Missing, block_of_table, joined, lacking
from activation.segments.rebase import rebased
from activation.segments.rulebook import RuleBook
from activation.segments.state import ShardState, Transitions, no_transitions
from activation.services.commits import Commits
from activation.services.erasure_marks import ErasureMarks
from activation.services.event_archive import EventArchive, Span
from activation.services.event_log import EventLog
from activation.services.parcels import Parcels
from activation.services.rule_books import RuleBooks
from activation.services.shard_states import HEADS, OpenShard, ShardStates

log = logging.getLogger(__name__)

MEMBERSHIPS = "segment-memberships"
"""Topic of the changes. A message names a step; `told` reads its transitions."""
TRANSITIONS = "segment_transitions"
MAX_STEP_EVENTS = 5_000
SWEEP_USERS = 2_000
"""How many users one commit of the sweep looks at, so that live events get their turn."""
MAX_ATTEMPTS = 20
SWEEP_STEPS = 50
"""How many commits a shard gets in one round of the sweep."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processed:
    """What became of events. `refused` are positions of those that can never be added up."""

    counted: int
    duplicate: int
    refused: tuple[int, ...]
    transitions: int
    erased: int = 0
    """Events from before an erasure of their user: neither counted nor to come again."""


@dataclass(frozen=True, slots=True)
class ShardWorker:
    """Takes steps of shards. Any number of workers may run at once."""

    documents: DocumentStore
    commits: Commits
    books: RuleBooks
    states: ShardStates
    parcels: Parcels
    clock: Clock
    archive: EventArchive | None = None
    """Gives new fields their past; without it they have none."""
    marks: ErasureMarks | None = None
    """Who was erased; none where nobody can be."""

    @property
    def log(self) -> EventLog:
        """Where the events go that were counted."""
        return EventLog(self.documents, self.parcels)

    def process(
        self,
        organization_id: str,
        shard: int,
        events: Sequence[Event],
        received: Sequence[datetime] | None = None,
    ) -> Processed:
        """Take in events of users of one shard; returns when all of it is durable. `received` is
        when each of them came; without it, by their own time.

        Raises ConflictError when others were faster again and again: the message is to come again.
        """
        steps = [
            self._again(
                lambda at=at: self._events(organization_id, shard, events, at, received)  # type: ignore[misc]
            )
            for at in range(0, len(events), MAX_STEP_EVENTS)
        ]
        return Processed(
            sum(step.counted for step in steps),
            sum(step.duplicate for step in steps),
            tuple(position for step in steps for position in step.refused),
            sum(step.transitions for step in steps),
            sum(step.erased for step in steps),
        )

    def sweep(self, limit: int = 100) -> int:
        """Look at all users, of at most `limit` shards, whose windows have run out by now.

        Returns how many steps were taken. A shard that others are busy with is left to them and
        to the next round.
        """
        due = self.documents.due(HEADS, self.clock.now(), limit)
        return sum(self._sweep(*_address(document)) for document in due)

    def sweep_shard(self, organization_id: str, shard: int, users: int = SWEEP_USERS) -> bool:
        """Look at up to `users` users of a shard who are due; whether anybody was."""
        opened = self._adopted(organization_id, shard)
        micros = self._micros(opened)
        if opened.state.next_due() > Moment(micros).tick:
            return False
        self._step(opened, empty_block(opened.book.fields), micros, users)
        return True

    def next_due(self, organization_id: str, shard: int) -> int:
        """The tick at which somebody of a shard has to be looked at without news, or NEVER."""
        opened = self._again(lambda: self.states.open(organization_id, shard))
        return opened.state.next_due()

    def adopt(self, organization_id: str, shard: int) -> str:
        """Bring a shard to the rules in force, whether it has news or not; returns their version.

        A change of rules is in force everywhere once every shard has been through this.
        """
        return self._again(lambda: self._adopted(organization_id, shard).state.version)

    def backfill(self, organization_id: str, shard: int) -> bool:
        """Give a shard's fields the past that they miss; whether any missed it.

        Raises StorageUnavailableError when the archive is damaged.
        """
        return self._again(lambda: self._backfill(organization_id, shard))

    def put_right(
        self,
        caller: Caller,
        opened: OpenShard,
        state: ShardState,
        transitions: Transitions,
        action: str = "replay:shard:mend",
    ) -> None:
        """Put a state in the place of a shard's, as its next step, and tell what that changes.
        `action` is what the audit log calls it.

        Raises ConflictError when the shard has moved on.
        """
        told = _told(state, transitions, opened.book)
        writes, messages = self.states.whole(opened, state, ()), []
        if told.users:
            writes.append(self._transitions(opened, told))
            messages.append(message_of_step(opened, told))
        details = {"transitions": len(transitions)}
        self.commits.commit(caller, action, writes, messages=messages, details=details)
        self.states.committed(opened, state, writes)

    def fold(self, organization_id: str, shard: int, skip: int = 0) -> None:
        """Store the whole state of a shard, so that no delta is left: before a release that
        evaluates in another way. `skip` leaves numbers out: after a database was taken back, so
        that no seq is used again that others may have heard of."""
        self._again(lambda: self._fold(organization_id, shard, skip))

    def forget(
        self,
        organization_id: str,
        shard: int,
        user_id: str,
        pseudonym: str,
        also: Callable[[int, int], Sequence[Write]],
    ) -> int:
        """Take a user out of a shard in one commit that stores its whole state; his exits are
        told under a pseudonym. `also` gives further writes of the commit, from the step's number
        and moment. Returns how many exits were told."""
        return self._again(lambda: self._forget(organization_id, shard, user_id, pseudonym, also))

    def is_erased(self, organization_id: str, user_id: str, since: datetime) -> bool:
        """Whether a user was erased at an instant or later."""
        found = self.states.heads.find(organization_id, shard_id(shard_of(user_id)))
        head = None if found is None else found.entity
        return self.marks is not None and self.marks.is_gone(head, user_id, micros_of(since))

    def adopted(self, organization_id: str, shards: int) -> tuple[int, int]:
        """How many shards are at the rules in force, and how many there are."""
        current = self.books.current(organization_id).version
        keys = [Key(organization_id, HEADS, shard_id(shard)) for shard in range(shards)]
        there = [one for one in self.documents.get_many(keys) if one is not None]
        return sum(one.data["version"] == current for one in there), len(there)

    def told(self, organization_id: str, shard: int, number: int) -> list[Transition]:
        """The transitions of one step, for those whom a message told of it."""
        found = self.documents.get(Key(organization_id, TRANSITIONS, step_id(shard, number)))
        return [] if found is None else _listed(told_of(self.parcels.opened(found)))

    def history(self, organization_id: str, user_id: str, shards: int) -> Iterator[Transition]:
        """The transitions of a user, newest first."""
        shard, after = shard_of(user_id, shards), None
        while True:
            query = Query(organization_id, TRANSITIONS, {"shard": shard}, after=after)
            page = self.documents.query(query)
            for document in page:
                told = told_of(self.parcels.opened(document))
                if user_id in told.users:
                    yield from (one for one in _listed(told) if one.user_id == user_id)
            if len(page) < query.limit:
                return
            after = page[-1].key.id

    # steps ----------------------------------------------------------------------------------------

    def _events(
        self,
        organization_id: str,
        shard: int,
        events: Sequence[Event],
        at: int,
        received: Sequence[datetime] | None,
    ) -> Processed:
        opened = self._adopted(organization_id, shard)
        part = events[at : at + MAX_STEP_EVENTS]
        came = None if received is None else received[at : at + MAX_STEP_EVENTS]
        gone = self.marks.gone(opened.head, part, came) if self.marks else set()
        places = [n for n in range(len(part)) if n not in gone]
        kept = [part[n] for n in places] if gone else part
        block, unreadable = block_of(kept, opened.book.fields)
        left_out = set(unreadable)
        readable = [n for n in range(len(kept)) if n not in left_out]
        log_of = [kept[n] for n in readable] if unreadable else kept
        found = self._step(opened, block, micros_of(self.clock.now()), 0, log_of)
        overflowing = [readable[n] for n in found.refused.nonzero()[0].tolist()]
        return Processed(
            int(found.counted.sum()),
            int(found.duplicate.sum()),
            tuple(at + places[n] for n in sorted([*unreadable, *overflowing])),
            len(found.transitions),
            len(gone),
        )

    def _step(
        self,
        opened: OpenShard,
        block: EventBlock,
        micros: int,
        sweep: int,
        events: Sequence[Event] = (),
    ) -> Evaluation:
        """Evaluate and commit; when nothing comes of it, nothing is written. `events` are those of
        the block: what is counted of them is logged."""
        found = evaluate(opened.state, block, opened.book, micros, sweep)
        if not sweep and not found.counted.any():
            return replace(found, state=opened.state)
        delta = Delta(found.state.number, found.state.micros, sweep, block.taken(found.counted))
        told = _told(found.state, found.transitions, opened.book)
        writes = [
            *self.states.step(opened, found.state, delta),
            *self._logged(opened, found.state, list(compress(events, found.counted.tolist()))),
        ]
        self._commit(opened, found.state, writes, told)
        return found

    def _logged(
        self, opened: OpenShard, state: ShardState, events: Sequence[Event]
    ) -> Sequence[Write]:
        where = (opened.organization_id, opened.shard)
        return self.log.writes(*where, state.number, state.micros, events)

    def _commit(
        self, opened: OpenShard, state: ShardState, writes: Sequence[Write], told: Told
    ) -> None:
        """One commit for all that a step changes; then others are told."""
        writes, messages = list(writes), []
        if opened.stored is None:
            writes.append(self.log.begun(opened.organization_id, opened.shard, self.clock.now()))
        if told.users:
            writes.append(self._transitions(opened, told))
            messages.append(message_of_step(opened, told))
        self.documents.commit(Batch(writes, messages))
        self.states.committed(opened, state, writes)
        self.commits.publish(messages)
        if opened.stored is None:
            self._begun(opened.organization_id, opened.shard, state.version)

    def _begun(self, organization_id: str, shard: int, version: str) -> None:
        """Look at the rules again once a new shard is there: whoever has just brought all shards
        to new ones did not see it. A worker who dies before gets his message again."""
        if self.books.current(organization_id).version != version:
            self._again(lambda: self._adopted(organization_id, shard))

    def _transitions(self, opened: OpenShard, told: Told) -> Write:
        key = Key(opened.organization_id, TRANSITIONS, step_id(opened.shard, told.seq))
        about = {"shard": opened.shard, "transitions": len(told.transitions)}
        return self.parcels.packed(key, told_bytes(told), about)

    def _adopted(self, organization_id: str, shard: int) -> OpenShard:
        """The shard under the rules in force; whoever was due under the old ones is told first."""
        while True:
            opened = self.states.open(organization_id, shard)
            current = self.books.current(organization_id)
            if opened.book.version == current.version:
                return opened
            self._step_towards(opened, current)

    def _step_towards(self, opened: OpenShard, current: RuleBook) -> None:
        micros = self._micros(opened)
        if opened.state.next_due() <= Moment(micros).tick:
            self._step(opened, empty_block(opened.book.fields), micros, SWEEP_USERS)
            return
        missing = () if opened.stored is None else opened.stored.entity.missing
        try:
            past = self._past(opened, current, missing, micros)
            self._rebase(opened, current, micros, past, missing)
        except StorageUnavailableError as error:
            if error.reason != DAMAGED:
                raise
            log.warning("a shard goes on without a past: its archive of events is damaged")
            self._rebase(opened, current, micros, None, missing)

    def _rebase(
        self,
        opened: OpenShard,
        book: RuleBook,
        micros: int,
        past: EventBlock | None,
        missing: Missing,
    ) -> None:
        """Put other rules, or fields that have got their past, in force."""
        found = rebased(replace(opened.state, micros=micros), opened.book, book, past, missing)
        told = told_by(
            found.transitions,
            found.state.users.names,
            found.segment_ids,
            found.state.number,
            found.state.micros,
        )
        writes = self.states.whole(opened, found.state, found.missing)
        self._commit(opened, found.state, writes, told)

    def _backfill(self, organization_id: str, shard: int) -> bool:
        opened = self._adopted(organization_id, shard)
        stored = opened.stored
        if self.archive is None or stored is None or not stored.entity.missing:
            return False
        micros = self._micros(opened)
        while opened.state.next_due() <= Moment(micros).tick:
            self._step(opened, empty_block(opened.book.fields), micros, SWEEP_USERS)
            opened = self._adopted(organization_id, shard)
        missing = stored.entity.missing
        past = self._past(opened, opened.book, missing, micros)
        self._rebase(opened, opened.book, micros, past, missing)
        return True

    def _micros(self, opened: OpenShard) -> int:
        return max(micros_of(self.clock.now()), opened.state.micros)

    def _past(
        self, opened: OpenShard, book: RuleBook, missing: Missing, micros: int
    ) -> EventBlock | None:
        """All events of the longest window up to the shard's last step; None when no field needs
        them."""
        if self.archive is None or not lacking(opened.book, book, missing):
            return None
        first = instant_of((Moment(micros).floor - RETAINED_MINUTES) * MICROS)
        where = (opened.organization_id, opened.shard, opened.state.number)
        tables = self.archive.tables(*where, Span(first))
        return joined([block_of_table(one, book.fields) for one in tables], book.fields)

    def _fold(self, organization_id: str, shard: int, skip: int) -> None:
        opened = self.states.open(organization_id, shard)
        state = replace(opened.state, number=opened.state.number + 1 + skip)
        told = told_by(no_transitions(), (), (), state.number, state.micros)
        self._commit(opened, state, self.states.whole(opened, state), told)

    def _forget(
        self,
        organization_id: str,
        shard: int,
        user_id: str,
        pseudonym: str,
        also: Callable[[int, int], Sequence[Write]],
    ) -> int:
        opened = self.states.open(organization_id, shard)
        micros = max(micros_of(self.clock.now()), opened.state.micros)
        exits = farewells(opened.state, user_id, micros)
        left = without_users(opened.state, [user_id])
        state = replace(left, number=opened.state.number + 1, micros=micros)
        names = dict.fromkeys(exits.rows.tolist(), pseudonym)
        told = told_by(exits, names, opened.book.segment_ids, state.number, micros)
        writes = self.states.whole(opened, state, erased_at=instant_of(micros))
        self._commit(opened, state, [*writes, *also(state.number, micros)], told)
        return len(exits)

    def _sweep(self, organization_id: str, shard: int) -> int:
        steps = 0
        try:
            while steps < SWEEP_STEPS and self.sweep_shard(organization_id, shard):
                steps += 1
        except ConflictError:
            log.info("sweep of a shard left to others")
        return steps

    def _again(self, act: Callable[[], T]) -> T:
        """Repeat what lost a race."""
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return act()
            except ConflictError:
                continue
        return act()


def _told(state: ShardState, transitions: Transitions, book: RuleBook) -> Told:
    names = state.users.names
    return told_by(transitions, names, book.segment_ids, state.number, state.micros)


def message_of_step(opened: OpenShard, told: Told) -> Message:
    """What others are told of a step that changed memberships."""
    step = step_id(opened.shard, told.seq)
    return Message(
        MEMBERSHIPS,
        opened.organization_id,
        f"memberships-{step}",
        {"shard": opened.shard, "number": told.seq, "transitions": len(told.transitions)},
        ordering_key=shard_key(opened.organization_id, opened.shard),
    )


def _listed(told: Told) -> list[Transition]:
    return told.transitions.listed(told.users, told.segment_ids, told.seq, told.micros)


def _address(document: Document) -> tuple[str, int]:
    return document.key.organization_id, SegmentShard.restored(document.data).shard
