"""Operators: the people of an organization, as their requests show them."""

from __future__ import annotations

import hashlib
from typing import Any

from activation.domain.caller import Role
from activation.domain.entity import Entity, Instant


class OperatorAccount(Entity):
    """An operator who was seen. All of it comes from tokens: accounts are managed where those are
    issued."""

    user_id: str
    role: Role
    """That of the request noted last."""
    last_login: Instant
    """The last request, to the hour."""

    def public(self) -> dict[str, Any]:
        """What admins see; `permissions` are all roles that the role includes."""
        return {**super().public(), "permissions": [role.value for role in self.role.included]}


def account_id_of(user_id: str) -> str:
    """The id of an operator's records: tokens name operators by more than keys may hold."""
    return hashlib.sha256(user_id.encode()).hexdigest()
