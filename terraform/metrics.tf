# Metrics counted from log lines, from the catalogue of the code. Logs can count lines and spread
# the values of a field: a counter of values and a gauge are kept as distributions, whose sum and
# mean are the figure. Events that are not written as lines are not here.

locals {
  metrics = {
    for metric in jsondecode(file("${path.module}/metrics.json")) : metric.name => metric if metric.logged
  }
  metric_filters = {
    for name, metric in local.metrics : name => join(" AND ", concat(
      [
        "resource.type=\"cloud_run_revision\"",
        "jsonPayload.logger=\"activation\"",
        "jsonPayload.message=\"${metric.event}\"",
      ],
      [for label in metric.labels : "jsonPayload.${label}:*"],
      metric.value == null ? [] : ["jsonPayload.${metric.value}:*"],
    ))
  }
  # Doubling from 1 reaches a billion in thirty steps.
  any_size = [for power in range(31) : pow(2, power)]
}

resource "google_logging_metric" "metric" {
  for_each = local.metrics

  name             = each.key
  description      = each.value.help
  filter           = local.metric_filters[each.key]
  value_extractor  = each.value.value == null ? null : "EXTRACT(jsonPayload.${each.value.value})"
  label_extractors = { for label in each.value.labels : label => "EXTRACT(jsonPayload.${label})" }

  metric_descriptor {
    metric_kind  = "DELTA"
    value_type   = each.value.value == null ? "INT64" : "DISTRIBUTION"
    unit         = each.value.unit
    display_name = each.value.help

    dynamic "labels" {
      for_each = each.value.labels

      content {
        key        = labels.value
        value_type = "STRING"
      }
    }
  }

  dynamic "bucket_options" {
    for_each = each.value.value == null ? [] : [each.value.buckets]

    content {
      explicit_buckets {
        bounds = length(bucket_options.value) > 0 ? bucket_options.value : local.any_size
      }
    }
  }

  depends_on = [google_project_service.api]
}
