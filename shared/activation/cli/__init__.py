"""The command line: `activation COMMAND`, on a local store or on a remote API."""

from __future__ import annotations

from activation.cli.group import activation


def main() -> None:
    """The entry point of the `activation` program."""
    activation()
