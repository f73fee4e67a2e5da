"""A user list as Google holds it: its members, and when each was last added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from activation.twins.members import set_digest

MAX_MEMBERSHIP_DAYS = 540


@dataclass
class UserList:
    """Members by key, each with the number of the instant at which it was last added.

    A number for all that came at one instant costs no memory per member, and a dictionary is not
    larger than a set.
    """

    audience_id: str
    name: str
    external_id: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    kept_for: timedelta = timedelta(days=MAX_MEMBERSHIP_DAYS)
    """How long a member stays after it was last added."""
    consents: Counter[str] = field(default_factory=Counter)
    """Members added so far by the consent that was declared for them."""
    _added: dict[bytes, int] = field(default_factory=dict)
    _instants: list[datetime] = field(default_factory=list)

    @property
    def keys(self) -> Set[bytes]:
        """The members."""
        return self._added.keys()

    def add(self, keys: Iterable[bytes], now: datetime) -> None:
        """Take members in, or note that they were added again."""
        if not self._instants or self._instants[-1] != now:
            self._instants.append(now)
        self._added.update(dict.fromkeys(keys, len(self._instants) - 1))

    def remove(self, keys: Iterable[bytes]) -> None:
        """Let members go; doing it twice changes nothing more."""
        for key in keys:
            self._added.pop(key, None)

    def forget(self, now: datetime) -> None:
        """Let members go that were last added longer ago than the list keeps them."""
        oldest = now - self.kept_for
        if self._instants and self._instants[0] < oldest:
            self.clear(oldest)

    def clear(self, before: datetime) -> None:
        """Let members go that were last added before an instant."""
        stale = {number for number, added in enumerate(self._instants) if added < before}
        self._added = {key: number for key, number in self._added.items() if number not in stale}

    def summary(self) -> dict[str, Any]:
        """What the control surface tells."""
        return {
            "audience_id": self.audience_id,
            "name": self.name,
            "external_id": self.external_id,
            "members": len(self._added),
            "digest": set_digest(self._added),
            "consents": dict(self.consents),
        }
