# A function with one schedule gets an empty object; one with several is told which has come.

locals {
  jobs = merge([
    for name, function in local.schedule_functions : merge(
      can(function.schedule) ? { (name) = { function = name, cron = function.schedule, body = {} } } : {},
      {
        for job, cron in try(function.schedules, {}) :
        "${name}_${job}" => { function = name, cron = cron, body = { job = job } }
      },
    )
  ]...)
}

resource "google_cloud_scheduler_job" "job" {
  for_each = local.jobs

  name             = "${var.name}-${replace(each.key, "_", "-")}"
  region           = var.region
  description      = local.functions[each.value.function].description
  schedule         = each.value.cron
  time_zone        = "Etc/UTC"
  attempt_deadline = "${local.functions[each.value.function].timeout_seconds}s"

  retry_config {
    retry_count          = 3
    min_backoff_duration = "10s"
    max_backoff_duration = "300s"
    max_doublings        = 4
  }

  http_target {
    uri         = google_cloudfunctions2_function.function[each.value.function].service_config[0].uri
    http_method = "POST"
    headers     = { "Content-Type" = "application/json" }
    body        = base64encode(jsonencode(each.value.body))

    oidc_token {
      service_account_email = google_service_account.deliverer["schedule"].email
      audience              = local.audiences[each.value.function]
    }
  }

  depends_on = [google_cloud_run_service_iam_member.caller]
}
