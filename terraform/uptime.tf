# What must never fall silent: the API's door, and the clock.

# The clock's functions are what wakes everything else: their silence is what nothing else shows.
resource "google_monitoring_alert_policy" "clock" {
  display_name          = "The clock stands still"
  combiner              = "OR"
  severity              = local.severities["critical"]
  notification_channels = local.channels["critical"]
  user_labels           = { level = "critical", alert = "clock" }

  conditions {
    display_name = "run_due has answered nothing for ten minutes"

    condition_absent {
      filter   = "resource.type = \"cloud_run_revision\" AND resource.labels.service_name = \"${local.service_names["run_due"]}\" AND metric.type = \"run.googleapis.com/request_count\" AND metric.labels.response_code_class = \"2xx\""
      duration = "600s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    subject = "${var.environment}: the clock stands still"
    content = "Nothing that is due begins: distributions, retention, what a crash left.\n\nLook at the Scheduler job and at the errors of run_due."
  }
}

# A stranger must be refused: that shows that name, certificate, load balancer and proxy work, and
# that the API is not open.
resource "google_monitoring_uptime_check_config" "api" {
  for_each = toset(var.domains)

  display_name     = "${var.name} API on ${each.key}"
  timeout          = "10s"
  period           = "60s"
  selected_regions = ["EUROPE", "USA", "ASIA_PACIFIC"]

  http_check {
    path         = "/health"
    port         = 443
    use_ssl      = true
    validate_ssl = true
    headers      = { "X-Requested-With" = "XMLHttpRequest" }

    accepted_response_status_codes {
      status_value = 401
    }
  }

  monitored_resource {
    type   = "uptime_url"
    labels = { project_id = var.project, host = each.key }
  }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_alert_policy" "unreachable" {
  for_each = google_monitoring_uptime_check_config.api

  display_name          = "The API cannot be reached"
  combiner              = "OR"
  severity              = local.severities["critical"]
  notification_channels = local.channels["critical"]
  user_labels           = { level = "critical", alert = "unreachable" }

  conditions {
    display_name = "Checks of ${each.key} fail"

    condition_threshold {
      filter          = "resource.type = \"uptime_url\" AND metric.type = \"monitoring.googleapis.com/uptime_check/check_passed\" AND metric.labels.check_id = \"${each.value.uptime_check_id}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 1
      duration        = "120s"

      aggregations {
        alignment_period     = "120s"
        per_series_aligner   = "ALIGN_NEXT_OLDER"
        cross_series_reducer = "REDUCE_COUNT_FALSE"
        group_by_fields      = ["resource.label.host"]
      }
    }
  }

  documentation {
    subject = "${var.environment}: the API cannot be reached"
    content = "From several parts of the world a stranger is not refused as he should be: nobody answers, or the API is open.\n\nLook at DNS, the certificate, the load balancer and Identity-Aware Proxy."
  }
}
