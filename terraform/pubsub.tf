# Topics of the manifest; per subscribed function a push subscription, a topic of dead letters and
# the subscription in which they wait (`activation dead-letters`).

locals {
  topic_prefix = "${var.name}-"
  message_ttl  = "${var.message_days * 24 * 3600}s"
}

resource "google_pubsub_topic" "topic" {
  for_each = local.topics

  name                       = "${local.topic_prefix}${each.key}"
  kms_key_name               = google_kms_crypto_key.wrapping["messages"].id
  message_retention_duration = local.message_ttl

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

resource "google_pubsub_topic" "dead" {
  for_each = local.topic_functions

  name         = "${local.topic_prefix}${each.key}-dead"
  kms_key_name = google_kms_crypto_key.wrapping["messages"].id

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

resource "google_pubsub_subscription" "function" {
  for_each = local.topic_functions

  name                       = "${local.topic_prefix}${each.key}"
  topic                      = google_pubsub_topic.topic[each.value.topic].id
  ack_deadline_seconds       = try(each.value.ack_deadline_seconds, 60)
  enable_message_ordering    = true
  message_retention_duration = "604800s"
  filter                     = contains(local.evaluated_by_job, each.key) ? "NOT attributes:ordering_key" : null

  push_config {
    push_endpoint = google_cloudfunctions2_function.function[each.key].service_config[0].uri

    oidc_token {
      service_account_email = google_service_account.deliverer["topic"].email
      audience              = local.audiences[each.key]
    }
  }

  retry_policy {
    minimum_backoff = "${try(each.value.min_backoff_seconds, 10)}s"
    maximum_backoff = "${try(each.value.max_backoff_seconds, 600)}s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead[each.key].id
    max_delivery_attempts = try(each.value.max_attempts, 5)
  }

  expiration_policy {
    ttl = ""
  }

  depends_on = [
    google_cloud_run_service_iam_member.caller,
    google_pubsub_subscription.dead,
    google_pubsub_topic_iam_member.dead,
  ]
}

resource "google_pubsub_subscription" "dead" {
  for_each = local.topic_functions

  name                       = google_pubsub_topic.dead[each.key].name
  topic                      = google_pubsub_topic.dead[each.key].id
  ack_deadline_seconds       = 60
  message_retention_duration = local.message_ttl

  expiration_policy {
    ttl = ""
  }
}

# Pub/Sub itself moves a message that failed too often.
resource "google_pubsub_topic_iam_member" "dead" {
  for_each = local.topic_functions

  topic  = google_pubsub_topic.dead[each.key].id
  role   = "roles/pubsub.publisher"
  member = local.agents["pubsub"]
}

resource "google_pubsub_subscription_iam_member" "dead" {
  for_each = local.topic_functions

  subscription = google_pubsub_subscription.function[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = local.agents["pubsub"]
}

# Pub/Sub makes the tokens that its deliveries carry.
resource "google_service_account_iam_member" "deliverer_tokens" {
  service_account_id = google_service_account.deliverer["topic"].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.agents["pubsub"]
}

# A file that has arrived starts its import.
resource "google_storage_notification" "upload" {
  bucket         = google_storage_bucket.bucket["uploads"].name
  topic          = google_pubsub_topic.topic["member-imports"].id
  payload_format = "JSON_API_V1"
  event_types    = ["OBJECT_FINALIZE"]
  depends_on     = [google_pubsub_topic_iam_member.upload]
}

resource "google_pubsub_topic_iam_member" "upload" {
  topic  = google_pubsub_topic.topic["member-imports"].id
  role   = "roles/pubsub.publisher"
  member = local.storage
}
