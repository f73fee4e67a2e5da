"""The main job end to end, through the real functions and real HTTP, told step by step.

File → audience → import → a change and the way back → sealed credentials → plan → distribution →
match results → proof that the platforms hold exactly what the audience says → an incremental run.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activation.adapters.clock import SystemClock
from activation.cli.api import LOCAL_TICK_SECONDS, Api, served
from activation.cli.audiences import create_audience
from activation.cli.distributions import distribution_report, require_delivered
from activation.cli.group import Failure
from activation.cli.imports import import_report, require_completed, run_import, save_rejects
from activation.cli.options import Options
from activation.cli.output import Output, duration, facts, size, table
from activation.cli.platforms import check_platform
from activation.cli.progress import follow_distributions, watched
from activation.demo.folder import DEFAULT, fresh
from activation.demo.generator import REGION, Contents
from activation.demo.history import changed_and_restored, few_removed
from activation.demo.holdings import Holding, expected
from activation.demo.source import Source, given, made_up
from activation.demo.twins import TwinProcess, twin_processes
from activation.domain.caller import service_caller
from activation.local import LocalServer

AUDIENCE = "Demo customers"
TITLES = {"google_ads": "Google Ads", "facebook": "Meta"}
PORT = 8080

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked of the demo."""

    rows: int
    file: Path | None
    default_region: str
    keep: bool


def run(options: Options, out: Output, wishes: Wishes) -> None:
    """The whole demo. Raises Failure when a job fails or a platform holds something else."""
    settings = options.settings(
        data_folder=options.data or DEFAULT,
        allow_private_hosts=True,
        match_poll_seconds=1.0,
        log_level="ERROR",
    )
    folder = settings.data_path
    fresh(folder)
    clock = SystemClock()
    started = clock.monotonic()
    with ExitStack() as stack:
        twins = stack.enter_context(twin_processes())
        source = stack.enter_context(_source(out, wishes, folder))
        server = LocalServer(settings, port=0, tick_seconds=LOCAL_TICK_SECONDS)
        api = stack.enter_context(served(server, options.organization, options.user))
        result = Demo(options, out, api, server, twins, wishes.default_region).all(source)
    seconds = round(clock.monotonic() - started, 1)
    out.answer({**result, "seconds": seconds}, *_look_here(options, folder, result))
    out.line(f"\nDone in {duration(seconds)}.")


def _source(out: Output, wishes: Wishes, folder: Path) -> AbstractContextManager[Source]:
    if wishes.file is not None:
        _step(out, 1, "Your file")
        return given(out, wishes.file)
    _step(out, 1, "A made-up export of customers")
    kept = folder.with_name(f"{folder.name}-customers.csv") if wishes.keep else None
    return made_up(out, wishes.rows, kept)


