# Where ------------------------------------------------------------------------------------------

variable "project" {
  description = "Id of the Google Cloud project; it holds nothing else."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "The project is an id: 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "environment" {
  description = "Which environment this is; a label on everything."
  type        = string

  validation {
    condition     = contains(["dev", "prod"], var.environment)
    error_message = "The environment is dev or prod."
  }
}

variable "name" {
  description = "Goes before the name of every resource."
  type        = string
  default     = "activation"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,14}[a-z0-9]$", var.name))
    error_message = "The name has 4 to 16 lower-case letters, digits and hyphens, and no hyphen at its end."
  }
}

variable "region" {
  description = "Region of functions, topics and buckets."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "The region is one like europe-west1."
  }
}

variable "database_location" {
  description = "Location of Firestore: a region, or eur3 or nam5 for several; it cannot be changed."
  type        = string

  validation {
    condition     = can(regex("^([a-z]+-[a-z]+[0-9]+|eur3|nam5)$", var.database_location))
    error_message = "The location is a region, eur3 or nam5."
  }
}

variable "database" {
  description = "Name of the database that a restore made, once it is imported; by itself it is called `name`."
  type        = string
  default     = null

  validation {
    condition     = var.database == null || can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.database))
    error_message = "The name has 4 to 63 lower-case letters, digits and hyphens, and no hyphen at its end."
  }
}

variable "copies_location" {
  description = "Location of backups, archives and the audit bucket: a region, or EU, US or ASIA."
  type        = string

  validation {
    condition     = can(regex("^([a-z]+-[a-z]+[0-9]+|EU|US|ASIA)$", var.copies_location))
    error_message = "The location is a region, EU, US or ASIA."
  }
}

# The door ---------------------------------------------------------------------------------------

variable "domains" {
  description = "Host names of the API; their A records point to the output `address`."
  type        = list(string)

  validation {
    condition = length(var.domains) > 0 && alltrue([
      for domain in var.domains : can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", domain))
    ])
    error_message = "At least one host name, in lower case and without a final dot."
  }
}

variable "api_callers" {
  description = "Principals that Identity-Aware Proxy lets through to the API (group:…, user:…, serviceAccount:…)."
  type        = set(string)

  validation {
    condition = alltrue([
      for caller in var.api_callers : can(regex("^(user|group|serviceAccount|domain|principal|principalSet):.+$", caller))
    ])
    error_message = "Callers are named: user:, group:, serviceAccount:, domain:, principal: or principalSet:."
  }
}

variable "program_clients" {
  description = "OAuth client ids that programs name as the audience of their token for the proxy."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for id in var.program_clients : endswith(id, ".apps.googleusercontent.com")])
    error_message = "A client id ends with .apps.googleusercontent.com."
  }
}

variable "issuer" {
  description = "Issuer of the tokens of operators."
  type        = string

  validation {
    condition     = startswith(var.issuer, "https://")
    error_message = "The issuer is an https address."
  }
}

variable "jwks_url" {
  description = "Where the issuer publishes its keys."
  type        = string

  validation {
    condition     = startswith(var.jwks_url, "https://")
    error_message = "The keys are published at an https address."
  }
}

variable "cors_origins" {
  description = "Origins that a browser may call the API and upload from."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for origin in var.cors_origins : can(regex("^https://[^/*]+$", origin))])
    error_message = "An origin is https:// and a host, without a path or a wildcard."
  }
}

variable "requests_per_minute" {
  description = "What one address may ask of a function in a minute; ten times as much, or 10,000, gets it banned."
  type        = number
  default     = 1200

  validation {
    condition     = var.requests_per_minute >= 60 && var.requests_per_minute <= 10000
    error_message = "Between 60 and 10,000 requests a minute."
  }
}

variable "firewall_preview" {
  description = "Only log what the preconfigured firewall rules would refuse."
  type        = bool
  default     = false
}

# Functions --------------------------------------------------------------------------------------

variable "archives" {
  description = "Folder of the functions' archives, one <function>.zip each."
  type        = string
  default     = "../dist"
}

variable "min_instances" {
  description = "Instances that stay warm, by function; the others have the manifest's number."
  type        = map(number)
  default     = {}

  validation {
    condition     = alltrue([for count in values(var.min_instances) : count >= 0 && count <= 100])
    error_message = "Between 0 and 100 instances."
  }

  validation {
    condition     = length(setsubtract(keys(var.min_instances), keys(local.functions))) == 0
    error_message = "A name is no function of the manifest: nothing would be kept warm."
  }
}

variable "gradual_traffic" {
  description = "A new revision gets no traffic by itself: the rollout gives it, step by step."
  type        = bool
  default     = false
}

variable "deployer" {
  description = "Service account of this project, without its domain, that shifts traffic (docs/build.md); none by default."
  type        = string
  default     = null

  validation {
    condition     = var.deployer == null || can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.deployer))
    error_message = "An account's id: what stands before the @ of its address."
  }
}

variable "settings" {
  description = "More settings of the functions, ACTIVATION_*; see the table in the README."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^ACTIVATION_[A-Z_]+$", name))])
    error_message = "Settings are named ACTIVATION_*."
  }

  validation {
    condition = alltrue([
      for name in keys(var.settings) :
      !can(regex("_(BACKEND|PROJECT|DATABASE|BUCKET|KMS_KEY|SIGNING_KEY|TOPIC_PREFIX|EVENT_DAYS|ISSUER|JWKS_URL|CORS_ORIGINS)$|^ACTIVATION_PUSH_", name))
    ])
    error_message = "A setting is one that a variable or a resource decides: buckets, rights and rules would not follow it."
  }
}

