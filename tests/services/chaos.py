"""A town of advertisers whose platforms fail, whose workers die and whose operators interfere.

Everything is decided by one seed and happens in one thread: another worker's turn comes in the
middle of a request or of a store call, so that two of them are at work on the same things. At the
end the failures stop, and every invariant is held against a model of plain sets.
"""

from __future__ import annotations

import csv
import io
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import stamina

from activation.adapters.clock import MovableClock
from activation.api import messages
from activation.app import App
from activation.domain.audience import AudienceDraft, AudienceType
from activation.domain.caller import Caller
from activation.domain.distribution import (
    FINAL,
    ApprovalDraft,
    ApprovalStatus,
    BatchRecord,
    Distribution,
    DistributionDraft,
    DistributionStatus,
    DistributionType,
    HoldReason,
)
from activation.domain.identifier import IdentifierType, Variant, in_variant, key_digest
from activation.domain.lane import FINAL as LANE_FINAL
from activation.domain.lane import Lane
from activation.domain.ledger import Ledger
from activation.domain.member import MemberInput
from activation.domain.member_change import MemberReference
from activation.domain.member_import import ImportDraft
from activation.domain.platform import ConnectorSpec, PlatformDraft
from activation.errors import ActivationError, PlatformRowsError, StorageUnavailableError
from activation.members.layout import TYPES
from activation.members.rosters import RosterView
from activation.ports import Message, Query
from activation.settings import Settings
from activation.twins.catalog import OFFERS
from activation.twins.direct import DirectTransport
from activation.twins.faults import Chaos
from activation.twins.members import member_key
from activation.twins.server import RunningTwins, serve
from activation.twins.wsgi import Twin
from tests.conftest import START, caller_of
from tests.faults.ports import Crash, Fault, Tape, When, attach
from tests.faults.witness import Witness
from tests.services.desk import Adjusted
from tests.working import handle

ORGANIZATIONS = ("acme", "globex", "initech")
PLATFORMS = tuple(name for name in OFFERS if name not in ("amazon_dsp", "liveramp"))
HASHED_DEVICES = ("tiktok", "snapchat", "pinterest")
AUDIENCES = 40
STEPS = 40
"""Things that happen after each request, at most."""
STORM = 40
"""Rounds in which what is left is worked on while everything still fails."""
MAX_DRAIN = 4_000
FAR = START + timedelta(days=3650)

Identifier = tuple[IdentifierType, str]


class Broken(BaseException):
    """An invariant does not hold; nothing between here and the end may catch it."""


@dataclass
class Crowd:
    """An audience as it should be."""

    organization_id: str
    audience_id: str
    members: set[Identifier]


@dataclass
class Tally:
    """What happened."""

    happened: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[tuple[str, int]]:
        """What happened and how often, for people to read."""
        named = [("distributions " + name, n) for name, n in sorted(self.statuses.items())]
        named += sorted(self.happened.items())
        return named + [("fault " + name, n) for name, n in sorted(self.faults.items())]


class Counted(Adjusted):
    """Connectors with small batches that count the batches which were taken apart."""

    tally: Tally

    def connector(self, platform_type: Any, config: Mapping[str, Any]) -> Any:
        connector = super().connector(platform_type, config)
        send = connector.send

        def counted(account: Any, delivery: Any, seq: int, columns: Any) -> Any:
            try:
                return send(account, delivery, seq, columns)
            except PlatformRowsError:
                self.tally.happened["requests refused because of rows"] += 1
                raise

        connector.send = counted  # type: ignore[method-assign]
        return connector


