"""Progress of long work: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from activation.adapters.clock import SystemClock
from activation.cli.output import duration, size

if TYPE_CHECKING:
    from rich.console import Console

    from activation.cli.api import Api
    from activation.cli.output import Output

LINE_EVERY_SECONDS = 5.0
POLL_SECONDS = 0.25
READ = 90.0
"""Percentage at which all of a file is read, and its members are being stored."""

Job = dict[str, Any]
T = TypeVar("T")


class Bar(Protocol):
    """Shows how far the work is."""

    def show(
        self,
        done: float,
        *,
        total: float | None = None,
        rate: float | None = None,
        eta_seconds: float | None = None,
        note: str = "",
    ) -> None:
        """`done` of `total` units at `rate` a second; what is None is worked out or left out."""


class _Meter:
    """What both bars need to know."""

    def __init__(self, console: Console, what: str, unit: str, total: float | None) -> None:
        self.console, self.what, self.unit, self.total = console, what, unit, total
        self.clock = SystemClock()
        self.started = self.clock.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to put away."""

    def numbers(self, done: float, rate: float | None, eta_seconds: float | None, note: str) -> str:
        """`1,000 rows   500 rows/s   ETA 0:02`."""
        seconds = self.clock.monotonic() - self.started
        rate = done / seconds if rate is None and seconds > 0 else rate
        if eta_seconds is None and rate and self.total and done < self.total:
            eta_seconds = (self.total - done) / rate
        parts = [self._amount(done)] if self.unit != "%" else []
        if rate and done and parts:
            parts.append(f"{self._amount(rate)}/s")
        if eta_seconds:
            parts.append(f"ETA {duration(round(eta_seconds))}")
        return "  ".join([*parts, note] if note else parts)

    def _amount(self, count: float) -> str:
        return f"{size(count):>9}" if self.unit == "bytes" else f"{count:>11,.0f} {self.unit}"


class PlainBar(_Meter):
    """Lines, for logs and dumb terminals: at most one in LINE_EVERY_SECONDS, and the last."""

    def __init__(self, console: Console, what: str, unit: str, total: float | None) -> None:
        super().__init__(console, what, unit, total)
        self._printed = self.started
        self._last = ""

    def show(
        self,
        done: float,
        *,
        total: float | None = None,
        rate: float | None = None,
        eta_seconds: float | None = None,
        note: str = "",
    ) -> None:
        """Remember, and print when it is time."""
        self.total = total if total is not None else self.total
        share = f"{min(done / self.total, 1.0):>5.0%}" if self.total else "     "
        numbers = self.numbers(done, rate, eta_seconds, note)
        self._last = f"  {self.what}{share}  {numbers}".rstrip()
        if self.clock.monotonic() - self._printed >= LINE_EVERY_SECONDS:
            self._print()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Print where the work ended."""
        if self._last:
            self._print()

    def _print(self) -> None:
        self.console.print(self._last, highlight=False, markup=False)
        self._printed, self._last = self.clock.monotonic(), ""


class AnimatedBar(_Meter):
    """A bar that moves."""

    def __init__(self, console: Console, what: str, unit: str, total: float | None) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        super().__init__(console, what, unit, total)
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(28, complete_style="cyan", finished_style="green"),
            TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
        )
        self._task = self._progress.add_task(what, total=total, numbers="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def show(
        self,
        done: float,
        *,
        total: float | None = None,
        rate: float | None = None,
        eta_seconds: float | None = None,
        note: str = "",
    ) -> None:
        """Move the bar."""
        self.total = total if total is not None else self.total
        numbers = self.numbers(done, rate, eta_seconds, note)
        self._progress.update(self._task, completed=done, total=self.total, numbers=numbers)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the bar as it stands."""
        self._progress.stop()


def watched(look: Callable[[], T], is_done: Callable[[T], bool]) -> T:
    """Look at something until it is done; what it is then."""
    clock = SystemClock()
    while not is_done(seen := look()):
        clock.sleep(POLL_SECONDS)
    return seen


def follow_import(api: Api, output: Output, audience_id: str, import_id: str) -> Job:
    """Show an import until it is final; the last state of the job."""
    path = f"/audiences/{audience_id}/imports/{import_id}"

    with output.bar("Importing") as bar:

        def look() -> Job:
            job = api.get(path)
            rows, percentage = job["counts"]["rows"], job["percentage"]
            bar.show(
                rows,
                total=rows * 100 / percentage if percentage else None,
                rate=job["rows_per_second"],
                eta_seconds=job["eta_seconds"],
                note="storing" if job["status"] == "processing" and percentage >= READ else "",
            )
            return job

        return watched(look, _import_is_final)


def _import_is_final(job: Job) -> bool:
    return job["status"] in ("completed", "failed", "cancelled")


def follow_job(api: Api, output: Output, job: Job, what: str = "Working") -> Job:
    """Show a job until it is final; the last state of it."""
    with output.bar(what, "%", 100) as bar:

        def look() -> Job:
            seen = api.get(f"/jobs/{job['job_id']}")
            bar.show(seen["percentage"])
            return seen

        return watched(look, lambda seen: seen["status"] in ("completed", "failed"))


def follow_distributions(
    api: Api, output: Output, jobs: Sequence[Job], *, matches: bool = False
) -> list[Job]:
    """Show distributions as one bar until all are final, with `matches` until the platforms have
    counted; the last states of the jobs."""
    paths = [f"/distributions/{job['distribution_id']}" for job in jobs]

    with output.bar("Sending") as bar:

        def look() -> list[Job]:
            seen = [api.get(path) for path in paths]
            progress = [job["progress"] for job in seen]
            bar.show(
                sum(p["sent"] + p["rejected"] for p in progress),
                total=sum(p["planned"] for p in progress) if all(map(_has_list, seen)) else None,
                note=_note(seen),
            )
            return seen

        return watched(look, lambda seen: all(_is_over(job, matches) for job in seen))


def _has_list(job: Job) -> bool:
    return job["progress"]["planned"] > 0 or _is_final(job)


def _is_final(job: Job) -> bool:
    return job["status"] in ("completed", "partial", "failed", "cancelled")


def waits_for(job: Job) -> str | None:
    """Who has to do something before a distribution goes on; None while it goes on by itself."""
    if job["metadata"]["approval_status"] == "pending":
        return "It waits for approval by somebody else."
    hold = job["hold"]
    if hold is None:
        return None
    words = {
        "blast_radius": "It is held until somebody else releases it: ",
        "paused": "It is paused.",
        "needs_reauth": "It waits for new credentials of the platform: ",
    }
    return f"{words[hold['reason']]}{hold['message']}".strip()


def _is_over(job: Job, matches: bool) -> bool:
    if waits_for(job) is not None:
        return True
    if matches and job["status"] in ("completed", "partial"):
        return bool(job["match_results"]["final"])
    return _is_final(job)


def _note(jobs: Sequence[Job]) -> str:
    """What the distributions do or wait for, beside sending."""
    for job in jobs:
        if job["waiting_for"] is not None:
            return "waiting for the distribution before it"
        if job["status"] == "processing" and job["error_details"]["error_code"] is not None:
            return f"a platform asks for patience ({job['error_details']['error_code']})"
    if not all(map(_has_list, jobs)):
        return "making the list"
    return "waiting for match results" if all(map(_is_final, jobs)) else ""
