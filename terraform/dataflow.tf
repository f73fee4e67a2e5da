# Segments past one machine: the same evaluation as a streaming job. Off unless `dataflow` is set.
# What it writes lies in our bucket, under our key; its moving state is under Google's.

locals {
  dataflow = var.dataflow == null ? {} : { segments = var.dataflow }
}

resource "google_service_account" "dataflow" {
  for_each = local.dataflow

  account_id   = "dataflow-${each.key}"
  display_name = "Streaming job ${each.key}"
  depends_on   = [google_project_service.api]
}

# Workers need this role on the project: Dataflow has no resource that it could be given on.
resource "google_project_iam_member" "dataflow_worker" {
  for_each = local.dataflow

  project = var.project
  role    = "roles/dataflow.worker"
  member  = google_service_account.dataflow[each.key].member
}

resource "google_storage_bucket_iam_member" "dataflow" {
  for_each = local.dataflow

  bucket = google_storage_bucket.bucket["events"].name
  role   = "roles/storage.objectUser"
  member = google_service_account.dataflow[each.key].member
}

resource "google_dataflow_flex_template_job" "segments" {
  provider = google-beta
  for_each = local.dataflow

  name                    = "${var.name}-${each.key}"
  region                  = var.region
  container_spec_gcs_path = each.value.template
  parameters              = each.value.parameters
  max_workers             = each.value.max_workers
  service_account_email   = google_service_account.dataflow[each.key].email
  temp_location           = "gs://${google_storage_bucket.bucket["events"].name}/dataflow/temp"
  staging_location        = "gs://${google_storage_bucket.bucket["events"].name}/dataflow/staging"
  ip_configuration        = "WORKER_IP_PRIVATE"
  enable_streaming_engine = true
  on_delete               = "drain"

  depends_on = [google_project_iam_member.dataflow_worker, google_storage_bucket_iam_member.dataflow]
}
