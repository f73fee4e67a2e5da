provider "google" {
  project        = var.project
  region         = var.region
  default_labels = local.labels
}

# For the two resources that the main provider does not have: service identities and Dataflow.
provider "google-beta" {
  project        = var.project
  region         = var.region
  default_labels = local.labels
}