class Town:
    """Organizations with audiences and accounts; one App at a time works for them.

    `sockets`: requests go through real sockets, so that connections really break.
    """

    def __init__(self, folder: Path, seed: int, *, sockets: bool = False) -> None:
        self.dice = random.Random(seed)
        self.seed = seed
        self.clock = MovableClock(START)
        self.tally = Tally()
        self.crowds: list[Crowd] = []
        self.twins: dict[str, Twin] = {}
        self.platforms: dict[str, tuple[str, str, str]] = {}
        """By id: organization, twin, type."""
        self._settings = Settings(data_folder=str(folder), allow_private_hosts=True)
        self._seen: dict[str, DistributionStatus] = {}
        self._retried: set[str] = set()
        self._holds: set[tuple[str, str, str]] = set()
        self._depth = 0
        self._wild = False
        for organization in ORGANIZATIONS:
            for name in self.dice.sample(PLATFORMS, 6):
                self.twins[f"{organization}-{name}"] = OFFERS[name].make(self.clock, 0.5)
        self._direct = DirectTransport(self.twins)
        self._server: RunningTwins | None = serve(self.twins) if sockets else None
        self.tape = Tape()
        self.app = self._opened()

    # building -----------------------------------------------------------------------------------

    def _opened(self) -> App:
        self.tape = Tape(gate=self._between)
        app = attach(App(self._settings, self.clock), self.tape, Witness())
        transport = None if self._server else _Interrupted(self._direct, self._between_requests)
        connectors = Counted(self.clock, transport=transport, allow_private_hosts=True)
        connectors.changes = {"max_rows": 8, "minimum_size": 0, "lanes": 2}
        connectors.tally = self.tally
        app.__dict__["connectors"] = connectors
        if self._wild:
            self._mortal()
        return app

    def _mortal(self) -> None:
        """Let the process die at one of its next calls."""
        when = self.dice.choice([When.BEFORE, When.AFTER])
        self.tape.fault = Fault(len(self.tape.effects) + self.dice.randint(1, 500), when)

    def _restarted(self) -> None:
        self.tally.happened["workers killed"] += 1
        with suppress(Crash):
            self.app.close()
        self._depth = 0
        self.app = self._opened()

    def build(self) -> None:
        """Accounts and audiences."""
        for name in self.twins:
            organization, _, kind = name.partition("-")
            url = self._server.url_of(name) if self._server else self._direct.url_of(name)
            body = OFFERS[kind].account(kind, url)
            if kind == "the_trade_desk":
                body["settings"]["config"] |= {"resolve_with": "none", "ttl_minutes": 259_200}
            body["settings"] |= {
                "free_removals": self.dice.choice([3, 100]),
                "require_approval": self.dice.random() < 0.2,
                "requests_per_minute": self.dice.choice([None, 30, 100_000]),
            }
            draft = PlatformDraft.model_validate({"name": name, **body})
            made = self.app.platforms.create(_ann(organization), draft).entity
            self.platforms[made.platform_id] = (organization, name, kind)
        for number in range(AUDIENCES):
            self._audience(ORGANIZATIONS[number % len(ORGANIZATIONS)], number)

    def _audience(self, organization: str, number: int) -> None:
        draft = AudienceDraft(name=f"Audience {number}", data_type=AudienceType.FIRST_PARTY)
        made = self.app.audiences.create(_ann(organization), draft).entity
        people = [_person(number, at, self.dice) for at in range(self.dice.randint(5, 60))]
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["email", "phone", "maid"])
        writer.writerows(people)
        job = self.app.imports.create_direct(
            _ann(organization),
            made.audience_id,
            ImportDraft(),
            io.BytesIO(text.getvalue().encode()),
        ).entity
        self.app.import_worker.run(organization, job.import_id, "t")
        members = {
            (kind, value)
            for person in people
            for kind, value in zip(_KINDS, person, strict=True)
            if value
        }
        self.crowds.append(Crowd(organization, made.audience_id, members))
        size = self.app.audiences.find(_ann(organization), made.audience_id).entity.size
        _require(size == len(members), "an import counts its members")

    # living -------------------------------------------------------------------------------------

    def live(self, runs: int, rate: float = 0.15) -> None:
        """Ask for so many distributions while everything fails, then let all of it end."""
        with self._no_waiting():
            self.build()
            self._worked()
            self._wild = True
            for number, twin in enumerate(self.twins.values()):
                spoilt = 0.0 if "webhook" in type(twin).__module__ else 0.02
                twin.faults.unleash(Chaos(self.seed * 1000 + number, rate, 6, spoilt))
            self._mortal()
            for _ in range(runs):
                self._changed(self.crowds[int(self.dice.random() ** 2 * AUDIENCES)])
                self._safely(self._requested)
                for _ in range(self.dice.randint(0, STEPS)):
                    self._safely(self.dice.choice(self._steps()))
            for _ in range(STORM):
                self._safely(self._tidied)
                for _ in range(4):
                    self._safely(self._operated)
            self._calm()
            self._drained()
            self._settled()
            self._made_clean()

    @contextmanager
    def _no_waiting(self) -> Iterator[None]:
        with stamina.set_testing(True, attempts=2, cap=True):
            yield
        if self._server:
            self._server.close()
        self.app.close()

    def _steps(self) -> list[Callable[[], None]]:
        return [self._deliver] * 8 + [self._tick, self._wait] * 2 + [self._operated, self._looked]

    def _safely(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Crash:
            self._restarted()
        except ActivationError:
            pass

    def _changed(self, crowd: Crowd) -> None:
        """Some people come and go; nothing disturbs this."""
        wild, self._wild, self.tape.fault = self._wild, False, None
        caller = _ann(crowd.organization_id)
        gone = self.dice.sample(
            sorted(crowd.members), min(len(crowd.members) - 1, self.dice.randint(0, 6))
        )
        come = [_fresh(self.dice) for _ in range(self.dice.randint(0, 6))]
        if gone:
            references = [
                MemberReference(identifier_type=kind, identifier_value=value)
                for kind, value in gone
            ]
            self.app.members.remove(caller, crowd.audience_id, references)
        if come:
            inputs = [MemberInput(identifier_type=k, identifier_value=v) for k, v in come]
            self.app.members.add(caller, crowd.audience_id, inputs)
        crowd.members = (crowd.members - set(gone)) | set(come)
        self._wild = wild
        self._mortal()

    def _requested(self) -> None:
        crowd = self.crowds[int(self.dice.random() ** 2 * AUDIENCES)]
        mine = [
            platform_id
            for platform_id, (organization, _, _) in self.platforms.items()
            if organization == crowd.organization_id
        ]
        later = self.clock.now() + timedelta(seconds=self.dice.randint(1, 600))
        draft = DistributionDraft(
            audience_id=crowd.audience_id,
            platform_id=self.dice.choice(mine),
            distribution_type=self.dice.choice([*DistributionType, DistributionType.INCREMENTAL]),
            scheduled_at=later if self.dice.random() < 0.1 else None,
        )
        self.app.distributions.create(_ann(crowd.organization_id), draft)

    def _deliver(self) -> None:
        def handed(_to: str, message: Message, _attempt: int) -> None:
            chance = self.dice.random() if self._wild else 1.0
            if chance < 0.04:
                self.tally.happened["messages postponed"] += 1
                wait = self.dice.uniform(0, 90)
                raise StorageUnavailableError("Not now.", retry_after_seconds=wait)
            self._handled(message)
            if chance < 0.08:
                self.tally.happened["messages delivered twice"] += 1
                self._handled(message)

        self.app.bus.deliver_due(handed, self.dice.randint(1, 8))  # type: ignore[attr-defined]

    def _handled(self, message: Message) -> None:
        """What a function does; the bus would hide a fault of ours."""
        try:
            if "job_id" in message.data:
                messages.run_job(self.app, message)
            handle(self.app, message)
        except ActivationError:
            raise
        except Exception as error:
            raise Broken("a worker fails by a fault of ours") from error

    def _tick(self) -> None:
        self.app.due.run()

    def _wait(self) -> None:
        self.clock.sleep(self.dice.choice([1, 5, 20, 70, 200]))

    def _between(self) -> None:
        """In the middle of a store call."""
        if self._wild and self._depth == 0 and self.dice.random() < 0.002:
            self._meanwhile()

    def _between_requests(self) -> None:
        """In the middle of a request to a platform."""
        if self._wild and self._depth == 0 and self.dice.random() < 0.05:
            self._meanwhile()

    def _meanwhile(self) -> None:
        """What others do at the same time."""
        self._depth += 1
        self.tally.happened["others in the middle"] += 1
        try:
            for _ in range(self.dice.randint(1, 4)):
                with suppress(ActivationError):
                    self.dice.choice([self._deliver, self._deliver, self._tick, self._operated])()
                self.clock.sleep(self.dice.randint(0, 15))
        finally:
            self._depth -= 1

    # operators ----------------------------------------------------------------------------------

    def _operated(self) -> None:
        """Somebody interferes with a distribution."""
        job = self.dice.choice([*self._jobs(), None])
        if job is None:
            return
        self._judged(job)
        service, name = self.app.distributions, job.distribution_id
        ann, bob = _ann(job.organization_id), _bob(job.organization_id)
        word = ApprovalStatus.APPROVED if self.dice.random() < 0.8 else ApprovalStatus.REJECTED
        acts: dict[str, Callable[[], object]] = {
            "pause": lambda: service.pause(ann, name),
            "resume": lambda: service.resume(ann, name),
            "release": lambda: service.release(bob, name),
            "approve": lambda: service.approve(bob, name, ApprovalDraft(status=word)),
            "retry": lambda: self._retry(job),
            "check": lambda: self.app.platforms.test(ann, job.platform_id),
            "look": self._looked,
        }
        act = self.dice.choice([*acts, *[_sensible(job)] * 6])
        if self.dice.random() < 0.04:
            acts["cancel"] = lambda: service.set_status(ann, name, "cancelled")
            act = "cancel"
        acts[act]()
        self.tally.happened[f"operators: {act}"] += 1

    def _retry(self, job: Distribution) -> None:
        self._retried.add(job.distribution_id)
        self.app.distributions.retry(_ann(job.organization_id), job.distribution_id)

    def _jobs(self) -> list[Distribution]:
        """The latest distributions of an organization."""
        organization = self.dice.choice(ORGANIZATIONS)
        found = self.app.documents.query(Query(organization, "distributions", {}, limit=12))
        return [Distribution.restored(document.data) for document in found]

    # invariants ---------------------------------------------------------------------------------

    def _looked(self) -> None:
        """Counts add up, and what has ended stays so."""
        for job in self._jobs():
            current = self.app.distributions.get(_ann(job.organization_id), job.distribution_id)
            self._judged(current.entity)

    def _judged(self, job: Distribution) -> None:
        if job.hold is not None:
            self._holds.add((job.distribution_id, job.hold.reason, str(job.hold.since)))
        progress = job.progress
        _require(
            progress.planned == progress.sent + progress.rejected + progress.pending
            and min(progress.sent, progress.rejected, progress.pending) >= 0
            and sum(progress.rejected_by_reason.values()) == progress.rejected,
            f"counts add up: {progress}",
        )
        if job.status is DistributionStatus.COMPLETED:
            _require(progress.pending == 0, "what is complete has nothing pending")
        before = self._seen.get(job.distribution_id, job.status)
        if before is not job.status and before in FINAL:
            retried = job.distribution_id in self._retried
            _require(
                before is DistributionStatus.FAILED and retried,
                f"{before} does not become {job.status}",
            )
        self._seen[job.distribution_id] = job.status

    def _calm(self) -> None:
        """Nothing fails any more."""
        self._wild, self.tape.fault = False, None
        for twin in self.twins.values():
            if twin.faults.chaos is not None:
                self.tally.faults += twin.faults.chaos.injected
            twin.faults.clear()

    def _drained(self) -> None:
        """Operators tidy up, time passes; in the end everything is over."""
        left: list[Distribution] = []
        for _ in range(MAX_DRAIN):
            left = self._tidied()
            if not left:
                return
        raise Broken(f"something is stuck: {[_short(job) for job in left][:5]}")

    def _tidied(self) -> list[Distribution]:
        """One round: all that is due, then what operators do for the rest; returns the rest."""
        self._worked()
        left = self._unfinished()
        for job in left:
            self._judged(job)
            with suppress(ActivationError):
                self._helped(job)
        if left:
            self.clock.sleep(61)
        return left

    def _worked(self) -> None:
        def handed(_to: str, message: Message, _attempt: int) -> None:
            self._handled(message)

        self.app.due.run()
        while self.app.bus.deliver_due(handed, 100):  # type: ignore[attr-defined]
            pass

    def _unfinished(self) -> list[Distribution]:
        """What has not ended, or is not in the ledger yet."""
        found = [
            document
            for organization in ORGANIZATIONS
            for status in ("scheduled", "processing")
            for document in self.app.documents.query(
                Query(organization, "distributions", {"status": status}, limit=200)
            )
        ]
        found += self.app.documents.due("distributions", FAR, 1000)
        jobs = [Distribution.restored(document.data) for document in found]
        return [job for job in jobs if job.status not in FINAL or not job.settled]

    def _helped(self, job: Distribution) -> None:
        bob, name = _bob(job.organization_id), job.distribution_id
        if job.metadata.approval_status is ApprovalStatus.PENDING:
            approved = ApprovalDraft(status=ApprovalStatus.APPROVED)
            self.app.distributions.approve(bob, name, approved)
        if job.hold is None:
            return
        if job.hold.reason is HoldReason.BLAST_RADIUS:
            self.app.distributions.release(bob, name)
        elif job.hold.reason is HoldReason.PAUSED:
            self.app.distributions.resume(bob, name)
        else:
            self.app.platforms.test(bob, job.platform_id)

    def _settled(self) -> None:
        """Everything is over: counts, batches, lanes, turns, and what the ledgers say."""
        for _, reason, _ in self._holds:
            self.tally.happened[f"holds: {reason}"] += 1
        for job in self._all(Distribution):
            self._judged(job)
            self.tally.statuses[str(job.status)] += 1
            self.tally.happened["pauses asked by platforms"] += job.error_details.retry_count
            self._add_up(job)
        for lane in self._all(Lane):
            _require(lane.status in LANE_FINAL, "no lane is left")
            _require(lane.rows == lane.sent + lane.rejected + lane.pending, "lanes add up")
            _require(lane.pending >= 0, "no lane sends more than it has")
        for name, twin in self.twins.items():
            if name.endswith("webhook"):
                ids = twin.message_ids  # type: ignore[attr-defined]
                _require(len(ids) == len(set(ids)), "every message counts once")
        for ledger in self._all(Ledger):
            _require(ledger.active is None, "nobody keeps the turn")
            sure, doubtful = self._known(ledger)
            held = self._held(ledger)
            name = self.platforms[ledger.platform_id][1]
            _require(sure <= held, f"{name}: what is accepted is held; {len(sure - held)} are not")
            extra = len(held - sure - doubtful)
            _require(not extra, f"{name}: what is held is accepted; {extra} are not")

    def _add_up(self, job: Distribution) -> None:
        """The batches' records tell the same as the distribution."""
        if job.stage is None:
            return
        lanes = [entry.entity for entry in self.app.distributions.lanes_of(job)]
        records = {
            seq: found
            for lane in lanes
            for seq in range(lane.first + 1, lane.first + lane.done + 1)
            if (found := self.app.documents.get(_batch_key(job, seq)))
        }
        batches = [BatchRecord.restored(found.data) for found in records.values()]
        _require(len(batches) == sum(lane.done for lane in lanes), "each batch has its record")
        _require(sum(b.sent for b in batches) == job.progress.sent, "batches add up")
        _require(sum(b.rejected for b in batches) == job.progress.rejected, "rejects add up")

    def _made_clean(self) -> None:
        """One more incremental run each: the platform holds what is wanted, and nobody doubts."""
        for ledger in self._all(Ledger):
            ann = _ann(ledger.organization_id)
            draft = DistributionDraft(
                audience_id=ledger.audience_id,
                platform_id=ledger.platform_id,
                distribution_type=DistributionType.INCREMENTAL,
            )
            job = self.app.distributions.create(ann, draft).entity
            self._drained()
            done = self.app.distributions.get(ann, job.distribution_id).entity
            _require(
                done.status is DistributionStatus.COMPLETED, f"a clean run ends {_short(done)}"
            )
            self._judged(done)
            (current,) = [one for one in self._all(Ledger) if one.ledger_id == ledger.ledger_id]
            sure, doubtful = self._known(current)
            wanted, held = self._wanted(current), self._held(current)
            _require(not doubtful, "nothing is in doubt after a clean run")
            _require(sure == wanted, "what is accepted is what is wanted")
            _require(held == wanted, "the platform holds what is wanted")
            self.tally.happened["audiences compared"] += 1
            self.tally.happened["identifiers compared"] += len(wanted)

    # looking ------------------------------------------------------------------------------------

    def _all(self, model: Any) -> list[Any]:
        """All records of one kind."""
        names = {Distribution: "distributions", Lane: "lanes", Ledger: "ledgers"}
        found = []
        for organization in ORGANIZATIONS:
            after: str | None = None
            while True:
                query = Query(organization, names[model], {}, after=after, limit=200)
                page = self.app.documents.query(query)
                found += [model.restored(document.data) for document in page]
                if len(page) < 200:
                    break
                after = page[-1].key.id
        return found

    def _spec(self, ledger: Ledger) -> ConnectorSpec:
        stored = self.app.platforms.records.get(ledger.organization_id, ledger.platform_id)
        return self.app.distributions.spec_of(stored.entity)

    def _known(self, ledger: Ledger) -> tuple[set[bytes], set[bytes]]:
        """What the ledger says is held, and what may be: keys as the twin has them."""
        spec, found = self._spec(ledger), (set[bytes](), set[bytes]())
        view = RosterView(self.app.store.parts, ledger.organization_id, ledger.accepted)
        for _, rows in view.ranges():
            for row in rows.to_pylist():
                kind = TYPES[row["identifier_type"]]
                raw = spec.identifiers[kind] is Variant.RAW
                key = _key(spec, kind, row["value"] if raw else row["digest"].hex())
                found[row["doubt"]].add(key)
        return found

    def _wanted(self, ledger: Ledger) -> set[bytes]:
        """What the model says the platform should hold."""
        spec = self._spec(ledger)
        (crowd,) = [c for c in self.crowds if c.audience_id == ledger.audience_id]
        keys = set()
        for kind, value in crowd.members:
            variant = spec.identifiers.get(kind)
            if variant is Variant.RAW:
                keys.add(_key(spec, kind, value))
            elif variant is not None:
                keys.add(_key(spec, kind, key_digest(in_variant(value, variant)).hex()))
        return keys

    def _held(self, ledger: Ledger) -> set[bytes]:
        """What the twin holds of an audience."""
        twin: Any = self.twins[self.platforms[ledger.platform_id][1]]
        kept = next(k for k in ("lists", "data", "audiences") if hasattr(twin, k))
        names = {f"aa-{ledger.audience_id}", str(ledger.platform_audience_id)}
        found = [held.keys for held in getattr(twin, kept).values() if names & _words(held)]
        _require(len(found) <= 1, "an audience is made once")
        return set(found[0]) if found else set()


class _Interrupted(httpx.BaseTransport):
    """A transport in the middle of whose requests others may act."""

    def __init__(self, inner: httpx.BaseTransport, between: Callable[[], None]) -> None:
        self._inner, self._between = inner, between

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._between()
        response = self._inner.handle_request(request)
        stream = httpx.ByteStream(response.read())
        self._between()
        return httpx.Response(response.status_code, headers=response.headers, stream=stream)


_KINDS = (IdentifierType.EMAIL, IdentifierType.PHONE, IdentifierType.MAID)


def _person(number: int, at: int, dice: random.Random) -> list[str]:
    """E-mail, phone and device of somebody; at least one of them."""
    domain = dice.choice(["example.com", "gmail.com"])
    found = [f"p{number}x{at}@{domain}", "", ""]
    if dice.random() < 0.4:
        found[1] = f"+4930{number:03d}{at:04d}"
    if dice.random() < 0.4:
        found[2] = f"00000000-0000-4000-{number:04d}-{at:012d}"
    if found[1] and dice.random() < 0.3:
        found[0] = ""
    return found


def _fresh(dice: random.Random) -> Identifier:
    kind, number = dice.choice(_KINDS), dice.randint(1, 10**9)
    if kind is IdentifierType.EMAIL:
        return kind, f"n{number}@example.org"
    if kind is IdentifierType.PHONE:
        return kind, f"+4940{number:09d}"
    return kind, f"00000000-0000-4000-9000-{number:012d}"


def _words(held: Any) -> set[str]:
    """All that an audience may be called at a platform, mark included."""
    fields = ("audience_id", "external_id", "description", "name")
    text = " ".join(str(getattr(held, field, "")) for field in fields)
    return {text, *re.split(r"[\s\[\]()/]+", text)}


def _key(spec: ConnectorSpec, kind: IdentifierType, value: str) -> bytes:
    if kind is IdentifierType.MAID and spec.platform_type in HASHED_DEVICES:
        value = key_digest(value).hex()
    return member_key(str(kind), value)


def _batch_key(job: Distribution, seq: int) -> Any:
    from activation.ports import Key

    return Key(job.organization_id, "batches", f"{job.distribution_id}:{seq:06d}")


def _ann(organization: str) -> Caller:
    return caller_of(organization)


def _bob(organization: str) -> Caller:
    return caller_of(organization, "bob")


def _sensible(job: Distribution) -> str:
    """What somebody would do who looks at it."""
    if job.metadata.approval_status is ApprovalStatus.PENDING:
        return "approve"
    if job.hold is not None:
        acts = {HoldReason.BLAST_RADIUS: "release", HoldReason.PAUSED: "resume"}
        return acts.get(job.hold.reason, "check")
    return "retry" if job.status is DistributionStatus.FAILED else "look"


def _short(job: Distribution) -> str:
    hold = job.hold.reason if job.hold else None
    details = job.error_details
    return (
        f"{job.distribution_id} {job.distribution_type} {job.status} stage={job.stage} hold={hold} "
        f"next={job.next_at} lease={job.lease_until} waits={job.waiting_for} "
        f"{details.error_code}: {details.error_message}"
    )


def _require(holds: object, what: str) -> None:
    if not holds:
        raise Broken(what)
