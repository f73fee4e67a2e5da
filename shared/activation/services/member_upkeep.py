"""The upkeep of members: those whose time is over leave, and small changes are folded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.manifest import Manifest
from activation.errors import InvalidStateError
from activation.ports import Clock
from activation.services.jobs import JobRun, asked_by
from activation.services.members import Extra, MemberService, Merge

if TYPE_CHECKING:
    from activation.members.store import MergeResult


@dataclass(frozen=True, slots=True)
class MemberUpkeep:
    """Expiry and compaction. Raises NotFoundError for audiences the caller may not see."""

    members: MemberService
    clock: Clock

    def expire(
        self, caller: Caller, audience_id: str, keep: Callable[[], None] = lambda: None
    ) -> int:
        """Remove the members whose time is over; returns how many. InvalidStateError under legal
        hold."""
        now, stored = self.clock.now(), self.members.audiences.find(caller, audience_id)
        _require_unheld(stored.entity)
        parent = self.members.audiences.manifest_of(stored.entity)
        if parent is None or not self.members.store.may_expire(parent, now):
            return 0

        def merge(parent: Manifest | None, manifest_id: str) -> MergeResult:
            return self.members.store.without_expired(
                _held(parent), manifest_id, now, lambda *_: keep()
            )

        try:
            _, result = self._kept_up(
                caller,
                audience_id,
                "expire",
                "Expired members removed",
                merge,
                require=_require_unheld,
            )
        except NoMembersError:
            return 0
        return result.removed

    def compact(
        self,
        caller: Caller,
        audience_id: str,
        level: int | None = None,
        keep: Callable[[], None] = lambda: None,
        extra: Extra = lambda _audience, _result: (),
    ) -> MergeResult | None:
        """Fold all deltas into the partitions, and with `level` pack every partition by zstd at
        this level; the members stay the same. None when there is nothing to do."""
        parent = self._manifest(caller, audience_id)
        if parent is None or not (
            parent.deltas or (level and parent.compression != f"zstd:{level}")
        ):
            return None

        def merge(parent: Manifest | None, manifest_id: str) -> MergeResult:
            on_partition = lambda *_: keep()  # noqa: E731
            return self.members.store.compact(
                _held(parent), manifest_id, level=level, on_partition=on_partition
            )

        try:
            _, result = self._kept_up(caller, audience_id, "compact", "Compacted", merge, extra)
        except NoMembersError:
            return None
        return result

    def run_compact(self, run: JobRun) -> Mapping[str, Any] | None:
        """The work of a job of kind `compact`; params: `level`, or none."""
        caller, audience_id = asked_by(run)
        before = self._manifest(caller, audience_id)

        def told(after: Manifest | None) -> dict[str, Any]:
            return {
                "deltas_folded": len(before.deltas) if before else 0,
                "bytes_before": before.bytes if before else 0,
                "bytes_after": after.bytes if after else 0,
                "storage_type": after.tier.value if after else None,
            }

        level = run.job.params.get("level")
        result = self.compact(
            caller,
            audience_id,
            level,
            run.keep,
            lambda _, result: run.completion(told(result.manifest)),
        )
        return None if result else told(before)

    def erase(
        self,
        caller: Caller,
        audience_id: str,
        leaving: Callable[[Any], Any],
        extra: Extra = lambda _audience, _result: (),
    ) -> int:
        """Take out the members that `leaving` marks, and let go of every version and backup from
        before; returns how many left. InvalidStateError under legal hold."""

        def merge(parent: Manifest | None, manifest_id: str) -> MergeResult:
            return self.members.store.without(_held(parent), manifest_id, leaving)

        def kept_from_now(after: Audience, _result: MergeResult) -> Audience:
            return after.changed(members_kept_from=after.version, backups_kept_from=after.version)

        _, result = self.members.switch(
            caller,
            audience_id,
            "function:members:erase",
            "Erased people removed",
            merge,
            extra,
            status=lambda before: {"version": before.version + 1},
            upkeep=True,
            require=_require_unheld,
            finish=kept_from_now,
        )
        return result.removed

    def _manifest(self, caller: Caller, audience_id: str) -> Manifest | None:
        audiences = self.members.audiences
        return audiences.manifest_of(audiences.find(caller, audience_id).entity)

    def _kept_up(
        self,
        caller: Caller,
        audience_id: str,
        action: str,
        description: str,
        merge: Merge,
        extra: Extra = lambda _audience, _result: (),
        require: Callable[[Audience], None] = lambda _: None,
    ) -> tuple[Audience, MergeResult]:
        return self.members.switch(
            caller,
            audience_id,
            f"function:members:{action}",
            description,
            merge,
            extra,
            upkeep=True,
            require=require,
        )


class NoMembersError(InvalidStateError):
    """The members went away, into the archive say, before their upkeep."""


def _held(manifest: Manifest | None) -> Manifest:
    if manifest is None:
        raise NoMembersError("The audience has no members.", reason="no_members")
    return manifest


def _require_unheld(audience: Audience) -> None:
    if audience.legal_hold is not None:
        raise InvalidStateError("The audience is under legal hold.", reason="legal_hold")
