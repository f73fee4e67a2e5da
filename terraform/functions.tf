# Archive, function and who may call it. The archive's name carries its hash: a function is
# deployed again exactly when its bytes change.

resource "google_storage_bucket_object" "archive" {
  for_each = local.functions

  bucket = google_storage_bucket.bucket["sources"].name
  name   = "${each.key}/${filesha256("${var.archives}/${each.key}.zip")}.zip"
  source = "${var.archives}/${each.key}.zip"
}

resource "google_artifact_registry_repository" "images" {
  repository_id = "${var.name}-functions"
  location      = var.region
  format        = "DOCKER"
  description   = "Images that Cloud Build makes of the functions' archives"
  kms_key_name  = google_kms_crypto_key.wrapping["functions"].id

  cleanup_policies {
    id     = "keep-recent"
    action = "KEEP"

    most_recent_versions {
      keep_count = 10
    }
  }

  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"

    condition {
      older_than = "7776000s"
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

resource "google_service_account" "builder" {
  account_id   = "builder"
  display_name = "Builds the images of functions"
  depends_on   = [google_project_service.api]
}

resource "google_artifact_registry_repository_iam_member" "builder" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.builder.member
}

resource "google_storage_bucket_iam_member" "builder" {
  bucket = google_storage_bucket.bucket["sources"].name
  role   = "roles/storage.objectViewer"
  member = google_service_account.builder.member
}

# Google copies archives to a bucket of its own, which is there only after the first deployment.
resource "google_project_iam_member" "builder_sources" {
  project = var.project
  role    = "roles/storage.objectViewer"
  member  = google_service_account.builder.member

  condition {
    title      = "Only copies of archives"
    expression = "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-${data.google_project.current.number}-${var.region}\")"
  }
}

# Logs have no resource that a right could be given on.
resource "google_project_iam_member" "builder_logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.builder.member
}

locals {
  common_environment = {
    ACTIVATION_BACKEND             = "google"
    ACTIVATION_PROJECT             = var.project
    ACTIVATION_DATABASE            = google_firestore_database.documents.name
    ACTIVATION_UPLOADS_BUCKET      = google_storage_bucket.bucket["uploads"].name
    ACTIVATION_MEMBERS_BUCKET      = google_storage_bucket.bucket["members"].name
    ACTIVATION_BACKUP_BUCKET       = google_storage_bucket.bucket["backup"].name
    ACTIVATION_ARCHIVE_BUCKET      = google_storage_bucket.bucket["archive"].name
    ACTIVATION_EVENTS_BUCKET       = google_storage_bucket.bucket["events"].name
    ACTIVATION_EVENT_DAYS          = var.event_days
    ACTIVATION_JOURNAL_BUCKET      = google_storage_bucket.bucket["journal"].name
    ACTIVATION_TOPIC_PREFIX        = local.topic_prefix
    ACTIVATION_KMS_KEY             = google_kms_crypto_key.wrapping["credentials"].id
    ACTIVATION_SUPPRESSION_KMS_KEY = google_kms_crypto_key.wrapping["suppressions"].id
    ACTIVATION_SIGNING_KEY         = "${google_kms_crypto_key.signing.id}/cryptoKeyVersions/${var.signing_key_version}"
    ACTIVATION_ISSUER              = var.issuer
    ACTIVATION_JWKS_URL            = var.jwks_url
    ACTIVATION_CORS_ORIGINS        = join(",", var.cors_origins)
  }

  # Who may deliver to a function, besides Google's own check of the invoker.
  deliverers = {
    http     = ""
    topic    = google_service_account.deliverer["topic"].email
    schedule = google_service_account.deliverer["schedule"].email
  }
}

