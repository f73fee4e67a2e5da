# Who is told of what. Critical: somebody is woken. Warning: somebody looks today. Info: it is
# written down. docs/operations.md says for each what it means and what to do.

locals {
  # Cloud Monitoring knows no severity for what is only worth knowing.
  severities = { critical = "CRITICAL", warning = "WARNING", info = null }

  channels = {
    for level in keys(local.severities) : level => [
      for address in var.alert_emails[level] : google_monitoring_notification_channel.email[address].name
    ]
  }

  # Connections that last for an hour by design say nothing of how fast answers come.
  answering = join(" ", [
    for service in [local.service_names["realtime"], "${var.name}-sockets"] :
    "AND resource.labels.backend_target_name != \"${service}\""
  ])

  service_filter = "resource.type = \"cloud_run_revision\" AND resource.labels.service_name = starts_with(\"${var.name}-\")"

  # Who takes messages: functions, and the streaming job, which may be alone at work.
  workers = concat(keys(local.topic_functions), [for job in keys(local.dataflow) : "${job}-stream"])

  # Figures that cross a line: of Google's services, and of our log-based metrics.
  threshold_alerts = merge({
    dead-letters = {
      level     = "critical"
      title     = "Messages were given up"
      filter    = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = monitoring.regex.full_match(\"${local.topic_prefix}.*-dead\") AND metric.type = \"pubsub.googleapis.com/subscription/num_undelivered_messages\""
      aligner   = "ALIGN_MAX"
      reducer   = "REDUCE_SUM"
      group_by  = ["resource.labels.subscription_id"]
      above     = 0
      lasting   = "0s"
      meaning   = "A message failed on every try and waits as a dead letter; its work is not done."
      to_do     = "Read it with `activation dead-letters list`, mend the cause, send it again with `redrive`."
      alignment = "60s"
    }
    messages-wait = {
      level     = "critical"
      title     = "Messages wait"
      filter    = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = monitoring.regex.full_match(\"${local.topic_prefix}(${join("|", local.workers)})\") AND metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      aligner   = "ALIGN_MAX"
      reducer   = "REDUCE_MAX"
      group_by  = ["resource.labels.subscription_id"]
      above     = 1800
      lasting   = "300s"
      meaning   = "A function, or the streaming job, has not finished a message for half an hour: it fails, or there are too few instances."
      to_do     = "Look at its errors and its number of instances; of the job, at its page in Dataflow."
      alignment = "60s"
    }
    slow-api = {
      level     = "warning"
      title     = "The API is slow"
      filter    = "resource.type = \"https_lb_rule\" AND resource.labels.url_map_name = \"${google_compute_url_map.api.name}\" AND metric.type = \"loadbalancing.googleapis.com/https/backend_latencies\" ${local.answering}"
      aligner   = "ALIGN_PERCENTILE_95"
      reducer   = "REDUCE_MAX"
      group_by  = ["resource.labels.backend_target_name"]
      above     = 2000
      lasting   = "600s"
      meaning   = "One of twenty requests takes more than two seconds."
      to_do     = "Compare with the number of instances and the latency of the database."
      alignment = "300s"
    }
    little-memory = {
      level     = "warning"
      title     = "A function runs out of memory"
      filter    = "${local.service_filter} AND metric.type = \"run.googleapis.com/container/memory/utilizations\""
      aligner   = "ALIGN_PERCENTILE_99"
      reducer   = "REDUCE_MAX"
      group_by  = ["resource.labels.service_name"]
      above     = 0.9
      lasting   = "300s"
      meaning   = "Instances that need more are stopped; their messages are delivered again."
      to_do     = "Give the function more memory in the function manifest."
      alignment = "60s"
    }
    busy-processor = {
      level     = "warning"
      title     = "A function's processors are busy"
      filter    = "${local.service_filter} AND metric.type = \"run.googleapis.com/container/cpu/utilizations\""
      aligner   = "ALIGN_PERCENTILE_99"
      reducer   = "REDUCE_MAX"
      group_by  = ["resource.labels.service_name"]
      above     = 0.95
      lasting   = "1800s"
      meaning   = "Its work takes longer than it need."
      to_do     = "Give the function more processor or less concurrency in the function manifest."
      alignment = "60s"
    }
    refused-requests = {
      level     = "warning"
      title     = "The firewall refuses many requests"
      filter    = "resource.type = \"network_security_policy\" AND resource.labels.policy_name = \"${google_compute_security_policy.api.name}\" AND metric.type = \"networksecurity.googleapis.com/https/request_count\" AND metric.labels.blocked = \"true\""
      aligner   = "ALIGN_DELTA"
      reducer   = "REDUCE_SUM"
      group_by  = []
      above     = 1000
      lasting   = "0s"
      meaning   = "An attack, or a rule that refuses what is meant well."
      to_do     = "Read the logs of the load balancer: the rule, the addresses, the paths."
      alignment = "300s"
    }
    }, {
    for name, function in local.functions : "instances-${replace(name, "_", "-")}" => {
      level     = "warning"
      title     = "Function ${name} is at its largest"
      filter    = "resource.type = \"cloud_run_revision\" AND resource.labels.service_name = \"${local.service_names[name]}\" AND metric.type = \"run.googleapis.com/container/instance_count\""
      aligner   = "ALIGN_MAX"
      reducer   = "REDUCE_SUM"
      group_by  = []
      above     = function.max_instances * 0.9
      lasting   = "900s"
      meaning   = "Almost all instances that it may have are running; more work has to wait."
      to_do     = "Raise max_instances in the function manifest if the work is meant well."
      alignment = "60s"
    } if function.max_instances > 1
    }, {
    for name, alert in local.metric_alerts : name => merge(alert, {
      filter    = local.metric_sources[alert.metric]
      group_by  = []
      lasting   = "0s"
      alignment = "300s"
    }) if contains(keys(local.metrics), alert.metric)
  })

  # Of our own metrics: a counter's growth, or the latest of a gauge.
  metric_alerts = {
    retention-held = {
      level   = "warning"
      title   = "A retention run waits for a person"
      metric  = "activation_retention_holds_total"
      aligner = "ALIGN_DELTA"
      reducer = "REDUCE_SUM"
      above   = 0
      meaning = "It would have archived or deleted too large a share of the audiences of an organization."
      to_do   = "Look at its plan with `activation retention`, then release or cancel it."
    }
    outbox-waits = {
      level   = "critical"
      title   = "Messages do not leave the outbox"
      metric  = "activation_outbox_age_seconds"
      aligner = "ALIGN_PERCENTILE_99"
      reducer = "REDUCE_MAX"
      above   = 600
      meaning = "Work was promised ten minutes ago and its message was never published."
      to_do   = "Look at Pub/Sub and at the errors of run_due, which sends what is left."
    }
    distributions-wait = {
      level   = "warning"
      title   = "Distributions wait past their time"
      metric  = "activation_waiting_distribution_age_seconds"
      aligner = "ALIGN_PERCENTILE_99"
      reducer = "REDUCE_MAX"
      above   = 3600
      meaning = "The oldest should have begun an hour ago."
      to_do   = "Look at the instances and errors of dispatch_distribution, and at pauses that platforms ask for."
    }
    imports-wait = {
      level   = "warning"
      title   = "Imports wait past their time"
      metric  = "activation_waiting_import_age_seconds"
      aligner = "ALIGN_PERCENTILE_99"
      reducer = "REDUCE_MAX"
      above   = 3600
      meaning = "The oldest should have begun an hour ago."
      to_do   = "Look at the instances and errors of import_members."
    }
    events-unarchived = {
      level   = "warning"
      title   = "Counted events are not archived"
      metric  = "activation_waiting_archive_age_seconds"
      aligner = "ALIGN_PERCENTILE_99"
      reducer = "REDUCE_MAX"
      above   = 21600
      meaning = "They lie in the log since six hours; nothing is lost, and the database grows."
      to_do   = "Look at the errors of process_events, and at its rights on the bucket of events."
    }
    credentials-refused = {
      level   = "warning"
      title   = "A platform refuses credentials"
      metric  = "activation_credentials_refused"
      aligner = "ALIGN_PERCENTILE_99"
      reducer = "REDUCE_MAX"
      above   = 0.5
      meaning = "Nothing is sent to that account until somebody signs in anew."
      to_do   = "Ask the account's owner; `activation platforms list` names it."
    }
  }

  metric_sources = {
    for name in keys(local.metrics) :
    name => "resource.type = \"cloud_run_revision\" AND metric.type = \"logging.googleapis.com/user/${google_logging_metric.metric[name].name}\""
  }

  # Services name what they do in three ways: `UpdateTopic`, `storage.buckets.update`,
  # `v1.compute.securityPolicies.patch`; and the same act as SetIamPolicy, SetIAMPolicy, setIamPermissions.
  changes = join("|", [
    "(?i)set(iam|org)(policy|permissions)$",
    "(update|delete)(subscription|topic|job|database|cryptokey|secret)$",
    "(buckets|securitypolicies|backendservices|sslpolicies|urlmaps)[.](insert|patch|update|delete|[a-z]+rule)$",
  ])

  # Single lines that somebody must see.
  log_alerts = {
    wrong-settings = {
      level   = "critical"
      title   = "A function does not start"
      filter  = "resource.type=\"cloud_run_revision\" AND jsonPayload.logger=\"activation\" AND severity=\"CRITICAL\" AND jsonPayload.message:\"settings: \""
      meaning = "Its settings are wrong; the line names the one."
      to_do   = "Correct the variable, apply, or go back to the last revision."
    }
    credentials-opened = {
      level   = "critical"
      title   = "A stranger opened credentials"
      filter  = "protoPayload.serviceName=\"cloudkms.googleapis.com\" AND protoPayload.methodName=\"Decrypt\" AND protoPayload.resourceName:\"/keyRings/${google_kms_key_ring.ring["credentials"].name}/\" AND NOT protoPayload.authenticationInfo.principalEmail=\"${google_service_account.function["dispatch_distribution"].email}\""
      meaning = "Somebody else than the dispatcher asked the key of credentials to decrypt."
      to_do   = "Find out who, take the right away, and change the credentials of platforms."
    }
    key-destroyed = {
      level   = "critical"
      title   = "A key is about to be destroyed"
      filter  = "protoPayload.serviceName=\"cloudkms.googleapis.com\" AND protoPayload.methodName=(\"DestroyCryptoKeyVersion\" OR \"UpdateCryptoKeyVersion\")"
      meaning = "What the version sealed is lost when its 30 days are over; a disabled one is lost now."
      to_do   = "Restore or enable the version unless this was decided."
    }
    unexpected-failure = {
      level   = "warning"
      title   = "An exception nobody expected"
      filter  = "resource.type=\"cloud_run_revision\" AND jsonPayload.logger=\"activation\" AND jsonPayload.message=\"unexpected failure\""
      meaning = "A fault of ours; the line has its kind and the places it passed through."
      to_do   = "Follow its trace; a message that met it is delivered again or ends as a dead letter."
    }
    issuer-unread = {
      level   = "warning"
      title   = "The token issuer does not answer"
      filter  = "resource.type=\"cloud_run_revision\" AND jsonPayload.logger=\"activation\" AND jsonPayload.message=\"the token issuer's keys were not read\""
      meaning = "The last keys are still good; a new one is not known."
      to_do   = "Ask the operator of the issuer; check `jwks_url`."
    }
    cache-down = {
      level   = "warning"
      title   = "The shared cache does not answer"
      filter  = "resource.type=\"cloud_run_revision\" AND jsonPayload.logger=\"activation\" AND jsonPayload.message=\"cache is down\""
      meaning = "Reads are slower; nothing is wrong."
      to_do   = "Look at Redis."
    }
    deployment = {
      level   = "info"
      title   = "A function was deployed"
      filter  = "protoPayload.serviceName=\"cloudfunctions.googleapis.com\" AND protoPayload.methodName=~\"(Create|Update|Delete)Function$\" AND operation.last=true"
      meaning = "A function was created, changed or deleted."
      to_do   = "Nothing, when somebody meant it."
    }
    configuration = {
      level   = "info"
      title   = "Rights or configuration changed"
      filter  = "logName:\"cloudaudit.googleapis.com%2Factivity\" AND protoPayload.methodName=~\"${local.changes}\""
      meaning = "Somebody changed a right or a resource."
      to_do   = "Compare with the last apply; `terraform plan` shows what drifted."
    }
  }
}

resource "google_monitoring_notification_channel" "email" {
  for_each = setunion(var.alert_emails.critical, var.alert_emails.warning, var.alert_emails.info)

  display_name = each.key
  type         = "email"
  labels       = { email_address = each.key }
  depends_on   = [google_project_service.api]
}

resource "google_monitoring_alert_policy" "threshold" {
  for_each = local.threshold_alerts

  display_name          = each.value.title
  combiner              = "OR"
  severity              = local.severities[each.value.level]
  notification_channels = local.channels[each.value.level]
  user_labels           = { level = each.value.level, alert = each.key }

  conditions {
    display_name = each.value.title

    condition_threshold {
      filter          = each.value.filter
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.above
      duration        = each.value.lasting

      aggregations {
        alignment_period     = each.value.alignment
        per_series_aligner   = each.value.aligner
        cross_series_reducer = each.value.reducer
        group_by_fields      = each.value.group_by
      }
    }
  }

  documentation {
    subject = "${var.environment}: ${each.value.title}"
    content = "${each.value.meaning}\n\n${each.value.to_do}"
  }
}

resource "google_monitoring_alert_policy" "log" {
  for_each = local.log_alerts

  display_name          = each.value.title
  combiner              = "OR"
  severity              = local.severities[each.value.level]
  notification_channels = local.channels[each.value.level]
  user_labels           = { level = each.value.level, alert = each.key }

  conditions {
    display_name = each.value.title

    condition_matched_log {
      filter = each.value.filter
    }
  }

  alert_strategy {
    auto_close = "86400s"

    notification_rate_limit {
      period = "900s"
    }
  }

  documentation {
    subject = "${var.environment}: ${each.value.title}"
    content = "${each.value.meaning}\n\n${each.value.to_do}"
  }
}