@dataclass(frozen=True, slots=True)
class Demo:
    """The steps once the file is there."""

    options: Options
    out: Output
    api: Api
    server: LocalServer
    twins: Sequence[TwinProcess]
    default_region: str

    def all(self, source: Source) -> Record:
        """Every step; returns the records of what was done."""
        job = self.imported(source)
        self.stored(job["audience_id"])
        audience = self.changed(job["audience_id"])
        platforms = self.platforms()
        orders = [self._order(audience, platform) for platform in platforms]
        self.planned(platforms, orders)
        distributions = self.distributed(platforms, orders)
        self.proved(8, audience, platforms, distributions)
        self.followed(audience, platforms, orders)
        return {
            "audience": audience,
            "import": job,
            "platforms": platforms,
            "distributions": distributions,
        }

    def imported(self, source: Source) -> Record:
        """Import the file into a new audience."""
        _step(self.out, 2, f"Import into the audience “{AUDIENCE}”")
        audience = create_audience(self.api, AUDIENCE, "first_party")
        draft = {"default_region": self.default_region}
        job = run_import(self.api, self.out, audience["audience_id"], source.path, draft)
        rejects = self.server.app.settings.data_path / "import.rejects.csv"
        for part in import_report(job, save_rejects(self.api, job, rejects)):
            self.out.line(part)
        require_completed(job)
        if source.contents is not None and self.default_region == REGION:
            _require_counts(job["counts"], source.contents)
            self._check("Every number is the one that the generator wrote.")
        return job

    def stored(self, audience_id: str) -> None:
        """How the members are kept."""
        audience = self.api.get(f"/audiences/{audience_id}")
        storage, members = audience["storage"], audience["size"]
        _step(self.out, 3, "What is stored: hashes, no address and no phone number")
        shown = {
            "members": members,
            "tier": storage["type"],
            "partitions": len(storage["partitions"]),
            "size": size(storage["bytes"]),
            "per member": f"{storage['bytes'] / max(members, 1):.1f} bytes",
        }
        self.out.line(facts(shown))

    def changed(self, audience_id: str) -> Record:
        """Remove a few members and take that back; the audience, as large as before."""
        _step(self.out, 4, "A small change, compared, and taken back")
        before = self.api.get(f"/audiences/{audience_id}")
        told = changed_and_restored(self.api, audience_id)
        if told is None:
            self.out.line("  Nothing to remove.")
            return before
        compared, members = told.compared, told.compared["members"]
        versions = f"{compared['from_version']} to {compared['to_version']}"
        self.out.line(
            facts(
                {
                    "removed": f"{told.removed['removed']:,} members in {duration(told.seconds)}",
                    f"version {versions}": f"{members['removed']:,} removed, "
                    f"{members['added']:,} added, {members['kept']:,} kept",
                    "restored": f"version {told.restored['restored_version']}: "
                    f"{told.restored['size']:,} members",
                }
            )
        )
        after = self.api.get(f"/audiences/{audience_id}")
        if after["size"] != before["size"]:
            raise Failure(f"{after['size']:,} of {before['size']:,} members came back.")
        return after

    def platforms(self) -> list[Record]:
        """An account at each twin."""
        _step(self.out, 5, "Accounts at two ad platforms: strict twins, on this machine")
        return [self._platform(twin) for twin in self.twins]

    def _platform(self, twin: TwinProcess) -> Record:
        """Save an account and have its sealed credentials tested."""
        name = TITLES[twin.account["platform_type"]]
        made = self.api.post("/platforms", {"name": name, **twin.account})
        tested = check_platform(self.api, made["platform_id"])
        health = tested["health"]
        if health["status"] != "ok":
            raise Failure(f"{name}: {health['message']}", health["status"])
        sealed = ", ".join(tested["credentials"]["fields"])
        self._check(f"{name:<12} {twin.url}  sealed: {sealed}; tested: {health['status']}")
        return tested

    def planned(self, platforms: Sequence[Record], orders: Sequence[Record]) -> None:
        """What the distributions are going to do."""
        _step(self.out, 6, "The plan: what would be sent")
        plans = [self.api.post("/distributions/plan", order) for order in orders]
        rows = [
            (
                platform["name"],
                plan["members"],
                sum(plan["withheld"].values()),
                *(plan[name] for name in ("identifiers", "rows", "requests")),
            )
            for platform, plan in zip(platforms, plans, strict=True)
        ]
        columns = ("platform", "members", "withheld", "identifiers", "rows", "requests")
        self.out.line(table(columns, rows))

    def distributed(self, platforms: Sequence[Record], orders: Sequence[Record]) -> list[Record]:
        """Distribute to all platforms at the same time, and wait for their match results."""
        _step(self.out, 7, "Distribution, to both at the same time")
        started = [self.api.post("/distributions", order) for order in orders]
        ended = follow_distributions(self.api, self.out, started, matches=True)
        names = [platform["name"] for platform in platforms]
        self.out.line()
        for part in distribution_report(list(zip(names, ended, strict=True))):
            self.out.line(part)
        for job in ended:
            require_delivered(job)
        return ended

    def followed(
        self, audience: Record, platforms: Sequence[Record], orders: Sequence[Record]
    ) -> None:
        """Some people leave; the platforms are told of them alone."""
        _step(self.out, 9, "Some people leave: incremental distributions send the difference alone")
        removed = few_removed(self.api, audience["audience_id"])
        if removed is None:
            self.out.line("  Nobody leaves.")
            return
        self.out.line(f"  {removed['removed']:,} members left the audience.")
        job = self.api.post(f"/audiences/{audience['audience_id']}/compact")
        watched(
            lambda: self.api.get(f"/jobs/{job['job_id']}"),
            lambda seen: seen["status"] in ("completed", "failed"),
        )
        changes = [{**order, "distribution_type": "incremental"} for order in orders]
        started = [self.api.post("/distributions", order) for order in changes]
        ended = follow_distributions(self.api, self.out, started)
        self.out.line()
        for platform, done in zip(platforms, ended, strict=True):
            require_delivered(done)
            plan = done["plan"]
            self.out.line(
                f"  {platform['name']:<12} {plan['accepted']:,} accepted before: "
                f"{plan['adds']:,} to add, {plan['removes']:,} to remove, "
                f"{plan['restated']:,} to state again; "
                f"{done['progress']['sent']:,} rows in {plan['requests']} requests"
            )
        self.proved(10, audience, platforms, ended)

    def proved(
        self,
        number: int,
        audience: Record,
        platforms: Sequence[Record],
        distributions: Sequence[Record],
    ) -> None:
        """Compare what each twin holds with the audience's stored members."""
        _step(self.out, number, "Proof: the platforms hold exactly what the audience says")
        caller = service_caller("demo", self.options.organization, "demo")
        with ThreadPoolExecutor(len(self.twins)) as pool:
            told = [pool.submit(twin.holdings) for twin in self.twins]
            for platform, job, state in zip(platforms, distributions, told, strict=True):
                wanted = expected(
                    self.server.app, caller, audience["audience_id"], platform["platform_id"]
                )
                held = state.result()[job["match_results"]["platform_audience_id"]]
                _require_equal(platform["name"], wanted, held)
                self._check(
                    f"{platform['name']:<12} {held.members:>11,} identifiers on both sides, "
                    f"digest {held.digest[:16]}"
                )

    def _check(self, text: str) -> None:
        self.out.line(f"  [green]✓[/green] {text}")

    def _order(self, audience: Record, platform: Record) -> Record:
        return {"audience_id": audience["audience_id"], "platform_id": platform["platform_id"]}


