"""A typed, tenant-bound view of the document store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from activation.domain.entity import Entity
from activation.errors import NotFoundError
from activation.ports import ABSENT, DocumentStore, Key, Query, Revision, Write

E = TypeVar("E", bound=Entity)


@dataclass(frozen=True, slots=True)
class Stored(Generic[E]):
    """An entity with the revision it was read at."""

    entity: E
    key: Key
    revision: Revision

    def replaced_by(self, entity: Entity) -> Write:
        """Put `entity` in this one's place, if nobody changed it since it was read."""
        return Write(self.key, entity.stored(), expected=self.revision)

    def deleted(self) -> Write:
        """Delete the record, if nobody changed it since it was read."""
        return Write(self.key, None, expected=self.revision)


@dataclass(frozen=True, slots=True)
class Page(Generic[E]):
    """Part of a list; `next_after` is the id to go on from, None at the end."""

    items: Sequence[E]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class Collection(Generic[E]):
    """The records of one kind, e.g. `Collection(store, "audiences", Audience)`."""

    store: DocumentStore
    name: str
    kind: type[E]

    def key(self, organization_id: str, id: str) -> Key:  # noqa: A002
        """The address of a record."""
        return Key(organization_id, self.name, id)

    def find(self, organization_id: str, id: str) -> Stored[E] | None:  # noqa: A002
        """Return the record, or None."""
        found = self.store.get(self.key(organization_id, id))
        if found is None:
            return None
        return Stored(self.kind.restored(found.data), found.key, found.revision)

    def get(self, organization_id: str, id: str) -> Stored[E]:  # noqa: A002
        """Return the record; NotFoundError when the organization has none with this id."""
        stored = self.find(organization_id, id)
        if stored is None:
            raise not_found(self.name)
        return stored

    def created(self, id: str, entity: E) -> Write:  # noqa: A002
        """Put a new record; the commit fails when there is one already."""
        return Write(self.key(entity.organization_id, id), entity.stored(), expected=ABSENT)

    def page(self, query: Query) -> Page[E]:
        """One page of a query on this collection."""
        asked = Query(
            query.organization_id,
            self.name,
            query.equal,
            query.since,
            query.after,
            query.limit + 1,
        )
        found = self.store.query(asked)
        more = len(found) > query.limit
        kept = found[: query.limit]
        items = [self.kind.restored(document.data) for document in kept]
        return Page(items, kept[-1].key.id if more else None)


def not_found(collection: str) -> NotFoundError:
    """The one answer for unknown and foreign ids."""
    return NotFoundError(f"There is no such {collection.rstrip('s')}.", reason="not_found")
