# Production: database and copies in several regions, hardware keys, audit logs that nobody can
# delete, and functions that operators wait for kept warm.

project     = "example-activation"
environment = "prod"

region            = "europe-west1"
database_location = "eur3"
copies_location   = "EU"

domains         = ["activation.example.com"]
api_callers     = ["group:activation-operators@example.com"]
cors_origins    = ["https://console.example.com"]
program_clients = ["000000000000-example.apps.googleusercontent.com"]
issuer          = "https://login.example.com/"
jwks_url        = "https://login.example.com/.well-known/jwks.json"

deployer = "activation-build"

min_instances = {
  audiences     = 1
  platforms     = 1
  distributions = 1
}

key_protection = "HSM"
audit_days     = 2557
audit_locked   = true

alert_emails = {
  critical = ["activation-oncall@example.com"]
  warning  = ["activation-team@example.com"]
  info     = ["activation-team@example.com"]
}

availability_goal = 0.999
