"""Who stands outside of all processes and takes down what became of a world: each commit as it
took effect, each batch as a platform took it.

What must hold at every commit is looked at there and then, so that nothing wrong can be put right
before anybody looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from activation.domain.distribution import FINAL, TRANSITIONS, DistributionStatus
from activation.domain.lane import LaneStatus
from activation.ports import Batch

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Send:
    """A request with (a part of) a batch that a platform took."""

    distribution_id: str
    audience: str
    """Where it went: the platform, and its name for the audience."""
    key: str
    """The lane's name."""
    seq: int
    content: str
    """Digest of the request."""


@dataclass(slots=True)
class Witness:
    """What was seen so far. `deaths` are processes that died, or fell asleep and woke too late."""

    sends: list[Send] = field(default_factory=list)
    stops: dict[str, int] = field(default_factory=dict)
    """For each distribution that somebody stopped: how many sends there were when he was told."""
    deaths: int = 0
    sleepers: int = 0
    problems: list[str] = field(default_factory=list)
    _jobs: dict[str, DistributionStatus] = field(default_factory=dict)
    _lanes: dict[str, Row] = field(default_factory=dict)
    _records: Counter[str] = field(default_factory=Counter)

    def copy(self) -> Witness:
        """The same, to go on by itself."""
        return replace(
            self,
            sends=[*self.sends],
            stops={**self.stops},
            problems=[*self.problems],
            _jobs={**self._jobs},
            _lanes={**self._lanes},
            _records=self._records.copy(),
        )

    def stopped(self, distribution_id: str) -> None:
        """Somebody was told that nothing more is sent."""
        self.stops.setdefault(distribution_id, len(self.sends))

    def goes_on(self, distribution_id: str) -> None:
        """Somebody lets it go on."""
        self.stops.pop(distribution_id, None)

    # commits --------------------------------------------------------------------------------------

    def committed(self, batch: Batch) -> None:
        """Look at what a commit has written."""
        for write in batch.writes:
            if write.data is not None:
                problems = self._problems(write.key.collection, write.key.id, write.data)
                self.problems += [f"{write.key.collection}: {problem}" for problem in problems]

    def _problems(self, collection: str, id: str, now: Row) -> list[str]:  # noqa: A002
        match collection:
            case "distributions":
                return self._distribution(id, now)
            case "lanes":
                return self._lane(id, now)
            case "batches":
                return self._batch(id, now)
        return []

    def _distribution(self, id: str, now: Row) -> list[str]:  # noqa: A002
        rows, status = now["progress"], DistributionStatus(now["status"])
        found = []
        if rows["planned"] != rows["sent"] + rows["rejected"] + rows["pending"]:
            found.append("I7 planned is not sent + rejected + pending")
        if min(rows["sent"], rows["rejected"], rows["pending"]) < 0:
            found.append("I7 a count is negative")
        before = self._jobs.get(id)
        if before not in (None, status) and status not in TRANSITIONS[before]:
            found.append(f"went from {before} to {status}")
        self._jobs[id] = status
        return found

    def _lane(self, id: str, now: Row) -> list[str]:  # noqa: A002
        found = []
        if now["rows"] != now["sent"] + now["rejected"] + now["pending"]:
            found.append("I7 rows is not sent + rejected + pending")
        if now["pending"] < 0 or (now["status"] == LaneStatus.DONE and now["pending"]):
            found.append("I7 pending is not what is left")
        if not now["done"] <= max(now["done"], now["intent"]) <= now["batches"]:
            found.append("more batches than it has")
        before = self._lanes.get(id)
        self._lanes[id] = now
        return [*found, *self._moved(before, now)] if before else found

    def _moved(self, before: Row, now: Row) -> list[str]:
        if before["done"] > now["done"] or now["done"] > before["done"] + 1:
            return ["batches were skipped or forgotten"]
        if before["status"] == LaneStatus.DONE != now["status"]:
            return ["it was done"]
        over = before["status"] in (LaneStatus.FAILED, LaneStatus.STOPPED) != now["status"]
        if over and before["status"] != now["status"] and self._is_over(now["distribution_id"]):
            return ["it goes on though its distribution has ended"]
        return []

    def _is_over(self, distribution_id: str) -> bool:
        return self._jobs.get(distribution_id) in FINAL

    def _batch(self, id: str, now: Row) -> list[str]:  # noqa: A002
        self._records[id] += 1
        found = ["recorded twice"] if self._records[id] > 1 else []
        if now["rows"] != now["sent"] + now["rejected"]:
            found.append("I7 rows is not sent + rejected")
        return found

    # sends ----------------------------------------------------------------------------------------

    def told(self) -> list[str]:
        """Everything that was wrong."""
        return [*self.problems, *self._sent_too_often(), *self._mixed(), *self._late()]

    def _sent_too_often(self) -> list[str]:
        """A batch is taken once, and once more for each process that died meanwhile."""
        most = 1 + self.deaths
        counts = Counter((one.key, one.seq, one.content) for one in self.sends)
        return [
            f"batch {key} {seq} was sent {count} times"
            for (key, seq, _), count in counts.items()
            if count > most
        ]

    def _mixed(self) -> list[str]:
        """The batches of two distributions never come to one audience in turns; only somebody
        who slept may come late, with the batch that he had in his hands."""
        found = []
        ordered = sorted(self.sends, key=lambda one: one.audience)
        for audience, sends in groupby(ordered, key=lambda one: one.audience):
            runs = [name for name, _ in groupby(one.distribution_id for one in sends)]
            if len(runs) > len(set(runs)) + self.sleepers:
                found.append(f"two distributions at once at {audience.partition(' ')[0]}")
        return found

    def _late(self) -> list[str]:
        """After a stop only the batch comes that was on its way."""
        found = []
        for distribution_id, position in self.stops.items():
            late = {
                (one.key, one.seq)
                for one in self.sends[position:]
                if one.distribution_id == distribution_id
            }
            if len(late) > 1:
                found.append(f"{len(late)} batches were sent after the stop")
        return found
