"""Spoiled requests over the whole API, and what came of them."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from activation.domain.caller import Role
from tests.api.client import Api, Description
from tests.fuzz.judging import Judge, answered
from tests.fuzz.requests import Maker, Request
from tests.fuzz.schemas import Sampler
from tests.fuzz.world import WatchedServer, furnished

FRESH_AFTER = 4_000
"""Requests that one world has to bear."""
WORK_AFTER = 250
MAX_EXAMPLES = 20


@dataclass
class Findings:
    """Faults by kind, with the first request of each, and how often each status was answered."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Request] = field(default_factory=dict)

    def note(self, fault: str, request: Request) -> None:
        """Keep a fault."""
        self.faults[fault] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.setdefault(fault, request)


def fuzzed(
    folder: Path, key_file: Path, description: Description, count: int, seed: int
) -> Findings:
    """Send `count` spoiled requests; one seed gives one run."""
    chance, findings = random.Random(seed), Findings()
    for number in range(0, count, FRESH_AFTER):
        server = WatchedServer(folder / f"{seed}-{number}", key_file)
        try:
            _spoil(server, description, min(FRESH_AFTER, count - number), chance, findings)
        finally:
            server.stop()
            shutil.rmtree(server.app.settings.data_path)
    return findings


def _spoil(
    server: WatchedServer,
    description: Description,
    count: int,
    chance: random.Random,
    findings: Findings,
) -> None:
    api = Api(server, description).as_()
    sampler = Sampler(description.document, furnished(api, "FUZZ").ids, chance)
    judge = Judge(description, findings.statuses)
    tokens = _tokens(server)
    for number in range(count):
        maker = Maker(sampler, description.operations, chance.choice(tokens))
        request = maker.spoiled() if chance.random() < 0.95 else maker.good()
        findings.requests += 1
        try:
            faults = judge.faults(request, answered(server, request))
        except Exception as error:  # noqa: BLE001 - nothing may leave the functions
            faults = [f"raised {type(error).__name__}"]
        operation = description.operation(request.method, request.path)
        findings.operations[operation["operationId"] if operation else "-"] += 1
        for fault in faults:
            findings.note(f"{operation and operation['operationId']}: {fault}", request)
        if number % WORK_AFTER == WORK_AFTER - 1:
            server.work()
            for failed in server.failed:
                findings.note(failed, request)
            server.failed.clear()


def _tokens(server: WatchedServer) -> list[str]:
    """Authorization headers, as often as they are to be chosen."""
    good = {role: f"Bearer {server.issuer.token('acme', 'ann', role)}" for role in Role}
    return [*[good[Role.ADMIN]] * 14, *[good[Role.EDITOR]] * 3, *good.values(), "Bearer none"]
