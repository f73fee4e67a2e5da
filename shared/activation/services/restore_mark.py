"""The mark that a restore leaves in a store: when it went back, and the name of what follows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from activation.domain.entity import first_id, timestamp
from activation.domain.suppression import GLOBAL
from activation.ports import DocumentStore, Key, Write

MARK = Key(GLOBAL, "recoveries", "last")
SKIP, SKIP_A_SECOND = 1_000_000, 20
"""Numbers that are left out by a restore, and for each second that it has lost: a shard takes a
few steps a second at most."""
LONGEST = timedelta(days=60)
"""Nothing older is restored; numbers have room for two thousand million."""


def era_at(now: datetime) -> str:
    """The name of what is sent after a restore at `now`."""
    return f"r{int(now.timestamp()):x}"


def skip_of(since: datetime, now: datetime) -> int:
    """How many numbers of steps a store leaves out that went back at `now` to its state of `since`:
    more than any shard can have used in between. A second way back to the same state comes later,
    and leaves out more."""
    lost = min(max(now - since, timedelta(0)), LONGEST)
    return SKIP + SKIP_A_SECOND * int(lost.total_seconds())


def mark(documents: DocumentStore, since: datetime, now: datetime, era: str) -> Write:
    """Put the mark of a store that went back to its state of `since`."""
    found = documents.get(MARK)
    skip = skip_of(since, now)
    first = (int(found.data.get("first_number", 0)) if found else 0) + skip
    data = {
        "since": timestamp(since),
        "at": timestamp(now),
        "era": era,
        "skip": skip,
        "first_number": first,
    }
    return Write(MARK, data, found.revision if found else "")


def first_number(documents: DocumentStore) -> int:
    """The number before the first step of a shard that begins now: it may have begun before, in
    the time that a restore has lost."""
    found = marked(documents)
    return 0 if found is None else int(found.get("first_number", 0))


def left_out(documents: DocumentStore, updated_at: datetime) -> int:
    """How many numbers have to be left out after the last step of a shard, which it took at
    `updated_at`: none when that was after the last restore."""
    found = marked(documents)
    if found is None or updated_at >= datetime.fromisoformat(found["at"]):
        return 0
    return int(found.get("skip", 0))


def marked(documents: DocumentStore) -> dict[str, Any] | None:
    """The mark; None in a store that never went back."""
    found = documents.get(MARK)
    return dict(found.data) if found else None


def since_restore(documents: DocumentStore, audience_id: str) -> dict[str, Any]:
    """What a new ledger has to know: after a restore, an older audience may be at the platform
    although no ledger says so any more."""
    found = marked(documents)
    if found is None or audience_id >= first_id(datetime.fromisoformat(found["at"])):
        return {}
    return {"uncertain_since": found["at"], "era": found["era"]}
