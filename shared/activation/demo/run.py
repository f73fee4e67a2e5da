"""The main job end to end, through the real functions and real HTTP, told step by step.

File → audience → import → sealed credentials → plan → distribution → match results → proof that
the platforms hold exactly what the audience says.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from activation.cli.progress import follow_distribution
from activation.demo.folder import DEFAULT, fresh
from activation.demo.generator import Contents, write_export
from activation.demo.holdings import Holding, expected
from activation.demo.twins import TwinProcess, twin_process
from activation.domain.caller import service_caller
from activation.local import LocalServer

AUDIENCE = "Demo customers"
TITLES = {"google_ads": "Google Ads", "facebook": "Meta"}
PORT = 8080


def run(
    given: Options,
    out: Output,
    *,
    rows: int,
    file: Path | None,
    default_region: str,
    keep: bool,
) -> None:
    """The whole demo. Raises Failure when a job fails or a platform holds something else."""
    settings = given.settings(
        data_folder=given.data or DEFAULT,
        allow_private_hosts=True,
        match_poll_seconds=1.0,
        log_level="ERROR",
    )
    fresh(settings.data_path)
    clock = SystemClock()
    started = clock.monotonic()
    with ExitStack() as stack:
        twins = stack.enter_context(twin_process())
        source, contents = stack.enter_context(_source(out, file, rows, settings.data_path, keep))
        server = LocalServer(settings, port=0, tick_seconds=LOCAL_TICK_SECONDS)
        api = stack.enter_context(served(server, given.organization, given.user))
        demo = Demo(given, out, api, server, twins, default_region)
        result = demo.all(source, contents)
    took = clock.monotonic() - started
    out.answer(
        {**result, "seconds": round(took, 1)}, *_look_here(given, settings.data_path, result)
    )
    out.line(f"\nDone in {duration(took)}.")
    if not all(holding["equal"] for holding in result["holdings"]):
        raise Failure("A platform does not hold what the audience says.")


@contextmanager
def _source(
    out: Output, file: Path | None, rows: int, folder: Path, keep: bool
) -> Iterator[tuple[Path, Contents | None]]:
    """The file to import; a made-up one is removed afterwards, unless it is to be kept."""
    if file is not None:
        _step(out, 1, f"Your file {file.name}, {size(file.stat().st_size)}")
        yield file, None
        return
    with tempfile.TemporaryDirectory(prefix="activation-demo-") as temporary:
        place = folder.with_name(f"{folder.name}-customers.csv")
        path = place if keep else Path(temporary) / place.name
        _step(out, 1, "A made-up CRM export")
        with out.bar("Writing", total=rows) as bar:
            written = 0

            def on_rows(count: int) -> None:
                nonlocal written
                written += count
                bar.show(written)

            contents = write_export(path, rows, on_rows=on_rows)
        out.line(
            facts(
                {
                    "rows": contents.rows,
                    "people": contents.people,
                    "size": size(path.stat().st_size),
                    "file": str(path) if keep else None,
                }
            )
        )
        yield path, contents


@dataclass(frozen=True, slots=True)
class Demo:
    """The steps after the file is there."""

    given: Options
    out: Output
    api: Api
    server: LocalServer
    twins: TwinProcess
    default_region: str

    def all(self, source: Path, contents: Contents | None) -> dict[str, Any]:
        """Every step; returns the records of what was done."""
        job = self.imported(source, contents)
        audience = self.stored(job["audience_id"])
        platforms = self.platforms()
        self.planned(audience, platforms)
        distributions = self.distributed(audience, platforms)
        holdings = self.proved(audience, platforms, distributions)
        return {
            "audience": audience,
            "import": job,
            "platforms": platforms,
            "distributions": distributions,
            "holdings": holdings,
        }

    def imported(self, source: Path, contents: Contents | None) -> dict[str, Any]:
        """Import the file into a new audience."""
        _step(self.out, 2, f"Import into the audience “{AUDIENCE}”")
        audience = create_audience(self.api, AUDIENCE, "first_party")
        draft = {"default_region": self.default_region}
        job = run_import(self.api, self.out, audience["audience_id"], source, draft)
        rejects = save_rejects(
            self.api, job, self.server.app.settings.data_path / "import.rejects.csv"
        )
        for part in import_report(job, rejects):
            self.out.line(part)
        require_completed(job)
        if contents is not None and self.default_region == "DE":
            self._as_generated(job["counts"], contents)
        return job

    def _as_generated(self, counts: dict[str, Any], contents: Contents) -> None:
        wanted = {
            name: getattr(contents, name)
            for name in ("rows", "received", "accepted", "duplicate", "rejected_by_reason")
        }
        if any(counts[name] != value for name, value in wanted.items()):
            raise Failure("The import counted otherwise than the generator wrote.")
        self.out.line("  [green]✓[/green] Every number is the one that the generator wrote.")

    def stored(self, audience_id: str) -> dict[str, Any]:
        """How the members are kept."""
        audience = self.api.get(f"/audiences/{audience_id}")
        storage, members = audience["storage"], audience["size"]
        _step(self.out, 3, "What is stored: hashes, no address and no number")
        self.out.line(
            facts(
                {
                    "members": members,
                    "tier": storage["type"],
                    "partitions": len(storage["partitions"]),
                    "size": size(storage["bytes"]),
                    "per member": f"{storage['bytes'] / max(members, 1):.1f} bytes",
                }
            )
        )
        return audience

    def platforms(self) -> list[dict[str, Any]]:
        """Save an account at each twin and have its credentials tested."""
        _step(self.out, 4, f"Accounts at the twins of two ad platforms, {self.twins.url}")
        saved = []
        for account in self.twins.platforms:
            body = {"name": TITLES[account["platform_type"]], **account}
            made = self.api.post("/platforms", body)
            tested = check_platform(self.api, made["platform_id"])
            health = tested["health"]
            if health["status"] != "ok":
                raise Failure(f"{tested['name']}: {health['message']}", health["status"])
            sealed = ", ".join(tested["credentials"]["fields"])
            self.out.line(f"  {tested['name']:<12} sealed: {sealed}. {health['message']}")
            saved.append(tested)
        return saved

    def planned(self, audience: dict[str, Any], platforms: list[dict[str, Any]]) -> None:
        """What the distributions are going to do."""
        _step(self.out, 5, "The plan: what would be sent")
        rows = []
        for platform in platforms:
            plan = self.api.post("/distributions/plan", _body(audience, platform))
            withheld = sum(plan["withheld"].values())
            counts = [plan[name] for name in ("members", "identifiers", "rows", "requests")]
            rows.append([platform["name"], counts[0], withheld, *counts[1:]])
        columns = ("platform", "members", "withheld", "identifiers", "rows", "requests")
        self.out.line(table(columns, rows))

    def distributed(
        self, audience: dict[str, Any], platforms: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Distribute to all platforms at the same time, and wait for their match results."""
        _step(self.out, 6, "Distribution, to both at the same time")
        started = [
            self.api.post("/distributions", _body(audience, platform)) for platform in platforms
        ]
        ended = [
            follow_distribution(
                self.api, self.out, job["distribution_id"], f"{platform['name']:<10}", matches=True
            )
            for platform, job in zip(platforms, started, strict=True)
        ]
        names = [platform["name"] for platform in platforms]
        for part in distribution_report(list(zip(names, ended, strict=True))):
            self.out.line(part)
        for job in ended:
            require_delivered(job)
        return ended

    def proved(
        self,
        audience: dict[str, Any],
        platforms: list[dict[str, Any]],
        distributions: list[dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """Compare what each twin holds with the audience's stored members."""
        _step(self.out, 7, "Proof: do the platforms hold exactly what the audience says?")
        organization = self.given.organization
        caller = service_caller("demo", organization, "demo")
        found = []
        for platform, job in zip(platforms, distributions, strict=True):
            wanted = expected(
                self.server.app, caller, audience["audience_id"], platform["platform_id"]
            )
            held = self._held(platform["platform_type"], job)
            mark = "[green]✓[/green]" if held == wanted else "[red]✗[/red]"
            self.out.line(
                f"  {mark} {platform['name']:<12} audience {wanted.members:>11,}  "
                f"platform {held.members:>11,}  digest {held.digest[:16]}"
            )
            found.append({"platform": platform["name"], "equal": held == wanted, **vars_of(held)})
        return found

    def _held(self, platform_type: str, job: dict[str, Any]) -> Holding:
        wanted = job["match_results"]["platform_audience_id"]
        for audience in self.twins.holdings(platform_type):
            if audience["audience_id"] == wanted:
                return Holding(audience["members"], audience["digest"])
        return Holding(0, "")


def vars_of(holding: Holding) -> dict[str, Any]:
    """A holding as JSON."""
    return {"identifiers": holding.members, "digest": holding.digest}


def _body(audience: dict[str, Any], platform: dict[str, Any]) -> dict[str, Any]:
    return {"audience_id": audience["audience_id"], "platform_id": platform["platform_id"]}


def _step(out: Output, number: int, title: str) -> None:
    out.line(f"\n[bold]{number}  {title}[/bold]")


def _look_here(given: Options, folder: Path, result: dict[str, Any]) -> list[str]:
    """How to see the same through the API."""
    store = f"--data {shlex.quote(str(folder))}"
    whom = f" --organization {shlex.quote(given.organization)} --user {shlex.quote(given.user)}"
    address = f"http://127.0.0.1:{PORT}"
    audience = result["audience"]["audience_id"]
    return [
        "\n[bold]8  Look for yourself[/bold]",
        f"  activation serve {store} --port {PORT}",
        f"  export TOKEN=$(activation token {store}{whom})",
        *(
            f'  curl -H "Authorization: Bearer $TOKEN" {address}/api/v1{path}'
            for path in (
                f"/audiences/{audience}",
                f"/audiences/{audience}/members?limit=3",
                f"/distributions/{result['distributions'][0]['distribution_id']}",
            )
        ),
        f"  {address}/docs describes the API.",
    ]
