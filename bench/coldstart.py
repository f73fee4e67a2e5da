"""Cold start: a fresh process loads each function, then answers its first request.

    python -m bench.coldstart [rounds]

Prints, per function, medians in milliseconds over a bare interpreter (load, first answer) and how
many modules are loaded; the heaviest imports follow.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = str(ROOT / "shared")
LOAD = """
import sys
sys.path.insert(0, sys.argv[1])
import functions_framework
app = functions_framework.create_app(target=sys.argv[3], source=sys.argv[2])
if sys.argv[4] == "answer":
    from werkzeug.test import Client
    assert Client(app).get("/health").status_code in (200, 405)
print(len(sys.modules))
"""


def seconds(code: str, *arguments: str) -> tuple[float, str]:
    """Wall time of a fresh interpreter that runs `code`, and what it printed."""
    start = time.perf_counter()
    command = [sys.executable, "-c", code, *arguments]
    found = subprocess.run(command, capture_output=True, check=True, text=True)
    return time.perf_counter() - start, found.stdout.strip()


def median(rounds: int, code: str, *arguments: str) -> tuple[float, str]:
    """The middle one of several runs, in milliseconds."""
    runs = [seconds(code, *arguments) for _ in range(rounds)]
    return statistics.median(run[0] for run in runs) * 1000, runs[-1][1]


def heaviest(code: str, *arguments: str, count: int = 12) -> list[tuple[int, str]]:
    """The imports that cost most, with what they import, in microseconds."""
    command = [sys.executable, "-X", "importtime", "-c", code, *arguments]
    found = subprocess.run(command, capture_output=True, check=True, text=True)
    lines = re.findall(r"import time:\s+\d+ \|\s+(\d+) \| (\s*)(\S+)", found.stderr)
    return sorted(((int(cost), name) for cost, _, name in lines), reverse=True)[:count]


def main(rounds: int) -> None:
    """Measure every function of the manifest."""
    bare, _ = median(rounds, "pass")
    print(f"bare interpreter {bare:.0f} ms; medians of {rounds}, over it:")
    entries = json.loads((ROOT / "functions" / "manifest.json").read_text())["functions"]
    for entry in entries:
        source = str(ROOT / "functions" / entry["name"] / "main.py")
        given = (SHARED, source, entry["entry_point"])
        load, modules = median(rounds, LOAD, *given, "load")
        answer, _ = median(rounds, LOAD, *given, "answer")
        print(
            f"{entry['name']:24}{load - bare:7.0f} ms load{answer - bare:7.0f} ms first answer"
            f"{modules:>6} modules"
        )
    source = str(ROOT / "functions" / "audiences" / "main.py")
    print("heaviest imports of audiences, cumulative:")
    for cost, name in heaviest(LOAD, SHARED, source, "audiences_http", "load"):
        print(f"{cost / 1000:7.1f} ms  {name}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