variable "secret_settings" {
  description = "Settings that are secrets: the id of a secret of this project, and the functions that get it."
  type        = map(object({ secret = string, functions = set(string) }))
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.secret_settings) : can(regex("^ACTIVATION_[A-Z_]+$", name))])
    error_message = "Settings are named ACTIVATION_*."
  }
}

variable "sockets_image" {
  description = "Image of the service for WebSockets, by its digest; without it, or empty, there is no service."
  type        = string
  default     = null

  validation {
    condition     = var.sockets_image == null || var.sockets_image == "" || can(regex("^.+@sha256:[0-9a-f]{64}$", var.sockets_image))
    error_message = "The image is named by its digest: …@sha256:…"
  }
}

variable "sockets_instances" {
  description = "Instances of the service for WebSockets; each takes 400 connections."
  type        = object({ min = number, max = number })
  default     = { min = 0, max = 5 }

  validation {
    condition     = var.sockets_instances.min >= 0 && var.sockets_instances.max >= max(var.sockets_instances.min, 1)
    error_message = "At least none kept warm, and at most as many as there may be."
  }
}

# Keys and keeping -------------------------------------------------------------------------------

variable "key_protection" {
  description = "Protection level of all keys: SOFTWARE or HSM."
  type        = string
  default     = "SOFTWARE"

  validation {
    condition     = contains(["SOFTWARE", "HSM"], var.key_protection)
    error_message = "SOFTWARE or HSM."
  }
}

variable "signing_key_version" {
  description = "Version of the signing key that signs new evidence; older ones go on verifying."
  type        = number
  default     = 1

  validation {
    condition     = var.signing_key_version >= 1 && floor(var.signing_key_version) == var.signing_key_version
    error_message = "Versions are whole numbers from 1."
  }
}

variable "message_days" {
  description = "How long topics keep messages for a replay, and dead letters wait."
  type        = number
  default     = 14

  validation {
    condition     = var.message_days >= 1 && var.message_days <= 31
    error_message = "Between 1 and 31 days."
  }
}

variable "database_backup_days" {
  description = "How long daily backups of the database are kept: erasure must be complete in 30 days."
  type        = number
  default     = 14

  validation {
    condition     = var.database_backup_days >= 1 && var.database_backup_days <= 28
    error_message = "Between 1 and 28 days."
  }
}

variable "event_days" {
  description = "How long raw events are kept; the bucket's own rule follows 35 days later."
  type        = number
  default     = 365

  validation {
    condition     = var.event_days >= 32
    error_message = "At least 32 days: ids of events are known for 31."
  }
}

variable "audit_days" {
  description = "How long an object in the audit bucket can be neither changed nor deleted; then it is deleted."
  type        = number
  default     = 365

  validation {
    condition     = var.audit_days >= 1
    error_message = "At least a day."
  }
}

variable "audit_locked" {
  description = "Lock the retention of the audit bucket: it can never be shortened again."
  type        = bool
  default     = false
}

# Watching ---------------------------------------------------------------------------------------

variable "alert_emails" {
  description = "Who is told, by level."
  type = object({
    critical = set(string)
    warning  = set(string)
    info     = optional(set(string), [])
  })

  validation {
    condition     = length(var.alert_emails.critical) > 0
    error_message = "Somebody must be told of critical alerts."
  }

  validation {
    condition = alltrue([
      for address in setunion(var.alert_emails.critical, var.alert_emails.warning, var.alert_emails.info) :
      can(regex("^[^@\\s]+@[^@\\s]+$", address))
    ])
    error_message = "Addresses of e-mail."
  }
}

variable "availability_goal" {
  description = "Share of API requests that must not fail, over 28 days."
  type        = number
  default     = 0.999

  validation {
    condition     = var.availability_goal >= 0.9 && var.availability_goal < 1
    error_message = "From 0.9 to below 1."
  }
}

# Segments past one machine ----------------------------------------------------------------------

variable "dataflow" {
  description = "The streaming job for segments that outgrow functions (docs/streaming.md); none by default."
  type = object({
    template          = string
    image             = string
    organizations     = optional(list(string), [])
    alone             = optional(bool, false)
    wait_milliseconds = optional(number, 500)
    machine_type      = optional(string, "n2-standard-2")
    max_workers       = optional(number, 4)
    subnetwork        = optional(string)
  })
  default = null

  validation {
    condition     = var.dataflow == null || can(regex("^gs://.+\\.json$", var.dataflow.template))
    error_message = "The template is a gs:// address of a flex template's JSON."
  }

  validation {
    condition     = var.dataflow == null || can(regex("^[a-z0-9.-]+/.+(:[A-Za-z0-9_.-]+|@sha256:[0-9a-f]{64})$", var.dataflow.image))
    error_message = "The image is the template's, with its tag or its digest."
  }

  validation {
    condition     = try(!(var.dataflow.alone && length(var.dataflow.organizations) > 0), true)
    error_message = "A job that is alone works for all organizations: nobody else would for the others."
  }

  validation {
    condition     = try(var.dataflow.wait_milliseconds >= 10 && var.dataflow.wait_milliseconds <= 60000, true)
    error_message = "Events wait for each other from 10 to 60000 milliseconds."
  }
}
