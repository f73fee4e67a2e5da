"""What shards have told, step by step: the kept entries and exits, and from when on they are all.

Steps of a shard are in order of their numbers and of the moments at which they were told, so that
the first one since an instant is found by halving, without an index on time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from activation.domain.entity import timestamp
from activation.domain.segment_shard import step_id
from activation.errors import ValidationError
from activation.ports import ABSENT, Document, DocumentStore, Key, Query, Write
from activation.segments.codec import Told, told_of
from activation.segments.minutes import micros_of
from activation.services.parcels import Parcels
from activation.services.segment_shards import TRANSITIONS

HISTORY, KEPT = "segment_history", "kept"
"""What retention has left of the past, one document an organization."""
PAGE = 200


@dataclass(frozen=True, slots=True)
class ToldSteps:
    """Reads told steps, newest first."""

    documents: DocumentStore
    parcels: Parcels

    def pages(
        self, organization_id: str, shard: int, after: str | None = None, limit: int = PAGE
    ) -> Iterator[list[Document]]:
        """The steps of a shard before one (or all), by pages."""
        while True:
            query = Query(organization_id, TRANSITIONS, {"shard": shard}, after=after, limit=limit)
            page = self.documents.query(query)
            if page:
                yield page
            if len(page) < limit:
                return
            after = page[-1].key.id

    def newest_first(
        self, organization_id: str, shard: int, after: str | None = None, limit: int = PAGE
    ) -> Iterator[tuple[str, Told]]:
        """The steps of a shard with their ids, from the one before `after` on."""
        for page in self.pages(organization_id, shard, after, limit):
            for document in page:
                yield document.key.id, self.told(document)

    def told(self, document: Document) -> Told:
        """What a step told."""
        return told_of(self.parcels.opened(document))

    def first_since(self, organization_id: str, shard: int, instant: datetime) -> int:
        """The number from which on steps were told at an instant or later; all steps with a lower
        one were told before."""
        micros = micros_of(instant)
        newest = self._before(organization_id, shard, None)
        low, high = 0, 0 if newest is None else newest[0] + 1
        while low < high:
            middle = (low + high) // 2
            found = self._before(organization_id, shard, middle + 1)
            if found is None or found[1] < micros:
                low = middle + 1
            else:
                high = found[0]
        return low

    def kept_from(self, organization_id: str) -> datetime | None:
        """From when on everything that was told is kept; None when it always was."""
        found = self.documents.get(Key(organization_id, HISTORY, KEPT))
        text = None if found is None else found.data.get("kept_from")
        return None if text is None else datetime.fromisoformat(text)

    def require_kept(self, organization_id: str, instant: datetime) -> None:
        """Raise ValidationError when what was told since an instant is no longer all there."""
        kept_from = self.kept_from(organization_id)
        if kept_from is not None and instant < kept_from:
            raise ValidationError(
                f"Entries and exits are kept from {timestamp(kept_from)} on.",
                field="at",
                reason="not_kept",
            )

    def _before(
        self, organization_id: str, shard: int, number: int | None
    ) -> tuple[int, int] | None:
        """Number and moment of the last step below a number."""
        after = None if number is None else step_id(shard, number)
        for page in self.pages(organization_id, shard, after, 1):
            told = self.told(page[0])
            return told.seq, told.micros
        return None


def kept_write(found: Document | None, organization_id: str, **fields: str) -> Write:
    """A write that notes what is left of the past."""
    before = {} if found is None else found.data
    expected = ABSENT if found is None else found.revision
    return Write(Key(organization_id, HISTORY, KEPT), {**before, **fields}, expected)
