"""Shards while everything fails: python -m bench.segment_stories [--seeds N] [--first N]

Each seed is a story: workers meet and die at store calls, events come twice, late and out of
order, messages are not confirmed, the clock jumps, the rules change. At the end memberships are
those of a recount, and every change was told once. Then the wrong ways, each of which must be
found. Tests run 40 seeds; 20,000 take about an hour.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from activation.services.segment_shards import ShardWorker
from bench.tables import printed
from tests.segments.mutants import MUTANTS
from tests.segments.simulation import Ground, Story

FOR_MUTANTS = 200


def main() -> None:
    """Run the seeds and print what happened; exit with 1 when a story ends badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="Where files are made; default: temporary.")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    lines, bad = [], 0
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        ground = Ground.in_folder(Path(folder))
        for kind in (ShardWorker, *MUTANTS):
            some = seeds if kind is ShardWorker else seeds[:FOR_MUTANTS]
            line, wrong = told(ground, kind, some)
            lines.append(line)
            bad += wrong if kind is ShardWorker else not wrong
        ground.documents.close()
    head = ["worker", "seeds", "bad", "deaths", "store calls", "changes", "seconds", "most often"]
    print(printed(head, lines))
    sys.exit(1 if bad else 0)


def told(ground: Ground, kind: type[ShardWorker], seeds: range) -> tuple[list[str], int]:
    """A line of the table, and how many seeds ended badly."""
    wrong: Counter[str] = Counter()
    tally: Counter[str] = Counter()
    bad, began = 0, time.perf_counter()
    for seed in seeds:
        story = Story(ground, seed, kind)
        found = story.run()
        tally += story.tally
        wrong.update(found)
        bad += bool(found)
        if found and kind is ShardWorker:
            print(f"seed {seed}: {', '.join(sorted(found))}", flush=True)
    counts = [f"{tally[name]:,}" for name in ("crashes", "calls", "transitions")]
    seconds = f"{time.perf_counter() - began:,.0f}"
    most = wrong.most_common(1)[0][0] if wrong else ""
    return [kind.__name__, f"{len(seeds):,}", f"{bad:,}", *counts, seconds, most], bad


if __name__ == "__main__":
    main()
