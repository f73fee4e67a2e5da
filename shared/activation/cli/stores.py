"""Commands that work on the stores themselves: what they do has no place in the public API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from activation.cli.options import options
from activation.errors import NotFoundError

if TYPE_CHECKING:
    from activation.app import App


@contextmanager
def opened(why: str) -> Iterator[App]:
    """The App of the store, or of the environment's Google project. UsageError with `why` when
    the command was given an API."""
    from activation.app import App

    options().require_local(why)
    settings = options().settings()
    if settings.backend == "embedded" and not settings.data_path.is_dir():
        raise NotFoundError(f"There is no store in {settings.data_folder}.", reason="no_store")
    app = App(settings)
    try:
        yield app
    finally:
        app.close()
