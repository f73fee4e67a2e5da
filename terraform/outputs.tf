# `terraform output -json > outputs.json`: what the command line and a smoke test need to know.

output "address" {
  description = "Where the A records of `domains` point to."
  value       = google_compute_global_address.api.address
}

output "url" {
  description = "Where the API answers: `activation … --url`."
  value       = "https://${var.domains[0]}"
}

output "project" {
  description = "Project id."
  value       = var.project
}

output "region" {
  description = "Region of the functions."
  value       = var.region
}

output "environment" {
  description = "Settings of the command line on Google's back-ends, with the caller's own rights."
  value       = local.common_environment
}

output "functions" {
  description = "Of every function: name, address, what tokens for it must name as audience, identity."
  value = {
    for name, function in google_cloudfunctions2_function.function : name => {
      service  = function.name
      url      = function.service_config[0].uri
      audience = local.audiences[name]
      identity = google_service_account.function[name].email
    }
  }
}

output "subscriptions" {
  description = "Subscription and dead letters of every function that takes messages."
  value = {
    for name, subscription in google_pubsub_subscription.function : name => {
      subscription = subscription.id
      dead_letters = google_pubsub_subscription.dead[name].id
    }
  }
}

output "jobs" {
  description = "Scheduler jobs."
  value       = { for name, job in google_cloud_scheduler_job.job : name => job.id }
}

output "buckets" {
  description = "Buckets by purpose."
  value       = { for name, bucket in google_storage_bucket.bucket : name => bucket.name }
}

output "keys" {
  description = "Keys by purpose."
  value = merge(
    { for name, key in google_kms_crypto_key.wrapping : name => key.id },
    { signing = google_kms_crypto_key.signing.id },
  )
}

output "dataset" {
  description = "BigQuery dataset."
  value       = google_bigquery_dataset.analysis.id
}

output "dashboards" {
  description = "Dashboards by name."
  value       = { for name, dashboard in google_monitoring_dashboard.dashboard : name => dashboard.id }
}

output "sockets_image" {
  description = "Image of the service for WebSockets, for an apply by hand; empty without one."
  value       = join("", values(local.sockets))
}
