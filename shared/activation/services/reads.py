"""Reads of audiences and their members through the cache."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from activation import observability
from activation.documents import Stored
from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.entity import timestamp
from activation.domain.member import MemberFilter
from activation.errors import ActivationError
from activation.services.audiences import AudienceService
from activation.services.cached import MEMBERS, METADATA, PARTS, CachedValues, audience_key
from activation.services.members import MemberService


@dataclass(frozen=True, slots=True)
class MemberPage:
    """A page of members in their public form, the cursor of the next one, and the audience's
    size."""

    members: Sequence[dict[str, Any]]
    next_after: str | None
    size: int


@dataclass(frozen=True, slots=True)
class ReadService:
    """Cached reads. Raises NotFoundError for audiences the caller may not see: the cache is asked
    after the record was."""

    audiences: AudienceService
    members: MemberService
    cached: CachedValues

    def audience(self, caller: Caller, audience_id: str) -> Stored[Audience]:
        """The audience with the list of its partitions."""
        return self._composed(self.audiences.find(caller, audience_id))

    def keep(self, caller: Caller, stored: Stored[Audience]) -> None:
        """Cache a record that was just written; a failure is logged, the write stands (A-153)."""
        audience = stored.entity
        try:
            self._composed(stored)
        except ActivationError as error:
            observability.event(
                "audience was not cached",
                level=logging.WARNING,
                audience_id=audience.audience_id,
                trace_id=caller.trace_id,
                code=error.code,
            )

    def page(
        self,
        caller: Caller,
        audience_id: str,
        wanted: MemberFilter,
        limit: int = 100,
        after: str | None = None,
    ) -> MemberPage:
        """A page of members in the order of their digests.

        A page that leaves out expired members depends on the moment and is read each time.
        """
        stored = self.audiences.find(caller, audience_id)
        audience = stored.entity
        if audience.manifest_id is None:
            return MemberPage([], None, audience.size)

        def read() -> dict[str, Any]:
            found, following = self.members.page_of(stored, wanted, limit, after)
            return {"members": [member.public() for member in found], "next": following}

        if wanted.not_expired:
            page = read()
        else:
            hidden = _hidden(wanted, after)
            place = "other" if hidden else "first"
            mark = audience.manifest_id
            key = audience_key(audience, mark, MEMBERS, place, str(limit), hidden=hidden)
            page = self.cached.json(key, read)
        return MemberPage(page["members"], page["next"], audience.size)

    def _composed(self, stored: Stored[Audience]) -> Stored[Audience]:
        audience = stored.entity
        manifest_id = audience.manifest_id
        if manifest_id is None:
            return stored
        mark = f"{audience.version}.{stored.revision}"

        def parts() -> dict[str, Any]:
            storage = self.audiences.with_partitions(stored).entity.storage
            return storage.model_dump(mode="json", include={"partitions", "deltas"})

        def compose() -> dict[str, Any]:
            known = self.cached.json(audience_key(audience, manifest_id, PARTS), parts)
            shown = audience.model_dump(mode="json")
            return {**shown, "storage": {**shown["storage"], **known}}

        found = self.cached.json(audience_key(audience, mark, METADATA), compose)
        return Stored(Audience.model_validate(found), stored.key, stored.revision)


def _hidden(wanted: MemberFilter, after: str | None) -> str:
    """What tells one page from another: cursors hold digests, labels are free text."""
    added = wanted.added_after and timestamp(wanted.added_after)
    asked = (after, wanted.identifier_type, wanted.segment, added)
    return orjson.dumps(asked).decode() if any(one is not None for one in asked) else ""
