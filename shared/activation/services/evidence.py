"""Evidence packs: what a distribution was, what it did and who decided, signed as one document.

Each section is made by a small reader below; they are all that knows how distributions, batches
and lists are kept.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from activation import __version__
from activation.documents import Collection, Stored
from activation.domain.audit import AuditEntry
from activation.domain.caller import Caller
from activation.domain.consent import basis_of
from activation.domain.delivery import Operation
from activation.domain.distribution import BatchRecord, Distribution, Plan
from activation.domain.entity import timestamp
from activation.domain.evidence import ListSum
from activation.domain.exchange import Exchange
from activation.domain.manifest import Manifest
from activation.domain.platform import ConnectorSpec
from activation.domain.version import AudienceVersion
from activation.errors import ConflictError
from activation.ports import Clock, Key, Query, Signer
from activation.services.access import retry_conflicts
from activation.services.commits import Commits
from activation.services.distributions import DistributionService, batch_id
from activation.services.evidence_form import ALGORITHM, digest_of, fingerprint, loaded_key, signed
from activation.services.exchanges import ExchangeLogs
from activation.services.list_digests import ListDigests, Reading
from activation.services.version_records import version_id, version_records

JSON = dict[str, Any]

READ = "api:distribution:evidence"
"""The audit log's entry for a pack that was handed out."""
ACTS = "api:distribution:"
"""How entries of what operators did begin."""
CONSENT_REASONS = ("consent_denied", "consent_missing", "vendor_denied", "limited_data_use")
"""Reasons for which members stay that are about what they said."""
PAGE = 200
MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a distribution at one moment."""

    job: Distribution
    batches: Sequence[BatchRecord]
    version: AudienceVersion | None
    manifest: Manifest | None
    spec: ConnectorSpec | None
    entries: Sequence[AuditEntry]
    exchanges: Sequence[Exchange]
    sums: Sequence[ListSum]

    @property
    def plan(self) -> Plan:
        """The plan; an empty one while there is none."""
        return self.job.plan or Plan()


@dataclass(frozen=True, slots=True)
class EvidenceService:
    """Makes packs. Raises NotFoundError for distributions the caller may not see."""

    commits: Commits
    distributions: DistributionService
    exchanges: ExchangeLogs
    digests: ListDigests
    signer: Signer
    clock: Clock

    def pack(self, caller: Caller, distribution_id: str) -> bytes | Reading:
        """The signed pack of a distribution as it is now; the audit log says who took it.

        ConflictError, to be tried again, while the distribution changes faster than it is read.
        """
        facts = retry_conflicts(partial(self._facts, caller, distribution_id))
        if isinstance(facts, Reading):
            return facts
        sections = {name: read(facts) for name, read in SECTIONS.items()}
        data = signed(self._head(caller, facts.job), sections, self.signer)
        details = {"sha256": hashlib.sha256(data).hexdigest()}
        target = self.distributions.records.key(caller.organization_id, distribution_id)
        self.commits.note(caller, READ, target, details)
        return data

    def key(self) -> JSON:
        """The public key that packs are signed with, to be kept apart from them."""
        pem = self.signer.public_key()
        return {
            "algorithm": ALGORITHM,
            "key_id": self.signer.key_id,
            "public_key": pem,
            "public_key_sha256": fingerprint(loaded_key(pem)),
        }

    def _head(self, caller: Caller, job: Distribution) -> JSON:
        return {
            "organization_id": job.organization_id,
            "distribution_id": job.distribution_id,
            "status": job.status.value,
            "issued_at": timestamp(self.clock.now()),
            "issued_to": caller.user_id,
            "software_version": __version__,
        }

    # what is known ----------------------------------------------------------------------------

    def _facts(self, caller: Caller, distribution_id: str) -> Facts | Reading:
        """Read everything; ConflictError when the distribution changed meanwhile."""
        stored = self.distributions.get(caller, distribution_id)
        job, organization_id = stored.entity, caller.organization_id
        sums = self.digests.of(job)
        if isinstance(sums, Reading):
            return sums
        platform = self.distributions.platforms.records.find(organization_id, job.platform_id)
        facts = Facts(
            job=job,
            batches=list(self._batches(job)),
            version=_entity(
                version_records(self.commits.documents).find(
                    organization_id, version_id(job.audience_id, job.audience_version)
                )
            ),
            manifest=self._manifest(job),
            spec=self.distributions.spec_of(platform.entity) if platform else None,
            entries=self._entries(stored.key),
            exchanges=self.exchanges.last(organization_id, distribution_id),
            sums=sums,
        )
        if self.distributions.get(caller, distribution_id) != stored:
            raise ConflictError("The distribution changes; ask again.")
        return facts

    def _batches(self, job: Distribution) -> Iterator[BatchRecord]:
        """What became of each batch that was begun, in order."""
        count = job.progress.batches
        keys = [
            Key(job.organization_id, "batches", batch_id(job, seq)) for seq in range(1, count + 1)
        ]
        for start in range(0, count, PAGE):
            for found in self.commits.documents.get_many(keys[start : start + PAGE]):
                if found is not None:
                    yield BatchRecord.restored(found.data)

    def _manifest(self, job: Distribution) -> Manifest | None:
        manifests = self.distributions.audiences.manifests
        found = manifests.find(job.organization_id, job.manifest_id) if job.manifest_id else None
        return found.entity if found else None

    def _entries(self, key: Key) -> list[AuditEntry]:
        """The audit entries about the distribution, oldest first."""
        audit = Collection(self.commits.documents, "audit", AuditEntry)
        equal, after, entries = {"target": f"{key.collection}/{key.id}"}, None, list[AuditEntry]()
        while len(entries) < MAX_ENTRIES:
            query = Query(key.organization_id, audit.name, equal, after=after, limit=PAGE)
            page = audit.page(query)
            entries += page.items
            after = page.next_after
            if after is None:
                break
        return entries[::-1]


def _entity(stored: Stored[AudienceVersion] | None) -> AudienceVersion | None:
    return stored.entity if stored else None


# sections -----------------------------------------------------------------------------------------


def _distribution(facts: Facts) -> JSON:
    job = facts.job
    return {
        "distribution_id": job.distribution_id,
        "distribution_type": job.distribution_type.value,
        "status": job.status.value,
        "audience_id": job.audience_id,
        "segments_distributed": list(job.segments_distributed),
        "platform_id": job.platform_id,
        "platform_type": facts.spec.platform_type.value if facts.spec else None,
        "platform_audience_id": job.match_results.platform_audience_id,
        "error": job.error_details.model_dump(mode="json"),
    }


def _definition(facts: Facts) -> JSON:
    """The audience as it was; `kept` is false when the version's record is gone."""
    job, version = facts.job, facts.version
    asked = ("rules", "original_query", "data_type", "subtype", "size")
    snapshot = version.snapshot if version else {}
    return {
        "audience_id": job.audience_id,
        "name": job.audience_name,
        "version": job.audience_version,
        "kept": version is not None,
        "changed_by": version.changed_by if version else None,
        "changed_at": timestamp(version.created_at) if version else None,
        **{name: snapshot.get(name) for name in asked},
    }


