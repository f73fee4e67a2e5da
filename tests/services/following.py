"""A dynamic audience in a small world: events, the bus, the clock, and what must hold."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from activation.adapters.clock import MovableClock
from activation.api import messages
from activation.app import App
from activation.domain.audience import Audience, AudienceChanges, AudienceDraft
from activation.domain.caller import Caller
from activation.domain.identifier import IdentifierType, key_digest, normalised
from activation.domain.member_import import HashRule
from activation.domain.segment_follow import Following, SegmentBinding
from activation.domain.segment_record import NewSegmentDraft
from activation.ports import Message
from tests.conftest import caller_of
from tests.services.support import contents

HANDLERS: Mapping[str, Callable[[App, Message], None]] = {
    "process_events": messages.process_events,
    "follow_segments": messages.follow_segments,
    "run_job": messages.run_job,
    "dispatch_distribution": messages.dispatch_distribution,
}
ANN = caller_of()
BUYS = {"event_type": "orders", "operator": "GTE", "value": 1, "window_minutes": 30}


@dataclass(slots=True)
class Shop:
    """An organization whose users buy; a user who bought is in the segment for half an hour."""

    app: App
    clock: MovableClock
    caller: Caller = ANN
    numbers: Iterable[int] = field(default_factory=itertools.count)
    segment_id: str = ""

    def __post_init__(self) -> None:
        self.segment_id = self.segment_id or self.segment("Buyers")

    def segment(self, name: str, **rule: Any) -> str:
        """A segment of one rule."""
        draft = {"name": name, "type": "INDEPENDENT", "rules": [{**BUYS, **rule}]}
        made = self.app.segments.create(self.caller, NewSegmentDraft.model_validate(draft))
        return made.entity.segment_id

    def audience(self, name: str = "Live", **binding: Any) -> str:
        """An audience that follows the segment."""
        bound = self._bound(binding)
        draft = {"name": name, "type": "first_party", "segment": bound}
        made = self.app.audiences.create(self.caller, AudienceDraft.model_validate(draft))
        return made.entity.audience_id

    def bind(self, audience_id: str, **binding: Any) -> Audience:
        """Have an audience follow the segment, or with `segment=None` no longer."""
        bound = self._bound(binding)
        changes = {"segment": binding.get("segment", bound)}
        draft = AudienceChanges.model_validate(changes)
        return self.app.audiences.update(self.caller, audience_id, draft).entity

    def _bound(self, binding: dict[str, Any]) -> dict[str, Any]:
        about = {} if "identifier" in binding else HASHED
        return {"segment_id": self.segment_id, **about, **binding}

    def buys(self, *users: str) -> None:
        """Each of these users orders something now."""
        events = [
            {"user_id": user, "event_type": "orders", "event_id": f"e{next(iter(self.numbers))}"}
            for user in users
        ]
        self.app.events.accept(self.caller, events)

    def work(self) -> None:
        """Deliver everything that waits."""

        def deliver(subscription: str, message: Message, _attempt: int) -> None:
            HANDLERS[subscription](self.app, message)

        while self.app.bus.deliver_due(deliver, only=tuple(HANDLERS)):  # type: ignore[attr-defined]
            pass

    def minutes(self, count: int) -> None:
        """Time passes, minute by minute, with all that happens then."""
        for _ in range(count):
            self.clock.sleep(60)
            self.app.due.run()
            self.work()

    def quiet(self) -> None:
        """Until nothing waits any more."""
        self.work()
        self.minutes(3)

    # what there is --------------------------------------------------------------------------------

    def users(self, segment_id: str = "") -> set[str]:
        """The users of the segment, as its shards say."""
        found, after = set[str](), None
        while True:
            page = self.app.memberships.members(
                self.caller, segment_id or self.segment_id, 1000, after
            )
            found |= {one.user_id for one in page.data}
            after = page.next_cursor
            if after is None:
                return found

    def record(self, audience_id: str) -> Audience:
        """The audience as it is shown."""
        stored = self.app.audiences.find(self.caller, audience_id)
        return self.app.follow_reports.shown(stored).entity

    def following(self, audience_id: str) -> Following:
        """How far it follows."""
        following = self.record(audience_id).following
        assert following is not None
        return following

    def require_in_step(self, audience_id: str, erased: Iterable[str] = ()) -> Following:
        """The audience holds whom its segment holds, nobody else, and the counts add up."""
        audience = self.record(audience_id)
        assert audience.segment is not None
        users = self.users(audience.segment.segment_id)
        wanted: dict[str, int] = {}
        rejected = 0
        gone = set(erased)
        for user in users:
            digest = _digest(audience.segment, user)
            if digest is None or digest in gone:
                rejected += 1
            else:
                wanted[digest] = wanted.get(digest, 0) + 1
        held = contents(self.app, audience)
        assert held.keys() == wanted.keys()
        for digest, count in wanted.items():
            told = f'{{"user_ids":{count}}}' if count > 1 else None
            assert held[digest]["attributes"] == told
        following = self.following(audience_id)
        assert following.users == len(users)
        assert following.members == len(wanted) == audience.size
        assert following.shared == sum(wanted.values()) - len(wanted)
        assert sum(following.rejected.values()) == rejected
        return following


def _digest(binding: SegmentBinding, user: str) -> str | None:
    """The member that a user is, if he is one."""
    if binding.hash_rule is not HashRule.RAW:
        return user.strip().lower() if re.fullmatch(r"\s*[0-9a-fA-F]{64}\s*", user) else None
    stored = normalised(binding.identifier, user, binding.default_region)
    return None if stored is None else key_digest(stored).hex()


HASHED = {"identifier": "email", "hash_rule": "google"}
"""What the users' ids are, if nothing else is said."""


def address(number: int) -> str:
    """The e-mail address of a user."""
    return f"u{number}@example.com"


def email(number: int) -> str:
    """The id of a user: the hash of his address, as events may carry it."""
    return key_digest(address(number)).hex()


def emails(*numbers: int) -> list[str]:
    """Ids of users."""
    return [email(number) for number in numbers]


CUSTOMERS = IdentifierType.CUSTOMER_ID
