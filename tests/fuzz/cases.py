"""Requests that schemathesis makes of the description, right and wrong ones, and its checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from schemathesis import GenerationMode, checks
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok

from tests.api.client import Api, Description
from tests.fuzz.mutations import Findings
from tests.fuzz.requests import Request
from tests.fuzz.world import WatchedServer, furnished

MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
LEFT_OUT = [
    checks.positive_data_acceptance,  # ids and cursors fit the schema and name nothing
    checks.negative_data_rejection,  # numbers in texts and the like are taken
    checks.ignored_auth,  # the token that it spoils is put right again
]


def checked(
    folder: Path, key_file: Path, description: Description, count: int, seed: int
) -> Findings:
    """Send about `count` cases, as many of every operation, and hold the answers to all checks."""
    server, findings = WatchedServer(folder / f"cases-{seed}", key_file), Findings()
    try:
        api = Api(server, description).as_()
        ids = furnished(api, "CASES").ids
        each = math.ceil(count / (len(description.operations) * len(MODES)))
        for operation in _operations(server, description):
            for mode in MODES:
                strategy = operation.as_strategy(generation_mode=mode)
                known = ids if mode is GenerationMode.POSITIVE else {}
                _checked(strategy, known, api, each, seed, findings)
            server.work()
            for failed in server.failed:
                findings.note(f"after {operation.label}: {failed}", Request("", operation.label))
            server.failed.clear()
    finally:
        server.stop()
    return findings


def _operations(server: WatchedServer, description: Description) -> Iterator[Any]:
    schema = schemathesis.openapi.from_dict(description.document)
    schema.app = server.wsgi
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        yield found.ok()


def _checked(
    strategy: Any,
    ids: Mapping[str, list[str]],
    api: Api,
    count: int,
    seed: int,
    findings: Findings,
) -> None:
    """Half of the cases name records that are there, where `ids` has them."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=strategy)
    def ask(case: Any) -> None:
        if findings.requests % 2:
            for name in case.path_parameters.keys() & ids.keys():
                case.path_parameters[name] = ids[name][0]
        answer = case.call(headers=dict(api.headers))
        findings.requests += 1
        findings.statuses[answer.status_code] += 1
        findings.operations[case.operation.label] += 1
        for fault in _faults(case, answer):
            findings.note(f"{case.operation.label}: {fault}", Request(case.method, case.path))

    ask()


def _faults(case: Any, answer: Any) -> list[str]:
    try:
        case.validate_response(answer, excluded_checks=LEFT_OUT)
    except FailureGroup as failures:
        return [str(one).splitlines()[0] for one in failures.exceptions]
    if answer.status_code < 400:
        return []
    found = answer.json()["error"]
    same = found["traceId"] == answer.headers["x-trace-id"][0]
    return [] if same and set(found) == ERROR_FIELDS else ["not the envelope"]


ERROR_FIELDS = {"code", "message", "details", "timestamp", "traceId"}
