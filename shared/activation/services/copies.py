"""Members brought back from a copy: unpacked into runs, merged into a new manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from activation.domain.manifest import Manifest, partition_count_for
from activation.services.members import MemberService, Merge

if TYPE_CHECKING:
    from activation.members.store import MergeResult


def copy_steps(members: int) -> int:
    """How often a copy of so many members beats, while it is written and compared."""
    from activation.members.member_text import BATCH_MEMBERS

    return 2 * (members // BATCH_MEMBERS + 1)


def rebuild_steps(members: int) -> int:
    """How often `rebuilt_from` beats until members are merged."""
    from activation.members.archive import RUN_MEMBERS

    return members // RUN_MEMBERS + 1 + partition_count_for(members)


@contextmanager
def rebuilt_from(
    service: MemberService,
    organization_id: str,
    audience_id: str,
    copied: Iterator[Any],
    members: int,
    keep: Callable[[], None],
) -> Iterator[Merge]:
    """The merge that puts the `copied` members in the place of all others, for `switch`.

    The copy is unpacked, and thereby verified, before anything else. Raises
    StorageUnavailableError when it does not hold `members` members.
    """
    from activation.members.archive import damaged_copy, write_runs

    store = service.store
    runs = write_runs(store.blobs, organization_id, audience_id, copied, keep)

    def merge(_parent: Manifest | None, manifest_id: str) -> MergeResult:
        result = store.merge(
            organization_id,
            audience_id,
            manifest_id,
            None,
            runs,
            on_partition=lambda _done, _total: keep(),
        )
        if result.manifest.size != members:
            store.discard(result)
            raise damaged_copy()
        return result

    try:
        yield merge
    finally:
        store.discard_runs(organization_id, runs)
