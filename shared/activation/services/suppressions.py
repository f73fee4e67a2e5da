"""Suppressions: put identifiers on a list, take them off, check one, and see what holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from activation.documents import Stored
from activation.domain.caller import Caller
from activation.domain.member import MemberInput
from activation.domain.member_change import MemberReject
from activation.domain.suppression import (
    GLOBAL,
    SuppressionChange,
    SuppressionCheck,
    SuppressionFinding,
    SuppressionInput,
    SuppressionList,
    SuppressionReason,
    SuppressionReference,
    SuppressionRemoval,
    SuppressionScope,
    SuppressionsDraft,
    SuppressionStatus,
)
from activation.errors import ValidationError
from activation.ports import Key, Write
from activation.services.commits import Commits
from activation.services.suppression_lists import HEAD, HEADS, Commit, Head, SuppressionLists

if TYPE_CHECKING:
    from activation.members.selection import Mask
    from activation.members.suppression_change import Change
    from activation.members.suppression_rows import Rows
    from activation.members.suppressions import ListInForce, SuppressionView

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SuppressionService:
    """Use cases of suppression lists. The list is that of the caller's organization; that of the
    installation has GLOBAL for an organization, and no token names it."""

    commits: Commits
    lists: SuppressionLists

    # what holds -------------------------------------------------------------------------------

    def view(self, organization_id: str) -> SuppressionView:
        """The lists that hold for an organization now: its own, and the installation's.

        Whoever sends records what he is about to send, then asks for the view, filters, and
        sends: so an opt-out that was acknowledged before the record excludes the person. Raises
        StorageUnavailableError when a list cannot be read.
        """
        return self.lists.read(organization_id, self._view)

    def refused(self, organization_id: str) -> Callable[[], Callable[[Any], Mask] | None]:
        """A look at the lists of the moment: what finds the members of a table who were erased,
        None when nobody was."""

        def look() -> Callable[[Any], Mask] | None:
            view = self.view(organization_id)
            return view.erased if view.has_erased else None

        return look

    def status(self, caller: Caller) -> SuppressionStatus:
        """How many identifiers are suppressed."""
        heads = self.lists.heads(caller.organization_id)
        own = [one.entity for one in heads if one.entity.organization_id == caller.organization_id]
        return SuppressionStatus(
            size=sum(one.size for one in own),
            by_reason=own[0].by_reason if own else {},
            updated_at=own[0].updated_at if own else None,
            global_size=sum(one.entity.size for one in heads if _is_global(one)),
            epoch=epoch_of(heads),
        )

    def check(self, caller: Caller, reference: SuppressionReference) -> SuppressionCheck:
        """Whether anything is sent to an identifier; goes into the audit log as a read."""
        members = self._one(reference)

        def found(heads: list[Stored[SuppressionList]]) -> list[SuppressionFinding]:
            return [finding for head in heads for finding in self._findings(head, members)]

        findings = tuple(self.lists.read(caller.organization_id, found))
        checked = SuppressionCheck(suppressed=bool(findings), findings=findings)
        details = {"identifier_type": reference.identifier_type, "suppressed": checked.suppressed}
        target = Key(caller.organization_id, HEADS, HEAD)
        self.commits.note(caller, "api:suppression:check", target, details)
        return checked

    # changes ----------------------------------------------------------------------------------

    def add(self, caller: Caller, draft: SuppressionsDraft) -> SuppressionChange:
        """Put identifiers on the list; those that cannot be read are reported by position. What
        is there already for a reason as strong is a duplicate, and changes nothing."""
        members, rejects = self._members(draft.suppressions, draft.default_region)
        refused = {reject.position for reject in rejects}
        taken = [one for at, one in enumerate(draft.suppressions) if at not in refused]
        reasons = [one.reason for one in taken]

        def told(change: Change, size: int) -> SuppressionChange:
            return SuppressionChange(
                received=len(draft.suppressions),
                accepted=change.added + change.updated,
                added=change.added,
                updated=change.updated,
                duplicate=change.duplicate,
                rejected=len(rejects),
                rejects=rejects,
                size=size,
            )

        def commit(
            change: Change, head: Head, after: SuppressionList, writes: Sequence[Write]
        ) -> None:
            answer = told(change, after.size).public()
            self._commit(caller, "api:suppression:add", change, head, after, writes, answer)

        return told(*self.put(caller.organization_id, members, reasons, commit))

    def put(
        self,
        organization_id: str,
        members: Any,
        reasons: Sequence[SuppressionReason],
        commit: Commit,
    ) -> tuple[Change, int]:
        """Put a table of members on a list, one reason for each; see `SuppressionLists.changed`."""
        import numpy as np

        from activation.members.suppression_change import addition
        from activation.members.suppression_rows import code_of, rows_of

        codes = np.array([code_of(reason) for reason in reasons], np.uint8)
        now = microseconds(self.lists.clock.now())

        def change(key: bytes, current: ListInForce) -> Change:
            return addition(current, rows_of(members, key, codes, now), members.num_rows)

        return self.lists.changed(organization_id, change, commit)

    def remove(self, caller: Caller, reference: SuppressionReference) -> SuppressionRemoval:
        """Take an identifier off the list, in all its forms."""
        import numpy as np

        from activation.members.suppression_change import removal
        from activation.members.suppression_rows import rows_of

        members = self._one(reference)
        now = microseconds(self.lists.clock.now())
        is_global = caller.organization_id == GLOBAL
        elsewhere = not is_global and bool(self.view(GLOBAL).mask(members).any())
        left = False

        def change(key: bytes, current: ListInForce) -> Change:
            nonlocal left
            rows = rows_of(members, key, np.zeros(members.num_rows, np.uint8), now)
            made = removal(current, rows.take(slice(members.num_rows)), now)
            left = bool(current.after(made.rows).strongest(rows.forms).any())
            return made

        def told(made: Change) -> SuppressionRemoval:
            return SuppressionRemoval(removed=made.removed > 0, suppressed=left or elsewhere)

        def commit(
            change: Change, head: Head, after: SuppressionList, writes: Sequence[Write]
        ) -> None:
            answer = told(change).public()
            self._commit(caller, "api:suppression:remove", change, head, after, writes, answer)

        return told(self.lists.changed(caller.organization_id, change, commit)[0])

    # how --------------------------------------------------------------------------------------

    def _view(self, heads: list[Stored[SuppressionList]]) -> SuppressionView:
        from activation.members.suppressions import SuppressionView

        filled = [head for head in heads if head.entity.size]
        return SuppressionView(
            epoch=epoch_of(heads),
            size=sum(head.entity.size for head in filled),
            lists=tuple(
                (self.lists.key_of(head.entity), self.lists.in_force(head)) for head in filled
            ),
            has_erased=any(SuppressionReason.ERASURE in head.entity.by_reason for head in filled),
        )

    def _findings(self, head: Stored[SuppressionList], members: Any) -> list[SuppressionFinding]:
        """The strongest entry of a list for one member; reads only the blocks it can be in."""
        import numpy as np

        from activation.members.suppression_rows import REASONS, forms_of, settled

        main, other, _ = forms_of(members, self.lists.key_of(head.entity))
        forms = np.concatenate([main, other])
        found = settled(self._blocks(head, forms), keeps_gone=False)
        found = found.take((found.forms[:, None] == forms[None]).all(2).any(1))
        if not len(found):
            return []
        at = int(np.lexsort((found.added, -found.reasons.astype(np.int64)))[0])
        return [
            SuppressionFinding(
                scope=SuppressionScope.GLOBAL
                if _is_global(head)
                else SuppressionScope.ORGANIZATION,
                reason=REASONS[found.reasons[at] - 1],
                added_at=_EPOCH + timedelta(microseconds=int(found.added[at])),
            )
        ]

    def _blocks(self, head: Stored[SuppressionList], forms: Any) -> list[Rows]:
        import numpy as np

        wanted = np.unique(forms[:, 0] >> np.uint64(56)).tolist()
        organization_id = head.key.organization_id
        return [self.lists.parts.rows(organization_id, p, wanted) for p in head.entity.parts]

    def _one(self, reference: SuppressionReference) -> Any:
        """A table of the one member that is named; ValidationError when it cannot be read."""
        named = SuppressionInput(
            identifier_type=reference.identifier_type,
            identifier_value=reference.identifier_value,
            hash_rule=reference.hash_rule,
        )
        members, rejects = self._members([named], reference.default_region)
        if rejects:
            raise ValidationError(
                f"identifier_value is no valid {reference.identifier_type}.",
                field="identifier_value",
                reason=rejects[0].reason,
            )
        return members

    def _members(
        self, given: Sequence[SuppressionInput], region: str | None
    ) -> tuple[Any, tuple[MemberReject, ...]]:
        """The identifiers as members, in their order, without those that cannot be read."""
        from activation.members.inputs import encoded_inputs

        inputs = [
            MemberInput(
                identifier_type=one.identifier_type,
                identifier_value=one.identifier_value,
                hash_rule=one.hash_rule,
            )
            for one in given
        ]
        encoded = encoded_inputs(inputs, region, self.lists.clock.now())
        rejects = sorted((reject.row, reject.reason.value) for reject in encoded.rejects)
        return encoded.members, tuple(MemberReject(position=p, reason=r) for p, r in rejects)

    def _commit(
        self,
        caller: Caller,
        action: str,
        change: Change,
        head: Head,
        after: SuppressionList,
        writes: Sequence[Write],
        answer: dict[str, Any],
    ) -> None:
        self.commits.commit(
            caller,
            action,
            writes,
            before=head.stored.entity,
            after=after,
            answer=answer,
            details=counted(change),
        )


def counted(change: Change) -> dict[str, int]:
    """What the audit log says of a change."""
    counts = {"added": change.added, "updated": change.updated, "removed": change.removed}
    return {name: count for name, count in counts.items() if count}


def epoch_of(heads: Sequence[Stored[SuppressionList]]) -> str:
    """A text that changes with every change of any of the lists."""
    own = [one.entity.epoch for one in heads if not _is_global(one)]
    shared = [one.entity.epoch for one in heads if _is_global(one)]
    return f"{sum(own)}.{sum(shared)}"


def _is_global(head: Stored[SuppressionList]) -> bool:
    return head.key.organization_id == GLOBAL


def microseconds(instant: datetime) -> int:
    """An instant as the rows of lists have it: microseconds since 1970."""
    since = instant - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
