"""Deliveries: what a platform must be sent, compared with what it holds, counted or frozen.

    members ─► wanted identifiers (a roster) ─► against the accepted ones ─► lists of batches

The same code makes the plan, which stores nothing, and the run, which stores the roster and the
lists: so the run is what the plan said.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from activation.domain.delivery import Operation
from activation.domain.distribution import CLEAR, DistributionType
from activation.domain.identifier import Variant
from activation.domain.manifest import Manifest
from activation.domain.platform import ConnectorSpec, Replacement
from activation.domain.roster import Roster, roster_partitions
from activation.members.batches import (
    SINGLE_COLUMNS,
    Cut,
    DeliveryList,
    group_rows,
    list_schema,
    single_schema,
)
from activation.members.layout import TYPES, digests_of, leading, where, whole
from activation.members.outgoing import wanted
from activation.members.parquet_stream import ParquetStream, exact_groups
from activation.members.partitions import CONTENT_TYPE
from activation.members.people import person_rows, placed, row_schema, scratch, single_rows
from activation.members.rosters import RosterView, RosterWriter, differing
from activation.members.selection import DeliveryCounts, Selection
from activation.members.store import MemberStore
from activation.ports import BlobKey

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]

Rows = Generator[Any, None, None]
"""Tables; what they hold open is closed with them."""
Parts = Generator[tuple[range, Any], None, None]
"""Rows of a roster, a range of first bytes at a time."""

__all__ = ["DeliveryCounts", "Prepared", "Selection", "Step", "Stored", "freeze", "plan_delivery"]

PIECE_BYTES = 1024 * 1024
PEOPLE_AT_ONCE = 400_000
"""Identifiers of grouped people held in memory."""
MOST_TOUCHED = 2_000_000
"""People who lose an identifier and are stated again; of more, everybody is."""


@dataclass(slots=True)
class Step:
    """One kind of request of a distribution, in the order of sending."""

    operation: str
    """add | remove | replace, or `clear`: one request without rows."""
    rows: int = 0
    batches: int = 0
    identifiers: int = 0
    cuts: tuple[Cut, ...] = ()
    frozen: DeliveryList | None = None


@dataclass(slots=True)
class Prepared:
    """What a distribution has to do. counts.identifiers = kept + adds."""

    counts: DeliveryCounts
    held: int = 0
    """Identifiers that the platform has accepted before."""
    kept: int = 0
    adds: int = 0
    """Wanted identifiers that the platform does not hold, or not for sure, or with another
    consent."""
    removes: int = 0
    """Held identifiers that are no longer wanted."""
    restated: int = 0
    """Kept identifiers that are sent again, because their person loses another one."""
    steps: list[Step] = field(default_factory=list)
    states_all: bool = False
    roster: Roster | None = None


class Sink(Protocol):
    """Where a preparation leaves what it makes."""

    def part(self, number: int, rows: Any) -> None:
        """Take the wanted rows of one partition."""

    def source(self) -> Parts:
        """The wanted rows again, once all parts were taken."""

    def listed(self, step: Step, groups: Iterator[Any]) -> None:
        """Take the batches of a step; fills in its `frozen` list."""


def plan_delivery(
    store: MemberStore,
    manifest: Manifest,
    spec: ConnectorSpec,
    selection: Selection,
    held: Roster | None = None,
    kind: DistributionType = DistributionType.INITIAL,
    *,
    restate: bool = False,
) -> Prepared:
    """What `freeze` would store; stores nothing that stays."""
    count = roster_partitions(manifest.size)

    def again() -> Parts:
        return wanted(store, manifest, spec, selection, DeliveryCounts(), count)

    preparation = _Preparation(
        store, manifest, spec, selection, held, kind, Counted(again), restate
    )
    return preparation.done()


def freeze(
    store: MemberStore,
    manifest: Manifest,
    spec: ConnectorSpec,
    selection: Selection,
    held: Roster | None,
    kind: DistributionType,
    place: Stored,
    *,
    restate: bool = False,
) -> Prepared:
    """Store the wanted roster and the lists of batches; the same arguments give the same rows in
    the same order. `restate`: also an incremental run sends all that is wanted. ConflictError
    when `place` was used before."""
    preparation = _Preparation(store, manifest, spec, selection, held, kind, place, restate)
    prepared = preparation.done()
    prepared.roster = place.roster()
    return prepared


@dataclass(slots=True)
class Counted:
    """A sink that keeps nothing."""

    source: Callable[[], Parts]

    def part(self, number: int, rows: Any) -> None:
        """Nothing is kept."""

    def listed(self, step: Step, groups: Iterator[Any]) -> None:
        """Count the batches."""
        for _ in groups:
            pass


@dataclass(slots=True)
class Stored:
    """A sink that stores the roster below the ledger's folder, and each list as one object."""

    store: MemberStore
    organization_id: str
    ledger_id: str
    roster_id: str
    folder: str
    """Of the lists."""
    max_rows: int
    """Of a batch."""
    keep: Callable[[], None] = lambda: None
    """Called between two pieces of work."""
    _writer: RosterWriter | None = None

    def begin(self, partition_count: int) -> None:
        """Be ready for so many parts."""
        now = self.store.clock.now()
        self._writer = RosterWriter(
            self.store.parts,
            self.organization_id,
            self.ledger_id,
            self.roster_id,
            now,
            partition_count,
        )

    def part(self, number: int, rows: Any) -> None:
        """Store a part of the roster."""
        assert self._writer is not None
        self.keep()
        self._writer.part(number, rows)

    def roster(self) -> Roster:
        """What was stored."""
        assert self._writer is not None
        return self._writer.finished()

    def source(self) -> Parts:
        """What was stored, read again."""
        return RosterView(self.store.parts, self.organization_id, self.roster()).ranges()

    def listed(self, step: Step, groups: Iterator[Any]) -> None:
        """Store the list."""
        first = next(groups, None)
        if first is None:
            return
        path = f"{self.folder}/{step.operation}.parquet"
        schema = list_schema(first.schema, self.max_rows)
        stream = ParquetStream(self._kept(first, groups), schema, group_rows(self.max_rows))
        key = BlobKey(self.organization_id, path)
        reader = io.BufferedReader(stream, PIECE_BYTES)
        self.store.blobs.put(key, reader, content_type=CONTENT_TYPE)
        step.frozen = DeliveryList(self.organization_id, path, stream.sha256)

    def _kept(self, first: Any, rest: Iterator[Any]) -> Iterator[Any]:
        yield first
        for group in rest:
            self.keep()
            yield group


