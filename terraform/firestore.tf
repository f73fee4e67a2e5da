# The one database. `firestore.indexes.json` is made from the indexes that the code declares. After a
# restore it is another one, which `import` puts here in the place of the old: docs/operations.md.

locals {
  index_overrides = {
    for override in jsondecode(file("${path.module}/firestore.indexes.json")).fieldOverrides :
    "${override.collectionGroup}/${override.fieldPath}" => override
  }
}

resource "google_firestore_database" "documents" {
  name                              = coalesce(var.database, var.name)
  location_id                       = var.database_location
  type                              = "FIRESTORE_NATIVE"
  concurrency_mode                  = "OPTIMISTIC"
  app_engine_integration_mode       = "DISABLED"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = "DELETE_PROTECTION_ENABLED"
  deletion_policy                   = "ABANDON"

  cmek_config {
    kms_key_name = google_kms_crypto_key.wrapping["database"].id
  }

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

resource "google_firestore_field" "override" {
  for_each = local.index_overrides

  database   = google_firestore_database.documents.name
  collection = each.value.collectionGroup
  field      = each.value.fieldPath

  index_config {
    dynamic "indexes" {
      for_each = each.value.indexes

      content {
        order       = indexes.value.order
        query_scope = indexes.value.queryScope
      }
    }
  }

  dynamic "ttl_config" {
    for_each = try(each.value.ttl, false) ? [true] : []
    content {}
  }
}

# Erasure is complete only when the last backup with the person is gone: no backup outlives 28 days.
resource "google_firestore_backup_schedule" "daily" {
  database  = google_firestore_database.documents.name
  retention = "${var.database_backup_days * 24 * 3600}s"

  daily_recurrence {}
}

resource "google_firestore_backup_schedule" "weekly" {
  database  = google_firestore_database.documents.name
  retention = "2419200s"

  weekly_recurrence {
    day = "SUNDAY"
  }
}
