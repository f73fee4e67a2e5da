"""The rules in force: each version of an organization's segments, kept for those who still use it.

A version is written once. Which one is current is one small document, changed in the commit that
changes a segment; every step of a shard reads it, so that a rule counts from the next event on.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from activation import observability
from activation.domain.segment import Segment
from activation.errors import NotFoundError
from activation.ports import ABSENT, DocumentStore, Key, Write
from activation.segments.codec import pack, unpack
from activation.segments.rulebook import RuleBook, in_force, rule_book
from activation.services.parcels import Parcels

RULES = "segment_rules"
CURRENT = "current"
NO_RULES = "0"
MAX_BOOKS = 32
MAX_BOOK_SEGMENTS = 50_000
BOOK_SEGMENT_BYTES = 4_096
"""What a segment of a compiled version takes of memory."""


@dataclass(frozen=True, slots=True)
class RuleBooks:
    """Compiled rules by organization and version, the last ones kept in memory: so many versions
    at most, of so many segments together, and always the last one."""

    documents: DocumentStore
    parcels: Parcels
    max_segments: int = MAX_BOOK_SEGMENTS
    _books: OrderedDict[tuple[str, str], RuleBook] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def change(self, organization_id: str, segments: Sequence[Segment]) -> list[Write]:
        """Writes that put these segments in force, for the commit that changed one of them.

        Raises ValidationError for a cycle. The commit conflicts with any other change.
        """
        found = self.documents.get(Key(organization_id, RULES, CURRENT))
        number = 1 if found is None else int(found.data["version"]) + 1
        active = [segment.stored() for segment in in_force(segments).values()]
        content = pack({"segments": active}, {})
        key = Key(organization_id, RULES, _version_id(str(number)))
        current = Key(organization_id, RULES, CURRENT)
        revision = ABSENT if found is None else found.revision
        return [
            Write(current, {"version": str(number)}, revision),
            self.parcels.packed(key, content),
        ]

    def current(self, organization_id: str) -> RuleBook:
        """The rules in force; none when nobody has defined a segment yet."""
        found = self.documents.get(Key(organization_id, RULES, CURRENT))
        return self.at(organization_id, NO_RULES if found is None else found.data["version"])

    def at(self, organization_id: str, version: str) -> RuleBook:
        """The rules of one version."""
        key = (organization_id, version)
        with self._lock:
            known = self._books.get(key)
            if known is not None:
                self._books.move_to_end(key)
        observability.read("rules", known is not None)
        if known is not None:
            return known
        book = rule_book(self._segments(organization_id, version), version)
        with self._lock:
            self._books[key] = book
            while len(self._books) > 1 and self._is_full():
                self._books.popitem(last=False)
        return book

    def _is_full(self) -> bool:
        segments = sum(len(book.segments) for book in self._books.values())
        return len(self._books) > MAX_BOOKS or segments > self.max_segments

    def _segments(self, organization_id: str, version: str) -> list[Segment]:
        if version == NO_RULES:
            return []
        found = self.documents.get(Key(organization_id, RULES, _version_id(version)))
        if found is None:
            raise NotFoundError("There is no such version of the rules.", reason="not_found")
        header, _ = unpack(self.parcels.opened(found))
        return [Segment.restored(one) for one in header["segments"]]


def _version_id(version: str) -> str:
    return f"v-{int(version):012}"
