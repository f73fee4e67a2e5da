"""Who sees which record, and the bounded retry of use cases that met a faster writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from activation.documents import Collection, Stored, not_found
from activation.domain.caller import Caller
from activation.domain.entity import Entity
from activation.errors import ConflictError, PreconditionFailedError
from activation.ports import Query, Revision

MAX_ATTEMPTS = 8

T = TypeVar("T")


E = TypeVar("E", bound=Entity)


def visible_to(entity: Entity) -> set[str]:
    """The operators who see a record, beside the admins of its organization."""
    return set(entity.stored().get("visible_to", ()))


def get_visible(collection: Collection[E], caller: Caller, id: str) -> Stored[E]:  # noqa: A002
    """The record, when this caller may see it; otherwise the NotFoundError of unknown ids."""
    stored = collection.find(caller.organization_id, id)
    if stored is None or not (caller.sees_all or caller.user_id in visible_to(stored.entity)):
        raise not_found(collection.name)
    return stored


def listing(
    collection: Collection[E],
    caller: Caller,
    equal: Mapping[str, str],
    *,
    limit: int = 50,
    after: str | None = None,
    since: str | None = None,
) -> Query:
    """The query of a list that shows the caller only what he may see."""
    mine = {} if caller.sees_all else {"visible_to": caller.user_id}
    return Query(caller.organization_id, collection.name, {**equal, **mine}, since, after, limit)


def require_current(stored: Stored[E], expected: Revision | None) -> None:
    """Raise PreconditionFailedError when the caller asked for another revision (If-Match)."""
    if expected is not None and expected != stored.revision:
        raise PreconditionFailedError(
            "The record has changed since you read it.", field="If-Match", reason="stale"
        )


def retry_conflicts(
    use_case: Callable[[], T],
    *,
    expected: Revision | None = None,
    attempts: int = MAX_ATTEMPTS,
) -> T:
    """Run a use case again when somebody was faster, at most `attempts` times in all.

    A caller who named a revision gets PreconditionFailedError at once instead. Errors below
    ConflictError (a name that is taken, a state) are decisions, not races: they pass.
    """
    for attempt in range(attempts):
        try:
            return use_case()
        except ConflictError as error:
            if not error.retryable or attempt == attempts - 1:
                raise
            if expected is not None:
                raise PreconditionFailedError(
                    "The record has changed since you read it.", field="If-Match", reason="stale"
                ) from error
    raise AssertionError("unreachable")
