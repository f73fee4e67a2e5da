"""Progress of long work: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from activation.adapters.clock import SystemClock
from activation.cli.output import duration

if TYPE_CHECKING:
    from rich.console import Console

    from activation.cli.api import Api
    from activation.cli.output import Output

LINE_EVERY_SECONDS = 5.0
POLL_SECONDS = 0.2

Job = dict[str, Any]


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
        parts = [f"{done:>11,.0f} {self.unit}"]
        if rate and done:
            parts.append(f"{rate:>9,.0f}/s")
        if eta_seconds:
            parts.append(f"ETA {duration(eta_seconds)}")
        return "  ".join([*parts, note] if note else parts)


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
        self._last = f"  {self.what}{share}  {self.numbers(done, rate, eta_seconds, note)}"
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
            BarColumn(bar_width=28),
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


def watched(
    api: Api, path: str, is_done: Callable[[Job], bool], seen: Callable[[Job], None]
) -> Job:
    """Look at a job until it is done; `seen` hears of every look."""
    clock = SystemClock()
    while True:
        job = api.get(path)
        seen(job)
        if is_done(job):
            return job
        clock.sleep(POLL_SECONDS)


def follow_import(api: Api, output: Output, audience_id: str, import_id: str) -> Job:
    """Show an import until it is final; the last state of the job."""
    path = f"/audiences/{audience_id}/imports/{import_id}"

    with output.bar("Importing") as bar:

        def seen(job: Job) -> None:
            rows, percentage = job["counts"]["rows"], job["percentage"]
            bar.show(
                rows,
                total=rows * 100 / percentage if percentage else None,
                rate=job["rows_per_second"],
                eta_seconds=job["eta_seconds"],
                note="" if job["status"] != "processing" or percentage < 90 else "storing",
            )

        return watched(api, path, _import_is_final, seen)


def _import_is_final(job: Job) -> bool:
    return job["status"] in ("completed", "failed", "cancelled")


def follow_distribution(
    api: Api, output: Output, distribution_id: str, what: str, *, matches: bool = False
) -> Job:
    """Show a distribution until it is final, with `matches` until the platform has counted."""
    with output.bar(what) as bar:

        def seen(job: Job) -> None:
            progress, waits = job["progress"], job["status"] in ("completed", "partial")
            bar.show(
                progress["sent"] + progress["rejected"],
                total=progress["planned"] or None,
                note="waiting for match results" if waits and not _is_matched(job) else "",
            )

        def is_done(job: Job) -> bool:
            final = job["status"] in ("completed", "partial", "failed", "cancelled")
            return final and (not matches or _is_matched(job))

        return watched(api, f"/distributions/{distribution_id}", is_done, seen)


def _is_matched(job: Job) -> bool:
    return bool(job["match_results"]["final"]) or job["status"] in ("failed", "cancelled")
