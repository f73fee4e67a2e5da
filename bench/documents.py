"""Documents and messages on SQLite at full durability: python -m bench.documents

Goals (docs: performance): 1,000 concurrent saves lose nothing, p99 at most 150 ms, 2,000 a second;
a page of 50 among 10,000 in at most 20 ms (p95).
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from activation.adapters.clock import SystemClock
from activation.adapters.embedded.bus import SqliteBus
from activation.adapters.embedded.documents import SqliteDocuments
from activation.message_codec import Subscription
from activation.ports import Batch, Key, Message, Query, Write

TEXT = "x" * 1400
THREADS = 1000
ROUNDS = 5
LISTED = 10_000
QUERIES = 300
MESSAGES = 2000


def main() -> None:
    """Print one line per figure."""
    with tempfile.TemporaryDirectory() as folder:
        for line in (
            *concurrent_saves(Path(folder)),
            *pages(Path(folder)),
            *deliveries(Path(folder)),
        ):
            print(line)


def concurrent_saves(folder: Path) -> Iterator[str]:
    """Threads that save one document each, at the same time; several rounds."""
    with closing(SqliteDocuments(folder / "saves.db", SystemClock())) as store:
        for round_ in range(1, ROUNDS + 1):
            total, took = one_round(store, round_)
            lost = THREADS * round_ - store.count(Query("org", "audiences"))
            yield f"{THREADS} threads: {THREADS / total:,.0f} saves/s, {spread(took)}, {lost} lost"


def one_round(store: SqliteDocuments, round_: int) -> tuple[float, list[float]]:
    """Seconds of the whole round, starting the threads included, and of each save."""
    took: list[float] = []

    def save(number: int) -> None:
        batch = Batch([audience(f"a{round_}-{number:04d}", "u1")])
        took.append(seconds(lambda: store.commit(batch)))

    threads = [threading.Thread(target=save, args=(n,)) for n in range(THREADS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, took


def pages(folder: Path) -> Iterator[str]:
    """Pages of 50 by filter, from everywhere in the list."""
    with closing(SqliteDocuments(folder / "pages.db", SystemClock())) as store:
        for start in range(0, LISTED, 1000):
            writes = [audience(f"a{n:05d}", f"u{n % 100}") for n in range(start, start + 1000)]
            store.commit(Batch(writes))
        for name, equal in (
            ("all", {}),
            ("status", {"status": "draft"}),
            ("user", {"status": "draft", "visible_to": "u7"}),
        ):
            took = []
            for n in range(QUERIES):
                query = Query(
                    "org", "audiences", equal, after=f"a{n * LISTED // QUERIES + 100:05d}"
                )
                took.append(seconds(lambda query=query: store.query(query)))
            yield f"page of 50 among {LISTED:,} by {name}: {spread(took)}"


def deliveries(folder: Path) -> Iterator[str]:
    """One deliverer, with and without an ordering key."""
    topics = {"t": [Subscription("s")]}
    for name, key in (("no key", None), ("one key", "k")):
        with closing(SqliteBus(folder / f"{key}.db", SystemClock(), topics)) as bus:
            bus.publish([Message("t", "org", f"m{n}", {"n": n}, key) for n in range(MESSAGES)])
            took = seconds(lambda bus=bus: bus.deliver_due(lambda *_: None, MESSAGES))
            yield f"deliveries with {name}: {MESSAGES / took:,.0f}/s"


def audience(id_: str, user: str) -> Write:
    """A new document of 1.4 KB with three terms."""
    data = {"status": "draft", "data_type": "first_party", "visible_to": [user], "text": TEXT}
    return Write(Key("org", "audiences", id_), data, expected="")


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def spread(took: list[float]) -> str:
    """Median, 95th and 99th percentile."""
    ordered = sorted(took)
    p50, p95, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.95, 0.99))
    return f"p50 {p50:.1f} p95 {p95:.1f} p99 {p99:.1f} ms"


if __name__ == "__main__":
    main()
