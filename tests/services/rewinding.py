"""A document store that goes back to an earlier state, as a restored database does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from activation.app import App
from activation.domain.suppression import GLOBAL
from activation.indexes import INDEXES, SWEPT, UNFILTERED
from activation.ports import Batch, Document, Key, Query, Write

ORGANIZATIONS = ("acme", "evil-corp", GLOBAL)
COLLECTIONS = tuple(dict.fromkeys((*INDEXES, *SWEPT, *UNFILTERED)))


@dataclass(frozen=True)
class Then:
    """All documents at an instant."""

    at: datetime
    documents: dict[Key, Any]


def state_of(app: App) -> Then:
    """What is stored now."""
    found = {document.key: document.data for document in _all(app)}
    return Then(app.clock.now(), found)


def go_back(app: App, then: Then) -> None:
    """Put every document as it was; objects stay, as buckets do not go back with a database."""
    now = {document.key for document in _all(app)}
    writes = [Write(key, None) for key in now - set(then.documents)]
    writes += [Write(key, data) for key, data in then.documents.items()]
    for start in range(0, len(writes), 50):
        app.documents.commit(Batch(writes[start : start + 50]))
    lists = app.suppressions.lists
    fresh = replace(lists, kept=type(lists.kept)())  # another process knows nothing yet
    app.__dict__["suppressions"] = replace(app.suppressions, lists=fresh)
    for name in (
        "recovery",
        "key_rotation",
        "distributions",
        "members",
        "member_upkeep",
        "lane_worker",
        "ledgers",
    ):
        app.__dict__.pop(name, None)
    for name in ("dispatcher", "matching", "reauth", "reconciler", "reconciliations", "refreshing"):
        app.__dict__.pop(name, None)


def _all(app: App) -> Iterator[Document]:
    for organization_id in ORGANIZATIONS:
        for collection in COLLECTIONS:
            query = Query(organization_id, collection, limit=100)
            while found := app.documents.query(query):
                yield from found
                query = replace(query, after=found[-1].key.id)
