# The function manifest says what is deployed; what is asked of it more than once is worked out here.

locals {
  manifest           = jsondecode(file("${path.module}/../functions/manifest.json"))
  functions          = { for function in local.manifest.functions : function.name => function }
  http_functions     = { for name, function in local.functions : name => function if function.trigger == "http" }
  topic_functions    = { for name, function in local.functions : name => function if function.trigger == "topic" }
  schedule_functions = { for name, function in local.functions : name => function if function.trigger == "schedule" }

  # Routes in the order in which they are tried: one with more parts leads before what it lies below.
  routes = {
    for route in flatten([
      for name, function in local.http_functions : [for path in function.routes : { function = name, path = path }]
    ]) : format("%02d %s", 99 - length(split("/", route.path)), route.path) => route
  }

  # The function that answers paths of nobody: it has the pages that every function has.
  default_function = "audiences"

  # Those of functions, and those that only others subscribe to.
  topics = toset(concat([for function in values(local.topic_functions) : function.topic], local.manifest.topics))

  # Names are known before the functions are, so that each can be told its own address: the one that
  # tokens name. Messages go to the other one, which Google takes for internal traffic.
  service_names = { for name in keys(local.functions) : name => "${var.name}-${replace(name, "_", "-")}" }
  audiences = {
    for name, service in local.service_names :
    name => "https://${var.region}-${var.project}.cloudfunctions.net/${service}"
  }

  # `bucket/uploads:storage.objectUser` of the manifest, taken apart; one grant each.
  grants = merge([
    for name, function in local.functions : {
      for role in function.roles : "${name}/${role}" => {
        function = name
        kind     = split("/", split(":", role)[0])[0]
        target   = try(split("/", split(":", role)[0])[1], "")
        role     = "roles/${split(":", role)[1]}"
      }
    }
  ]...)

  labels = {
    application = "audience-activation"
    environment = var.environment
  }

  region_of_keys = {
    eur3 = "europe"
    nam5 = "us"
    EU   = "europe"
    US   = "us"
    ASIA = "asia"
  }
}
