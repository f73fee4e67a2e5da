"""What platforms report afterwards: match results, and the state of an account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from activation import observability
from activation.domain.caller import Caller, service_caller
from activation.domain.delivery import MatchReport
from activation.domain.distribution import Distribution, MatchResults
from activation.domain.platform import ConnectorSpec, Health, HealthStatus, Platform, SyncStatus
from activation.errors import (
    ConflictError,
    PlatformAuthError,
    PlatformError,
    PlatformTransientError,
)
from activation.ports import Account, Clock, Connector, Write
from activation.services.access import retry_conflicts
from activation.services.audiences import AudienceService
from activation.services.commits import Commits
from activation.services.distributions import DistributionService, delivery_of
from activation.services.match_rates import MatchRates
from activation.services.platforms import PlatformService

GIVE_UP_AFTER = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Matching:
    """Looks up match results until they are final, and keeps the platform's record.

    `poll_seconds` overrides the platform's own interval when it is above zero.
    """

    distributions: DistributionService
    platforms: PlatformService
    audiences: AudienceService
    commits: Commits
    rates: MatchRates
    clock: Clock
    poll_seconds: float

    def next_look(self, spec: ConnectorSpec, now: datetime) -> datetime:
        """When match results are worth asking for."""
        return now + timedelta(seconds=self.poll_seconds or spec.poll_seconds)

    def look(
        self, caller: Caller, distribution_id: str, account: Account, connector: Connector
    ) -> None:
        """Ask once; final results also become the audience's match rate."""
        job = self.distributions.records.get(caller.organization_id, distribution_id).entity
        try:
            report = _report(connector, account, job)
        except (PlatformTransientError, PlatformAuthError):
            report = MatchReport(final=False)
        except PlatformError:
            report = MatchReport(final=True)
        retry_conflicts(partial(self._record, caller, distribution_id, report, connector.spec))

    def give_up(self, caller: Caller, distribution_id: str) -> None:
        """There is nobody left to ask: what was told so far is all."""

        def use_case() -> None:
            stored = self.distributions.records.get(caller.organization_id, distribution_id)
            results = stored.entity.match_results.model_copy(update={"final": True})
            after = stored.entity.changed(
                match_results=results, next_at=None, updated_at=self.clock.now()
            )
            self.commits.commit(
                caller,
                "function:distribution:match-results",
                [stored.replaced_by(after)],
                before=stored.entity,
                after=after,
            )

        retry_conflicts(use_case)

    def record_sync(self, organization_id: str, platform_id: str, status: SyncStatus) -> None:
        """Note how the last distribution to the platform ended."""
        now = self.clock.now()

        def synced(platform: Platform) -> Platform:
            return platform.changed(last_sync=now, sync_status=status)

        self._platform_changed(organization_id, platform_id, "sync", synced)

    def record_health(
        self,
        organization_id: str,
        platform_id: str,
        status: HealthStatus,
        message: str = "",
        *,
        version: int | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        """Note whether the account's credentials work; those that do and end soon are expiring.

        `version` is that of the credentials in question: the result is dropped when they have been
        replaced. `expires_at` is when they end, where the platform said so.
        """
        now = self.clock.now()

        def judged(platform: Platform) -> Platform:
            if version not in (None, platform.credentials.version):
                return platform
            if expires_at is not None:
                known = platform.credentials.model_copy(update={"expires_at": expires_at})
                platform = platform.changed(credentials=known)
            if status is HealthStatus.OK:
                return platform.changed(health=platform.working(now))
            return platform.changed(health=Health(status=status, checked_at=now, message=message))

        self._platform_changed(organization_id, platform_id, "health", judged)

    def _record(
        self, caller: Caller, distribution_id: str, report: MatchReport, spec: ConnectorSpec
    ) -> None:
        stored = self.distributions.records.get(caller.organization_id, distribution_id)
        job, now = stored.entity, self.clock.now()
        final = report.final or now - (job.completed_at or now) > GIVE_UP_AFTER
        results = _results(job, report, final=final)
        more: list[Write] = []
        if final:
            point, write = self.rates.noted(job, results)
            results = results.model_copy(update={"match_rate_fell": point.match_rate_fell})
            more.append(write)
        if final and report.lost:
            # Nobody knows what is there: the next run sends all, and takes out the rest.
            ledger = self.distributions.ledgers.of(job)
            doubted = ledger.entity.changed(uncertain_since=now, updated_at=now)
            more.append(ledger.replaced_by(doubted))
        after = job.changed(
            match_results=results,
            next_at=None if final else self.next_look(spec, now),
            updated_at=now,
        )
        if final and results.match_rate is not None:
            # Before the last look is over: after a crash it is taken, and noted, again.
            retry_conflicts(partial(self._note_rate, caller, after, results.match_rate))
        self.commits.commit(
            caller,
            "function:distribution:match-results",
            [stored.replaced_by(after), *more],
            before=job,
            after=after,
        )
        if final:
            observability.event(
                "match results",
                distribution_id=distribution_id,
                match_rate=results.match_rate,
                fell=results.match_rate_fell,
            )

    def _note_rate(self, caller: Caller, job: Distribution, rate: float) -> None:
        stored = self.audiences.records.find(caller.organization_id, job.audience_id)
        if stored is None:
            return
        metadata = stored.entity.metadata.model_copy(
            update={"match_rate": rate, "match_rate_platform": job.platform_id}
        )
        after = stored.entity.changed(metadata=metadata)
        self.commits.commit(
            caller,
            "function:audience:match-rate",
            [stored.replaced_by(after)],
            before=stored.entity,
            after=after,
        )

    def _platform_changed(
        self,
        organization_id: str,
        platform_id: str,
        what: str,
        change: Callable[[Platform], Platform],
    ) -> None:
        caller = service_caller("dispatch_distribution", organization_id, "")

        def use_case() -> None:
            stored = self.platforms.records.find(organization_id, platform_id)
            after = None if stored is None else change(stored.entity)
            if stored is None or after is None or after == stored.entity:
                return
            self.commits.commit(
                caller,
                f"function:platform:{what}",
                [stored.replaced_by(after)],
                before=stored.entity,
                after=after,
            )

        try:
            retry_conflicts(use_case)
        except ConflictError:
            return  # the next run notes it again; the distribution itself is recorded


def _report(connector: Connector, account: Account, job: Distribution) -> MatchReport:
    """What the platform says of what was added and, where it tells, of what was taken out."""
    delivery = delivery_of(job)
    added = connector.match_results(account, delivery, job.receipts)
    if not (connector.spec.reports_failures and job.removals and added.final):
        return added
    removed = connector.match_results(account, delivery, job.removals)
    return MatchReport(
        final=removed.final,
        matched=added.matched,
        match_rate_range=added.match_rate_range,
        failures=Counter(added.failures) + Counter(removed.failures),
        lost=added.lost or removed.lost,
        warnings=sorted({*added.warnings, *removed.warnings}),
    )


def _results(job: Distribution, report: MatchReport, *, final: bool) -> MatchResults:
    matched = report.matched
    if matched is None:
        matched = job.match_results.matched_records
    total = job.match_results.total_records
    return job.match_results.model_copy(
        update={
            "matched_records": matched,
            "match_rate": _rate(matched, total),
            "match_rate_range": report.match_rate_range or job.match_results.match_rate_range,
            "failures": dict(report.failures),
            "final": final,
        }
    )


def _rate(matched: int | None, total: int) -> float | None:
    """The share of rows that were matched; never more than all, whatever a platform counts."""
    return None if matched is None or not total else min(1.0, round(matched / total, 4))
