"""`activation webhooks`: addresses that are told what becomes of distributions and accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from activation.cli.api import Api, connected
from activation.cli.group import Failure
from activation.cli.options import Group, options
from activation.cli.output import facts, moment, output, table
from activation.cli.progress import watched
from activation.errors import NotFoundError

if TYPE_CHECKING:
    from rich.console import RenderableType

EPILOG = """\b
Examples:
  activation webhooks add https://hooks.example.com/in --event distribution.failed
  activation webhooks test https://hooks.example.com/in
  activation webhooks deliveries https://hooks.example.com/in --status failed
  activation webhooks replay https://hooks.example.com/in 01a1fdd3-059a-7446-b6dc-2e2ba10ba1fb

WEBHOOK is an id or an address. A secret is shown once: when it is made.
"""
ALL = "all"


@click.group(cls=Group, epilog=EPILOG)
def webhooks() -> None:
    """Tell other systems what becomes of distributions and accounts."""


@webhooks.command("list")
def list_webhooks() -> None:
    """List webhooks, newest first."""
    with connected(options()) as api:
        found = list(api.all("/webhooks"))
    rows = [(w["url"], ", ".join(w["events"]) or ALL, _status(w), w["webhook_id"]) for w in found]
    output().answer(found, table(("address", "events", "status", "id"), rows))


def _status(webhook: dict[str, Any]) -> str:
    reason = webhook["disabled_reason"]
    return str(webhook["status"]) if reason is None else f"{webhook['status']} ({reason})"


@webhooks.command("add")
@click.argument("address", metavar="ADDRESS")
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="TYPE",
    help="An event it gets, e.g. distribution.failed; may be given several times. Default: all.",
)
@click.option("--description", metavar="TEXT", help="What it is for.")
def add(address: str, events: tuple[str, ...], description: str | None) -> None:
    """Register an address; shows the secret that signs what it gets."""
    body = {"url": address, "events": events, "description": description or ""}
    with connected(options(), create=True) as api:
        made = api.post("/webhooks", body)
    output().answer(made, f"Saved [bold]{made['webhook_id']}[/bold].", *_secret(made))


@webhooks.command("rotate")
@click.argument("webhook", metavar="WEBHOOK")
def rotate(webhook: str) -> None:
    """Make a new secret; the old one signs too for a day."""
    with connected(options()) as api:
        made = api.post(f"{_path(api, webhook)}/rotate")
    until = f"The old one signs too until {moment(made['secret_info']['old_until'])}."
    output().answer(made, *_secret(made), until)


def _secret(made: dict[str, Any]) -> list[RenderableType]:
    return [facts({"secret": made["secret"]}), "Keep it now: it is not shown again."]


@webhooks.command("test")
@click.argument("webhook", metavar="WEBHOOK")
def ping(webhook: str) -> None:
    """Send a ping, and wait for the answer."""
    with connected(options(), works=True) as api:
        path = _path(api, webhook)
        tried = _tried(api, path, api.post(f"{path}/test"))
    _report(tried)


@webhooks.command("deliveries")
@click.argument("webhook", metavar="WEBHOOK")
@click.option("--status", metavar="STATUS", help="Only those with this status, e.g. failed.")
def deliveries(webhook: str, status: str | None) -> None:
    """List what was sent in the last 30 days, newest first."""
    query = {} if status is None else {"status": status}
    with connected(options()) as api:
        found = list(api.all(f"{_path(api, webhook)}/deliveries", **query))
    rows = [
        (
            one["event_type"],
            moment(one["created_at"]),
            one["status"],
            one["attempts"],
            one["response_status"] or one["error"],
            moment(one["next_at"]),
            one["delivery_id"],
        )
        for one in found
    ]
    columns = ("event", "made", "status", "tries", "answer", "next try", "id")
    output().answer(found, table(columns, rows))


@webhooks.command("replay")
@click.argument("webhook", metavar="WEBHOOK")
@click.argument("delivery_id", metavar="DELIVERY")
def replay(webhook: str, delivery_id: str) -> None:
    """Send a delivery again under the same event id, and wait for the answer."""
    with connected(options(), works=True) as api:
        path = _path(api, webhook)
        tried = _tried(api, path, api.post(f"{path}/deliveries/{delivery_id}/replay"))
    _report(tried)


def _path(api: Api, id_or_address: str) -> str:
    """The path of the webhook with this id or address; NotFoundError without one."""
    for webhook in api.all("/webhooks"):
        if id_or_address in (webhook["webhook_id"], webhook["url"]):
            return f"/webhooks/{webhook['webhook_id']}"
    raise NotFoundError(f"There is no webhook {id_or_address!r}.", reason="not_found")


def _tried(api: Api, path: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The delivery after its first try."""
    address = f"{path}/deliveries/{asked['delivery_id']}"
    return watched(lambda: api.get(address), _has_outcome)


def _has_outcome(delivery: dict[str, Any]) -> bool:
    """Whether a try is over: it arrived, was given up, or waits for the next try."""
    waits = delivery["attempts"] > 0 and delivery["next_at"] is not None
    return delivery["status"] != "pending" or waits


def _report(tried: dict[str, Any]) -> None:
    """Show what came of a try; raises Failure when it did not arrive."""
    shown = {
        "event": tried["event_type"],
        "status": tried["status"],
        "answer": tried["response_status"],
        "error": tried["error"],
        "next try": moment(tried["next_at"]),
    }
    output().answer(tried, facts(shown))
    if tried["status"] != "delivered":
        raise Failure("The event did not arrive.", tried["error"])
