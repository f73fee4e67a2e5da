"""Rotation of keys at rest: data keys wrapped anew, and suppression lists under another key.

Wrapping anew touches no secret: the data key of each sealed text is unwrapped by the version that
wrapped it and wrapped by the newest one. Records that the newest version has wrapped are passed
over, so a run that was stopped goes on where it was, and a second run finds nothing to do. Only
when a run finds nothing left that does not open may an old version be destroyed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from activation.documents import Collection, Stored
from activation.domain.caller import service_caller
from activation.domain.entity import Entity
from activation.domain.platform import SealedCredentials
from activation.domain.suppression import SuppressionList
from activation.domain.user_erasure import ErasureKey
from activation.domain.webhook import WebhookSecrets
from activation.errors import CredentialUnreadableError
from activation.ports import Query, Vault, Write
from activation.services.access import retry_conflicts
from activation.services.commits import Commits
from activation.services.erasure_marks import KEYS, erasure_context
from activation.services.platforms import credentials_context
from activation.services.suppression_lists import HEAD, HEADS, SuppressionLists, key_context
from activation.services.webhooks import secret_context

PAGE = 200
PROBE = ("key-rotation", "probe")
Progress = Callable[[int], None]
"""Hears of every record that was looked at."""


@dataclass(slots=True)
class Rewrapped:
    """What a run did with one kind of record: seen = rewrapped + current + unreadable + gone."""

    kind: str
    key_version: str
    seen: int = 0
    rewrapped: int = 0
    current: int = 0
    """Wrapped by the newest version before."""
    unreadable: int = 0
    gone: int = 0
    """Deleted meanwhile."""
    unreadable_ids: list[str] = field(default_factory=list)
    """`organization/record` of those that do not open; the first MOST_TOLD."""


MOST_TOLD = 100
Rewrap = Callable[[Vault, Entity], Entity]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of record with sealed texts in it."""

    name: str
    collection: str
    entity: type[Entity]
    rewrap: Rewrap


def _credentials(vault: Vault, record: Entity) -> Entity:
    assert isinstance(record, SealedCredentials)
    context = credentials_context(record.organization_id, record.platform_id, record.version)
    return record.changed(sealed=vault.rewrap(record.sealed, context))


def _webhook_secrets(vault: Vault, record: Entity) -> Entity:
    assert isinstance(record, WebhookSecrets)
    address = partial(secret_context, record.organization_id, record.webhook_id)
    old = tuple(
        one.model_copy(update={"sealed": vault.rewrap(one.sealed, address(one.version))})
        for one in record.old
    )
    return record.changed(sealed=vault.rewrap(record.sealed, address(record.version)), old=old)


def _suppression_key(vault: Vault, record: Entity) -> Entity:
    assert isinstance(record, SuppressionList)
    return record.changed(key=vault.rewrap(record.key, key_context(record.organization_id)))


def _erasure_key(vault: Vault, record: Entity) -> Entity:
    assert isinstance(record, ErasureKey)
    return record.changed(key=vault.rewrap(record.key, erasure_context(record.organization_id)))


def sealed_in(record: Entity) -> Sequence[str]:
    """The sealed texts of a record."""
    if isinstance(record, WebhookSecrets):
        return (record.sealed, *(one.sealed for one in record.old))
    if isinstance(record, SuppressionList | ErasureKey):
        return (record.key,)
    assert isinstance(record, SealedCredentials)
    return (record.sealed,)


CREDENTIALS = (
    Kind("credentials", "credentials", SealedCredentials, _credentials),
    Kind("webhook_secrets", "webhook_secrets", WebhookSecrets, _webhook_secrets),
)
SUPPRESSIONS = (
    Kind("suppression_keys", HEADS, SuppressionList, _suppression_key),
    Kind("erasure_keys", KEYS, ErasureKey, _erasure_key),
)


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """Wraps data keys anew, and puts another key on suppression lists."""

    commits: Commits
    vault: Vault
    lists: SuppressionLists

    def rewrap(self, progress: Progress = lambda _seen: None) -> list[Rewrapped]:
        """Wrap everything that is sealed by the newest versions of the keys."""
        pairs = [*((kind, self.vault) for kind in CREDENTIALS)]
        pairs += [(kind, self.lists.vault) for kind in SUPPRESSIONS]
        return [self._rewrapped(kind, vault, progress) for kind, vault in pairs]

    def rekey_suppressions(self, organization_id: str) -> SuppressionList | None:
        """Put another key on a list; None when the organization has none."""
        caller = service_caller("key_rotation", organization_id, "")

        def commit(
            stored: Stored[SuppressionList], after: SuppressionList, writes: Sequence[Write]
        ) -> None:
            before = stored.entity
            self.commits.commit(
                caller, "keys:suppressions:rotate", writes, before=before, after=after
            )

        return self.lists.rekeyed(organization_id, commit)

    def organizations_with_lists(self) -> list[str]:
        """Whose lists there are; that of the installation is one of them."""
        every = self.commits.documents.organizations()
        return [one for one in every if self.lists.records.find(one, HEAD) is not None]

    def _rewrapped(self, kind: Kind, vault: Vault, progress: Progress) -> Rewrapped:
        newest = vault.key_version(vault.seal(b"", PROBE))
        found = Rewrapped(kind.name, newest)
        for organization_id, record_id in self._ids(kind):
            found.seen += 1
            use_case = partial(self._one, kind, vault, organization_id, record_id, newest)
            try:
                outcome = retry_conflicts(use_case)
            except CredentialUnreadableError:
                outcome = "unreadable"
                if len(found.unreadable_ids) < MOST_TOLD:
                    found.unreadable_ids.append(f"{organization_id}/{record_id}")
            setattr(found, outcome, getattr(found, outcome) + 1)
            progress(found.seen)
        return found

    def _ids(self, kind: Kind) -> Iterator[tuple[str, str]]:
        documents = self.commits.documents
        for organization_id in documents.organizations():
            query = Query(organization_id, kind.collection, limit=PAGE)
            while page := documents.query(query):
                yield from ((organization_id, one.key.id) for one in page)
                query = replace(query, after=page[-1].key.id)

    def _one(
        self, kind: Kind, vault: Vault, organization_id: str, record_id: str, newest: str
    ) -> str:
        records = Collection(self.commits.documents, kind.collection, kind.entity)
        stored = records.find(organization_id, record_id)
        if stored is None:
            return "gone"
        texts = sealed_in(stored.entity)
        if all(vault.key_version(one) == newest for one in texts):
            return "current"
        after = kind.rewrap(vault, stored.entity)
        caller = service_caller("key_rotation", organization_id, "")
        writes = [stored.replaced_by(after)]
        self.commits.commit(caller, "keys:rewrap", writes, details={"key_version": newest})
        return "rewrapped"
