"""`activation acceptance`: does an installation do what it must? Tried with made-up people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import click

from activation.cli.group import Failure
from activation.cli.options import Command, Options, options
from activation.cli.output import output, table

if TYPE_CHECKING:
    from activation.cli.acceptance_checks import Outcome
    from activation.cli.acceptance_door import Door, Token

PATIENCE_SECONDS = 300.0
READ = {
    "events": ("/events/health", "200"),
    "realtime": ("/users/nobody/segments/realtime", "404 NOT_FOUND"),
    "users": ("/users/nobody/segments", "404 NOT_FOUND"),
}
"""What is asked of a function whose first route cannot be read, and what it answers."""
COLUMNS = ("check", "", "expected", "seen")
EPILOG = """\b
Examples:
  activation acceptance --data ./store
  activation acceptance --url https://api.example.com --token @admin.txt \\
      --viewer-token @viewer.txt --sink https://hooks.example.com/acceptance
  activation acceptance --url https://api.example.com --token @admin.txt \\
      --viewer-token @viewer.txt --proxy-token @iap.txt --project example --region europe-west1

It makes an audience and an account, imports two people who do not exist, sends them to the sink,
and deletes all of it again. Give it an organization of its own: the tokens say which. Without
--sink, an API is not asked to send, and those checks are skipped. Exit code 1 when a check fails.
"""


def doors() -> tuple[tuple[str, str, str], ...]:
    """The name of each function with an address, what is asked of it, and what it answers."""
    from activation.function_manifest import functions

    named = [one for one in functions() if one.routes]
    return tuple((one.name, *READ.get(one.name, (one.routes[0], "200"))) for one in named)


@click.command(cls=Command, epilog=EPILOG)
@click.option("--viewer-token", metavar="TOKEN|@FILE", help="Token of a viewer of the same.")
@click.option("--sink", metavar="URL|drop", help="Where to send: signed webhooks, or the folder.")
@click.option("--project", help="Ask Cloud Run, too, whether every function is ready.")
@click.option("--region", help="Region of the functions of --project.")
@click.option(
    "--patience",
    type=click.FloatRange(min=1),
    default=PATIENCE_SECONDS,
    show_default=True,
    help="Seconds to wait for an import, a job or a distribution.",
)
def acceptance(
    viewer_token: str | None,
    sink: str | None,
    project: str | None,
    region: str | None,
    patience: float,
) -> None:
    """Try an installation: doors, errors, import, versions, distribution, clock."""
    from activation.cli.acceptance_checks import DROP, Acceptance

    out, given = output(), options()
    if (project is None) is not (region is None):
        raise click.UsageError("--project and --region belong together.")
    if sink is None and given.url is None:
        sink = DROP
    found = [] if project is None or region is None else _ready(project, region)
    done = count(1)
    with (
        _door(given, viewer_token, patience) as door,
        out.bar("Trying", "checks") as bar,
    ):
        found += Acceptance(door, doors(), sink, lambda _: bar.show(next(done))).run()
    failed = [one for one in found if one.state == "failed"]
    skipped = sum(one.state == "skipped" for one in found)
    counts = f"{len(found)} checks, {len(failed)} failed, {skipped} skipped."
    rows = [(one.check, one.state, one.expected, one.seen) for one in found]
    checks = [dataclasses.asdict(one) for one in found]
    out.answer({"ok": not failed, "checks": checks}, table(COLUMNS, rows), f"\n  {counts}")
    if failed:
        raise Failure(f"{len(failed)} of {len(found)} checks failed: {failed[0].check}.")


def _ready(project: str, region: str) -> list[Outcome]:
    """One outcome per function: is its newest revision ready?"""
    from activation.cli.acceptance_checks import Outcome
    from activation.cli.cloud_run import READY, connected, readiness

    with connected(project, region) as cloud_run:
        seen = readiness(cloud_run)
    return [
        Outcome(f"{name} on Cloud Run", READY, state, "ok" if state == READY else "failed")
        for name, state in seen.items()
    ]


@contextmanager
def _door(given: Options, viewer_token: str | None, patience: float) -> Iterator[Door]:
    """The door of the API at `--url`, or of the local store with its workers."""
    if given.url is None:
        with _served(given) as (url, tokens), _opened(url, tokens, given, patience) as door:
            yield door
        return
    if viewer_token is None:
        raise click.UsageError("--url needs --viewer-token: a token, or @FILE that holds one.")
    viewer = dataclasses.replace(given, token=viewer_token).bearer
    with _opened(given.url, {"admin": given.bearer, "viewer": viewer}, given, patience) as door:
        yield door


@contextmanager
def _served(given: Options) -> Iterator[tuple[str, Mapping[str, Token]]]:
    import logging

    from activation.cli.api import LOCAL_TICK_SECONDS
    from activation.domain.caller import Role
    from activation.local import LocalServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print every request
    settings = given.settings(log_level="ERROR")
    server = LocalServer(settings, port=0, tick_seconds=LOCAL_TICK_SECONDS)

    def token(role: Role) -> str:
        return server.issuer.token(given.organization, f"{given.user}-{role}", role)

    with server.running() as url:
        yield url, {str(role): partial(token, role) for role in (Role.ADMIN, Role.VIEWER)}


@contextmanager
def _opened(
    url: str, tokens: Mapping[str, Token], given: Options, patience: float
) -> Iterator[Door]:
    import httpx

    from activation.cli.acceptance_door import Door
    from activation.cli.api import TIMEOUT_SECONDS

    def passing(request: httpx.Request) -> httpx.Request:
        if proxy := given.proxy_bearer():
            request.headers["Proxy-Authorization"] = f"Bearer {proxy}"
        return request

    everybody = {**tokens, "forger": lambda: forged(tokens["admin"]())}
    with httpx.Client(base_url=url, auth=passing, timeout=TIMEOUT_SECONDS) as http:
        yield Door(http, everybody, patience)


def forged(token: str) -> str:
    """A token that says the same and is signed by nobody."""
    head, _, signature = token.rpartition(".")
    return f"{head}.{signature[::-1]}"