resource "google_cloudfunctions2_function" "function" {
  for_each = local.functions

  name         = local.service_names[each.key]
  location     = var.region
  description  = each.value.description
  kms_key_name = google_kms_crypto_key.wrapping["functions"].id

  build_config {
    runtime           = "python311"
    entry_point       = each.value.entry_point
    docker_repository = google_artifact_registry_repository.images.id
    service_account   = google_service_account.builder.id

    # Bytecode is compared with its source by content: images have other file times than builds.
    environment_variables = {
      SOURCE_DATE_EPOCH = "315532800"
    }

    source {
      storage_source {
        bucket = google_storage_bucket_object.archive[each.key].bucket
        object = google_storage_bucket_object.archive[each.key].name
      }
    }
  }

  # Google boosts the processor while a function of this generation starts; there is no argument.
  service_config {
    available_memory                 = each.value.memory
    available_cpu                    = tostring(each.value.cpu)
    max_instance_request_concurrency = each.value.concurrency
    min_instance_count               = lookup(var.min_instances, each.key, try(each.value.min_instances, 0))
    max_instance_count               = each.value.max_instances
    timeout_seconds                  = each.value.timeout_seconds
    all_traffic_on_latest_revision   = !var.gradual_traffic
    service_account_email            = google_service_account.function[each.key].email
    ingress_settings                 = each.value.trigger == "http" ? "ALLOW_INTERNAL_AND_GCLB" : "ALLOW_INTERNAL_ONLY"

    environment_variables = merge(local.common_environment, var.settings, {
      ACTIVATION_PUSH_AUDIENCE         = local.audiences[each.key]
      ACTIVATION_PUSH_SERVICE_ACCOUNTS = local.deliverers[each.value.trigger]
      ACTIVATION_PUSH_CHECKED          = tostring(each.value.trigger != "http")
      THREADS                          = tostring(each.value.concurrency)
    })

    dynamic "secret_environment_variables" {
      for_each = { for setting, given in var.secret_settings : setting => given if contains(given.functions, each.key) }

      content {
        key        = secret_environment_variables.key
        project_id = var.project
        secret     = secret_environment_variables.value.secret
        version    = "latest"
      }
    }
  }

  depends_on = [
    google_artifact_registry_repository_iam_member.builder,
    google_kms_crypto_key_iam_member.agent,
    google_kms_crypto_key_iam_member.function,
    google_project_iam_member.builder_logs,
    google_project_iam_member.builder_sources,
    google_secret_manager_secret_iam_member.function,
    google_storage_bucket_iam_member.builder,
  ]
}

# Messages and ticks come as one of these, and no other function takes them.
resource "google_service_account" "deliverer" {
  for_each = { topic = "Delivers messages to functions", schedule = "Wakes functions on time" }

  account_id   = "deliver-${each.key}"
  display_name = each.value
  depends_on   = [google_project_service.api]
}

# Identity-Aware Proxy calls the API for those it lets through.
resource "google_cloud_run_service_iam_member" "caller" {
  for_each = local.functions

  location = google_cloudfunctions2_function.function[each.key].location
  service  = google_cloudfunctions2_function.function[each.key].name
  role     = "roles/run.invoker"
  member = (
    each.value.trigger == "http"
    ? local.agents["iap"]
    : google_service_account.deliverer[each.value.trigger].member
  )
}

# The pipeline finds services, and shifts the traffic of the functions: also of those that are new. To
# change a service is to act as whom it runs as.
locals {
  deployers = var.deployer == null ? [] : ["${var.deployer}@${var.project}.iam.gserviceaccount.com"]
  deployer  = one([for address in local.deployers : "serviceAccount:${address}"])
}

# A build has a token for the proxy only if its account may make tokens of itself.
resource "google_service_account_iam_member" "deployer_itself" {
  for_each = toset(local.deployers)

  service_account_id = "projects/${var.project}/serviceAccounts/${each.key}"
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = local.deployer
  depends_on         = [google_project_service.api]
}

resource "google_project_iam_member" "deployer" {
  for_each = toset(local.deployer == null ? [] : ["roles/run.viewer"])

  project    = var.project
  role       = each.key
  member     = local.deployer
  depends_on = [google_project_service.api]
}

resource "google_cloud_run_service_iam_member" "deployer" {
  for_each = toset(local.deployer == null ? [] : keys(local.functions))

  location = google_cloudfunctions2_function.function[each.key].location
  service  = google_cloudfunctions2_function.function[each.key].name
  role     = "roles/run.developer"
  member   = local.deployer
}

resource "google_service_account_iam_member" "deployer" {
  for_each = toset(local.deployer == null ? [] : keys(local.functions))

  service_account_id = google_service_account.function[each.key].name
  role               = "roles/iam.serviceAccountUser"
  member             = local.deployer
}
