"""Distributions while everything fails; longer: `python -m bench.chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.chaos import Town

SEEDS = [
    pytest.param(seed, marks=pytest.mark.slow if seed == 1 else pytest.mark.nightly)
    for seed in range(1, 5)
]


@pytest.mark.parametrize("seed", SEEDS)
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
