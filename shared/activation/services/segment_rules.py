"""Changes of the rules in force: every change of a segment goes through one small document.

Whoever changes a definition or a status names the revision of that document, so that checks on
other segments (cycles, names in expressions, who is active, how many there are) still hold when
the change is committed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from activation.domain.entity import timestamp
from activation.domain.segment import DEFAULT_FIELDS, Segment
from activation.domain.segment_shard import SHARDS, SegmentShard, shard_id
from activation.errors import ConflictError
from activation.ports import ABSENT, Batch, Document, DocumentStore, Key, Revision, Write
from activation.segments.codec import unpack
from activation.services.rule_books import CURRENT, NO_RULES, RULES, RuleBooks

FIELDS = "fields"
"""Beside the rules: since when each field is added up that is not always, until it has its past."""
MAX_KEPT = 8
HEADS = "segment_shards"
_NO_FIELDS: Mapping[str, Any] = {"since": {}, "complete": []}

Definitions = Mapping[str, Segment]


@dataclass(frozen=True, slots=True)
class Force:
    """The rules in force as they were read: active segments by id."""

    organization_id: str
    version: str
    revision: Revision
    active: Definitions


@dataclass(frozen=True, slots=True)
class Changed:
    """Writes that a change of rules needs, the definitions after it, and since when their fields
    are added up that do not have their past yet."""

    writes: Sequence[Write]
    after: Force
    since: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """Reads and changes what is in force. The definitions last used stay in memory: to restore ten
    thousand takes longer than to change one."""

    documents: DocumentStore
    books: RuleBooks
    _kept: OrderedDict[str, Force] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, organization_id: str) -> Force:
        """The rules in force now."""
        found = self.documents.get(Key(organization_id, RULES, CURRENT))
        version = NO_RULES if found is None else str(found.data["version"])
        revision = ABSENT if found is None else found.revision
        with self._lock:
            kept = self._kept.get(organization_id)
        if kept is not None and kept.version == version:
            return Force(organization_id, version, revision, kept.active)
        force = Force(organization_id, version, revision, self._read(organization_id, version))
        self.remember(force)
        return force

    def touched(self, force: Force) -> Write:
        """A write that changes nothing, but fails when anybody changed a segment since."""
        key = Key(force.organization_id, RULES, CURRENT)
        return Write(key, {"version": force.version}, force.revision)

    def changed(
        self, force: Force, now: datetime, put: Sequence[Segment] = (), gone: str | None = None
    ) -> Changed:
        """Put segments in force, or take one out.

        Raises ValidationError for a cycle, ConflictError when somebody was faster.
        """
        active = {key: one for key, one in force.active.items() if key != gone}
        active.update({one.segment_id: one for one in put})
        writes = self.books.change(force.organization_id, list(active.values()))
        if writes[0].expected != force.revision or writes[0].data is None:
            raise ConflictError("The segments have changed meanwhile.")
        version = str(writes[0].data["version"])
        after = Force(force.organization_id, version, force.revision, active)
        known = self._fields(force.organization_id)
        fields = _fields_after(active, known, now)
        if fields != (known.data if known else _NO_FIELDS):
            key = Key(force.organization_id, RULES, FIELDS)
            writes = [*writes, Write(key, fields, known.revision if known else ABSENT)]
        return Changed(writes, after, fields["since"])

    def since(self, organization_id: str) -> Mapping[str, str]:
        """Since when each field is added up that does not have its past yet."""
        known = self._fields(organization_id)
        return {} if known is None else known.data["since"]

    def settle(self, organization_id: str) -> bool:
        """Note that all fields have their past, once every shard follows the rules in force and
        misses nothing; whether that is so."""
        known = self._fields(organization_id)
        if known is None or not known.data["since"]:
            return True
        version = self.read(organization_id).version
        if any(one.version != version or one.missing for one in self.heads(organization_id)):
            return False
        complete = sorted({*known.data.get("complete", ()), *known.data["since"]})
        content = {"since": {}, "complete": complete}
        try:
            self.documents.commit(Batch([Write(known.key, content, known.revision)]))
        except ConflictError:
            return False
        return True

    def heads(self, organization_id: str) -> list[SegmentShard]:
        """The heads of the shards that there are."""
        keys = [Key(organization_id, HEADS, shard_id(shard)) for shard in range(SHARDS)]
        found = self.documents.get_many(keys)
        return [SegmentShard.restored(one.data) for one in found if one is not None]

    def remember(self, force: Force) -> None:
        """Keep the definitions of a committed version in memory."""
        with self._lock:
            self._kept[force.organization_id] = force
            self._kept.move_to_end(force.organization_id)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    def _read(self, organization_id: str, version: str) -> Definitions:
        if version == NO_RULES:
            return {}
        found = self.documents.get(Key(organization_id, RULES, f"v-{int(version):012}"))
        if found is None:
            raise ConflictError("The segments have changed meanwhile.")
        header, _ = unpack(self.books.parcels.opened(found))
        return {one["segment_id"]: Segment.restored(one) for one in header["segments"]}

    def _fields(self, organization_id: str) -> Document | None:
        return self.documents.get(Key(organization_id, RULES, FIELDS))


def fields_of(segment: Segment) -> set[str]:
    """What the segment adds up that is not always added up."""
    return {
        f"{rule.event_type}:{rule.field}"
        for rule in segment.in_force
        if rule.field is not None and rule.field != DEFAULT_FIELDS[rule.event_type]
    }


def _fields_after(active: Definitions, known: Document | None, now: datetime) -> dict[str, Any]:
    """Since when each field is added up, and which have their past. One that nobody asks for any
    more begins anew."""
    before: Mapping[str, Any] = known.data if known else _NO_FIELDS
    wanted = sorted({name for segment in active.values() for name in fields_of(segment)})
    complete = [name for name in wanted if name in before.get("complete", ())]
    since = {
        name: before["since"].get(name, timestamp(now)) for name in wanted if name not in complete
    }
    return {"since": since, "complete": complete}
