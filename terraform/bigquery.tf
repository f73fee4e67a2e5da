# Tables for analysis. Credentials of platforms are never exported: the column says which are set.

locals {
  tables = {
    audiences = {
      partitioned = true
      clustering  = ["organization_id", "user_id", "status"]
      key         = ["audience_id"]
    }
    platforms = {
      partitioned = false
      clustering  = ["organization_id", "user_id", "platform_type"]
      key         = ["platform_id"]
    }
    distributions = {
      partitioned = true
      clustering  = ["organization_id", "user_id", "audience_id", "status"]
      key         = ["distribution_id"]
    }
  }
}

resource "google_bigquery_dataset" "analysis" {
  dataset_id                 = "${replace(var.name, "-", "_")}_manager"
  description                = "Audiences, platforms and distributions, for analysis"
  location                   = var.region
  delete_contents_on_destroy = false
  max_time_travel_hours      = "48"

  default_encryption_configuration {
    kms_key_name = google_kms_crypto_key.wrapping["warehouse"].id
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

resource "google_bigquery_table" "table" {
  for_each = local.tables

  dataset_id          = google_bigquery_dataset.analysis.dataset_id
  table_id            = each.key
  schema              = file("${path.module}/tables/${each.key}.json")
  clustering          = each.value.clustering
  deletion_protection = true

  table_constraints {
    primary_key {
      columns = each.value.key
    }
  }

  dynamic "time_partitioning" {
    for_each = each.value.partitioned ? ["created_at"] : []

    content {
      type  = "DAY"
      field = time_partitioning.value
    }
  }

  encryption_configuration {
    kms_key_name = google_kms_crypto_key.wrapping["warehouse"].id
  }

  lifecycle {
    prevent_destroy = true
  }
}
