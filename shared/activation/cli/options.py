"""The options that every command takes, before its name or after it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from activation.settings import Settings

DEFAULT_ORGANIZATION = "demo"
DEFAULT_USER = "operator"


@dataclass(frozen=True, slots=True)
class Options:
    """Where to work, as whom, and for whom to print."""

    data: str | None = None
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    proxy_token: str | None = field(default=None, repr=False)
    organization: str = DEFAULT_ORGANIZATION
    user: str = DEFAULT_USER
    as_json: bool = False

    def settings(self, **changes: Any) -> Settings:
        """The settings of the environment, with the data folder that was asked for."""
        from activation.settings import from_environment

        settings = from_environment()
        if self.data is not None:
            changes = {"data_folder": self.data, **changes}
        return dataclasses.replace(settings, **changes)

    def bearer(self) -> str:
        """The token: as given, or read from the file behind `@`. Raises UsageError without one."""
        if not self.token:
            raise click.UsageError("--url needs --token: a token, or @FILE that holds one.")
        return _token(self.token)

    def proxy_bearer(self) -> str | None:
        """The token for the proxy in front of the API, if one was given."""
        return _token(self.proxy_token) if self.proxy_token else None

    def require_local(self, why: str) -> None:
        """Raise UsageError when the command was given an API: it works on a store."""
        if self.url is not None:
            raise click.UsageError(f"This works on a local store, not with --url: {why}")


def _token(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise click.UsageError(f"The token file cannot be read: {error.strerror}.") from error


def options() -> Options:
    """What the running command was given."""
    return Options(**click.get_current_context().ensure_object(dict))


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Keep an option that was really given; one after the command's name wins."""
    assert parameter.name is not None
    if parameter.name in ("organization", "user") and value is not None:
        _check_name(parameter.name, value)
    source = context.get_parameter_source(parameter.name)
    if source is not click.core.ParameterSource.DEFAULT:
        context.ensure_object(dict)[parameter.name] = value
    return value


def _check_name(option: str, name: str) -> None:
    """Raise BadParameter for a name that no token can carry."""
    from activation.domain.caller import ORGANIZATION_ID, USER_ID

    if option == "organization" and not ORGANIZATION_ID.fullmatch(name):
        raise click.BadParameter("1 to 64 lower-case letters, digits and hyphens, such as acme-de.")
    if option == "user" and not USER_ID.fullmatch(name):
        raise click.BadParameter("1 to 128 letters, digits and . _ @ : | + -, such as ann.lee.")


def shared_options(*, hidden: bool) -> list[click.Option]:
    """The options, for one command; in the help they stand once, at the top."""
    given: list[tuple[list[str], dict[str, Any]]] = [
        (
            ["--data"],
            {
                "metavar": "FOLDER",
                "help": "Local store. Default: ACTIVATION_DATA_FOLDER, or ./activation-data.",
            },
        ),
        (["--url"], {"metavar": "URL", "help": "Work on the API at URL instead."}),
        (["--token"], {"metavar": "TOKEN|@FILE", "help": "Token for the API."}),
        (
            ["--proxy-token"],
            {"metavar": "TOKEN|@FILE", "help": "Token for the proxy in front of the API, if any."},
        ),
        (
            ["--organization"],
            {"metavar": "NAME", "help": f"Local: for whom. Default: {DEFAULT_ORGANIZATION}."},
        ),
        (["--user"], {"metavar": "NAME", "help": f"Local: as whom. Default: {DEFAULT_USER}."}),
        (
            ["--json", "as_json"],
            {"is_flag": True, "help": "Print one JSON document; progress goes to standard error."},
        ),
    ]
    return [
        click.Option(names, expose_value=False, callback=_remember, hidden=hidden, **settings)
        for names, settings in given
    ]


class Command(click.Command):
    """A command that also takes the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*self.params, *shared_options(hidden=True)]


class Group(click.Group):
    """A command with commands below it."""

    command_class = Command
    hides_shared = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*self.params, *shared_options(hidden=self.hides_shared)]
