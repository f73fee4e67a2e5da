"""What the stores say of distributions and ledgers, what the platforms hold, and whether the two
hold together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from activation.app import App
from activation.domain.audience import Audience, AudienceStatus
from activation.domain.distribution import (
    FINAL,
    BatchRecord,
    Distribution,
    DistributionDraft,
    DistributionStatus,
    DistributionType,
)
from activation.domain.exchange import ExchangeLog
from activation.domain.identifier import HASHED_TYPES, IdentifierType, key_digest
from activation.domain.lane import Lane
from activation.domain.ledger import Ledger
from activation.domain.platform import (
    HealthStatus,
    Platform,
    PlatformStatus,
    PlatformType,
    Replacement,
)
from activation.domain.roster import Roster
from activation.errors import ActivationError
from activation.members.layout import TYPES
from activation.members.partitions import decoded
from activation.ports import BlobKey
from activation.twins.members import member_key
from tests.faults.platforms import platforms_of
from tests.faults.world import ANN, BEN, all_of, settle

A_DAY = timedelta(days=1).total_seconds()
"""Longer than a platform remembers a replacement that has not ended."""
PHONES = tuple(f"+479100000{number}" for number in range(4))
"""The phone numbers in the worlds."""

Keys = frozenset[bytes]
"""Identifiers as a twin knows them."""


def deliveries(app: App) -> dict[str, Any]:
    """What a client can learn of distributions, and what the platforms hold."""
    jobs = all_of(app, "distributions", Distribution)
    return {
        "distributions": sorted(_job_seen(app, job) for job in jobs),
        "lanes": sorted(_lane_seen(lane) for lane in all_of(app, "lanes", Lane)),
        "batches": sorted(_batch_seen(one) for one in all_of(app, "batches", BatchRecord)),
        "ledgers": sorted(_ledger_seen(app, one) for one in all_of(app, "ledgers", Ledger)),
        "accounts": sorted(_account_seen(one) for one in all_of(app, "platforms", Platform)),
        "rates": sorted(
            str(audience.metadata.match_rate) for audience in all_of(app, "audiences", Audience)
        ),
        "platforms": platforms_of(app).held(),
    }


def _job_seen(app: App, job: Distribution) -> tuple[str, ...]:
    shown = app.distributions.current(job, app.distributions.lanes_of(job)) if job.stages else job
    failed = job.status is DistributionStatus.FAILED
    seen = (
        *(job.distribution_type, job.status, job.hold and job.hold.reason, job.settled),
        *(job.metadata.approval_status, job.released_by, job.audience_version),
        job.plan and job.plan.model_dump(),
        shown.progress.model_dump(),
        job.match_results.model_dump(),
        shown.error_details.error_code if failed else None,
    )
    return tuple(map(str, seen))


def _lane_seen(lane: Lane) -> tuple[Any, ...]:
    counts = lane.batches, lane.done, lane.rows, lane.sent, lane.rejected, lane.pending
    return lane.stage, lane.number, lane.operation, lane.status.value, *counts


def _batch_seen(one: BatchRecord) -> tuple[Any, ...]:
    counts = one.rows, one.sent, one.rejected, one.first_row, str(one.rejected_rows)
    return one.seq, one.operation, one.state.value, *counts


def _ledger_seen(app: App, ledger: Ledger) -> tuple[str, ...]:
    drift = ledger.drift
    seen = (
        *(ledger.platform_audience_id, ledger.audience_version, ledger.segments),
        *(ledger.active is not None, ledger.last_distribution_id is not None),
        sorted(rows_of(app, ledger.accepted).items()),
        drift and (drift.missing, drift.extra, drift.healed_by is not None, drift.message),
    )
    return tuple(map(str, seen))


def _account_seen(account: Platform) -> tuple[str, ...]:
    refused = account.health is not None and account.health.status is HealthStatus.NEEDS_REAUTH
    return account.platform_type.value, str(account.sync_status), str(refused)


def rows_of(app: App, roster: Roster | None) -> dict[tuple[str, str, int], bool]:
    """The rows of a roster: type, outgoing value and consent of each, and whether it is in doubt.

    ValueError when it does not hold what it says.
    """
    found: dict[tuple[str, str, int], bool] = {}
    for part in roster.partitions if roster else ():
        rows = decoded(app.store.parts.content(ANN.organization_id, part)).to_pylist()
        order = [(row["digest"], row["identifier_type"]) for row in rows]
        if order != sorted(set(order)) or len(rows) != part.rows:
            raise ValueError("a part of a roster is not sorted, or has another size")
        for row in rows:
            kind = TYPES[row["identifier_type"]]
            value = row["digest"].hex() if kind in HASHED_TYPES else row["value"]
            found[kind.value, value, row["basis"]] = row["doubt"]
    counted = (len(found), sum(found.values()), Counter(kind for kind, _, _ in found))
    if roster and counted != (roster.size, roster.doubtful, Counter(roster.by_type)):
        raise ValueError("a roster has other counts than rows")
    return found


def keys_of(rows: Iterable[tuple[str, str, int]]) -> Keys:
    """Rows as a twin knows them."""
    return frozenset(member_key(kind, value) for kind, value, _ in rows)


# invariants -----------------------------------------------------------------------------------


def broken_deliveries(app: App) -> list[str]:
    """What does not hold, at any moment."""
    found = platforms_of(app).witness.told()
    jobs = {job.distribution_id: job for job in all_of(app, "distributions", Distribution)}
    ledgers = all_of(app, "ledgers", Ledger)
    for ledger in ledgers:
        platform = app.platforms.records.find(ANN.organization_id, ledger.platform_id)
        if platform is None or platform.entity.platform_type not in platforms_of(app).twins:
            continue  # nobody sees what such a one holds
        try:
            found += _ledger_broken(app, ledger, platform.entity, jobs)
        except (ActivationError, ValueError) as error:
            found.append(f"I1 a roster or a list cannot be read: {error}")
    for job in jobs.values():
        found += _job_broken(app, job)
    known = {ledger.platform_audience_id for ledger in ledgers}
    held = platforms_of(app).held()
    strange = [name for (name, audience), keys in held.items() if keys and audience not in known]
    return [*found, *(f"{name} holds an audience that no ledger knows" for name in strange)]


def _ledger_broken(
    app: App, ledger: Ledger, platform: Platform, jobs: Mapping[str, Distribution]
) -> list[str]:
    found = []
    mine = [job for job in jobs.values() if _is_at(job, ledger)]
    begun = {job.distribution_id for job in mine if not job.settled}
    if begun - {ledger.active}:
        found.append("a distribution sends and it is not its turn")
    active = jobs.get(ledger.active or "")
    last = jobs.get(ledger.last_distribution_id or "")
    accepted = rows_of(app, ledger.accepted)
    maybe, sure = keys_of(accepted), keys_of(row for row, doubt in accepted.items() if not doubt)
    name = platform.platform_type.value, ledger.platform_audience_id or ""
    held = platforms_of(app).held().get(name, frozenset())
    if active is not None and active.roster is not None:
        _require_lists(app, active)
        wanted = keys_of(rows_of(app, active.roster))
        replaces = any(stage.operation == "replace" for stage in active.stages)
        maybe, sure = maybe | wanted, frozenset() if replaces else sure & wanted
    if _is_tampered(app, ledger, jobs):
        return found
    if not held <= maybe:
        found.append(f"the platform holds {len(held - maybe)} that were never accepted")
    if not sure <= held:
        found.append(f"{len(sure - held)} are accepted and the platform does not hold them")
    if active is None and last is not None and last.status is DistributionStatus.COMPLETED:
        found += _frozen_broken(app, last, held, ledger, platform)
    return found


def _frozen_broken(
    app: App, job: Distribution, held: Keys, ledger: Ledger, platform: Platform
) -> list[str]:
    """A distribution that has completed leaves what it has frozen."""
    if ledger.drift is not None or job.roster is None or job.progress.rejected:
        return []
    spec = app.distributions.spec_of(platform)
    wanted = keys_of(rows_of(app, job.roster))
    exact = job.distribution_type is not DistributionType.INITIAL and (
        spec.removes or spec.replacement is not Replacement.NONE
    )
    if held == wanted or (held > wanted and not exact):
        return []
    return [f"the platform holds {len(held)}, and {len(wanted)} were frozen"]


def _is_at(job: Distribution, ledger: Ledger) -> bool:
    return (job.audience_id, job.platform_id) == (ledger.audience_id, ledger.platform_id)


def _is_tampered(app: App, ledger: Ledger, jobs: Mapping[str, Distribution]) -> bool:
    """Whether the platform has lost members, and what heals that has not ended yet."""
    healing = jobs.get((ledger.drift and ledger.drift.healed_by) or "")
    return platforms_of(app).tampered and not (
        healing and healing.settled and healing.status in FINAL
    )


def _require_lists(app: App, job: Distribution) -> None:
    """ActivationError when a list that may still be sent is not there."""
    for stage in job.stages:
        if stage.path is not None:
            app.member_blobs.get(BlobKey(job.organization_id, stage.path))


def _job_broken(app: App, job: Distribution) -> list[str]:
    lanes = app.distributions.lanes_of(job)
    rows = app.distributions.current(job, lanes).progress
    found = []
    if rows.planned != rows.sent + rows.rejected + rows.pending or rows.pending < 0:
        found.append("I7 planned is not sent + rejected + pending")
    done = [
        lane.entity.first + number for lane in lanes for number in range(1, lane.entity.done + 1)
    ]
    records = [
        one
        for one in all_of(app, "batches", BatchRecord)
        if one.distribution_id == job.distribution_id
    ]
    if sorted(one.seq for one in records) != sorted(done):
        found.append("a batch that is done has no record, or one that is not has")
    if sum(one.sent for one in records) != rows.sent:
        found.append("I7 the batches have another sum")
    if job.status is DistributionStatus.COMPLETED and job.settled and rows.pending:
        found.append("completed, and rows are left")
    return found


def named_by_deliveries(app: App) -> set[str]:
    """The objects that ledgers and distributions need."""
    jobs = {job.distribution_id: job for job in all_of(app, "distributions", Distribution)}
    rosters: list[Roster | None] = []
    for ledger in all_of(app, "ledgers", Ledger):
        using = (jobs.get(ledger.active or ""), jobs.get(ledger.last_distribution_id or ""))
        rosters += [ledger.accepted, *(job.roster for job in using if job)]
    may_send = [job for job in jobs.values() if job.status not in FINAL or not job.settled]
    may_send += [job for job in jobs.values() if job.status is DistributionStatus.FAILED]
    lists = {stage.path for job in may_send for stage in job.stages if stage.path}
    return lists | {part.path for roster in rosters if roster for part in roster.partitions}


def lost_documents(app: App) -> list[str]:
    """Lanes and batches of distributions that are gone (I17)."""
    jobs = {job.distribution_id for job in all_of(app, "distributions", Distribution)}
    owners = [
        *(("lanes", lane.distribution_id) for lane in all_of(app, "lanes", Lane)),
        *(("batches", one.distribution_id) for one in all_of(app, "batches", BatchRecord)),
        *(("exchanges", one.distribution_id) for one in all_of(app, "exchanges", ExchangeLog)),
    ]
    return [f"I17 {kind} of no distribution" for kind, owner in owners if owner not in jobs]


# what follows ---------------------------------------------------------------------------------


def caught_up(app: App) -> list[str]:
    """Let an incremental run follow, whatever has happened before, on platforms that are well: then
    each holds its audience, and nobody else."""
    app.clock.sleep(A_DAY)
    for twin in platforms_of(app).twins.values():
        twin.faults.clear()
        twin.__dict__.pop("refuses", None)
    jobs = {job.distribution_id: job for job in all_of(app, "distributions", Distribution)}
    for job in jobs.values():
        if job.status not in FINAL:
            app.distributions.set_status(ANN, job.distribution_id, "cancelled")
    settle(app)
    ledgers = all_of(app, "ledgers", Ledger)
    return [
        problem
        for ledger in ledgers
        if not _is_tampered(app, ledger, jobs)
        for problem in _caught_up(app, ledger)
    ]


def _caught_up(app: App, ledger: Ledger) -> list[str]:
    platform = app.platforms.records.find(ANN.organization_id, ledger.platform_id)
    audience = app.audiences.records.find(ANN.organization_id, ledger.audience_id)
    if platform is None or platform.entity.platform_type not in platforms_of(app).twins:
        return []
    if audience is None or audience.entity.status is not AudienceStatus.ACTIVE:
        return []
    if platform.entity.status is not PlatformStatus.ACTIVE:
        return []
    health = platform.entity.health
    if health is not None and health.status is HealthStatus.NEEDS_REAUTH:
        return []
    spec = app.distributions.spec_of(platform.entity)
    draft = DistributionDraft(
        audience_id=ledger.audience_id,
        platform_id=ledger.platform_id,
        distribution_type="incremental" if spec.removes else "refresh",
    )
    made = app.distributions.create(ANN, draft).entity.distribution_id
    settle(app)
    if app.distributions.get(ANN, made).entity.hold is not None:
        app.distributions.release(BEN, made)
        settle(app)
    done = app.distributions.get(ANN, made).entity
    now = app.ledgers.get(ANN, ledger.audience_id, ledger.platform_id).entity
    name = platform.entity.platform_type.value, now.platform_audience_id or ""
    held = platforms_of(app).held().get(name, frozenset())
    wanted = _wanted(app, audience.entity, platform.entity)
    if (done.status, held) == (DistributionStatus.COMPLETED, wanted):
        return []
    return [f"after one more run ({done.status}) {len(held)} are held, {len(wanted)} wanted"]


def _wanted(app: App, audience: Audience, platform: Platform) -> Keys:
    """The members of an audience as its platform knows them."""
    found = set()
    manifest = app.members.audiences.manifest_of(audience)
    opted_out = app.suppressions.view(ANN.organization_id)
    for table in app.store.iter_batches(manifest) if manifest else ():
        for row in table.select(["identifier_type", "digest"]).to_pylist():
            kind, value = TYPES[row["identifier_type"]], row["digest"].hex()
            if opted_out.hits({kind: [value]}):
                continue
            if kind is IdentifierType.PHONE and platform.platform_type is PlatformType.FACEBOOK:
                value = {key_digest(n).hex(): key_digest(n[1:]).hex() for n in PHONES}[value]
            found.add(member_key(kind.value, value))
    return frozenset(found)
