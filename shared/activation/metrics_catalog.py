"""The metrics there are, as data: each is counted from one kind of log line.

`/metrics`, OTLP and the log-based metrics of Google Cloud are all made from this list, so that a
figure means the same everywhere. No label is an organization or a person: organizations are made
by users, without limit, and each would multiply every series. A log line carries its organization;
a question about one of them is a question to the logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["1", "s", "By"]

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LONG = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "action": "what was done, as in the audit log",
        "again": "whether a batch may have been sent before: `yes` or `no`",
        "code": "error code, as in docs/api.md",
        "collection": "kind of record",
        "dry_run": "`yes` or `no`",
        "function": "function of the manifest; `framework` for what reached none",
        "job": "retention job",
        "kind": "kind of cached value",
        "method": "HTTP method; `other` for unusual ones",
        "operation": "`add`, `remove`, `replace`",
        "outcome": "how it ended",
        "platform": "type of platform; `none` where a request is to none",
        "reason": "reason code; `platform` for a platform's own codes",
        "redelivered": "whether the message came a second time: `yes` or `no`",
        "route": "route with its parameters unfilled; `none` where no route fits",
        "status": "HTTP status, or the last state of a record",
    }
)
"""What each label says. Their values are names of ours: their number is bounded by the code."""

MAX_SERIES = 2_000
"""Combinations of labels that one metric may have in a process; what comes then is `other`."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. It counts the log lines whose message is `event` and that have all of `labels`
    as fields; with a `value`, the line's field of that name is added, set or observed.

    `logged` says whether such lines are written at level INFO; others are counted only.
    """

    name: str
    kind: Kind
    help: str
    event: str
    value: str | None = None
    labels: tuple[str, ...] = ()
    unit: Unit = "1"
    buckets: tuple[float, ...] = ()
    logged: bool = True


METRICS: tuple[Metric, ...] = (
    # requests and messages ----------------------------------------------------------------------
    Metric(
        "activation_requests_total",
        "counter",
        "HTTP requests answered.",
        event="request",
        labels=("function", "method", "route", "status"),
    ),
    Metric(
        "activation_request_seconds",
        "histogram",
        "Time from a request's arrival to its answer.",
        event="request",
        value="seconds",
        labels=("function", "method", "route"),
        unit="s",
        buckets=LATENCY,
    ),
    Metric(
        "activation_request_errors_total",
        "counter",
        "HTTP requests answered with an error, by its code.",
        event="request",
        labels=("function", "code"),
    ),
    Metric(
        "activation_messages_total",
        "counter",
        "Messages taken: handled, given_up, again (to be redelivered), refused or failed.",
        event="message",
        labels=("function", "outcome", "redelivered"),
    ),
    Metric(
        "activation_message_seconds",
        "histogram",
        "Time a function worked on a message.",
        event="message",
        value="seconds",
        labels=("function",),
        unit="s",
        buckets=(*LATENCY, 300.0, 540.0),
    ),
    Metric(
        "activation_message_wait_seconds",
        "histogram",
        "Time from the making of a message to the start of the work on it.",
        event="message",
        value="waited_seconds",
        labels=("function",),
        unit="s",
        buckets=(*LATENCY, 300.0, 1800.0),
    ),
    Metric(
        "activation_dead_letters_total",
        "counter",
        "Messages given up by the bus after the last attempt.",
        event="dead letter",
        labels=("function",),
    ),
    Metric(
        "activation_ticks_total",
        "counter",
        "Calls by the clock.",
        event="tick",
        labels=("function", "status"),
    ),
    Metric(
        "activation_cold_starts_total",
        "counter",
        "Processes that answered their first request.",
        event="cold start",
        labels=("function",),
    ),
    Metric(
        "activation_cold_start_seconds",
        "histogram",
        "Processor time of a process from its start to its first request.",
        event="cold start",
        value="seconds",
        labels=("function",),
        unit="s",
        buckets=LATENCY,
    ),
    # stores and workers -------------------------------------------------------------------------
    Metric(
        "activation_commits_total",
        "counter",
        "Commits of use cases, by what was done.",
        event="committed",
        labels=("action",),
    ),
    Metric(
        "activation_store_conflicts_total",
        "counter",
        "Commits refused because a record had changed meanwhile.",
        event="store conflict",
        labels=("collection",),
    ),
    Metric(
        "activation_leases_lost_total",
        "counter",
        "Workers whose record was taken over or changed under them.",
        event="lease lost",
        labels=("collection",),
    ),
    Metric(
        "activation_outbox_kept_total",
        "counter",
        "Times that messages stayed in the outbox because the bus did not take them.",
        event="outbox kept",
        labels=("code",),
    ),
    Metric(
        "activation_outbox_messages",
        "gauge",
        "Messages in the outbox that their own request did not publish; at most one page.",
        event="round",
        value="outbox",
    ),
    Metric(
        "activation_outbox_age_seconds",
        "gauge",
        "Age of the oldest of these messages; 0 when there is none.",
        event="round",
        value="outbox_age_seconds",
        unit="s",
    ),
    Metric(
        "activation_waiting_distribution_age_seconds",
        "gauge",
        "How long the oldest distribution waits past its time; 0 when none does.",
        event="round",
        value="distribution_age_seconds",
        unit="s",
    ),
    Metric(
        "activation_waiting_import_age_seconds",
        "gauge",
        "How long the oldest import waits past its time; 0 when none does.",
        event="round",
        value="import_age_seconds",
        unit="s",
    ),
    Metric(
        "activation_waiting_sweep_age_seconds",
        "gauge",
        "How long the shard waits whose users were due first; 0 when none does.",
        event="round",
        value="sweep_age_seconds",
        unit="s",
    ),
    Metric(
        "activation_waiting_archive_age_seconds",
        "gauge",
        "How long the shard waits that was to be archived first; 0 when none does.",
        event="round",
        value="archive_age_seconds",
        unit="s",
    ),
    Metric(
        "activation_waiting_follow_age_seconds",
        "gauge",
        "How long a change of a segment waits past its time to reach an audience; 0: none does.",
        event="round",
        value="follow_age_seconds",
        unit="s",
    ),
    # events and segments ------------------------------------------------------------------------
    Metric(
        "activation_events_received_total",
        "counter",
        "Events handed in over HTTP: accepted, duplicate or rejected.",
        event="events received",
        value="events",
        labels=("outcome",),
    ),
    Metric(
        "activation_events_evaluated_total",
        "counter",
        "Events counted by segments.",
        event="events evaluated",
        value="events",
    ),
    Metric(
        "activation_events_known_total",
        "counter",
        "Events that were counted before and dropped.",
        event="events evaluated",
        value="duplicates",
    ),
    Metric(
        "activation_events_erased_total",
        "counter",
        "Events from before the erasure of their user, dropped.",
        event="events evaluated",
        value="erased",
    ),
    Metric(
        "activation_events_refused_total",
        "counter",
        "Events of messages that cannot be counted, at each attempt.",
        event="events refused",
        value="events",
    ),
    Metric(
        "activation_events_archived_total",
        "counter",
        "Counted events that were brought from the log into the archive.",
        event="events archived",
        value="events",
    ),
    Metric(
        "activation_event_wait_seconds",
        "histogram",
        "Time from the receipt of events to the commit that counts them.",
        event="events evaluated",
        value="waited_seconds",
        unit="s",
        buckets=(*LATENCY, 300.0, 1800.0),
    ),
    Metric(
        "activation_membership_changes_total",
        "counter",
        "Entries and exits that events brought about; those by silence are not among them.",
        event="events evaluated",
        value="transitions",
    ),
    # audiences that follow segments -------------------------------------------------------------
    Metric(
        "activation_follow_runs_total",
        "counter",
        "Runs that brought an audience in step: by steps, compared as a whole, or compared because"
        " the steps were broken.",
        event="audience followed",
        labels=("outcome",),
    ),
    Metric(
        "activation_follow_failures_total",
        "counter",
        "Runs that ended with an error.",
        event="audience not followed",
        labels=("code",),
    ),
    Metric(
        "activation_follow_changes_total",
        "counter",
        "Members added, updated and removed by following segments.",
        event="audience followed",
        value="changes",
    ),
    Metric(
        "activation_follow_wait_seconds",
        "histogram",
        "Time from the mark of a segment's first change to the run that takes it in.",
        event="audience followed",
        value="waited_seconds",
        unit="s",
        buckets=LONG,
    ),
    Metric(
        "activation_follow_seconds",
        "histogram",
        "Time that a run takes.",
        event="audience followed",
        value="seconds",
        unit="s",
        buckets=LATENCY,
    ),
    Metric(
        "activation_cache_reads_total",
        "counter",
        "Reads of values that can be made again: hit or miss.",
        event="cache read",
        labels=("kind", "outcome"),
        logged=False,
    ),
    # platforms ----------------------------------------------------------------------------------
    Metric(
        "activation_platform_requests_total",
        "counter",
        "HTTP requests to platforms: ok, or the code of the error.",
        event="platform request",
        labels=("platform", "outcome"),
    ),
    Metric(
        "activation_platform_request_seconds",
        "histogram",
        "Time from sending a request to a platform to its whole answer.",
        event="platform request",
        value="seconds",
        labels=("platform",),
        unit="s",
        buckets=LATENCY,
    ),
    Metric(
        "activation_rate_limit_wait_seconds",
        "histogram",
        "Time that lanes wait for an account's next free request.",
        event="rate limit wait",
        value="seconds",
        labels=("platform",),
        unit="s",
        buckets=LATENCY,
    ),
    Metric(
        "activation_platform_pauses_total",
        "counter",
        "Times that a lane stopped because a platform asked for patience or did not answer.",
        event="lane paused",
        labels=("platform", "code"),
    ),
    Metric(
        "activation_webhook_deliveries_total",
        "counter",
        "Tries to tell a webhook of an event.",
        event="webhook tried",
        labels=("outcome",),
    ),
    # the business -------------------------------------------------------------------------------
    Metric(
        "activation_imports_total",
        "counter",
        "Imports that ended.",
        event="import ended",
        labels=("status",),
    ),
    Metric(
        "activation_import_seconds",
        "histogram",
        "Time from the start of an import to its end.",
        event="import ended",
        value="seconds",
        labels=("status",),
        unit="s",
        buckets=LONG,
    ),
    Metric(
        "activation_members_imported_total",
        "counter",
        "Values of imports that became members or updated one.",
        event="import ended",
        value="accepted",
        labels=("status",),
    ),
    Metric(
        "activation_members_duplicate_total",
        "counter",
        "Values of imports that were there already.",
        event="import ended",
        value="duplicate",
        labels=("status",),
    ),
    Metric(
        "activation_members_rejected_total",
        "counter",
        "Values of imports that were rejected.",
        event="import rejects",
        value="count",
        labels=("reason",),
    ),
    Metric(
        "activation_distributions_total",
        "counter",
        "Distributions that ended.",
        event="distribution ended",
        labels=("platform", "status"),
    ),
    Metric(
        "activation_distribution_seconds",
        "histogram",
        "Time from the first work on a distribution to its end.",
        event="distribution ended",
        value="seconds",
        labels=("platform",),
        unit="s",
        buckets=LONG,
    ),
    Metric(
        "activation_batches_total",
        "counter",
        "Batches recorded as sent.",
        event="batch sent",
        labels=("platform", "operation", "again"),
    ),
    Metric(
        "activation_rows_sent_total",
        "counter",
        "Rows of these batches.",
        event="batch sent",
        value="rows",
        labels=("platform", "operation"),
    ),
    Metric(
        "activation_rows_accepted_total",
        "counter",
        "Rows of these batches that the platform did not reject.",
        event="batch sent",
        value="accepted",
        labels=("platform", "operation"),
    ),
    Metric(
        "activation_rows_rejected_total",
        "counter",
        "Rows of these batches that were rejected.",
        event="rows rejected",
        value="count",
        labels=("platform", "reason"),
    ),
    Metric(
        "activation_members_withheld_total",
        "counter",
        "Members that a distribution does not send: suppressed, no consent, no usable identifier.",
        event="members withheld",
        value="count",
        labels=("platform", "reason"),
    ),
    Metric(
        "activation_match_rate",
        "histogram",
        "Final match rates of distributions, as a share.",
        event="match results",
        value="match_rate",
        labels=("platform",),
        buckets=SHARES,
    ),
    Metric(
        "activation_suppressions_added_total",
        "counter",
        "Identifiers put on suppression lists; reason `erasure`: people who were erased.",
        event="suppressions added",
        value="count",
        labels=("reason",),
    ),
    Metric(
        "activation_retention_runs_total",
        "counter",
        "Retention runs that completed.",
        event="retention run completed",
        labels=("job", "dry_run"),
    ),
    Metric(
        "activation_retention_archived_total",
        "counter",
        "Audiences that retention archived.",
        event="retention run completed",
        value="archived",
        labels=("job", "dry_run"),
    ),
    Metric(
        "activation_retention_deleted_total",
        "counter",
        "Audiences whose members retention deleted.",
        event="retention run completed",
        value="deleted",
        labels=("job", "dry_run"),
    ),
    Metric(
        "activation_retention_expired_members_total",
        "counter",
        "Members that retention deleted because their time was over.",
        event="retention run completed",
        value="expired_members",
        labels=("job", "dry_run"),
    ),
    Metric(
        "activation_retention_errors_total",
        "counter",
        "Audiences on which a retention run failed.",
        event="retention run completed",
        value="error_count",
        labels=("job", "dry_run"),
    ),
    Metric(
        "activation_retention_holds_total",
        "counter",
        "Retention runs that stopped before acting, because they would have taken too much.",
        event="retention run held",
    ),
    # realtime -----------------------------------------------------------------------------------
    Metric(
        "activation_realtime_connections",
        "gauge",
        "Connections of this process that follow segments or users.",
        event="realtime connections",
        value="open",
        logged=False,
    ),
    Metric(
        "activation_realtime_changes_total",
        "counter",
        "Entries and exits sent over these connections.",
        event="realtime sent",
        value="changes",
        logged=False,
    ),
    Metric(
        "activation_realtime_wait_seconds",
        "histogram",
        "Time from the finding of a change to its sending; what was missed waits longer.",
        event="realtime sent",
        value="waited_seconds",
        unit="s",
        buckets=LATENCY,
        logged=False,
    ),
    Metric(
        "activation_realtime_resets_total",
        "counter",
        "Connections that could not read on from where they had been.",
        event="realtime reset",
        labels=("reason",),
    ),
    Metric(
        "activation_realtime_ends_total",
        "counter",
        "Connections that the server ended, by reason.",
        event="realtime ended",
        labels=("reason",),
    ),
    # the census: what there is, counted once an hour ----------------------------------------------
    Metric(
        "activation_organizations",
        "gauge",
        "Organizations.",
        event="census",
        value="organizations",
    ),
    Metric(
        "activation_audiences",
        "gauge",
        "Audiences that are not deleted.",
        event="census",
        value="audiences",
    ),
    Metric(
        "activation_members",
        "gauge",
        "Members of all audiences.",
        event="census",
        value="members",
    ),
    Metric(
        "activation_stored_bytes",
        "gauge",
        "Bytes of the current members of all audiences, as stored.",
        event="census",
        value="stored_bytes",
        unit="By",
    ),
    Metric(
        "activation_stored_parts",
        "gauge",
        "Partitions and deltas that hold them.",
        event="census",
        value="stored_parts",
    ),
    Metric(
        "activation_approvals_waiting",
        "gauge",
        "Distributions that wait for an approval.",
        event="census",
        value="approvals_waiting",
    ),
    Metric(
        "activation_distributions_held",
        "gauge",
        "Distributions that are held until somebody releases them.",
        event="census",
        value="distributions_held",
    ),
    Metric(
        "activation_credentials_expiring",
        "gauge",
        "Accounts whose credentials end soon.",
        event="census",
        value="credentials_expiring",
    ),
    Metric(
        "activation_credentials_refused",
        "gauge",
        "Accounts whose credentials the platform refuses.",
        event="census",
        value="credentials_refused",
    ),
    Metric(
        "activation_suppressed_identifiers",
        "gauge",
        "Identifiers on suppression lists.",
        event="census",
        value="suppressed",
    ),
    Metric(
        "activation_disk_free_bytes",
        "gauge",
        "Free bytes on the disk of the embedded stores.",
        event="round",
        value="disk_free_bytes",
        unit="By",
    ),
)
"""Every metric. A line without one of a metric's labels, or without its value, is not counted."""


def as_json() -> list[dict[str, Any]]:
    """The catalogue for other tools: a list of objects with the fields of `Metric`."""
    return [
        {**asdict(metric), "labels": list(metric.labels), "buckets": list(metric.buckets)}
        for metric in METRICS
    ]


def by_event() -> dict[str, tuple[Metric, ...]]:
    """The metrics that each kind of log line is counted into."""
    return {
        event: tuple(metric for metric in METRICS if metric.event == event)
        for event in dict.fromkeys(metric.event for metric in METRICS)
    }
