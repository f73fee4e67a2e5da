# A ring per purpose, so that a right on one never reaches another. Losing a key loses what it
# sealed: none can be destroyed by Terraform.

locals {
  key_rings = {
    credentials  = var.region
    suppressions = var.region
    signing      = var.region
    data         = var.region
    database     = lookup(local.region_of_keys, var.database_location, var.database_location)
    copies       = lookup(local.region_of_keys, var.copies_location, var.copies_location)
  }

  agents      = { for service, agent in google_project_service_identity.agent : split(".", service)[0] => agent.member }
  storage     = data.google_storage_project_service_account.agent.member
  warehouse   = data.google_bigquery_default_service_account.agent.member
  of_building = ["artifactregistry", "cloudfunctions", "eventarc", "run"]

  # Wrapping keys: their ring, and which of Google's services encrypt with them for us.
  keys = {
    credentials  = { ring = "credentials", agents = {} }
    suppressions = { ring = "suppressions", agents = {} }
    storage      = { ring = "data", agents = { storage = local.storage } }
    messages     = { ring = "data", agents = { pubsub = local.agents["pubsub"] } }
    warehouse    = { ring = "data", agents = { bigquery = local.warehouse } }
    functions = {
      ring   = "data"
      agents = merge({ storage = local.storage }, { for name in local.of_building : name => local.agents[name] })
    }
    database = { ring = "database", agents = { firestore = local.agents["firestore"] } }
    copies   = { ring = "copies", agents = { storage = local.storage } }
  }

  key_agents = merge([
    for name, key in local.keys : {
      for agent, member in key.agents : "${name}/${agent}" => { key = name, member = member }
    }
  ]...)
}

resource "google_kms_key_ring" "ring" {
  for_each = local.key_rings

  name     = "${var.name}-${each.key}"
  location = each.value

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_project_service.api]
}

resource "google_kms_crypto_key" "wrapping" {
  for_each = local.keys

  name                       = each.key
  key_ring                   = google_kms_key_ring.ring[each.value.ring].id
  purpose                    = "ENCRYPT_DECRYPT"
  rotation_period            = "7776000s"
  destroy_scheduled_duration = "2592000s"

  version_template {
    algorithm        = "GOOGLE_SYMMETRIC_ENCRYPTION"
    protection_level = var.key_protection
  }

  lifecycle {
    prevent_destroy = true
  }
}

# Signs evidence. Google does not rotate such keys by itself: see `signing_key_version`.
resource "google_kms_crypto_key" "signing" {
  name                       = "signing"
  key_ring                   = google_kms_key_ring.ring["signing"].id
  purpose                    = "ASYMMETRIC_SIGN"
  destroy_scheduled_duration = "2592000s"

  version_template {
    algorithm        = "EC_SIGN_P256_SHA256"
    protection_level = var.key_protection
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key_iam_member" "agent" {
  for_each = local.key_agents

  crypto_key_id = google_kms_crypto_key.wrapping[each.value.key].id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = each.value.member
}
