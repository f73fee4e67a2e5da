"""What this deployment must never be without, checked on the files themselves.

Each policy is a function of the configuration; `POLICIES` lists them all. What only shows in a plan
(who gets which role, whether paths and names are right) is checked on the trial apply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.terraform.configuration import (
    Block,
    Configuration,
    Finding,
    expression,
    literal,
    strings,
    unquoted,
)

PROJECT_ROLES = {
    "google_project_iam_member.function_database": "each.value.role",
    "google_project_iam_member.sockets_database": '"roles/datastore.user"',
    "google_project_iam_member.deployer": "each.key",
    "google_project_iam_member.telemetry": "each.value.role",
    "google_project_iam_member.builder_sources": '"roles/storage.objectViewer"',
    "google_project_iam_member.builder_logs": '"roles/logging.logWriter"',
    "google_project_iam_member.dataflow_database": '"roles/datastore.user"',
    "google_project_iam_member.dataflow_worker": '"roles/dataflow.worker"',
}
"""The only rights on the whole project, as (address, role): these services have no resource that
a right could be given on. Conditions confine four of them."""

CONFINED = frozenset(
    {"function_database", "sockets_database", "builder_sources", "dataflow_database"}
)
"""Those that must have a condition."""

LAST_STOPS = frozenset({"google_pubsub_subscription.dead", "google_pubsub_subscription.dataflow"})
"""Subscriptions that nothing fails out of: dead letters themselves, and the streaming job's."""

UNGUARDED = frozenset({"firewall_preview", "audit_locked", "gradual_traffic", "archives"})
"""Variables that need no validation beyond their type."""

APIS = {
    "google_artifact_registry_": "artifactregistry",
    "google_bigquery_": "bigquery",
    "google_cloud_run_": "run",
    "google_cloud_scheduler_": "cloudscheduler",
    "google_cloudfunctions2_": "cloudfunctions",
    "google_compute_": "compute",
    "google_dataflow_": "dataflow",
    "google_firestore_": "firestore",
    "google_iap_": "iap",
    "google_kms_": "cloudkms",
    "google_logging_": "logging",
    "google_monitoring_": "monitoring",
    "google_project": "cloudresourcemanager",
    "google_project_service": "serviceusage",
    "google_pubsub_": "pubsub",
    "google_secret_manager_": "secretmanager",
    "google_service_account": "iam",
    "google_storage_": "storage",
}
"""How types of resources begin, and the API that each is asked through; the longest one counts."""

MAX_ROTATION_SECONDS = 90 * 24 * 3600
MIN_DESTROY_SECONDS = 24 * 3600
IMMUTABLE_GRANTS = re.compile(r"google_.*_iam_(binding|policy)$|.*_acl$|.*_access_control$")
KEYS_OF_ACCOUNTS = frozenset({"google_service_account_key", "google_storage_hmac_key"})


def no_strangers(configuration: Configuration) -> Iterator[Finding]:
    """Nothing is for everybody."""
    for file, text in configuration.texts.items():
        for name in re.findall(r"\ball(?:Authenticated)?Users\b", text):
            yield Finding(file, name, "nothing is open to everybody")


def no_basic_roles(configuration: Configuration) -> Iterator[Finding]:
    """No role is owner, editor or viewer of everything."""
    for file, text in configuration.texts.items():
        for role in re.findall(r"roles/(?:owner|editor|viewer)\b", text):
            yield Finding(file, role, "a basic role")


def only_listed_project_roles(configuration: Configuration) -> Iterator[Finding]:
    """A right on the project is in the table, and nowhere is one taken from others."""
    for block in configuration.of("resource"):
        if IMMUTABLE_GRANTS.match(block.type):
            yield block.finding("replaces the rights that others gave; use a member")
        if block.type in KEYS_OF_ACCOUNTS:
            yield block.finding("a key of an account can be stolen; identities have none")
        if not re.match(r"google_(project|folder|organization)_iam_(?!audit_config)", block.type):
            continue
        if expression(block.get("role")) != PROJECT_ROLES.get(block.address):
            yield block.finding("a right on the whole project that the table does not have")
    granted = [b for b in configuration.of("resource") if b.address in PROJECT_ROLES]
    for block in granted:
        if block.labels[1] in CONFINED and not block.get("condition.expression"):
            yield block.finding("counts for everything of its kind, not for one alone")


