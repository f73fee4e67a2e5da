# Segments past one machine: the same steps as a streaming job. Off unless `dataflow` is set.
# What it writes lies in our stores, under our keys; its moving state is under Google's.

locals {
  dataflow = var.dataflow == null ? {} : { segments = var.dataflow }

  # With the job alone at work, the function keeps what has no shard yet: events of other systems,
  # which it sends to their shards, and what was refused, which it makes dead letters.
  evaluated_by_job = try(var.dataflow.alone, false) ? ["process_events"] : []

  dataflow_topics  = { for pair in setproduct(keys(local.dataflow), ["user-events", "segment-memberships"]) : join("/", pair) => { job = pair[0], topic = pair[1] } }
  dataflow_buckets = { for pair in setproduct(keys(local.dataflow), ["events", "members"]) : join("/", pair) => { job = pair[0], bucket = pair[1] } }
  dataflow_reads   = { for pair in setproduct(keys(local.dataflow), ["subscriber", "viewer"]) : join("/", pair) => { job = pair[0], role = pair[1] } }
}

resource "google_service_account" "dataflow" {
  for_each = local.dataflow

  account_id   = "dataflow-${each.key}"
  display_name = "Streaming job ${each.key}"
  depends_on   = [google_project_service.api]
}

# Its own copy of every message, without dead letters: what it cannot count it sets aside itself.
resource "google_pubsub_subscription" "dataflow" {
  for_each = local.dataflow

  name                       = "${local.topic_prefix}${each.key}-stream"
  topic                      = google_pubsub_topic.topic["user-events"].id
  ack_deadline_seconds       = 600
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }
}

# Workers need this role on the project: Dataflow has no resource that it could be given on.
resource "google_project_iam_member" "dataflow_worker" {
  for_each = local.dataflow

  project = var.project
  role    = "roles/dataflow.worker"
  member  = google_service_account.dataflow[each.key].member
}

# Firestore has no rights on a database itself; the condition names the one they count for.
resource "google_project_iam_member" "dataflow_database" {
  for_each = local.dataflow

  project = var.project
  role    = "roles/datastore.user"
  member  = google_service_account.dataflow[each.key].member

  condition {
    title      = "Only ${google_firestore_database.documents.name}"
    expression = "resource.name == \"projects/${var.project}/databases/${google_firestore_database.documents.name}\""
  }
}

resource "google_pubsub_subscription_iam_member" "dataflow" {
  for_each = local.dataflow_reads

  subscription = google_pubsub_subscription.dataflow[each.value.job].name
  role         = "roles/pubsub.${each.value.role}"
  member       = google_service_account.dataflow[each.value.job].member
}

resource "google_pubsub_topic_iam_member" "dataflow" {
  for_each = local.dataflow_topics

  topic  = google_pubsub_topic.topic[each.value.topic].id
  role   = "roles/pubsub.publisher"
  member = google_service_account.dataflow[each.value.job].member
}

# Its own files beside the events; large states beside the members.
resource "google_storage_bucket_iam_member" "dataflow" {
  for_each = local.dataflow_buckets

  bucket = google_storage_bucket.bucket[each.value.bucket].name
  role   = "roles/storage.objectUser"
  member = google_service_account.dataflow[each.value.job].member
}

# Events of users who were erased are known by keyed hashes.
resource "google_kms_crypto_key_iam_member" "dataflow" {
  for_each = local.dataflow

  crypto_key_id = google_kms_crypto_key.wrapping["suppressions"].id
  role          = "roles/cloudkms.cryptoKeyDecrypter"
  member        = google_service_account.dataflow[each.key].member
}

resource "google_artifact_registry_repository_iam_member" "dataflow" {
  for_each = local.dataflow

  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.dataflow[each.key].member
}

resource "google_dataflow_flex_template_job" "segments" {
  provider = google-beta
  for_each = local.dataflow

  name                    = "${var.name}-${each.key}"
  region                  = var.region
  container_spec_gcs_path = each.value.template
  sdk_container_image     = each.value.image
  machine_type            = each.value.machine_type
  max_workers             = each.value.max_workers
  autoscaling_algorithm   = "THROUGHPUT_BASED"
  service_account_email   = google_service_account.dataflow[each.key].email
  temp_location           = "gs://${google_storage_bucket.bucket["events"].name}/dataflow/temp"
  staging_location        = "gs://${google_storage_bucket.bucket["events"].name}/dataflow/staging"
  subnetwork              = each.value.subnetwork
  ip_configuration        = "WORKER_IP_PRIVATE"
  enable_streaming_engine = true
  on_delete               = "drain"

  parameters = {
    subscription        = google_pubsub_subscription.dataflow[each.key].id
    members_bucket      = google_storage_bucket.bucket["members"].name
    events_bucket       = google_storage_bucket.bucket["events"].name
    database            = google_firestore_database.documents.name
    suppression_kms_key = google_kms_crypto_key.wrapping["suppressions"].id
    topic_prefix        = local.topic_prefix
    organizations       = join(",", each.value.organizations)
    wait_milliseconds   = tostring(each.value.wait_milliseconds)
  }

  depends_on = [
    google_artifact_registry_repository_iam_member.dataflow,
    google_kms_crypto_key_iam_member.dataflow,
    google_project_iam_member.dataflow_database,
    google_project_iam_member.dataflow_worker,
    google_pubsub_subscription_iam_member.dataflow,
    google_pubsub_topic_iam_member.dataflow,
    google_storage_bucket_iam_member.dataflow,
  ]
}
