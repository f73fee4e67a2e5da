"""`activation serve` and `activation token`: host the functions here, and let people in."""

from __future__ import annotations

from datetime import timedelta

import click

from activation.cli.options import Command, options
from activation.cli.output import output

ROLES = ("viewer", "editor", "approver", "admin")
MAX_MINUTES = 60
SERVE_EPILOG = """\b
Examples:
  activation serve
  activation serve --data ./store --port 9000
  curl -H "Authorization: Bearer $(activation token)" http://127.0.0.1:8080/api/v1/audiences

The description of the API is at /docs. Stop with Ctrl-C; nothing is lost, running work goes on
at the next start.
"""
MINT_EPILOG = """\b
Examples:
  activation token
  activation token --organization acme --user ann --role viewer --minutes 10
"""


@click.command(cls=Command, epilog=SERVE_EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Loopback port of /metrics for Prometheus; none without it.",
)
@click.option(
    "--socket-port",
    type=click.IntRange(1, 65535),
    help="Port of WebSockets; by default the one after --port.",
)
def serve(host: str, port: int, metrics_port: int | None, socket_port: int | None) -> None:
    """Host every function on this machine, behind one port, and WebSockets behind another."""
    options().require_local("an API is served from the store it works on.")
    from activation.local import run

    given = {} if metrics_port is None else {"metrics_port": metrics_port}
    run(options().settings(**given), host, port, socket_port=socket_port)


@click.command(cls=Command, epilog=MINT_EPILOG)
@click.option("--role", type=click.Choice(ROLES), default="admin", show_default=True)
@click.option(
    "--minutes",
    type=click.IntRange(1, MAX_MINUTES),
    default=MAX_MINUTES,
    show_default=True,
    help="How long it is valid.",
)
def token(role: str, minutes: int) -> None:
    """Print a token for the API of the local store."""
    options().require_local("a remote API has an issuer of its own.")
    from activation.adapters.clock import SystemClock
    from activation.api.issuer import EmbeddedIssuer
    from activation.domain.caller import Role

    given = options()
    issuer = EmbeddedIssuer.of(given.settings(), SystemClock())
    minted = issuer.token(given.organization, given.user, Role(role), timedelta(minutes=minutes))
    about = {"organization": given.organization, "user": given.user, "role": role}
    if given.as_json:
        output().answer({"token": minted, **about, "minutes": minutes})
        return
    click.echo(minted)
