"""Classes of requests, and what answers tell of their limits.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` names the limit
(`q` requests in `w` seconds), `RateLimit` what remains (`r`) and when it begins anew (`t`).
"""

from __future__ import annotations

import flask

from activation.services.rate_limits import Standing

READS, WRITES, WORK = "reads", "writes", "work"
WORKING = frozenset(
    {
        *("archive_audience", "compact_audience", "create_distribution", "create_import"),
        *("get_evidence", "get_overlap", "get_segment_statistics", "get_version_diff"),
        "import_suppressions",
        *("plan_distribution", "preview_audience", "reconcile_ledger", "restore_version"),
        *("retry_distribution", "start_retention_run", "unarchive_audience", "warm_cache"),
    }
)
"""Operations that start long work, or read whole audiences."""


def class_of(operation_id: str, method: str, *, reads: bool) -> str:
    """The class of an operation; `reads` is one that changes nothing, whatever its method."""
    if operation_id in WORKING:
        return WORK
    return READS if reads or method == "GET" else WRITES


def tell(response: flask.Response, standing: Standing) -> None:
    """Put the headers on an answer."""
    policy = f'"{standing.name}";q={standing.limit};w={standing.window_seconds}'
    response.headers["RateLimit-Policy"] = policy
    left = f'"{standing.name}";r={standing.remaining};t={standing.resets_in_seconds}'
    response.headers["RateLimit"] = left