class _Preparation:
    """One way from members to lists."""

    def __init__(
        self,
        store: MemberStore,
        manifest: Manifest,
        spec: ConnectorSpec,
        selection: Selection,
        held: Roster | None,
        kind: DistributionType,
        sink: Sink,
        restate: bool,
    ) -> None:
        self._store, self._manifest, self._spec = store, manifest, spec
        self._selection, self._kind, self._sink = selection, kind, sink
        self._asked = restate or kind is not DistributionType.INCREMENTAL
        """Whether to send also what would change nothing."""
        self._sends_all = self._asked or not spec.adds
        self._groups_people = spec.multi_key and manifest.linked
        self._operation = _sending(spec, kind)
        self._row_schema = row_schema(spec) if self._groups_people else single_schema()
        self._held = RosterView(store.parts, manifest.organization_id, held)
        self._count = roster_partitions(manifest.size)
        self._cuts: set[tuple[int, int]] = set()
        self._held_cuts: set[tuple[int, int]] = set()
        self._leaving: list[Any] = []
        self._prepared = Prepared(DeliveryCounts(), held=held.size if held else 0)

    def done(self) -> Prepared:
        """Read the members once, then write or count every list."""
        prepared = self._prepared
        if isinstance(self._sink, Stored):
            self._sink.begin(self._count)
        whole = Step(self._operation)
        if self._is_one_pass:
            self._list(whole, self._compared, [(-1, -1)])
        else:
            for _ in self._compared():
                pass
        touched = self._touched()
        for step in self._steps():
            prepared.steps.append(step)
            if step.operation == Operation.REMOVE:
                self._list(step, self._removals, sorted(self._held_cuts))
            elif step.operation == CLEAR:
                continue
            elif self._is_one_pass:
                prepared.steps[-1] = whole
            else:
                self._list(step, partial(self._additions, touched), sorted(self._cuts))
        prepared.steps = [step for step in prepared.steps if step.batches]
        everybody_is_new = prepared.adds > 0 and not prepared.kept
        sends_all = self._sends_all or everybody_is_new
        prepared.states_all = self._asked or (sends_all and bool(prepared.steps))
        if prepared.states_all and self._kind is DistributionType.INCREMENTAL:
            prepared.restated = prepared.kept
        return prepared

    def _wanted(self) -> Parts:
        counts = self._prepared.counts
        return wanted(self._store, self._manifest, self._spec, self._selection, counts, self._count)

    def _made(self, parts: Parts) -> Parts:
        """The same parts; of many, the next one is made while one is stored."""
        from activation.members.ahead import ahead

        return ahead(parts) if self._count > 1 else parts

    @property
    def _is_one_pass(self) -> bool:
        """Whether all that is wanted is sent, in one cut: then its list is written on the way."""
        return self._asked and not (self._spec.carries_consent or self._spec.one_type)

    # comparing ----------------------------------------------------------------------------------

    def _compared(self) -> Rows:
        """The wanted rows, part by part, each stored and compared with what is held."""
        with closing(self._wanted()) as wanted_parts, closing(self._made(wanted_parts)) as parts:
            for number, (wanted_range, rows) in enumerate(parts):
                self._sink.part(number, rows)
                self._compare(wanted_range, rows)
                yield rows

    def _compare(self, wanted_range: range, rows: Any) -> None:
        held = self._held.slice(wanted_range)
        to_send, to_remove = differing(rows, held)
        prepared = self._prepared
        prepared.adds += int(to_send.sum())
        prepared.kept += int((~to_send).sum())
        prepared.removes += int(to_remove.sum())
        self._cuts |= self._cuts_of(rows)
        leaving = where(held, to_remove)
        self._held_cuts |= self._cuts_of(leaving)
        if self._spec.multi_key and self._removes and not self._sends_all:
            self._leaving.append(_people_of(leaving))

    def _cuts_of(self, rows: Any) -> set[tuple[int, int]]:
        """Consent and type of the batches that rows fall into; -1: batches are not cut by it."""
        import numpy as np

        kinds = rows.column("identifier_type").to_numpy().astype(np.int64)
        bases = rows.column("basis").to_numpy().astype(np.int64)
        keys = np.unique(bases * len(TYPES) + kinds) if rows.num_rows else ()
        pairs = [(int(key) // len(TYPES), int(key) % len(TYPES)) for key in keys]
        return {
            (basis if self._spec.carries_consent else -1, kind if self._spec.one_type else -1)
            for basis, kind in pairs
        }

    def _touched(self) -> Any:
        """The sorted names of the people who lose an identifier; None stands for everybody."""
        import numpy as np

        names = np.unique(np.concatenate([np.zeros(0, np.uint64), *self._leaving]))
        self._leaving = []
        return None if len(names) > MOST_TOUCHED else names

    @property
    def _removes(self) -> bool:
        return self._spec.removes

    def _steps(self) -> Iterator[Step]:
        """Removals come first, so that who stays is stated last; a replacement never leaves the
        audience empty. A platform that only takes whole audiences gets one when it differs. Known
        ones are removed also where the rest is cleared: what an earlier run added a moment ago may
        not be old enough for that."""
        prepared = self._prepared
        anybody = prepared.counts.identifiers > 0
        if self._operation == Operation.REPLACE and (anybody or not self._spec.adds):
            if anybody and (self._asked or prepared.adds or prepared.removes):
                yield Step(Operation.REPLACE)
            return
        refresh = self._kind is DistributionType.REFRESH
        clears = refresh and self._spec.replacement is Replacement.AS_OF
        takes_out = self._kind is not DistributionType.INITIAL
        if takes_out and self._removes and prepared.removes:
            yield Step(Operation.REMOVE)
        if anybody:
            yield Step(Operation.ADD)
        if clears:
            yield Step(CLEAR, batches=1)

    # lists --------------------------------------------------------------------------------------

    def _removals(self) -> Rows:
        with closing(self._sink.source()) as parts:
            for wanted_range, rows in parts:
                held = self._held.slice(wanted_range)
                _, to_remove = differing(rows, held)
                yield where(held, to_remove)

    def _additions(self, touched: Any) -> Rows:
        with closing(self._sink.source()) as parts:
            for wanted_range, rows in parts:
                if self._sends_all:
                    yield rows
                    continue
                to_send, _ = differing(rows, self._held.slice(wanted_range))
                again = ~to_send & _among(rows, touched)
                self._prepared.restated += int(again.sum())
                yield where(rows, to_send | again)

    def _list(
        self,
        step: Step,
        rows: Callable[[], Rows],
        cuts: Sequence[tuple[int, int]],
    ) -> None:
        made: list[Cut] = []
        with closing(self._groups(step, rows, cuts, made)) as groups:
            self._sink.listed(step, groups)
        step.cuts = tuple(cut for cut in made if cut.batches)
        step.rows = sum(cut.rows for cut in step.cuts)
        step.batches = sum(cut.batches for cut in step.cuts)

    def _groups(
        self,
        step: Step,
        rows: Callable[[], Rows],
        cuts: Sequence[tuple[int, int]],
        made: list[Cut],
    ) -> Rows:
        """The batches of a step, those of one cut after the other; one pass over the rows each."""
        again, most = self._prepared.restated, self._spec.max_rows
        for basis, kind in cuts:
            self._prepared.restated = again
            cut = Cut(basis=max(0, basis))
            made.append(cut)
            with closing(self._tables(step, rows(), basis, kind)) as tables:
                for group in exact_groups(tables, self._row_schema, group_rows(most)):
                    cut.batches += -(-group.num_rows // most)
                    cut.rows += group.num_rows
                    yield group

    def _tables(self, step: Step, rows: Rows, basis: int, kind: int) -> Rows:
        """Rows to send: identifiers on their own in the order of their digests, then people in
        the order of their names."""
        import pyarrow.compute as pc

        place = scratch(self._store.blobs, self._manifest.organization_id)
        with closing(rows), place as aside:
            for table in rows:
                alone = where(table, _of_cut(table, basis, kind))
                step.identifiers += alone.num_rows
                if not self._groups_people:
                    yield alone.select(SINGLE_COLUMNS)
                    continue
                tied = pc.is_valid(alone.column("person"))
                aside.add(alone.filter(tied))
                yield single_rows(alone.filter(pc.invert(tied)).combine_chunks(), self._spec)
            for people in aside.people(PEOPLE_AT_ONCE):
                positions, count = person_rows(people)
                yield placed(people, self._spec, positions, count)


def _sending(spec: ConnectorSpec, kind: DistributionType) -> Operation:
    """How all that is wanted is sent, where anything is."""
    in_sessions = kind is DistributionType.REFRESH and spec.replacement is Replacement.SESSION
    return Operation.REPLACE if in_sessions or not spec.adds else Operation.ADD


def _of_cut(table: Any, basis: int, kind: int) -> Mask:
    import numpy as np

    mask = np.ones(table.num_rows, bool)
    if basis >= 0:
        mask &= table.column("basis").to_numpy() == basis
    if kind >= 0:
        mask &= table.column("identifier_type").to_numpy() == kind
    return mask


def _people_of(rows: Any) -> Any:
    """The names of the people of some rows, as numbers."""
    import numpy as np

    column = whole(rows.column("person"))
    tied = column.is_valid().to_numpy(zero_copy_only=False)
    if not tied.any():
        return np.zeros(0, np.uint64)
    return np.unique(leading(digests_of(column)[tied]))


def _among(rows: Any, people: Any) -> Mask:
    """Which rows belong to these people; None stands for everybody."""
    import numpy as np

    count = rows.num_rows
    if people is None:
        return np.ones(count, bool)
    column = whole(rows.column("person"))
    if not len(people) or column.null_count == count:
        return np.zeros(count, bool)
    names = leading(digests_of(column))
    found = np.searchsorted(people, names).clip(max=len(people) - 1)
    hit: Mask = (people[found] == names) & column.is_valid().to_numpy(zero_copy_only=False)
    return hit


def forms_of(spec: ConnectorSpec) -> dict[str, str]:
    """Which identifiers are sent in which form: rosters of other forms cannot be compared."""
    return {kind.value: Variant(form).value for kind, form in sorted(spec.identifiers.items())}
