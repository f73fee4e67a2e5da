"""Faults to plant: each in a file or in what a trial apply made, with what must be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """A text in a file, what comes in its place, and what must be said: block and words."""

    file: str
    old: str
    new: str
    address: str
    words: str


SCHEMA_FAULTS = {
    "unknown type": Fault(
        "pubsub.tf",
        'resource "google_pubsub_topic" "dead"',
        'resource "google_pubsub_subject" "dead"',
        "google_pubsub_subject.dead",
        "no resource google_pubsub_subject",
    ),
    "misspelt argument": Fault(
        "pubsub.tf",
        "  ack_deadline_seconds       = try(",
        "  ack_deadline_second        = try(",
        "google_pubsub_subscription.function",
        "google_pubsub_subscription has no ack_deadline_second",
    ),
    "misspelt argument in a block": Fault(
        "functions.tf",
        "    available_memory                 =",
        "    memory                           =",
        "google_cloudfunctions2_function.function",
        "service_config has no memory",
    ),
    "misspelt block": Fault(
        "storage.tf",
        "  soft_delete_policy {",
        "  soft_delete {",
        "google_storage_bucket.bucket",
        "google_storage_bucket has no soft_delete",
    ),
    "misspelt dynamic block": Fault(
        "storage.tf",
        '  dynamic "retention_policy" {',
        '  dynamic "retention" {',
        "google_storage_bucket.bucket",
        "has no block retention",
    ),
    "argument in a dynamic block": Fault(
        "storage.tf",
        "      is_locked        = var.audit_locked",
        "      locked           = var.audit_locked",
        "google_storage_bucket.bucket",
        "retention_policy has no locked",
    ),
    "missing argument": Fault(
        "firestore.tf",
        "  location_id                       = var.database_location\n",
        "",
        "google_firestore_database.documents",
        "needs location_id",
    ),
    "missing block": Fault(
        "uptime.tf",
        '  conditions {\n    display_name = "run_due',
        '  documentation {\n    content = "run_due',
        "google_monitoring_alert_policy.clock",
        "needs a block conditions",
    ),
    "block given twice": Fault(
        "functions.tf",
        "  build_config {\n",
        '  build_config {\n    runtime = "python312"\n  }\n\n  build_config {\n',
        "google_cloudfunctions2_function.function",
        "build_config is there 2 times, at most 1",
    ),
    "value that is none": Fault(
        "load_balancer.tf",
        'network_endpoint_type = "SERVERLESS"',
        'network_endpoint_type = "SERVER_LESS"',
        "google_compute_region_network_endpoint_group.function",
        "cannot be SERVER_LESS",
    ),
    "number that is none": Fault(
        "scheduler.tf",
        "retry_count          = 3",
        'retry_count          = "three"',
        "google_cloud_scheduler_job.job",
        "retry_count is a number, not three",
    ),
    "truth that is none": Fault(
        "bigquery.tf",
        "deletion_protection = true",
        'deletion_protection = "on"',
        "google_bigquery_table.table",
        "deletion_protection is true or false, not on",
    ),
    "computed argument given": Fault(
        "kms.tf",
        '  name                       = "signing"',
        '  name                       = "signing"\n  primary                    = "1"',
        "google_kms_crypto_key.signing",
        "primary is computed",
    ),
    "misspelt argument of a service": Fault(
        "sockets.tf",
        "    session_affinity                 = true",
        "    session_afinity                  = true",
        "google_cloud_run_v2_service.sockets",
        "template has no session_afinity",
    ),
    "provider of another": Fault(
        "dataflow.tf",
        "  provider = google-beta\n",
        "",
        "google_dataflow_flex_template_job.segments",
        "not of the provider google",
    ),
}

REFERENCE_FAULTS = {
    "no such variable": Fault(
        "providers.tf", "= var.region", "= var.regoin", "provider.google", "there is no var.regoin"
    ),
    "no such local value": Fault(
        "pubsub.tf",
        "local.topic_prefix}${each.key}-dead",
        "local.topic_prefx}${each.key}-dead",
        "google_pubsub_topic.dead",
        "there is no local.topic_prefx",
    ),
    "no such resource": Fault(
        "bigquery.tf",
        "= google_bigquery_dataset.analysis.dataset_id",
        "= google_bigquery_dataset.analytics.dataset_id",
        "google_bigquery_table.table",
        "there is no google_bigquery_dataset.analytics",
    ),
    "no such data source": Fault(
        "kms.tf",
        "data.google_storage_project_service_account.agent",
        "data.google_storage_project_service_account.agents",
        "locals",
        "there is no data.google_storage_project_service_account.agents",
    ),
    "variable nobody uses": Fault(
        "variables.tf",
        'variable "event_days" {',
        'variable "event_day" {',
        "var.event_day",
        "nobody refers to it",
    ),
    "value for no variable": Fault(
        "environments/prod.tfvars",
        "audit_locked   = true",
        "audit_lock     = true",
        "audit_lock",
        "there is no such variable",
    ),
    "variable without a value": Fault(
        "environments/dev.tfvars",
        'database_location = "europe-west1"',
        "",
        "database_location",
        "has no value here",
    ),
}

POLICY_FAULTS = {
    "API that an empty project lacks": Fault(
        "apis.tf",
        '    "cloudresourcemanager.googleapis.com",\n',
        "",
        "data.google_project.current",
        "asks the API cloudresourcemanager, which nothing switches on",
    ),
    "data that wait for every API": Fault(
        "apis.tf",
        'data "google_project" "current" {\n  depends_on = [google_project_service.first]',
        'data "google_project" "current" {\n  depends_on = [google_project_service.api]',
        "data.google_project.current",
        "waits for google_project_service.api",
    ),
    "everybody may call": Fault(
        "functions.tf", 'local.agents["iap"]', '"allUsers"', "allUsers", "open to everybody"
    ),
    "everybody with an account passes": Fault(
        "environments/dev.tfvars",
        "group:activation-developers@example.com",
        "allAuthenticatedUsers",
        "allAuthenticatedUsers",
        "open to everybody",
    ),
    "basic role": Fault(
        "functions.tf", "roles/logging.logWriter", "roles/editor", "roles/editor", "a basic role"
    ),
    "other project role": Fault(
        "functions.tf",
        "roles/logging.logWriter",
        "roles/logging.admin",
        "google_project_iam_member.builder_logs",
        "whole project",
    ),
    "service that anybody reaches": Fault(
        "sockets.tf",
        '"INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"',
        '"INGRESS_TRAFFIC_ALL"',
        "google_cloud_run_v2_service.sockets",
        "ingress is 'INGRESS_TRAFFIC_ALL'",
    ),
    "service without an identity": Fault(
        "sockets.tf",
        "    service_account                  = google_service_account.sockets[each.key].email\n",
        "",
        "google_cloud_run_v2_service.sockets",
        "runs as the account of all",
    ),
    "service without a key": Fault(
        "sockets.tf",
        '    encryption_key                   = google_kms_crypto_key.wrapping["functions"].id\n',
        "",
        "google_cloud_run_v2_service.sockets",
        "template.encryption_key is no key of ours",
    ),
    "rights of a service on every database": Fault(
        "sockets.tf",
        '    expression = "resource.name',
        '    description = "resource.name',
        "google_project_iam_member.sockets_database",
        "counts for everything of its kind",
    ),
    "more project roles": Fault(
        "dataflow.tf",
        'resource "google_storage_bucket_iam_member" "dataflow" {',
        'resource "google_project_iam_member" "dataflow" {',
        "google_project_iam_member.dataflow",
        "whole project",
    ),
    "rights taken from others": Fault(
        "functions.tf",
        'resource "google_storage_bucket_iam_member" "builder" {',
        'resource "google_storage_bucket_iam_binding" "builder" {',
        "google_storage_bucket_iam_binding.builder",
        "replaces the rights",
    ),
    "key of an account": Fault(
        "functions.tf",
        'resource "google_service_account" "builder" {',
        'resource "google_service_account_key" "builder" {',
        "google_service_account_key.builder",
        "can be stolen",
    ),
    "every database": Fault(
        "iam.tf",
        "  condition {\n    title ",
        "  conditions {\n    title ",
        "google_project_iam_member.function_database",
        "everything of its kind",
    ),
    "bucket with access lists": Fault(
        "storage.tf",
        "uniform_bucket_level_access = true",
        "uniform_bucket_level_access = false",
        "google_storage_bucket.bucket",
        "uniform_bucket_level_access is False",
    ),
    "bucket that may be public": Fault(
        "storage.tf",
        'public_access_prevention    = "enforced"',
        'public_access_prevention    = "inherited"',
        "google_storage_bucket.bucket",
        "public_access_prevention is 'inherited'",
    ),
    "bucket with Google's key": Fault(
        "storage.tf",
        "  encryption {\n    default_kms_key_name = "
        "google_kms_crypto_key.wrapping[each.value.key].id\n  }\n",
        "",
        "google_storage_bucket.bucket",
        "default_kms_key_name is no key of ours",
    ),
    "bucket that keeps what was erased": Fault(
        "storage.tf",
        "  soft_delete_policy {\n    retention_duration_seconds = each.value.soft_delete_days "
        "* 24 * 3600\n  }\n",
        "",
        "google_storage_bucket.bucket",
        "stay for seven days",
    ),
    "bucket that can be lost": Fault(
        "storage.tf",
        "prevent_destroy = true",
        "prevent_destroy = false",
        "google_storage_bucket.bucket",
        "lifecycle.prevent_destroy is False",
    ),
    "function as another": Fault(
        "functions.tf",
        "google_service_account.function[each.key].email",
        'google_service_account.function["run_job"].email',
        "google_cloudfunctions2_function.function",
        "service_account_email is not google_service_account.function[each.key].email",
    ),
    "function as the default account": Fault(
        "functions.tf",
        "    service_account_email            = google_service_account.function[each.key].email\n",
        "",
        "google_cloudfunctions2_function.function",
        "service_account_email is not",
    ),
    "function that is open": Fault(
        "functions.tf",
        '"ALLOW_INTERNAL_ONLY"',
        '"ALLOW_ALL"',
        "google_cloudfunctions2_function.function",
        "ingress_settings is not",
    ),
    "subscription without dead letters": Fault(
        "pubsub.tf",
        "  dead_letter_policy {\n"
        "    dead_letter_topic     = google_pubsub_topic.dead[each.key].id\n"
        "    max_delivery_attempts = try(each.value.max_attempts, 5)\n  }\n",
        "",
        "google_pubsub_subscription.function",
        "has no dead_letter_policy",
    ),
    "subscription without patience": Fault(
        "pubsub.tf",
        "  retry_policy {",
        "  backoff {",
        "google_pubsub_subscription.function",
        "has no retry_policy",
    ),
    "subscription that expires": Fault(
        "pubsub.tf",
        '  expiration_policy {\n    ttl = ""',
        '  expiration_policy {\n    ttl = "2678400s"',
        "google_pubsub_subscription.function",
        "expiration_policy.ttl is '2678400s'",
    ),
    "delivery that nobody signs": Fault(
        "pubsub.tf",
        "    oidc_token {\n      service_account_email = google_service_account.deliverer"
        '["topic"].email\n      audience              = local.audiences[each.key]\n    }\n',
        "",
        "google_pubsub_subscription.function",
        "push_config has no oidc_token",
    ),
    "job that nobody signs": Fault(
        "scheduler.tf",
        "    oidc_token {",
        "    oauth_token {",
        "google_cloud_scheduler_job.job",
        "http_target has no oidc_token",
    ),
    "topic with Google's key": Fault(
        "pubsub.tf",
        '  kms_key_name               = google_kms_crypto_key.wrapping["messages"].id\n',
        "",
        "google_pubsub_topic.topic",
        "kms_key_name is no key of ours",
    ),
    "database without protection": Fault(
        "firestore.tf",
        "DELETE_PROTECTION_ENABLED",
        "DELETE_PROTECTION_DISABLED",
        "google_firestore_database.documents",
        "delete_protection_state",
    ),
    "database without a way back": Fault(
        "firestore.tf",
        "POINT_IN_TIME_RECOVERY_ENABLED",
        "POINT_IN_TIME_RECOVERY_DISABLED",
        "google_firestore_database.documents",
        "point_in_time_recovery_enablement",
    ),
    "table that can be lost": Fault(
        "bigquery.tf",
        "deletion_protection = true",
        "deletion_protection = false",
        "google_bigquery_table.table",
        "deletion_protection is False",
    ),
    "key that can be lost": Fault(
        "kms.tf",
        "protection_level = var.key_protection\n  }\n\n  lifecycle {\n    prevent_destroy = true",
        "protection_level = var.key_protection\n  }\n\n  lifecycle {\n    prevent_destroy = false",
        "google_kms_crypto_key.wrapping",
        "lifecycle.prevent_destroy is False",
    ),
    "key that grows old": Fault(
        "kms.tf",
        'rotation_period            = "7776000s"',
        'rotation_period            = "31536000s"',
        "google_kms_crypto_key.wrapping",
        "not rotated every 90 days",
    ),
    "key destroyed at once": Fault(
        "kms.tf",
        'destroy_scheduled_duration = "2592000s"',
        'destroy_scheduled_duration = "3600s"',
        "google_kms_crypto_key.wrapping",
        "destroyed within a day",
    ),
    "old TLS": Fault(
        "load_balancer.tf",
        '"TLS_1_2"',
        '"TLS_1_1"',
        "google_compute_ssl_policy.api",
        "min_tls_version is 'TLS_1_1'",
    ),
    "no TLS policy": Fault(
        "load_balancer.tf",
        "  ssl_policy       = google_compute_ssl_policy.api.id\n",
        "",
        "google_compute_target_https_proxy.api",
        "has no ssl_policy",
    ),
    "plain HTTP": Fault(
        "load_balancer.tf",
        "url_map = google_compute_url_map.redirect.id",
        "url_map = google_compute_url_map.api.id",
        "google_compute_target_http_proxy.redirect",
        "answers without TLS",
    ),
    "door without a proxy": Fault(
        "load_balancer.tf",
        "  iap {\n    enabled = true",
        "  iap {\n    enabled = false",
        "google_compute_backend_service.function",
        "iap.enabled is False",
    ),
    "door without a firewall": Fault(
        "load_balancer.tf",
        "  security_policy       = google_compute_security_policy.api.id\n",
        "",
        "google_compute_backend_service.function",
        "has no firewall",
    ),
    "firewall that only watches": Fault(
        "firewall.tf",
        "= var.firewall_preview",
        "= true",
        "google_compute_security_policy.api",
        "a rule only watches",
    ),
    "firewall without a limit": Fault(
        "firewall.tf",
        "rate_limit_threshold {",
        "threshold {",
        "google_compute_security_policy.api",
        "no limit of requests",
    ),
    "alert to nobody": Fault(
        "slo.tf",
        "  notification_channels = local.channels[each.value.level]\n",
        "",
        "google_monitoring_alert_policy.burn",
        "has no notification_channels",
    ),
    "alert without advice": Fault(
        "uptime.tf",
        '    content = "Nothing that is due',
        '    mime_type = "Nothing that is due',
        "google_monitoring_alert_policy.clock",
        "has no documentation.content",
    ),
    "variable that takes anything": Fault(
        "variables.tf",
        '  validation {\n    condition     = contains(["dev", "prod"], var.environment)\n'
        '    error_message = "The environment is dev or prod."\n  }\n',
        "",
        "var.environment",
        "takes any value",
    ),
    "state on a laptop": Fault(
        "versions.tf",
        '  backend "gcs" {}\n',
        "",
        "terraform",
        "not kept in a bucket",
    ),
    "provider of any version": Fault(
        "versions.tf",
        '      source  = "hashicorp/google"\n      version = "~> 6.50"',
        '      source  = "hashicorp/google"\n      version = ">= 4"',
        "terraform",
        "google may become any version",
    ),
}


FUNCTION = 'google_cloudfunctions2_function.function["run_job"]'
SUBSCRIPTION = 'google_pubsub_subscription.function["run_job"]'
OUTCOMES: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "less memory": (FUNCTION, {"service_config.0.available_memory": "1Gi"}, "memory is '1Gi'"),
    "unknown setting": (
        FUNCTION,
        {"service_config.0.environment_variables.ACTIVATION_TIPO": "1"},
        "Unknown settings: ACTIVATION_TIPO",
    ),
    "address of another": (
        FUNCTION,
        {"service_config.0.environment_variables.ACTIVATION_PUSH_AUDIENCE": "https://x"},
        "push_audience is 'https://x'",
    ),
    "credentials sealed by another key": (
        FUNCTION,
        {"service_config.0.environment_variables.ACTIVATION_KMS_KEY": "other"},
        "kms_key is 'other'",
    ),
    "name the bus does not know": (SUBSCRIPTION, {"name": "run-job"}, "name is"),
    "fewer attempts": (
        SUBSCRIPTION,
        {"dead_letter_policy.0.max_delivery_attempts": 5},
        "attempts is 5",
    ),
    "pushed elsewhere": (
        SUBSCRIPTION,
        {"push_config.0.push_endpoint": "https://x"},
        "endpoint is 'https://x'",
    ),
    "another hour": (
        'google_cloud_scheduler_job.job["run_retention_daily"]',
        {"schedule": "0 14 * * *"},
        "schedule is '0 14 * * *'",
    ),
    "path of another function": (
        "google_compute_url_map.api",
        {"path_matcher.0.route_rules.2.service": "other"},
        "does not lead to audiences",
    ),
    "field without its index": (
        'google_firestore_field.override["jobs/due_at"]',
        {"index_config.0.indexes": []},
        "declared ([('ASCENDING', 'COLLECTION_GROUP')], False)",
    ),
    "key on another continent": (
        'google_storage_bucket.bucket["backup"]',
        {"location": "US"},
        "lies in US, its key in europe",
    ),
    "name that is too long": (
        'google_service_account.function["run_job"]',
        {"account_id": "function-run-job-of-activation-production"},
        "characters",
    ),
    "alert on no metric": (
        'google_monitoring_alert_policy.threshold["retention-held"]',
        {"conditions.0.condition_threshold.0.filter": "logging.googleapis.com/user/nothing"},
        "is no metric of the catalogue",
    ),
    "dashboard without a tile": (
        'google_monitoring_dashboard.dashboard["business"]',
        {"dashboard_json": '{"mosaicLayout": {"tiles": []}}'},
        "has 0 tiles of 100",
    ),
    "streams that count as slow": (
        'google_monitoring_alert_policy.threshold["slow-api"]',
        {"conditions.0.condition_threshold.0.filter": 'resource.type = "https_lb_rule"'},
        "takes the connections of activation-realtime for slow answers",
    ),
    "burn rate of three days": (
        'google_monitoring_alert_policy.burn["steady"]',
        {
            "conditions.0.condition_threshold.0.filter": 'select_slo_burn_rate("x", "259200s")',
        },
        "a day at most",
    ),
    "sleepy burn rate": (
        'google_monitoring_alert_policy.burn["fast"]',
        {"conditions.0.condition_threshold.0.threshold_value": 100},
        "burn rates are",
    ),
}


REAL: Mapping[str, Fault] = {
    "wrong type": Fault(
        "scheduler.tf", "retry_count          = 3", "retry_count          = [3]", "", "number"
    ),
    "no such attribute": Fault(
        "outputs.tf",
        "google_compute_global_address.api.address",
        "google_compute_global_address.api.adress",
        "",
        "Unsupported attribute",
    ),
    "no such key": Fault(
        "functions.tf",
        'google_storage_bucket.bucket["sources"].name',
        'google_storage_bucket.bucket["source"].name',
        "",
        "Invalid index",
    ),
    "value the validation refuses": Fault(
        "environments/dev.tfvars",
        "audit_days           = 7",
        "audit_days           = 0",
        "",
        "a day",
    ),
    "setting that a bucket's rule would not follow": Fault(
        "environments/dev.tfvars",
        "  ACTIVATION_LOG_LEVEL",
        '  ACTIVATION_EVENT_DAYS = "730"\n  ACTIVATION_LOG_LEVEL',
        "",
        "would not follow it",
    ),
    "instances of no function": Fault(
        "environments/dev.tfvars",
        "audit_days ",
        "min_instances        = { audience = 1 }\naudit_days ",
        "",
        "no function of the manifest",
    ),
    "everybody as a caller": Fault(
        "environments/dev.tfvars",
        "group:activation-developers@example.com",
        "everyone",
        "",
        "Callers are named",
    ),
}
