"""`activation twin`: ad platforms to try things on, behind one port of this machine."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from activation.cli.options import Command
from activation.cli.output import output

GOOGLE_ACCOUNT, META_ACCOUNT = "1234567890", "1001"
CREDENTIALS: dict[str, dict[str, str]] = {
    "google_ads": {
        "client_id": "twin-client",
        "client_secret": "twin-secret",
        "refresh_token": "twin-refresh",
    },
    "facebook": {"access_token": "twin-token"},
}
"""What the twins accept; no platform in the world does."""
EPILOG = """\b
Examples:
  activation twin
  activation twin --port 9100 --match-rate 0.7

Run it next to `ACTIVATION_ALLOW_PRIVATE_HOSTS=true activation serve`. The twins refuse what the
platforms refuse. GET /_twin/state tells what they hold.
"""


@click.command(cls=Command, epilog=EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8090, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--match-rate",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the people that the platforms know.",
)
@click.option("--until-closed", is_flag=True, hidden=True, help="End with standard input.")
def twin(host: str, port: int, match_rate: float, until_closed: bool) -> None:
    """Run the twins of Google Ads and Meta, and print the settings to use."""
    from activation.adapters.clock import SystemClock
    from activation.twins.facebook import FacebookTwin
    from activation.twins.google_ads import GoogleAdsTwin
    from activation.twins.server import serve

    clock = SystemClock()
    google = GoogleAdsTwin(clock, account_id=GOOGLE_ACCOUNT, match_rate=match_rate)
    meta = FacebookTwin(
        clock, ad_account_id=META_ACCOUNT, match_rate=match_rate, match_delay_seconds=1.0
    )
    running = serve({"google_ads": google, "facebook": meta}, host, port)
    accounts = [_account(name, running.url_of(name)) for name in CREDENTIALS]
    try:
        output().answer({"url": running.url, "platforms": accounts}, *_shown(running.url, accounts))
        sys.stdout.flush()
        _wait(clock, until_closed=until_closed)
    finally:
        running.close()


def _account(name: str, url: str) -> dict[str, Any]:
    """What `POST /platforms` takes for a twin."""
    own: dict[str, Any] = {"ad_account_id": META_ACCOUNT}
    if name == "google_ads":
        own = {"account_id": GOOGLE_ACCOUNT, "terms_accepted": True, "consent_granted": True}
        own["token_url"] = f"{url}/token"
    return {
        "platform_type": name,
        "credentials": CREDENTIALS[name],
        "settings": {"config": {**own, "api_url": url}},
    }


def _shown(url: str, accounts: list[dict[str, Any]]) -> list[str]:
    lines = [f"Twins of Google Ads and Meta listen at [bold]{url}[/bold]; stop with Ctrl-C.", ""]
    for account in accounts:
        settings = account["settings"]["config"].items()
        name = account["platform_type"]
        lines.append(f"[bold]{name}[/bold]")
        lines += [f"  --setting {key}={json.dumps(value).strip(QUOTE)}" for key, value in settings]
        lines += [f"  credentials: {json.dumps(account['credentials'])}", ""]
    return [*lines, f"What they hold: {url}/_twin/state"]


QUOTE = '"'


def _wait(clock: Any, *, until_closed: bool) -> None:
    """Until Ctrl-C or, with `until_closed`, until whoever started us is gone."""
    if until_closed:
        sys.stdin.buffer.read()
        return
    while True:
        clock.sleep(3600)