def buckets_are_closed(configuration: Configuration) -> Iterator[Finding]:
    """Own key, uniform access, never public, never deleted with its objects."""
    for block in configuration.of("resource", "google_storage_bucket"):
        yield from _is(block, "uniform_bucket_level_access", True)
        yield from _is(block, "public_access_prevention", "enforced")
        yield from _is(block, "force_destroy", False)
        yield from _uses_a_key(block, "encryption.default_kms_key_name")
        yield from _is(block, "lifecycle.prevent_destroy", True)
        if block.get("soft_delete_policy.retention_duration_seconds") is None:
            yield block.finding(
                "deleted objects stay for seven days unless soft_delete_policy is set"
            )


def functions_are_themselves(configuration: Configuration) -> Iterator[Finding]:
    """Every function has its own identity, its own key and no open door."""
    doors = 'each.value.trigger=="http"?"ALLOW_INTERNAL_AND_GCLB":"ALLOW_INTERNAL_ONLY"'
    for block in configuration.of("resource", "google_cloudfunctions2_function"):
        own = "google_service_account.function[each.key].email"
        yield from _reads(block, "service_config.service_account_email", own)
        yield from _reads(block, "service_config.ingress_settings", doors)
        yield from _uses_a_key(block, "kms_key_name")
        yield from _reads(
            block, "build_config.service_account", "google_service_account.builder.id"
        )
        if block.get("event_trigger") is not None:
            yield block.finding("events come by push subscriptions: a trigger drops what fails")
    for block in configuration.of("resource"):
        if block.type in ("google_cloud_run_v2_service", "google_cloud_run_v2_job"):
            account = block.get("template.service_account")
            if account is None:
                yield block.finding("runs as the account of all: it needs service_account")
        if block.type == "google_cloud_run_v2_service":
            yield from _is(block, "ingress", "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER")
            yield from _is(block, "deletion_protection", True)
            yield from _uses_a_key(block, "template.encryption_key")


def messages_are_kept(configuration: Configuration) -> Iterator[Finding]:
    """Every subscription has dead letters and patience, every topic a key and a region."""
    for block in configuration.of("resource", "google_pubsub_topic"):
        yield from _uses_a_key(block, "kms_key_name")
        if block.get("message_storage_policy.allowed_persistence_regions") is None:
            yield block.finding("messages may be stored in any region")
    for block in configuration.of("resource", "google_pubsub_subscription"):
        yield from _is(block, "expiration_policy.ttl", "")
        if block.address in LAST_STOPS:
            continue
        for part in ("dead_letter_policy.dead_letter_topic", "retry_policy.minimum_backoff"):
            if block.get(part) is None:
                yield block.finding(f"has no {part.split('.')[0]}: what fails is lost or hammered")


def deliveries_are_signed(configuration: Configuration) -> Iterator[Finding]:
    """Who delivers says who he is, and to whom."""
    for type_, path in (
        ("google_pubsub_subscription", "push_config"),
        ("google_cloud_scheduler_job", "http_target"),
    ):
        for block in configuration.of("resource", type_):
            if block.get(path) is None:
                continue
            for name in ("service_account_email", "audience"):
                if block.get(f"{path}.oidc_token.{name}") is None:
                    yield block.finding(f"{path} has no oidc_token with {name}")


