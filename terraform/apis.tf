# What everything else is asked through. The data below wait for these alone: an API that is added to
# the others later would have Terraform read them anew, and give every right that names them again.
resource "google_project_service" "first" {
  for_each = toset([
    "bigquery.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "serviceusage.googleapis.com",
    "storage.googleapis.com",
  ])

  service            = each.key
  disable_on_destroy = false
}

resource "google_project_service" "api" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudfunctions.googleapis.com",
    "cloudkms.googleapis.com",
    "cloudscheduler.googleapis.com",
    "cloudtrace.googleapis.com",
    "compute.googleapis.com",
    "dataflow.googleapis.com",
    "eventarc.googleapis.com",
    "firestore.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "iap.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "telemetry.googleapis.com",
  ])

  service            = each.key
  disable_on_destroy = false
  depends_on         = [google_project_service.first]
}

moved {
  from = google_project_service.api["bigquery.googleapis.com"]
  to   = google_project_service.first["bigquery.googleapis.com"]
}

moved {
  from = google_project_service.api["storage.googleapis.com"]
  to   = google_project_service.first["storage.googleapis.com"]
}

data "google_project" "current" {
  depends_on = [google_project_service.first]
}

# Google's own accounts act for us: they use our keys, deliver messages and call functions. They
# come into being when they are first needed, which is too late for the rights they get here.
resource "google_project_service_identity" "agent" {
  provider = google-beta
  for_each = toset([
    "artifactregistry.googleapis.com",
    "cloudfunctions.googleapis.com",
    "eventarc.googleapis.com",
    "firestore.googleapis.com",
    "iap.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
  ])

  service    = each.key
  depends_on = [google_project_service.api]
}

data "google_storage_project_service_account" "agent" {
  depends_on = [google_project_service.first]
}

data "google_bigquery_default_service_account" "agent" {
  depends_on = [google_project_service.first]
}

# Who used a key or read a secret is written down by Google; nobody is exempt.
resource "google_project_iam_audit_config" "reads" {
  for_each = toset(["cloudkms.googleapis.com", "iam.googleapis.com", "secretmanager.googleapis.com"])

  project = var.project
  service = each.key

  audit_log_config {
    log_type = "ADMIN_READ"
  }

  audit_log_config {
    log_type = "DATA_READ"
  }

  audit_log_config {
    log_type = "DATA_WRITE"
  }

  depends_on = [google_project_service.api]
}
