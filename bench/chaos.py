"""Distributions while everything fails: python -m bench.chaos [--runs N] [--seed N …] [--sockets]

Audiences change and go to twins that answer 429, 401, 5xx, half or nothing, workers die in the
middle, messages come twice and late, operators interfere. At the end every count, ledger and
platform is compared with a model of plain sets; a seed that breaks an invariant says which. The
same seed is nearly the same story (ids made in one instant have no order). Tests run 200; a
thousand take a quarter of an hour.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

from bench.tables import printed
from tests.services.chaos import Town


def main() -> None:
    """Run each seed and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--rate", type=float, default=0.15, help="Share of requests that fail.")
    parser.add_argument("--sockets", action="store_true", help="Connections really break.")
    parser.add_argument("--scratch", type=Path, help="Where files are made; default: temporary.")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for seed in arguments.seed:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            began = time.perf_counter()
            town = Town(Path(folder) / "data", seed, sockets=arguments.sockets)
            town.live(arguments.runs, arguments.rate)
            seconds = time.perf_counter() - began
        lines = [[what, f"{count:,}"] for what, count in town.tally.lines()]
        head = [f"seed {seed}, {arguments.runs:,} runs, {seconds:,.0f} s", "times"]
        print(f"{printed(head, lines)}\n", flush=True)


if __name__ == "__main__":
    main()