def the_database_survives(configuration: Configuration) -> Iterator[Finding]:
    """Protected, restorable to any minute of a week, backed up, encrypted with our key."""
    for block in configuration.of("resource", "google_firestore_database"):
        yield from _is(block, "delete_protection_state", "DELETE_PROTECTION_ENABLED")
        yield from _is(block, "point_in_time_recovery_enablement", "POINT_IN_TIME_RECOVERY_ENABLED")
        yield from _is(block, "concurrency_mode", "OPTIMISTIC")
        yield from _is(block, "lifecycle.prevent_destroy", True)
        yield from _uses_a_key(block, "cmek_config.kms_key_name")
        if not configuration.of("resource", "google_firestore_backup_schedule"):
            yield block.finding("is not backed up")
    for block in configuration.of("resource", "google_bigquery_table"):
        yield from _is(block, "deletion_protection", True)
        yield from _uses_a_key(block, "encryption_configuration.kms_key_name")
    for block in configuration.of("resource", "google_bigquery_dataset"):
        yield from _is(block, "delete_contents_on_destroy", False)
        yield from _uses_a_key(block, "default_encryption_configuration.kms_key_name")
    for block in configuration.of("resource", "google_artifact_registry_repository"):
        yield from _uses_a_key(block, "kms_key_name")


def keys_survive(configuration: Configuration) -> Iterator[Finding]:
    """No key is destroyed by Terraform, or in less than a day; those that wrap are rotated."""
    for type_ in ("google_kms_key_ring", "google_kms_crypto_key"):
        for block in configuration.of("resource", type_):
            yield from _is(block, "lifecycle.prevent_destroy", True)
    for block in configuration.of("resource", "google_kms_crypto_key"):
        if _seconds(block.get("destroy_scheduled_duration")) < MIN_DESTROY_SECONDS:
            yield block.finding("a version can be destroyed within a day")
        if literal(block.get("purpose")) == "ENCRYPT_DECRYPT":
            rotation = _seconds(block.get("rotation_period"))
            if not 0 < rotation <= MAX_ROTATION_SECONDS:
                yield block.finding("is not rotated every 90 days")


def the_door_is_guarded(configuration: Configuration) -> Iterator[Finding]:
    """TLS 1.2 with modern ciphers, firewall, proxy and log; plain HTTP only leads to HTTPS."""
    for block in configuration.of("resource", "google_compute_ssl_policy"):
        yield from _is(block, "min_tls_version", "TLS_1_2", "TLS_1_3")
        yield from _is(block, "profile", "MODERN", "RESTRICTED")
    for block in configuration.of("resource", "google_compute_target_https_proxy"):
        if "google_compute_ssl_policy." not in expression(block.get("ssl_policy")):
            yield block.finding("has no ssl_policy: it would take TLS 1.0")
    redirects = {
        block.address
        for block in configuration.of("resource", "google_compute_url_map")
        if literal(block.get("default_url_redirect.https_redirect")) is True
    }
    for block in configuration.of("resource", "google_compute_target_http_proxy"):
        if expression(block.get("url_map")).removesuffix(".id") not in redirects:
            yield block.finding("answers without TLS")
    for block in configuration.of("resource", "google_compute_backend_service"):
        if "google_compute_security_policy." not in expression(block.get("security_policy")):
            yield block.finding("has no firewall")
        yield from _is(block, "iap.enabled", True)
        yield from _is(block, "log_config.enable", True)


def the_firewall_bites(configuration: Configuration) -> Iterator[Finding]:
    """Preconfigured rules and a limit of requests; what is preview is a variable's decision."""
    for block in configuration.of("resource", "google_compute_security_policy"):
        text = " ".join(strings(block.body))
        if "evaluatePreconfiguredWaf" not in text:
            yield block.finding("has none of the preconfigured rules")
        limits = block.all("rule.rate_limit_options.rate_limit_threshold.count")
        if not limits:
            yield block.finding("has no limit of requests")
        for preview in block.all("rule.preview"):
            if literal(preview) is not False and expression(preview) != "var.firewall_preview":
                yield block.finding("a rule only watches")


