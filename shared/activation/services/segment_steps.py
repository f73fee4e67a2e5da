"""Who came into a segment and who left it, from one step of each shard to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from activation.domain.segment_shard import SHARDS, shard_id, step_id
from activation.domain.user_erasure import is_pseudonym
from activation.members.followed import OutOfStepError
from activation.ports import DocumentStore, Key, Query
from activation.segments.codec import Told, told_of
from activation.services.parcels import Parcels
from activation.services.segment_shards import TRANSITIONS
from activation.services.shard_states import HEADS

PAGE = 50
MAX_STEPS = 20_000
"""Told steps that are read; after more it is quicker to compare all members."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Users who are in a segment now and were not, and the reverse; each once."""

    came: list[str] = field(default_factory=list)
    went: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SegmentSteps:
    """Reads what the shards of an organization told."""

    documents: DocumentStore
    parcels: Parcels
    max_users: int
    """Users whose changes are held in memory."""

    def heads(self, organization_id: str) -> tuple[int, ...]:
        """The number of the last step of each shard."""
        keys = [Key(organization_id, HEADS, shard_id(shard)) for shard in range(SHARDS)]
        found = self.documents.get_many(keys)
        return tuple(0 if one is None else int(one.data["number"]) for one in found)

    def moved(
        self,
        organization_id: str,
        segment_id: str,
        since: Sequence[int],
        until: Sequence[int],
    ) -> Moved:
        """What the steps after `since`, up to `until`, changed in all.

        Raises OutOfStepError when they do not lead there, when somebody was erased, or when they
        are too many.
        """
        found, looked = Moved(), 0
        for shard, (start, stop) in enumerate(zip(since, until, strict=True)):
            if stop < start:
                raise OutOfStepError
            first: dict[str, bool] = {}
            last: dict[str, bool] = {}
            for told in self._newest_first(organization_id, shard, start, stop):
                looked += 1
                _note(told, segment_id, first, last)
                if (
                    looked > MAX_STEPS
                    or len(found.came) + len(found.went) + len(last) > self.max_users
                ):
                    raise OutOfStepError
            _sum_up(found, first, last)
        return found

    def _newest_first(
        self, organization_id: str, shard: int, start: int, stop: int
    ) -> Iterator[Told]:
        after: str | None = step_id(shard, stop + 1)
        while start < stop and after is not None:
            query = Query(organization_id, TRANSITIONS, {"shard": shard}, after=after, limit=PAGE)
            page = self.documents.query(query)
            for document in page:
                if document.key.id <= step_id(shard, start):
                    return
                yield told_of(self.parcels.opened(document))
            after = page[-1].key.id if len(page) == PAGE else None


def _note(told: Told, segment_id: str, first: dict[str, bool], last: dict[str, bool]) -> None:
    """Take in a step that came before those noted: entries and exits take turns."""
    if segment_id not in told.segment_ids:
        return
    at = told.segment_ids.index(segment_id)
    mine = np.flatnonzero(told.transitions.segments == at)
    rows = told.transitions.rows[mine].tolist()
    for row, entered in zip(rows, told.transitions.entered[mine].tolist(), strict=True):
        user = told.users[row]
        if first.get(user, not entered) == entered or is_pseudonym(user):
            raise OutOfStepError
        first[user] = entered
        last.setdefault(user, entered)


def _sum_up(found: Moved, first: dict[str, bool], last: dict[str, bool]) -> None:
    """Who was not in before his first change, and is in after the last one, came."""
    for user, entered in last.items():
        if first[user] == entered:
            (found.came if entered else found.went).append(user)
