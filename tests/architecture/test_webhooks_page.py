"""The page about webhooks lists events, errors and limits as they are."""

from __future__ import annotations

import re
from pathlib import Path

from activation.domain.webhook import (
    DELAYS,
    MAX_OLD_SECRETS,
    MAX_WEBHOOKS,
    PING,
    DeliveryError,
    WebhookEventType,
)

PAGE = (Path(__file__).parents[2] / "docs/webhooks.md").read_text()


def test_every_event_has_a_row_and_no_other() -> None:
    rows = re.findall(r"^\| (`[a-z_.`, ]+`) \|", PAGE, re.MULTILINE)
    named: list[str] = []
    for row in rows:
        for name in re.findall(r"`([a-z_.]+)`", row):
            whole = name if not name.startswith(".") else named[-1].split(".")[0] + name
            named.append(whole)
    events = {name for name in named if "." in name or name == PING}
    assert events == {*(event.value for event in WebhookEventType), PING}


def test_every_error_has_a_row() -> None:
    table = PAGE.partition("| `error` | meaning |")[2].partition("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for cell in first for name in re.findall(r"`(\w+)`", cell)}
    assert named == {error.value for error in DeliveryError}


def test_numbers_are_those_of_the_code() -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    [row] = re.findall(r"tried again after ([\w, ]+), each", PAGE)
    told = [int(n) * units[unit] for n, unit in re.findall(r"(\d+) (s|min|h)\b", row)]
    assert told == [delay.total_seconds() for delay in DELAYS]
    assert f"at most {MAX_WEBHOOKS} webhooks" in PAGE
    assert {4: "four"}[MAX_OLD_SECRETS] + " old secrets" in PAGE
