"""Commands that documents show exist, with the options and arguments that stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from activation.cli.group import activation

ROOT = Path(__file__).parents[2]
PAGES = (
    *("README.md", "docs/api.md", "docs/cache.md", "docs/consent.md", "docs/distributions.md"),
    *(
        "docs/build.md",
        "docs/deployment.md",
        "docs/event-archive.md",
        "docs/events.md",
        "docs/evidence.md",
    ),
    *("docs/identity.md", "docs/operations.md", "docs/platforms.md", "docs/quotas.md"),
    *("docs/retention.md", "docs/rules.md", "docs/storage.md", "docs/streaming.md"),
    "docs/telemetry.md",
    "docs/versions.md",
    "docs/webhooks.md",
)
OPERATIONS = (ROOT / "docs/operations.md").read_text()
GIVEN = (str, int, tuple, list)
PROGRAMS = ("activation", ".venv/bin/activation", "build/beam/bin/activation")


def shown(text: str) -> list[str]:
    """Every command in blocks of code, and in the running text between back-ticks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)]
    return [one.strip() for one in (*lines, *inline) if one.strip().startswith(PROGRAMS)]


def problem(line: str) -> str | None:
    """What is wrong with a command; None when nothing is. A name without arguments mentions it."""
    try:
        _, *words = shlex.split(line.partition("|")[0], comments=True)
    except ValueError as error:
        return str(error)
    command: click.Command = activation
    context = click.Context(activation)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return f"no command {words[0]}"
        command, words = found, words[1:]
    if not words or words == ["…"]:
        return None
    return _of_arguments(command, words)


def _of_arguments(command: click.Command, words: list[str]) -> str | None:
    context = click.Context(command)
    try:
        given, left, _ = command.make_parser(context).parse_args(list(words))
        for parameter in command.params:
            if isinstance(parameter.type, click.Choice) and given.get(parameter.name or ""):
                parameter.type_cast_value(context, given[parameter.name or ""])
    except click.UsageError as error:
        return error.message
    missing = [
        parameter.name
        for parameter in command.params
        if parameter.required and not isinstance(given.get(parameter.name or "") or None, GIVEN)
    ]
    if left or missing:
        return f"too many: {left}" if left else f"missing: {missing}"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_shows_exists(page: str) -> None:
    lines = shown((ROOT / page).read_text())
    assert {line: problem(line) for line in lines if problem(line)} == {}


@pytest.mark.parametrize(
    "line",
    [
        "activation backups list",
        "activation backup destroy --from /mnt",
        "activation backup make --too /mnt/backups",
        "activation backup make --passphrase-file x",
        "activation backup list --from a b",
        "activation restore Buyers",
        "activation distribute Buyers Meta --type everything",
        "activation restore 'Buyers 3",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    assert problem(line)


def test_commands_are_found_in_blocks_and_in_running_text() -> None:
    text = (
        "Run `activation\nbackup list`, or\n\n```sh\nactivation doctor  # now\n```\n and `doctor`."
    )
    assert shown(text) == ["activation doctor  # now", "activation backup list"]


def test_the_page_of_operations_shows_the_commands_of_a_restore() -> None:
    lines = shown(OPERATIONS)
    assert len(lines) > 50
    for name in ("make", "list", "verify", "prune", "restore", "reapply"):
        assert any(line.startswith(f"activation backup {name} ") for line in lines), name


def test_the_database_that_a_restore_makes_can_be_named_to_terraform() -> None:
    """The page says how: what it takes out of the state, and the variable, are there."""
    configured = "".join(path.read_text() for path in (ROOT / "terraform").glob("*.tf"))
    (removed,) = re.findall(r"^terraform state rm (.+)$", OPERATIONS, re.MULTILINE)
    known = re.findall(r'^resource "(google_firestore_\w+)" "(\w+)"', configured, re.MULTILINE)
    assert set(removed.split()) == {f"{type_}.{name}" for type_, name in known}
    (variable,) = re.findall(r'with `(\w+) = "NEW"`', OPERATIONS)
    assert f"var.{variable}" in configured


def test_links_within_the_page_lead_to_a_heading() -> None:
    headings: dict[str, int] = {}
    for title in re.findall(r"^#+ (.*)$", OPERATIONS, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        seen = headings.get(slug, 0)
        headings[slug] = seen + 1
        if seen:
            headings[f"{slug}-{seen}"] = 1
    for target in re.findall(r"\]\(#([^)]+)\)", OPERATIONS):
        assert target in headings, target


def sections_of_alerts() -> dict[str, str]:
    """What the page says of each alert."""
    alerts = OPERATIONS.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    sections = re.split(r"^### (\S+)$", alerts, flags=re.MULTILINE)[1:]
    return dict(zip(sections[::2], sections[1::2], strict=True))


def test_every_alert_of_the_deployment_has_its_section() -> None:
    texts = [(ROOT / "terraform" / name).read_text() for name in ("alerts.tf", "slo.tf")]
    named = set(re.findall(r'alert = "([a-z-]+)"', texts[0]))
    named |= set(re.findall(r"^    ([a-z-]+) +?= \{\n +level", texts[0], re.MULTILINE))
    named |= set(re.findall(r'"(instances)-\$', texts[0]))
    named |= {
        f"burn-{name}" for name in re.findall(r"^    (\w+) += \{ rate", texts[1], re.MULTILINE)
    }
    assert len(named) > 18
    assert named <= set(sections_of_alerts())


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    found = sections_of_alerts()
    assert len(found) > 40
    for name, text in found.items():
        told = "**Means**" in text and "**Do**" in text
        assert told or text.strip().startswith(("As [", "For the record")), name
