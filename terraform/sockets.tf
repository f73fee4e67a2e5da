# WebSockets: functions cannot serve them, so the same code runs as a Cloud Run service. It reads
# what everybody else reads, as itself, and answers nobody but the load balancer.

locals {
  sockets = { for name, image in { sockets = var.sockets_image } : name => image if image != null && image != "" }
}

resource "google_service_account" "sockets" {
  for_each = local.sockets

  account_id   = "run-${each.key}"
  display_name = "Realtime connections"
  depends_on   = [google_project_service.api]
}

# Firestore has no rights on a database itself; the condition names the one they count for.
resource "google_project_iam_member" "sockets_database" {
  for_each = local.sockets

  project = var.project
  role    = "roles/datastore.user"
  member  = google_service_account.sockets[each.key].member

  condition {
    title      = "Only ${google_firestore_database.documents.name}"
    expression = "resource.name == \"projects/${var.project}/databases/${google_firestore_database.documents.name}\""
  }
}

resource "google_storage_bucket_iam_member" "sockets" {
  for_each = local.sockets

  bucket = google_storage_bucket.bucket["members"].name
  role   = "roles/storage.objectViewer"
  member = google_service_account.sockets[each.key].member
}

resource "google_cloud_run_v2_service" "sockets" {
  for_each = local.sockets

  name                = "${var.name}-${each.key}"
  location            = var.region
  description         = "Who enters and leaves segments, as it happens: WebSockets"
  ingress             = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
  deletion_protection = true

  template {
    service_account                  = google_service_account.sockets[each.key].email
    encryption_key                   = google_kms_crypto_key.wrapping["functions"].id
    timeout                          = "3600s"
    session_affinity                 = true
    max_instance_request_concurrency = 400

    scaling {
      min_instance_count = var.sockets_instances.min
      max_instance_count = var.sockets_instances.max
    }

    containers {
      image = each.value

      resources {
        cpu_idle          = true
        startup_cpu_boost = true

        limits = {
          cpu    = "1"
          memory = "2Gi"
        }
      }

      ports {
        container_port = 8080
      }

      startup_probe {
        period_seconds    = 2
        failure_threshold = 30

        http_get {
          path = "/ws/health"
        }
      }

      dynamic "env" {
        for_each = merge(local.common_environment, var.settings)

        content {
          name  = env.key
          value = env.value
        }
      }
    }
  }

  depends_on = [
    google_kms_crypto_key_iam_member.agent,
    google_project_iam_member.sockets_database,
    google_storage_bucket_iam_member.sockets,
  ]
}

# Identity-Aware Proxy calls it for those it lets through.
resource "google_cloud_run_v2_service_iam_member" "sockets" {
  for_each = local.sockets

  location = google_cloud_run_v2_service.sockets[each.key].location
  name     = google_cloud_run_v2_service.sockets[each.key].name
  role     = "roles/run.invoker"
  member   = local.agents["iap"]
}

resource "google_compute_region_network_endpoint_group" "sockets" {
  for_each = local.sockets

  name                  = "${var.name}-${each.key}"
  region                = var.region
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = google_cloud_run_v2_service.sockets[each.key].name
  }
}

resource "google_compute_backend_service" "sockets" {
  for_each = local.sockets

  name                  = "${var.name}-${each.key}"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  protocol              = "HTTPS"
  security_policy       = google_compute_security_policy.api.id

  backend {
    group = google_compute_region_network_endpoint_group.sockets[each.key].id
  }

  iap {
    enabled = true
  }

  log_config {
    enable      = true
    sample_rate = 1.0
  }
}

resource "google_iap_web_backend_service_iam_member" "sockets" {
  for_each = length(local.sockets) > 0 ? var.api_callers : toset([])

  web_backend_service = google_compute_backend_service.sockets["sockets"].name
  role                = "roles/iap.httpsResourceAccessor"
  member              = each.value
}

resource "google_iap_settings" "sockets" {
  for_each = toset(length(var.program_clients) > 0 ? keys(local.sockets) : [])

  name = join("/", [
    "projects", data.google_project.current.number, "iap_web", "compute", "services",
    google_compute_backend_service.sockets[each.key].name,
  ])

  access_settings {
    oauth_settings {
      programmatic_clients = var.program_clients
    }
  }
}
