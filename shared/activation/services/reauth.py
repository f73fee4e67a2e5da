"""Refused credentials: what needs them waits, and goes on when there are new ones."""

from __future__ import annotations

from dataclasses import dataclass

from activation.domain.caller import Caller
from activation.domain.distribution import FINAL, Distribution, Hold, HoldReason
from activation.domain.platform import HealthStatus
from activation.errors import PlatformError
from activation.ports import Clock
from activation.services.access import retry_conflicts
from activation.services.distributions import DistributionService
from activation.services.matching import Matching


@dataclass(frozen=True, slots=True)
class Reauth:
    """Holds distributions whose platform refuses the credentials."""

    distributions: DistributionService
    matching: Matching
    clock: Clock

    def needed(self, caller: Caller, job: Distribution, error: PlatformError) -> None:
        """Note that the platform refuses the credentials, and hold this distribution."""
        self.matching.record_health(
            caller.organization_id, job.platform_id, HealthStatus.NEEDS_REAUTH, error.message
        )

        def use_case() -> None:
            stored = self.distributions.records.get(caller.organization_id, job.distribution_id)
            if stored.entity.status in FINAL or stored.entity.hold is not None:
                return
            now = self.clock.now()
            hold = Hold(reason=HoldReason.NEEDS_REAUTH, since=now, message=error.message)
            details = stored.entity.error_details.model_copy(
                update={"error_code": error.code, "error_message": error.message}
            )
            after = stored.entity.changed(
                hold=hold, next_at=None, lease_until=None, updated_at=now, error_details=details
            )
            self.distributions.commits.commit(
                caller,
                "function:distribution:hold",
                [stored.replaced_by(after)],
                before=stored.entity,
                after=after,
            )

        retry_conflicts(use_case)