def _members(facts: Facts) -> JSON:
    """Which members, by digests only: of the stored parts they came from, and of what was sent."""
    job, manifest = facts.job, facts.manifest
    kept = ("path", "place", "rows", "bytes", "sha256")
    parts = manifest.parts if manifest else ()
    return {
        "manifest_id": job.manifest_id,
        "manifest_kept": manifest is not None,
        "parts": [part.model_dump(mode="json", include=set(kept)) for part in parts],
        "wanted": _wanted(job),
        "lists": _lists(job),
        "identifiers_by_type": dict(facts.plan.identifiers_by_type),
        "identifier_forms": _forms(facts.spec),
        "digests": _digests(facts),
    }


def _wanted(job: Distribution) -> JSON | None:
    """What the platform should hold afterwards: the checksums of its stored parts."""
    if job.roster is None:
        return None
    kept = {"path", "rows", "bytes", "sha256"}
    return {
        "size": job.roster.size,
        "by_type": dict(job.roster.by_type),
        "parts": [part.model_dump(mode="json", include=kept) for part in job.roster.partitions],
    }


def _lists(job: Distribution) -> list[JSON]:
    """The frozen lists, in the order of sending; `clear` is a step without one."""
    kept = {"operation", "rows", "batches", "sha256"}
    return [stage.model_dump(mode="json", include=kept) for stage in job.stages]


def _forms(spec: ConnectorSpec | None) -> JSON | None:
    if spec is None:
        return None
    return {kind.value: form.value for kind, form in spec.identifiers.items()}


