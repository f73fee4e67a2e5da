# Cloud Armor in front of the API: known attacks are refused, floods throttled, then banned. What
# an organization may ask for is the application's own limit.

locals {
  attacks = {
    "sqli-v33-stable"             = "SQL injection"
    "xss-v33-stable"              = "Cross-site scripting"
    "lfi-v33-stable"              = "Inclusion of local files"
    "rfi-v33-stable"              = "Inclusion of remote files"
    "rce-v33-stable"              = "Execution of code"
    "scannerdetection-v33-stable" = "Scanners"
    "protocolattack-v33-stable"   = "Attacks on the protocol"
  }
}

resource "google_compute_security_policy" "api" {
  name        = "${var.name}-api"
  description = "Attacks and floods"

  advanced_options_config {
    json_parsing = "STANDARD"
    log_level    = "NORMAL"
  }

  adaptive_protection_config {
    layer_7_ddos_defense_config {
      enable = true
    }
  }

  dynamic "rule" {
    for_each = { for position, name in keys(local.attacks) : name => 1000 + position }

    content {
      action      = "deny(403)"
      priority    = rule.value
      preview     = var.firewall_preview
      description = local.attacks[rule.key]

      match {
        expr {
          expression = "evaluatePreconfiguredWaf('${rule.key}', {'sensitivity': 1})"
        }
      }
    }
  }

  rule {
    action      = "deny(403)"
    priority    = 900
    preview     = var.firewall_preview
    description = "Vulnerabilities that became known, Log4j among them"

    match {
      expr {
        expression = "evaluatePreconfiguredExpr('cve-canary')"
      }
    }
  }

  rule {
    action      = "deny(403)"
    priority    = 901
    preview     = var.firewall_preview
    description = "SQL injection in JSON"

    match {
      expr {
        expression = "evaluatePreconfiguredExpr('json-sqli-canary')"
      }
    }
  }

  rule {
    action      = "rate_based_ban"
    priority    = 2000
    description = "An address that floods is throttled, then banned for ten minutes"

    match {
      versioned_expr = "SRC_IPS_V1"

      config {
        src_ip_ranges = ["*"]
      }
    }

    rate_limit_options {
      conform_action   = "allow"
      exceed_action    = "deny(429)"
      enforce_on_key   = "IP"
      ban_duration_sec = 600

      rate_limit_threshold {
        count        = var.requests_per_minute
        interval_sec = 60
      }

      # Cloud Armor counts no further for a ban.
      ban_threshold {
        count        = min(var.requests_per_minute * 10, 10000)
        interval_sec = 60
      }
    }
  }

  rule {
    action      = "deny(403)"
    priority    = 2147483647
    description = "What no rule let in"

    match {
      versioned_expr = "SRC_IPS_V1"

      config {
        src_ip_ranges = ["*"]
      }
    }
  }

  depends_on = [google_project_service.api]
}
