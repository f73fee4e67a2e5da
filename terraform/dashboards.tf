# Two dashboards: how the machinery does, from Google's metrics, and what it does, from our own.

locals {
  operations_tiles = [
    { title = "API requests by class of answer", filter = "resource.type=\"https_lb_rule\" metric.type=\"loadbalancing.googleapis.com/https/request_count\"", aligner = "ALIGN_RATE", reducer = "REDUCE_SUM", by = ["metric.label.response_code_class"] },
    { title = "API latency, 95 of 100", filter = "resource.type=\"https_lb_rule\" metric.type=\"loadbalancing.googleapis.com/https/total_latencies\"", aligner = "ALIGN_PERCENTILE_95", reducer = "REDUCE_MAX", by = ["resource.label.backend_target_name"] },
    { title = "Requests of functions", filter = "resource.type=\"cloud_run_revision\" metric.type=\"run.googleapis.com/request_count\"", aligner = "ALIGN_RATE", reducer = "REDUCE_SUM", by = ["resource.label.service_name", "metric.label.response_code_class"] },
    { title = "Latency of functions, 95 of 100", filter = "resource.type=\"cloud_run_revision\" metric.type=\"run.googleapis.com/request_latencies\"", aligner = "ALIGN_PERCENTILE_95", reducer = "REDUCE_MAX", by = ["resource.label.service_name"] },
    { title = "Instances", filter = "resource.type=\"cloud_run_revision\" metric.type=\"run.googleapis.com/container/instance_count\"", aligner = "ALIGN_MAX", reducer = "REDUCE_SUM", by = ["resource.label.service_name"] },
    { title = "Start of instances, 95 of 100", filter = "resource.type=\"cloud_run_revision\" metric.type=\"run.googleapis.com/container/startup_latencies\"", aligner = "ALIGN_PERCENTILE_95", reducer = "REDUCE_MAX", by = ["resource.label.service_name"] },
    { title = "Processor in use, 99 of 100", filter = "resource.type=\"cloud_run_revision\" metric.type=\"run.googleapis.com/container/cpu/utilizations\"", aligner = "ALIGN_PERCENTILE_99", reducer = "REDUCE_MAX", by = ["resource.label.service_name"] },
    { title = "Memory in use, 99 of 100", filter = "resource.type=\"cloud_run_revision\" metric.type=\"run.googleapis.com/container/memory/utilizations\"", aligner = "ALIGN_PERCENTILE_99", reducer = "REDUCE_MAX", by = ["resource.label.service_name"] },
    { title = "Messages that wait", filter = "resource.type=\"pubsub_subscription\" metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\"", aligner = "ALIGN_MAX", reducer = "REDUCE_SUM", by = ["resource.label.subscription_id"] },
    { title = "Age of the oldest message", filter = "resource.type=\"pubsub_subscription\" metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\"", aligner = "ALIGN_MAX", reducer = "REDUCE_MAX", by = ["resource.label.subscription_id"] },
    { title = "Bytes in buckets", filter = "resource.type=\"gcs_bucket\" metric.type=\"storage.googleapis.com/storage/v2/total_bytes\"", aligner = "ALIGN_MAX", reducer = "REDUCE_SUM", by = ["resource.label.bucket_name"] },
    { title = "Documents read and written", filter = "resource.type=\"firestore.googleapis.com/Database\" metric.type=monitoring.regex.full_match(\"firestore.googleapis.com/document/(read|write)_ops_count\")", aligner = "ALIGN_RATE", reducer = "REDUCE_SUM", by = ["metric.label.type"] },
  ]

  # What a figure of ours is in PromQL: counters grow, values are summed, gauges averaged.
  series = { for name in keys(local.metrics) : name => "logging_googleapis_com:user_${google_logging_metric.metric[name].name}" }
  business_tiles = [
    for name, metric in local.metrics : {
      title = metric.help
      query = (
        metric.kind == "histogram"
        ? "histogram_quantile(0.95, sum by (${join(", ", concat(["le"], metric.labels))}) (increase(${local.series[name]}_bucket[10m])))"
        : metric.kind == "gauge"
        ? "sum(increase(${local.series[name]}_sum[2h])) / sum(increase(${local.series[name]}_count[2h]))"
        : "sum by (${join(", ", metric.labels)}) (increase(${local.series[name]}${metric.value == null ? "" : "_sum"}[10m]))"
      )
    }
  ]

  dashboards = {
    operations = { title = "Audience activation: operations", tiles = local.operations_tiles }
    business   = { title = "Audience activation: what it does", tiles = local.business_tiles }
  }
}

resource "google_monitoring_dashboard" "dashboard" {
  for_each = local.dashboards

  dashboard_json = jsonencode({
    displayName = each.value.title
    mosaicLayout = {
      columns = 48
      tiles = [
        for position, tile in each.value.tiles : {
          xPos   = position % 2 * 24
          yPos   = floor(position / 2) * 16
          width  = 24
          height = 16
          widget = {
            title = tile.title
            xyChart = {
              dataSets = [{
                plotType = "LINE"
                timeSeriesQuery = { for kind, query in {
                  prometheusQuery = try(tile.query, null)
                  timeSeriesFilter = try({
                    filter = tile.filter
                    aggregation = {
                      alignmentPeriod    = "60s"
                      perSeriesAligner   = tile.aligner
                      crossSeriesReducer = tile.reducer
                      groupByFields      = tile.by
                    }
                  }, null)
                } : kind => query if query != null }
              }]
            }
          }
        }
      ]
    }
  })

  depends_on = [google_project_service.api]
}