def _digests(facts: Facts) -> list[JSON]:
    """One per list; none of a list that is no longer kept, unless it was read before."""
    from activation.members.set_digest import METHOD, SetDigest

    return [
        {
            "operation": one.operation,
            "method": METHOD,
            "identifiers": one.identifiers,
            "digest": SetDigest.unpacked(one.total, one.identifiers).value,
        }
        for one in facts.sums
    ]


def _plan(facts: Facts) -> JSON | None:
    return facts.job.plan.model_dump(mode="json") if facts.job.plan else None


def _counts(facts: Facts) -> JSON:
    return facts.job.progress.model_dump(mode="json")


def _withheld(facts: Facts) -> JSON:
    return dict(facts.plan.withheld)


def _consent(facts: Facts) -> JSON:
    """What people had said: how many rows were added on which basis, and how many stayed.

    Batches are cut by it only where requests can tell it (`told`).
    """
    rows: Counter[int] = Counter()
    for batch in facts.batches:
        if batch.operation != Operation.REMOVE:
            rows[_basis(facts.job, batch)] += batch.sent
    withheld = {name: facts.plan.withheld.get(name, 0) for name in CONSENT_REASONS}
    return {
        "told": facts.spec.carries_consent if facts.spec else None,
        "rows_sent": [
            {**asdict(basis_of(code)), "rows": count} for code, count in sorted(rows.items())
        ],
        "identifiers_withheld": {name: count for name, count in withheld.items() if count},
    }


def _basis(job: Distribution, batch: BatchRecord) -> int:
    """The consent of all people of a batch, as a code."""
    for stage in job.stages:
        number = batch.seq - stage.first
        if 0 < number <= stage.batches and stage.path is not None:
            for code, batches, _ in stage.cuts:
                if number <= batches:
                    return code
                number -= batches
    return 0


def _approvals(facts: Facts) -> JSON:
    """Who asked for it and who agreed, with all that operators did to it."""
    job = facts.job
    acts = [entry for entry in facts.entries if entry.action.startswith(ACTS)]
    return {
        "status": job.metadata.approval_status.value,
        "approved_by": job.metadata.approved_by,
        "approved_at": job.metadata.approved_at and timestamp(job.metadata.approved_at),
        "released_by": job.released_by,
        "requested_by": job.user_id,
        "acts": [
            {
                "at": timestamp(entry.created_at),
                "actor": entry.actor,
                "action": entry.action,
                "entry_id": entry.entry_id,
            }
            for entry in acts
            if entry.action != READ
        ],
    }


def _batches(facts: Facts) -> list[JSON]:
    return [
        {
            "key": batch_id(facts.job, batch.seq),
            "operation": batch.operation,
            "state": batch.state.value,
            "rows": batch.rows,
            "sent": batch.sent,
            "rejected": batch.rejected,
            "rejected_by_reason": dict(batch.rejected_by_reason),
            "receipt": batch.receipt,
            "attempts": batch.attempts,
            "recorded_at": timestamp(batch.updated_at),
        }
        for batch in facts.batches
    ]


def _matches(facts: Facts) -> JSON:
    return facts.job.match_results.model_dump(mode="json")


def _answers(facts: Facts) -> list[JSON]:
    """The last requests and answers, masked."""
    return [one.model_dump(mode="json") for one in facts.exchanges]


def _audit(facts: Facts) -> list[JSON]:
    """The audit log about the distribution, oldest first, each entry with its digest."""
    entries = [entry.stored() for entry in facts.entries]
    return [{"entry": entry, "sha256": digest_of(entry)} for entry in entries]


def _times(facts: Facts) -> JSON:
    job = facts.job
    names = (
        "created_at",
        "scheduled_at",
        "executed_at",
        "started_at",
        "completed_at",
        "updated_at",
    )
    return {name: value and timestamp(value) for name in names for value in [getattr(job, name)]}


SECTIONS: Mapping[str, Callable[[Facts], Any]] = MappingProxyType(
    {
        "distribution": _distribution,
        "definition": _definition,
        "members": _members,
        "plan": _plan,
        "counts": _counts,
        "withheld": _withheld,
        "consent": _consent,
        "approvals": _approvals,
        "batches": _batches,
        "matches": _matches,
        "answers": _answers,
        "audit": _audit,
        "times": _times,
    }
)
"""The parts of a pack, each under a digest of its own."""
