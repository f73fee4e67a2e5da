"""The mark that a restore leaves in a store: when it went back, and the name of what follows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from activation.domain.entity import first_id, timestamp
from activation.domain.suppression import GLOBAL
from activation.ports import DocumentStore, Key, Write

MARK = Key(GLOBAL, "recoveries", "last")


def era_at(now: datetime) -> str:
    """The name of what is sent after a restore at `now`."""
    return f"r{int(now.timestamp()):x}"


def mark(documents: DocumentStore, since: datetime, now: datetime, era: str) -> Write:
    """Put the mark of a store that went back to its state of `since`."""
    found = documents.get(MARK)
    data = {"since": timestamp(since), "at": timestamp(now), "era": era}
    return Write(MARK, data, found.revision if found else "")


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
