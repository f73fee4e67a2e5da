# Buckets. Where people can be named nothing lingers: no soft delete and no old versions, so that
# what is erased is gone. Names of objects are never used twice; history is the application's own.

locals {
  bucket_defaults = {
    location                = var.region
    key                     = "storage"
    soft_delete_days        = 0
    delete_after_days       = null
    classes                 = {}
    locked_days             = null
    cross_origin_uploads    = false
    abandoned_uploads_after = 7
  }

  buckets = { for name, bucket in {
    uploads = { delete_after_days = 1, cross_origin_uploads = true, abandoned_uploads_after = 1 }
    members = {}
    events  = { delete_after_days = var.event_days + 35, classes = { NEARLINE = 30, COLDLINE = 90 } }
    archive = { location = var.copies_location, key = "copies" }
    backup  = { location = var.copies_location, key = "copies" }
    journal = { location = var.copies_location, key = "copies", delete_after_days = 60 }
    exports = { location = var.copies_location, key = "copies", soft_delete_days = 7, delete_after_days = 21 }
    audit   = { location = var.copies_location, key = "copies", locked_days = var.audit_days, delete_after_days = var.audit_days + 1 }
    sources = { key = "functions", soft_delete_days = 7 }
  } : name => merge(local.bucket_defaults, bucket) }
}

resource "google_storage_bucket" "bucket" {
  for_each = local.buckets

  name                        = "${var.project}-${var.name}-${each.key}"
  location                    = each.value.location
  storage_class               = "STANDARD"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  encryption {
    default_kms_key_name = google_kms_crypto_key.wrapping[each.value.key].id
  }

  soft_delete_policy {
    retention_duration_seconds = each.value.soft_delete_days * 24 * 3600
  }

  versioning {
    enabled = false
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }

    condition {
      age = each.value.abandoned_uploads_after
    }
  }

  dynamic "lifecycle_rule" {
    for_each = each.value.delete_after_days == null ? [] : [each.value.delete_after_days]

    content {
      action {
        type = "Delete"
      }

      condition {
        age = lifecycle_rule.value
      }
    }
  }

  dynamic "lifecycle_rule" {
    for_each = each.value.classes

    content {
      action {
        type          = "SetStorageClass"
        storage_class = lifecycle_rule.key
      }

      condition {
        age = lifecycle_rule.value
      }
    }
  }

  dynamic "retention_policy" {
    for_each = each.value.locked_days == null ? [] : [each.value.locked_days]

    content {
      retention_period = retention_policy.value * 24 * 3600
      is_locked        = var.audit_locked
    }
  }

  dynamic "cors" {
    for_each = each.value.cross_origin_uploads && length(var.cors_origins) > 0 ? [var.cors_origins] : []

    content {
      origin          = cors.value
      method          = ["PUT"]
      response_header = ["Content-Type", "x-goog-content-length-range", "x-goog-if-generation-match"]
      max_age_seconds = 3600
    }
  }

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

# Who did what, where nobody can change it any more: Google's own audit logs, and a line for every
# commit of the application (what was done to which record, never to whom).
resource "google_logging_project_sink" "audit" {
  name                   = "${var.name}-audit"
  destination            = "storage.googleapis.com/${google_storage_bucket.bucket["audit"].name}"
  unique_writer_identity = true

  filter = join(" OR ", [
    "logName:\"cloudaudit.googleapis.com\"",
    "(resource.type=\"cloud_run_revision\" AND jsonPayload.logger=\"activation\" AND jsonPayload.message=\"committed\")",
  ])
}

resource "google_storage_bucket_iam_member" "audit" {
  bucket = google_storage_bucket.bucket["audit"].name
  role   = "roles/storage.objectCreator"
  member = google_logging_project_sink.audit.writer_identity
}
