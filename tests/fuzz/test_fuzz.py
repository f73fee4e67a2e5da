"""Hostile requests over the whole API: no fault of ours, one shape of errors, nothing of others.

These are the small forms; `python -m bench.fuzz` runs the large ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from werkzeug.datastructures import Headers

from tests.api.client import Description
from tests.fuzz.cases import checked
from tests.fuzz.judging import Answer, Judge
from tests.fuzz.mutations import fuzzed
from tests.fuzz.probes import swept, targets
from tests.fuzz.requests import Request

ENVELOPE = (
    b'{"error":{"code":"X","message":"Sorry.","details":{"field":null,"reason":null},'
    b'"timestamp":"2026-11-21T09:00:00Z","traceId":"t"}}'
)


def test_spoiled_requests_are_answered_in_one_shape(
    tmp_path: Path, key_file: Path, description: Description
) -> None:
    found = fuzzed(tmp_path, key_file, description, 3_000, seed=1)
    assert dict(found.faults) == {}, found.examples
    known = {operation["operationId"] for _, _, operation in description.operations}
    assert len(known & set(found.operations)) > 0.95 * len(known)
    assert {200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 413, 415, 422} <= set(found.statuses)


def test_cases_of_schemathesis_pass_its_checks(
    tmp_path: Path, key_file: Path, description: Description
) -> None:
    found = checked(tmp_path, key_file, description, 216, seed=1)
    assert dict(found.faults) == {}
    assert len(found.operations) == len(description.operations)


def test_ids_of_another_organization_are_good_for_nothing(
    tmp_path: Path, key_file: Path, description: Description
) -> None:
    sweep = swept(tmp_path, key_file, description, len(targets(description)), seed=1)
    assert dict(sweep.findings.faults) == {}, sweep.findings.examples
    assert len(sweep.asked) == len(targets(description)) > 1_000
    assert sweep.unchanged == 1


def test_probes_notice_when_ids_are_good_for_something(
    tmp_path: Path, key_file: Path, description: Description
) -> None:
    """With the token of A's own admin, all alarms have to ring."""
    sweep = swept(tmp_path, key_file, description, 1_000, seed=4, organization="acme")
    faults = sorted(sweep.findings.faults)
    assert [one for one in faults if ": tells " in one]
    assert [one for one in faults if ": path: 20" in one]
    assert [one for one in faults if "where nobody's is" in one]
    assert "something of A's has changed" in faults
    assert sweep.unchanged == 0


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        ("status 500", Answer(500, Headers(), ENVELOPE)),
        ("no trace id", Answer(404, Headers(), ENVELOPE)),
        ("may be sniffed", Answer(404, Headers(), ENVELOPE)),
        ("two trace ids", Answer(404, Headers({"X-Trace-Id": "other"}), ENVELOPE)),
        ("not the envelope", Answer(404, Headers(), b'{"error":"x"}')),
        ("an error that is no JSON", Answer(404, Headers({"Content-Type": "text/html"}), b"")),
        ("a redirect", Answer(308, Headers({"Location": "/"}), b"")),
        ("206 is not described", Answer(206, Headers(), b"{}")),
        ("text/html is not described", Answer(200, Headers({"Content-Type": "text/html"}), b"")),
        ("control character in a header", Answer(404, Headers({"X-A": "a\tb"}), ENVELOPE)),
    ],
)
def test_the_judge_sees(fault: str, answer: Answer, description: Description) -> None:
    answer.headers.setdefault("Content-Type", "application/json; charset=utf-8")
    assert fault in Judge(description).faults(Request("GET", "/api/v1/audiences"), answer)


def test_the_judge_sees_a_body_that_is_not_described(description: Description) -> None:
    headers = Headers({"Content-Type": "application/json", "X-Trace-Id": "t"})
    headers["X-Content-Type-Options"] = "nosniff"
    answer = Answer(200, headers, b'{"data":[{}],"next_cursor":null,"limit":1,"total":1}')
    (fault,) = Judge(description).faults(Request("GET", "/api/v1/audiences"), answer)
    assert fault.startswith("body does not fit")
