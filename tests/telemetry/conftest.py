"""Figures and log lines of a run; the API and the App as elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from activation.adapters.telemetry.meters import CatalogMeter
from activation.observability import LOGGER, listen, unlisten
from tests.api.conftest import api, description, key_file, public, server, settings
from tests.api.test_local import Lines
from tests.telemetry.figures import Figures

__all__ = ["api", "description", "key_file", "public", "server", "settings"]


class Log(Lines):
    """The lines of a run."""

    def of(self, message: str) -> list[dict[str, Any]]:
        """The lines of one kind."""
        return [line for line in map(json.loads, self.texts) if line["message"] == message]


@pytest.fixture
def log() -> Iterator[Log]:
    """Every line, also of level DEBUG."""
    lines, level = Log(), LOGGER.level
    LOGGER.addHandler(lines)
    LOGGER.setLevel("DEBUG")
    yield lines
    LOGGER.removeHandler(lines)
    LOGGER.setLevel(level)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """What is counted; at the end, all that the test promises to show must have been."""
    figures = Figures()
    meter = CatalogMeter(figures)
    listen(meter)
    yield figures
    unlisten(meter)
    assert set(getattr(request.function, "shows", ())) <= figures.names
