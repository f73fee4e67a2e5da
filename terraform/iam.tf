# One identity per function, with the roles of the manifest and nothing else. What is granted
# beyond it (Google's agents, the builder, who delivers messages) stands beside what it is for.

resource "google_service_account" "function" {
  for_each = local.functions

  account_id   = "fn-${replace(each.key, "_", "-")}"
  display_name = "Function ${each.key}"
  description  = each.value.description

  lifecycle {
    precondition {
      condition = alltrue([
        for grant in values(local.grants) : contains(["database", "topic", "bucket", "key", "self"], grant.kind)
      ])
      error_message = "The manifest names a kind of resource that no grant below knows."
    }
  }

  depends_on = [google_project_service.api]
}

# Firestore has no rights on a database itself; the condition names the one they count for.
resource "google_project_iam_member" "function_database" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "database" }

  project = var.project
  role    = each.value.role
  member  = google_service_account.function[each.value.function].member

  condition {
    title      = "Only ${google_firestore_database.documents.name}"
    expression = "resource.name == \"projects/${var.project}/databases/${google_firestore_database.documents.name}\""
  }
}

resource "google_pubsub_topic_iam_member" "function" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "topic" }

  topic  = google_pubsub_topic.topic[each.value.target].id
  role   = each.value.role
  member = google_service_account.function[each.value.function].member
}

resource "google_storage_bucket_iam_member" "function" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "bucket" }

  bucket = google_storage_bucket.bucket[each.value.target].name
  role   = each.value.role
  member = google_service_account.function[each.value.function].member
}

resource "google_kms_crypto_key_iam_member" "function" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "key" }

  crypto_key_id = (
    each.value.target == "signing"
    ? google_kms_crypto_key.signing.id
    : google_kms_crypto_key.wrapping[each.value.target].id
  )
  role   = each.value.role
  member = google_service_account.function[each.value.function].member
}

# A function that signs upload addresses does so as itself.
resource "google_service_account_iam_member" "function_itself" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "self" }

  service_account_id = google_service_account.function[each.value.function].name
  role               = each.value.role
  member             = google_service_account.function[each.value.function].member
}

locals {
  secret_readers = merge([
    for setting, given in var.secret_settings : {
      for function in given.functions : "${function}/${setting}" => { secret = given.secret, function = function }
    }
  ]...)
}

resource "google_secret_manager_secret_iam_member" "function" {
  for_each = local.secret_readers

  secret_id = each.value.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.function[each.value.function].member
}

# Spans and figures go to Google's own collector only where a setting says so; it knows no rights on
# anything smaller than a project.
locals {
  collector = lookup(var.settings, "ACTIVATION_OTLP_ENDPOINT", "")
  told = !startswith(local.collector, "https://telemetry.googleapis.com") ? [] : concat(
    ["roles/telemetry.tracesWriter"],
    lookup(var.settings, "ACTIVATION_OTLP_METRICS", "false") == "true" ? ["roles/telemetry.metricsWriter"] : [],
  )
  tellers = merge(
    { for name, account in google_service_account.function : name => account.member },
    { for name, account in google_service_account.sockets : name => account.member },
  )
}

resource "google_project_iam_member" "telemetry" {
  for_each = {
    for pair in setproduct(keys(local.tellers), local.told) :
    "${pair[0]}/${pair[1]}" => { teller = pair[0], role = pair[1] }
  }

  project = var.project
  role    = each.value.role
  member  = local.tellers[each.value.teller]
}