def alerts_reach_somebody(configuration: Configuration) -> Iterator[Finding]:
    """Every alert has a level, is sent, and says what to do."""
    for block in configuration.of("resource", "google_monitoring_alert_policy"):
        for name in ("notification_channels", "severity", "documentation.content"):
            if block.get(name) is None:
                yield block.finding(f"has no {name}")
        if "level" not in (block.get("user_labels") or {}):
            yield block.finding("has no level")


def apis_are_on(configuration: Configuration) -> Iterator[Finding]:
    """What an empty project does not have is switched on before anything asks for it."""
    switched = configuration.of("resource", "google_project_service")
    on = {
        unquoted(name).removesuffix(".googleapis.com")
        for block in switched
        for text in strings(block.get("for_each"))
        for name in re.findall(r'"[a-z]+\.googleapis\.com"', text)
    }
    for block in [*configuration.of("resource"), *configuration.of("data")]:
        known = [start for start in APIS if block.type.startswith(start)]
        api = APIS[max(known, key=len)] if known else None
        if api not in on:
            yield block.finding(f"asks the API {api}, which nothing switches on")


def data_are_read_early(configuration: Configuration) -> Iterator[Finding]:
    """Data wait for nothing that changes later: rights that name them would be given anew."""
    for block in configuration.of("data"):
        waits = [expression(one) for one in block.get("depends_on") or []]
        if waits != ["google_project_service.first"]:
            yield block.finding(f"waits for {', '.join(waits) or 'no API'}")


def inputs_are_explained(configuration: Configuration) -> Iterator[Finding]:
    """Variables have a type, a description and a validation; outputs a description."""
    for block in configuration.of("variable"):
        for name in ("type", "description"):
            if name not in block.body:
                yield block.finding(f"has no {name}")
        if "validation" not in block.body and block.labels[0] not in UNGUARDED:
            yield block.finding("takes any value")
    for block in configuration.of("output"):
        if "description" not in block.body:
            yield block.finding("has no description")


def the_state_is_shared(configuration: Configuration) -> Iterator[Finding]:
    """The state lies in a bucket that is named at `init`; versions of providers are bounded."""
    terraform = configuration.of("terraform")
    backends = [
        backend for block in terraform for given in block.all("backend") for backend in given
    ]
    if not any('"gcs"' in backend for backend in backends):
        yield Finding("versions.tf", "terraform", "the state is not kept in a bucket")
    for block in terraform:
        for providers in block.all("required_providers"):
            for name, given in providers.items():
                if not name.startswith("__") and not str(given.get("version", "")).startswith(
                    '"~>'
                ):
                    yield block.finding(f"{name} may become any version")


POLICIES: tuple[Callable[[Configuration], Iterator[Finding]], ...] = (
    no_strangers,
    no_basic_roles,
    only_listed_project_roles,
    buckets_are_closed,
    functions_are_themselves,
    messages_are_kept,
    deliveries_are_signed,
    the_database_survives,
    keys_survive,
    the_door_is_guarded,
    the_firewall_bites,
    alerts_reach_somebody,
    apis_are_on,
    data_are_read_early,
    inputs_are_explained,
    the_state_is_shared,
)


def check(configuration: Configuration) -> list[Finding]:
    """What breaks a policy."""
    return [finding for policy in POLICIES for finding in policy(configuration)]


def _is(block: Block, path: str, *wanted: Any) -> Iterator[Finding]:
    given = literal(block.get(path))
    if given not in wanted or type(given) is not type(wanted[0]):
        yield block.finding(f"{path} is {given!r}, not {' or '.join(map(repr, wanted))}")


def _reads(block: Block, path: str, wanted: str) -> Iterator[Finding]:
    if expression(block.get(path)) != wanted:
        yield block.finding(f"{path} is not {wanted}")


def _uses_a_key(block: Block, path: str) -> Iterator[Finding]:
    if not expression(block.get(path)).startswith("google_kms_crypto_key."):
        yield block.finding(f"{path} is no key of ours")


def _seconds(value: Any) -> int:
    given = literal(value)
    return int(given.removesuffix("s")) if isinstance(given, str) and given[:-1].isdigit() else 0
