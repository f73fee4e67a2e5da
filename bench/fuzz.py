"""Hostile requests at size: python -m bench.fuzz [mutations|cases|probes …] [--seed N …]

*mutations*: requests made of the API description and spoiled (types, sizes, Unicode, nesting,
fields given twice, content types, headers, paths, cut bytes). *cases*: what schemathesis makes of
it, with its checks. *probes*: two organizations with objects of every kind; every id of the one is
used by the other in every place of every operation. Nothing may be answered 5xx, every error has
the one shape, no byte of the other organization is told, and nothing of it changes. A seed gives
the same run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from werkzeug.test import Client

from activation.adapters.clock import SystemClock
from activation.api.issuer import KEY_FILE, EmbeddedIssuer
from activation.local import LocalServer
from activation.settings import Settings
from bench.tables import printed
from tests.api.client import Description
from tests.fuzz.cases import checked
from tests.fuzz.mutations import Findings, fuzzed
from tests.fuzz.probes import swept, targets

COUNTS = {"mutations": 100_000, "cases": 20_000, "probes": 200_000}
Run = Callable[[Path, Path, Description, int, int], Findings]


def probed(
    folder: Path, key_file: Path, description: Description, count: int, seed: int
) -> Findings:
    """Probe, and say how many of the places were asked."""
    sweep = swept(folder, key_file, description, count, seed)
    places = len(targets(description))
    print(f"{len(sweep.asked):,} of {places:,} places; {sweep.unchanged:,} worlds unchanged")
    return sweep.findings


RUNS: dict[str, Run] = {"mutations": fuzzed, "cases": checked, "probes": probed}


def main() -> None:
    """Run each kind with each seed; exit code 1 when anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*RUNS, []], default=list(RUNS))
    parser.add_argument("--count", type=int, help="Requests of each run; default: the full number.")
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--scratch", type=Path, help="Where files are made; default: temporary.")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    faults = 0
    for kind in arguments.kinds or list(RUNS):
        for seed in arguments.seed:
            with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
                count = arguments.count or COUNTS[kind]
                faults += _reported(kind, Path(folder), count, seed)
    sys.exit(1 if faults else 0)


def _reported(kind: str, folder: Path, count: int, seed: int) -> int:
    key_file, description = _prepared(folder)
    began = time.perf_counter()
    found = RUNS[kind](folder, key_file, description, count, seed)
    seconds = time.perf_counter() - began
    head = [f"{kind}, seed {seed}", f"{found.requests:,} in {seconds:,.0f} s"]
    lines = [[str(status), f"{times:,}"] for status, times in sorted(found.statuses.items())]
    lines.append(["faults", f"{sum(found.faults.values()):,}"])
    print(f"{printed(head, lines)}\n", flush=True)
    for fault, times in found.faults.most_common():
        print(f"{times:,} x {fault}")
        if fault in found.examples:
            print(f"    {dataclasses.replace(found.examples[fault], headers={})!r:.600}")
    return len(found.faults)


def _prepared(folder: Path) -> tuple[Path, Description]:
    assert EmbeddedIssuer(folder, SystemClock()).key_id
    server = LocalServer(Settings(data_folder=str(folder / "described")))
    document = Client(server.wsgi).get("/openapi.json").get_json()
    return folder / KEY_FILE, Description(document)


if __name__ == "__main__":
    main()
