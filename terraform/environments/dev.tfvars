# An environment to try things in: one region, software keys, the firewall only watches.

project     = "example-activation-dev"
environment = "dev"

region            = "europe-west1"
database_location = "europe-west1"
copies_location   = "europe-west1"

domains         = ["activation.dev.example.com"]
api_callers     = ["group:activation-developers@example.com"]
program_clients = ["000000000000-example.apps.googleusercontent.com"]
issuer          = "https://login.dev.example.com/"
jwks_url        = "https://login.dev.example.com/.well-known/jwks.json"

deployer = "activation-build"

firewall_preview     = true
message_days         = 7
database_backup_days = 7
audit_days           = 7

alert_emails = {
  critical = ["activation-dev@example.com"]
  warning  = ["activation-dev@example.com"]
}

availability_goal = 0.99

settings = {
  ACTIVATION_LOG_LEVEL = "DEBUG"
}
