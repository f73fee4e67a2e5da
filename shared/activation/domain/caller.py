"""Who asks: organization, operator and role of one request."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from activation.errors import ForbiddenError


class Role(StrEnum):
    """What an operator may do; each role includes those before it."""

    VIEWER = "viewer"
    EDITOR = "editor"
    APPROVER = "approver"
    ADMIN = "admin"

    @property
    def included(self) -> tuple[Role, ...]:
        """This role and all that it includes."""
        return tuple(Role)[: _RANK[self] + 1]


_RANK = {role: rank for rank, role in enumerate(Role)}


ORGANIZATION_ID = re.compile(r"[a-z0-9-]{1,64}")
"""What the name of an organization in a token may look like."""
USER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:|+-]{0,127}")
"""What the id of an operator may look like."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An Idempotency-Key that this request holds: the record's id and its revision."""

    id: str
    revision: str
    body_sha256: str


@dataclass(frozen=True, slots=True)
class Caller:
    """The actor of one request; organization and user come from the token only.

    A function of ours is a caller too (`service`): it acts as admin of one organization.
    """

    organization_id: str
    user_id: str
    role: Role
    trace_id: str
    service: bool = False
    claim: Claim | None = None

    def require(self, role: Role) -> None:
        """Raise ForbiddenError unless the caller's role includes `role`."""
        if _RANK[self.role] < _RANK[role]:
            raise ForbiddenError(f"This needs the role {role}; yours is {self.role}.")

    @property
    def sees_all(self) -> bool:
        """Whether the caller sees all records of the organization, not only his own."""
        return self.role is Role.ADMIN

    def with_claim(self, claim: Claim) -> Caller:
        """The same caller, holding an Idempotency-Key."""
        return replace(self, claim=claim)


def service_caller(function: str, organization_id: str, trace_id: str) -> Caller:
    """The caller that the function named `function` is when it works for an organization."""
    return Caller(organization_id, f"service:{function}", Role.ADMIN, trace_id, service=True)
