"""Warming up: fills the cache for a list of audiences, five at a time (A-084)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from activation import observability
from activation.documents import Stored
from activation.domain.cache import WarmDraft
from activation.domain.caller import Caller, Role
from activation.domain.job import Job, JobKind
from activation.domain.member import MemberFilter
from activation.errors import ActivationError
from activation.services.jobs import JobRun, JobService
from activation.services.reads import ReadService
from activation.services.summaries import SummaryService

AT_A_TIME = 5
FIRST_MEMBERS = 100


@dataclass(frozen=True, slots=True)
class WarmingService:
    """Use cases of warming up. What cannot be warmed is reported and stops nothing else."""

    jobs: JobService
    reads: ReadService
    summaries: SummaryService

    def request(self, caller: Caller, draft: WarmDraft) -> Stored[Job]:
        """Queue the warming; the job's result says what became of each audience."""
        params = {
            "audience_ids": list(dict.fromkeys(draft.audience_ids)),
            "role": caller.role.value,
        }
        return self.jobs.start(caller, JobKind.WARM, params=params)

    def run(self, run: JobRun) -> Mapping[str, Any]:
        """The handler of JobKind.WARM: sees what the one who asked may see."""
        params, state = run.job.params, run.job.state
        caller = replace(
            run.caller, user_id=run.job.user_id, role=Role(params["role"]), service=False
        )
        ids: Sequence[str] = params["audience_ids"]
        done, failed = state.get("done", 0), list(state.get("failed", ()))
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            while done < len(ids):
                batch = ids[done : done + AT_A_TIME]
                codes = pool.map(partial(self._warmed, caller), batch)
                for audience_id, code in zip(batch, codes, strict=True):
                    if code is not None:
                        failed.append({"audience_id": audience_id, "code": code})
                done += len(batch)
                run.save({"done": done, "failed": failed}, 100.0 * done / len(ids))
                run.pause()
        return {"warmed": len(ids) - len(failed), "failed": failed}

    def _warmed(self, caller: Caller, audience_id: str) -> str | None:
        """Warm one audience; the code of what went wrong, which is logged (A-153)."""
        try:
            self.reads.audience(caller, audience_id)
            self.reads.page(caller, audience_id, MemberFilter(), FIRST_MEMBERS)
            self.summaries.summary(caller, audience_id)
        except ActivationError as error:
            observability.event(
                "audience was not warmed",
                level=logging.WARNING,
                audience_id=audience_id,
                trace_id=caller.trace_id,
                code=error.code,
            )
            return error.code
        return None
