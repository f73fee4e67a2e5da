# The promise: `availability_goal` of the API's requests do not fail, over 28 days. An alert comes
# when the budget of failures burns so fast that it would be gone in two days, five days, nine days.
# Cloud Monitoring looks no further back than a day.

locals {
  burn_rates = {
    fast   = { rate = 14.4, long = "3600s", short = "300s", level = "critical" }
    slow   = { rate = 6, long = "21600s", short = "1800s", level = "critical" }
    steady = { rate = 3, long = "86400s", short = "7200s", level = "warning" }
  }
  api_requests = "resource.type=\"https_lb_rule\" resource.labels.url_map_name=\"${google_compute_url_map.api.name}\" metric.type=\"loadbalancing.googleapis.com/https/request_count\""
}

resource "google_monitoring_custom_service" "api" {
  service_id   = "${var.name}-api"
  display_name = "Audience activation API"
  depends_on   = [google_project_service.api]
}

resource "google_monitoring_slo" "availability" {
  service             = google_monitoring_custom_service.api.service_id
  slo_id              = "availability"
  display_name        = "${var.availability_goal * 100} % of requests do not fail, over 28 days"
  goal                = var.availability_goal
  rolling_period_days = 28

  request_based_sli {
    good_total_ratio {
      total_service_filter = local.api_requests
      bad_service_filter   = "${local.api_requests} metric.labels.response_code_class=500"
    }
  }
}

resource "google_monitoring_slo" "latency" {
  service             = google_monitoring_custom_service.api.service_id
  slo_id              = "latency"
  display_name        = "95 % of requests are answered within a second, over 28 days"
  goal                = 0.95
  rolling_period_days = 28

  request_based_sli {
    distribution_cut {
      distribution_filter = "${replace(local.api_requests, "request_count", "total_latencies")} ${local.answering}"

      range {
        min = 0
        max = 1000
      }
    }
  }
}

resource "google_monitoring_alert_policy" "burn" {
  for_each = local.burn_rates

  display_name          = "The failure budget burns ${each.value.rate} times too fast"
  combiner              = "AND"
  severity              = local.severities[each.value.level]
  notification_channels = local.channels[each.value.level]
  user_labels           = { level = each.value.level, alert = "burn-${each.key}" }

  dynamic "conditions" {
    for_each = [each.value.long, each.value.short]

    content {
      display_name = "Over ${conditions.value}"

      condition_threshold {
        filter          = "select_slo_burn_rate(\"${google_monitoring_slo.availability.name}\", \"${conditions.value}\")"
        comparison      = "COMPARISON_GT"
        threshold_value = each.value.rate
        duration        = "0s"
      }
    }
  }

  documentation {
    subject = "${var.environment}: the API fails too often"
    content = "Requests fail ${each.value.rate} times as often as the goal allows.\n\nFollow the 5xx answers by function; roll back when a deployment came just before."
  }
}
