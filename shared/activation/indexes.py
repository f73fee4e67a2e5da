"""The declared indexes: which fields a query may compare, per collection.

One list for every back-end: SQLite makes expression indexes of it, Firestore keeps exactly these
fields indexed (`firestore.indexes.json` and Terraform are generated from it). Lists are sorted by
document id, newest first; equality filters combine freely. Sequential fields such as `updated_at`
are left out on purpose: an index on them limits a Firestore collection to 500 writes a second.
"""

from __future__ import annotations

from types import MappingProxyType

INDEXES = MappingProxyType(
    {
        "audiences": (
            *("status", "data_type", "subtype", "visible_to", "tags", "campaign_id"),
            *("source_audience_id", "follows", "user_id"),
        ),
        "audit": ("target", "actor"),
        "distributions": ("audience_id", "platform_id", "status", "user_id", "visible_to"),
        "exchanges": ("distribution_id",),
        "imports": ("audience_id", "status"),
        "jobs": ("audience_id", "kind", "status"),
        "ledgers": ("audience_id", "platform_id", "visible_to"),
        "manifests": ("audience_id",),
        "match_rates": ("platform_id", "audience_id"),
        "member_parts": ("audience_id",),
        "platforms": ("status", "platform_type", "visible_to"),
        "retention_runs": ("job", "status"),
        "segment_transitions": ("shard",),
        "segment_versions": ("segment_id",),
        "segments": ("status", "type", "visible_to", "uses"),
        "versions": ("audience_id",),
        "webhook_deliveries": ("webhook_id", "status"),
    }
)
"""Collection → fields that `Query.equal` may name. A list field is indexed by its elements."""

SWEPT = (
    *("distributions", "idempotency", "imports", "jobs", "lanes", "organizations", "outbox"),
    *("event_archives", "platforms", "segment_shards", "webhook_deliveries"),
    *("segment_follows", "segment_marks", "segment_sends"),
)
"""Collections whose documents may carry `due_at`, found by `DocumentStore.due`."""

EXPIRING = ("idempotency",)
"""Swept collections whose documents mean nothing once `due_at` has come: Firestore may delete them
by itself, by the field `expire_at`, should nobody sweep for long."""

UNFILTERED = (
    *("audience_names", "batches", "cache_keys", "credentials", "deleted_audiences", "traffic"),
    *("list_digests", "operator_accounts", "quota_guards", "quota_limits"),
    *("locks", "rate_limits", "webhook_secrets", "webhook_silences", "webhooks"),
    *("erasure_keys", "erasure_marks", "user_erasures"),
    *("event_days", "event_marks", "event_refusals", "segment_deltas", "segment_events"),
    *("segment_history", "segment_names", "segment_rules", "segment_states"),
    *("suppression_lists", "suppression_parts", "recoveries"),
)
"""Collections that are neither filtered nor swept: read by id, or listed as a whole."""


def indexed_fields(collection: str) -> tuple[str, ...]:
    """The declared fields of a collection; none for one that is only read by id."""
    return INDEXES.get(collection, ())