def _require_counts(counts: Record, contents: Contents) -> None:
    for name in ("rows", "received", "accepted", "duplicate", "rejected_by_reason"):
        counted, written = counts[name], getattr(contents, name)
        if counted != written:
            raise Failure(f"The import counted {name} {counted}, the generator {written}.")


def _require_equal(name: str, wanted: Holding, held: Holding) -> None:
    if held != wanted:
        raise Failure(
            f"{name} holds {held.members:,} identifiers with digest {held.digest[:16]}, the "
            f"audience says {wanted.members:,} with digest {wanted.digest[:16]}."
        )


def _step(out: Output, number: int, title: str) -> None:
    out.line(f"\n[bold]{number}  {title}[/bold]")


def _look_here(options: Options, folder: Path, result: Record) -> list[str]:
    """How to see the same through the API."""
    store = f"--data {shlex.quote(str(folder))}"
    given = {"organization": options.organization, "user": options.user}
    usual = {"organization": Options().organization, "user": Options().user}
    whom = "".join(f" --{k} {shlex.quote(v)}" for k, v in given.items() if v != usual[k])
    program = _program()
    address = f"http://127.0.0.1:{PORT}"
    audience = result["audience"]["audience_id"]
    paths = (
        f"/audiences/{audience}",
        f"/audiences/{audience}/members?limit=3",
        f"/distributions/{result['distributions'][0]['distribution_id']}",
    )
    return [
        "\n[bold]11  Look for yourself[/bold]",
        f"  {program} serve {store} --port {PORT}",
        "  [dim]and in another terminal:[/dim]",
        f"  export TOKEN=$({program} token {store}{whom})",
        f"  export API={address}/api/v1",
        *(f'  curl -H "Authorization: Bearer $TOKEN" "$API{path}"' for path in paths),
        f"  {address}/docs describes the API.",
    ]


def _program() -> str:
    """How to call this program again: its name where the shell finds it, else its path."""
    called = Path(sys.argv[0])
    if called.name != "activation" or shutil.which("activation"):
        return "activation"
    return str(called.relative_to(Path.cwd())) if called.is_relative_to(Path.cwd()) else str(called)
