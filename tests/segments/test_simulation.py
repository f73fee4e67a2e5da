"""No story of crashes, repetitions and races loses, invents or repeats a membership."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from activation.services.segment_shards import ShardWorker
from tests.segments.mutants import MUTANTS
from tests.segments.simulation import Ground, Story

SEEDS = 40
LONG = 300
ENOUGH = 60
"""Seeds within which a wrong way must be found."""


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """Stores for many stories."""
    ground = Ground.in_folder(tmp_path)
    yield ground
    ground.documents.close()


def bad_seeds(ground: Ground, seeds: range, kind: type[ShardWorker] = ShardWorker) -> list[str]:
    """The seeds that end badly, and how."""
    found = []
    for seed in seeds:
        wrong = Story(ground, seed, kind).run()
        if wrong:
            found.append(f"{seed}: {', '.join(sorted(wrong))}")
    return found


def test_every_story_ends_well(ground: Ground) -> None:
    assert bad_seeds(ground, range(SEEDS)) == []


@pytest.mark.slow
def test_many_stories_end_well(ground: Ground) -> None:
    assert bad_seeds(ground, range(SEEDS, SEEDS + LONG)) == []


@pytest.mark.parametrize("kind", MUTANTS, ids=lambda kind: kind.__name__)
def test_a_wrong_way_is_found(ground: Ground, kind: type[ShardWorker]) -> None:
    assert any(Story(ground, seed, kind).run() for seed in range(ENOUGH))
