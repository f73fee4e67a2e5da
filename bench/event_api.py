"""Events and memberships over HTTP: python -m bench.event_api [--batches N] [--users N]

The deployed functions behind their edge on the embedded store with full durability, in one process,
one request at a time: events accepted a second and the time of a batch, events evaluated a second
by one worker, and how long it takes to ask where a user is, why, and who is in a segment. *fresh*
is a process that has read no state yet. Nothing is compared: machines are told apart by their load.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from werkzeug.test import Client

from activation.domain.caller import Role
from activation.domain.entity import timestamp
from activation.local import LocalServer
from activation.settings import Settings
from bench.tables import printed

BATCH = 1_000
ASKED = 500


class Place:
    """A server on a folder, and a client with an admin's token."""

    def __init__(self, folder: Path) -> None:
        free = {"rate_reads": 0, "rate_writes": 0, "rate_work": 0}
        self.server = LocalServer(Settings(data_folder=str(folder), log_level="ERROR", **free))
        token = self.server.issuer.token("acme", "ann", Role.ADMIN)
        self.headers = {"Authorization": f"Bearer {token}"}
        self.client = Client(self.server.wsgi)

    def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        """The JSON answer; fails unless it is a success."""
        kind = {"content_type": "application/json"} if body else {}
        address = f"/api/v1{path}"
        response = self.client.open(address, method=method, data=body, headers=self.headers, **kind)
        assert response.status_code < 300, response.get_data()
        return response.get_json()


def batch(place: Place, number: int, users: int) -> bytes:
    """A batch of orders of now."""
    now = timestamp(place.server.app.clock.now())
    rows = [
        {
            "user_id": f"u{(number * BATCH + n) % users}",
            "event_type": "orders",
            "timestamp": now,
            "attributes": {"amount": 9.5},
            "event_id": f"{number}-{n}",
        }
        for n in range(BATCH)
    ]
    return orjson.dumps({"events": rows})


def timed(call: Callable[[int], Any], count: int) -> list[float]:
    """Seconds of each of `count` calls, in order of length."""
    found = []
    for number in range(count):
        start = time.perf_counter()
        call(number)
        found.append(time.perf_counter() - start)
    return sorted(found)


def line(name: str, seconds: Sequence[float], each: int = 0) -> list[str]:
    """A row of the table; `each` is how many events a call takes."""
    rate = f"{each * len(seconds) / sum(seconds):,.0f}" if each else ""
    half, last = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
    return [name, f"{half * 1000:.1f}", f"{last * 1000:.1f}", rate]


def evaluated(place: Place) -> float:
    """Seconds until everything that waits is evaluated, by one worker."""
    start = time.perf_counter()
    while place.server.deliver(100, only=("process_events",)):
        pass
    return time.perf_counter() - start


def define(place: Place, count: int) -> str:
    """Segments over orders; the id of the last one, which everybody enters."""
    made = {}
    for number in range(count - 1, -1, -1):
        rule = {"event_type": "orders", "operator": "GT", "window_minutes": 60 + number}
        rules = [{**rule, "value": number}]
        body = {"name": f"S{number}", "type": "INDEPENDENT", "rules": rules}
        made = place.ask("POST", "/segments", orjson.dumps(body))
    return str(made["segment_id"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--segments", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="Where the store is made; default: temporary.")
    given = parser.parse_args()
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        place = Place(Path(folder))
        segment = define(place, given.segments)
        bodies = [batch(place, number, given.users) for number in range(given.batches)]
        sent = timed(lambda n: place.ask("POST", "/events", bodies[n]), given.batches)
        seconds = evaluated(place)
        lines = [line("POST /events, 1,000 each", sent, BATCH)]
        lines.append(["evaluated", "", "", f"{given.batches * BATCH / seconds:,.0f}"])
        fresh = Place(Path(folder))
        for name, who in (("", place), (", fresh", fresh)):
            users = [f"/users/u{n * 37 % given.users}/segments" for n in range(ASKED)]
            where = timed(lambda n, who=who, users=users: who.ask("GET", users[n]), ASKED)
            lines.append(line(f"where a user is{name}", where))
        why = timed(lambda n: place.ask("GET", f"{users[n]}/{segment}/explain"), ASKED)
        lines.append(line("why", why))
        page = f"/segments/{segment}/members?limit=1000"
        lines.append(line("1,000 members", timed(lambda _: place.ask("GET", page), 10)))
        print(printed(["", "half ms", "1 in 100 ms", "events/s"], lines))


if __name__ == "__main__":
    main()
