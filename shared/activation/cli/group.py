"""The program itself: which commands there are, and how every failure ends."""

from __future__ import annotations

import importlib
from typing import Any

import click

from activation import __version__
from activation.cli.options import Group
from activation.errors import ActivationError

COMMANDS = {
    "demo": "activation.demo.command",
    "serve": "activation.cli.serve",
    "token": "activation.cli.serve",
    "doctor": "activation.cli.doctor",
    "acceptance": "activation.cli.acceptance",
    "audiences": "activation.cli.audiences",
    "import": "activation.cli.imports",
    "imports": "activation.cli.imports",
    "compare": "activation.cli.comparisons",
    "overlap": "activation.cli.comparisons",
    "summary": "activation.cli.summaries",
    "storage": "activation.cli.storages",
    "compact": "activation.cli.storages",
    "versions": "activation.cli.versions",
    "restore": "activation.cli.versions",
    "archive": "activation.cli.archives",
    "unarchive": "activation.cli.archives",
    "jobs": "activation.cli.jobs",
    "operators": "activation.cli.rules",
    "preview": "activation.cli.rules",
    "derive": "activation.cli.rules",
    "segments": "activation.cli.segments",
    "events": "activation.cli.events",
    "users": "activation.cli.users",
    "replay": "activation.cli.replay",
    "digest": "activation.cli.digest",
    "platforms": "activation.cli.platforms",
    "webhooks": "activation.cli.webhooks",
    "plan": "activation.cli.distributions",
    "distribute": "activation.cli.distributions",
    "distributions": "activation.cli.distributions",
    "ledgers": "activation.cli.ledgers",
    "evidence": "activation.cli.evidence",
    "evidence-key": "activation.cli.evidence",
    "verify": "activation.cli.evidence",
    "backup": "activation.cli.backups",
    "retention": "activation.cli.retention",
    "quota": "activation.cli.quotas",
    "organization": "activation.cli.organizations",
    "suppressions": "activation.cli.suppressions",
    "cache": "activation.cli.cache",
    "keys": "activation.cli.keys",
    "audit": "activation.cli.audit",
    "twin": "activation.cli.twin",
    "dead-letters": "activation.cli.dead_letters",
}
"""Command → module, in the order of the help. A module is imported when its command is needed;
in it, the command `dead-letters` is called `dead_letters`, and `import` is `import_`."""

OK, FAILED, USAGE, REFUSED = 0, 1, 2, 3
"""Exit codes: done; a job failed or something is wrong; wrong usage; not found or refused."""

EPILOG = """\b
Examples:
  activation demo
  activation serve --port 8080
  activation import customers.csv --audience "Loyal customers" --create
  activation plan "Loyal customers" "Meta, Germany"
  activation distribute "Loyal customers" "Meta, Germany" --wait
  activation versions "Loyal customers"
  activation compare "Loyal customers" --from 2 --to 3
  activation audiences list --url https://api.example.com --token @token.txt

\b
Exit codes:
  0  done
  1  a job failed, or something is wrong
  2  wrong usage
  3  not found, or refused by the API

AUDIENCE and PLATFORM are a name or an id. The options above may also stand after a command. Each
command has its own --help.
"""


class Failure(click.ClickException):
    """Something is wrong: exit code FAILED, and one line."""

    exit_code = FAILED

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason

    def show(self, file: Any = None) -> None:
        """Print one red line to standard error."""
        reason = f" ({self.reason})" if self.reason else ""
        text = " ".join(f"Error: {self.message}{reason}".split())
        click.secho(text, fg="red", err=True, file=file)


class Refusal(Failure):
    """Not found, or refused by the API."""

    exit_code = REFUSED


class Program(Group):
    """The top group: finds commands when they are asked for, and turns errors into one line."""

    hides_shared = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, from its module."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name])
        attribute = {"import": "import_"}.get(cmd_name, cmd_name.replace("-", "_"))
        command: click.Command = getattr(module, attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; expected failures leave as Failure."""
        try:
            return super().invoke(ctx)
        except ActivationError as error:
            kind = Refusal if error.status < 500 else Failure
            raise kind(error.message, error.reason or error.code) from error


@click.group(
    cls=Program,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
)
@click.version_option(__version__, prog_name="activation")
def activation() -> None:
    """Define audiences, import their members, and bring them to ad platforms."""
