"""Segments of purchases against a recount: python -m bench.segment_oracle [cdnow_sample.txt]

Reads the public CDNOW sample, or makes up a log of the same form. For each rule: how often somebody
entered and left by the evaluation, and by counting everything anew at every minute that matters.
Every single change must be the same, in the same minute.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.tables import printed
from tests.segments.purchases import (
    EXPRESSIONS,
    RULES,
    Change,
    made_up,
    purchases,
    segments_of_purchases,
    told_by_recount,
    told_by_shard,
)

SIGNS = {"GT": ">", "LT": "<", "EQ": "=", "GTE": ">=", "LTE": "<=", "NEQ": "<>"}


def main() -> None:
    """Print the table; exit with 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path, nargs="?", help="A file in the form of the sample.")
    arguments = parser.parse_args()
    lines = arguments.log.read_text().splitlines() if arguments.log else made_up(300, 3_000)
    events, segments = purchases(lines), segments_of_purchases()
    began = time.perf_counter()
    found = told_by_shard(segments, events)
    between = time.perf_counter()
    expected = told_by_recount(segments, events)
    took = (between - began, time.perf_counter() - between)
    names = [one.segment_id for one in segments]
    print(printed(HEAD, [_line(name, found, expected) for name in names]))
    users = len({event.user_id for event in events})
    same = found == expected
    print(f"\n{len(events):,} purchases of {users:,} customers; {len(found):,} changes", end="")
    print(f", {'all the same' if same else 'THEY DIFFER'}")
    print(f"evaluation {took[0]:.1f} s, recount {took[1]:.1f} s")
    sys.exit(0 if same else 1)


HEAD = ("segment", "rule", "entries", "recount", "exits", "recount", "differ")


def _line(name: str, found: Sequence[Change], expected: Sequence[Change]) -> list[str]:
    mine, theirs = ([one for one in some if one[2] == name] for some in (found, expected))
    counts = [Counter(entered for *_, entered in some) for some in (mine, theirs)]
    differ = len(set(mine) ^ set(theirs))
    figures = [f"{count[entered]:,}" for entered in (True, False) for count in counts]
    return [name, _text(name), *figures, str(differ)]


def _text(name: str) -> str:
    if name in EXPRESSIONS:
        return EXPRESSIONS[name]
    parts = [
        f"{rule.get('field') or 'orders'} {SIGNS[str(rule['operator'])]} {rule['value']}"
        f" in {rule['window_minutes']}"
        for rule in RULES[name]
    ]
    return ", ".join(parts)


if __name__ == "__main__":
    main()
