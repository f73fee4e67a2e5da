"""Distributions while everything fails; longer: `python -m bench.chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.chaos import Town


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_every_invariant_holds_whatever_fails(tmp_path: Path, seed: int) -> None:
    town = Town(tmp_path / "data", seed)
    town.live(45)
    assert town.tally.happened["audiences compared"] > 20
    assert town.tally.happened["workers killed"]
    assert sum(town.tally.faults.values()) > 30


@pytest.mark.slow
def test_every_invariant_holds_over_real_connections(tmp_path: Path) -> None:
    town = Town(tmp_path / "data", 5, sockets=True)
    town.live(20)
    assert town.tally.happened["audiences compared"] > 10
    assert town.tally.faults["reset"] + town.tally.faults["lost"] + town.tally.faults["truncate"]
