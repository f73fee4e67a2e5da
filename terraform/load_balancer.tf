# The API's door: one address, TLS 1.2 or newer, firewall, Identity-Aware Proxy, and a path per
# route of the manifest. Functions answer nobody but the load balancer and Google's own network.

resource "google_compute_global_address" "api" {
  name       = "${var.name}-api"
  depends_on = [google_project_service.api]
}

resource "google_compute_managed_ssl_certificate" "api" {
  name = "${var.name}-${substr(sha256(join(",", var.domains)), 0, 8)}"

  managed {
    domains = var.domains
  }

  lifecycle {
    create_before_destroy = true
  }

  depends_on = [google_project_service.api]
}

resource "google_compute_ssl_policy" "api" {
  name            = "${var.name}-api"
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
  depends_on      = [google_project_service.api]
}

resource "google_compute_region_network_endpoint_group" "function" {
  for_each = local.http_functions

  name                  = local.service_names[each.key]
  region                = var.region
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = google_cloudfunctions2_function.function[each.key].name
  }
}

resource "google_compute_backend_service" "function" {
  for_each = local.http_functions

  name                  = local.service_names[each.key]
  load_balancing_scheme = "EXTERNAL_MANAGED"
  protocol              = "HTTPS"
  security_policy       = google_compute_security_policy.api.id

  backend {
    group = google_compute_region_network_endpoint_group.function[each.key].id
  }

  iap {
    enabled = true
  }

  log_config {
    enable      = true
    sample_rate = 1.0
  }
}

resource "google_iap_web_backend_service_iam_member" "caller" {
  for_each = {
    for pair in setproduct(keys(local.http_functions), var.api_callers) :
    "${pair[0]}/${pair[1]}" => { function = pair[0], caller = pair[1] }
  }

  web_backend_service = google_compute_backend_service.function[each.value.function].name
  role                = "roles/iap.httpsResourceAccessor"
  member              = each.value.caller
}

# The proxy's own OAuth client is Google's, and for browsers alone: tokens of programs name one of
# these. A browser asks without any token whether it may send one.
resource "google_iap_settings" "function" {
  for_each = toset(length(var.cors_origins) + length(var.program_clients) > 0 ? keys(local.http_functions) : [])

  name = join("/", [
    "projects", data.google_project.current.number, "iap_web", "compute", "services",
    google_compute_backend_service.function[each.key].name,
  ])

  access_settings {
    dynamic "cors_settings" {
      for_each = length(var.cors_origins) > 0 ? [true] : []

      content {
        allow_http_options = cors_settings.value
      }
    }

    dynamic "oauth_settings" {
      for_each = length(var.program_clients) > 0 ? [var.program_clients] : []

      content {
        programmatic_clients = oauth_settings.value
      }
    }
  }
}

resource "google_compute_url_map" "api" {
  name            = "${var.name}-api"
  default_service = google_compute_backend_service.function[local.default_function].id

  host_rule {
    hosts        = var.domains
    path_matcher = "routes"
  }

  path_matcher {
    name            = "routes"
    default_service = google_compute_backend_service.function[local.default_function].id

    dynamic "route_rules" {
      for_each = local.sockets

      content {
        priority = length(local.routes) + 1
        service  = google_compute_backend_service.sockets[route_rules.key].id

        match_rules {
          prefix_match = "/ws/"
        }
      }
    }

    # A `*` in a route of the manifest is one part of the path.
    dynamic "route_rules" {
      for_each = local.routes

      content {
        priority = index(keys(local.routes), route_rules.key) + 1
        service  = google_compute_backend_service.function[route_rules.value.function].id

        dynamic "match_rules" {
          for_each = strcontains(route_rules.value.path, "*") ? ["/api/v1", "/api"] : []

          content {
            path_template_match = "${match_rules.value}${route_rules.value.path}"
          }
        }

        dynamic "match_rules" {
          for_each = strcontains(route_rules.value.path, "*") ? [] : ["/api/v1", "/api"]

          content {
            full_path_match = "${match_rules.value}${route_rules.value.path}"
          }
        }

        dynamic "match_rules" {
          for_each = strcontains(route_rules.value.path, "*") ? [] : ["/api/v1", "/api"]

          content {
            prefix_match = "${match_rules.value}${route_rules.value.path}/"
          }
        }
      }
    }
  }
}

resource "google_compute_target_https_proxy" "api" {
  name             = "${var.name}-api"
  url_map          = google_compute_url_map.api.id
  ssl_policy       = google_compute_ssl_policy.api.id
  ssl_certificates = [google_compute_managed_ssl_certificate.api.id]
}

resource "google_compute_global_forwarding_rule" "https" {
  name                  = "${var.name}-https"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.api.id
  port_range            = "443"
  target                = google_compute_target_https_proxy.api.id
}

resource "google_compute_url_map" "redirect" {
  name = "${var.name}-redirect"

  default_url_redirect {
    https_redirect         = true
    strip_query            = false
    redirect_response_code = "PERMANENT_REDIRECT"
  }

  depends_on = [google_project_service.api]
}

resource "google_compute_target_http_proxy" "redirect" {
  name    = "${var.name}-redirect"
  url_map = google_compute_url_map.redirect.id
}

resource "google_compute_global_forwarding_rule" "redirect" {
  name                  = "${var.name}-redirect"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.api.id
  port_range            = "80"
  target                = google_compute_target_http_proxy.redirect.id
}
