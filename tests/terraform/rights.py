"""Who may do what after a trial apply, against the function manifest and the table of the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from activation.function_manifest import Function
from tests.terraform.configuration import Finding
from tests.terraform.trial import Applied, Instance

TARGETS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "google_artifact_registry_repository_iam_member": ("repository", "name", ("images",)),
    "google_cloud_run_service_iam_member": ("service", "name", ("function",)),
    "google_cloud_run_v2_service_iam_member": ("name", "name", ("sockets",)),
    "google_iap_web_backend_service_iam_member": (
        "web_backend_service",
        "name",
        ("function", "sockets"),
    ),
    "google_kms_crypto_key_iam_member": ("crypto_key_id", "id", ("wrapping", "signing")),
    "google_pubsub_subscription_iam_member": ("subscription", "name", ("function", "dataflow")),
    "google_pubsub_topic_iam_member": ("topic", "id", ("topic", "dead")),
    "google_service_account_iam_member": ("service_account_id", "name", ("function", "deliverer")),
    "google_storage_bucket_iam_member": ("bucket", "name", ("bucket",)),
}
"""Per type of grant: its argument, the attribute of the resource it names, and that resource."""

KINDS: Mapping[str, str] = {
    "google_artifact_registry_repository": "repository",
    "google_cloudfunctions2_function": "function",
    "google_cloud_run_v2_service": "service",
    "google_compute_backend_service": "backend",
    "google_kms_crypto_key": "key",
    "google_pubsub_subscription": "subscription",
    "google_pubsub_topic": "topic",
    "google_service_account": "account",
    "google_storage_bucket": "bucket",
}


@dataclass(frozen=True, order=True)
class Right:
    """One role of one principal on one resource; `address` says which block gave it."""

    who: str
    role: str
    on: str
    address: str = ""

    def __str__(self) -> str:
        return f"{self.who} has {self.role} on {self.on}"


def rights(applied: Applied) -> list[Right]:
    """Every right that the apply gave."""
    people = _people(applied)
    return [
        Right(
            people.get(one.values["member"], one.values["member"]),
            one.values["role"],
            _target(applied, one),
            one.address,
        )
        for one in applied.instances
        if one.type.endswith("_iam_member")
    ]


def _people(applied: Applied) -> dict[str, str]:
    """Made-up member to a name of ours."""
    accounts = {
        one.values["member"]: one.values["account_id"]
        for one in applied.of("google_service_account")
    }
    agents = {
        one.values["member"]: f"agent {one.values['service'].split('.')[0]}"
        for one in applied.of("google_project_service_identity")
    }
    sinks = {
        one.values["writer_identity"]: f"sink {one.name}"
        for one in applied.of("google_logging_project_sink")
    }
    read = {"google_storage_project_service_account": "storage"} | {
        "google_bigquery_default_service_account": "bigquery"
    }
    others = {one.values["member"]: f"agent {n}" for t, n in read.items() for one in applied.of(t)}
    return accounts | agents | sinks | others


def _target(applied: Applied, grant: Instance) -> str:
    if grant.type == "google_project_iam_member":
        condition = grant.values["condition"]
        return f"project if {condition[0]['expression']}" if condition else "project"
    if grant.type == "google_secret_manager_secret_iam_member":
        return f"secret/{grant.values['secret_id']}"
    argument, attribute, names = TARGETS[grant.type]
    if stranger := re.fullmatch(r"projects/.*/serviceAccounts/(.*)@.*", grant.values[argument]):
        return f"account/{stranger[1]}"
    of_type = {
        "google_cloud_run_service_iam_member": "google_cloudfunctions2_function",
        "google_iap_web_backend_service_iam_member": "google_compute_backend_service",
    }.get(grant.type, grant.type.removesuffix("_iam_member"))
    for one in applied.of(of_type):
        if one.name in names and one.values[attribute] == grant.values[argument]:
            named = one.name if one.key is None else one.key
            suffix = "-dead" if one.name == "dead" else ""
            return f"{KINDS[of_type]}/{named}{suffix}"
    return "something else"


def database(applied: Applied) -> str:
    """What a right on the database alone counts for."""
    project = applied.outputs["project"]
    name = applied.one("google_firestore_database", "documents")["name"]
    return f'project if resource.name == "projects/{project}/databases/{name}"'


def expected(applied: Applied, functions: tuple[Function, ...]) -> set[Right]:
    """What the manifest and the rules of this deployment come to."""
    wanted: set[Right] = set()
    for function in functions:
        who = f"fn-{function.name.replace('_', '-')}"
        for text in function.roles:
            resource, role = text.split(":")
            on = {"database": database(applied), "self": f"account/{function.name}"}
            target = on.get(resource, resource)
            wanted.add(Right(who, f"roles/{role}", target))
        wanted |= _delivery(function) | _rollout(applied, function)
    return wanted | _keys() | _building(applied)


def _delivery(function: Function) -> set[Right]:
    """Who may call a function; what Pub/Sub needs to give up on its messages."""
    name = function.name
    caller = "agent iap" if function.trigger == "http" else f"deliver-{function.trigger}"
    wanted = {Right(caller, "roles/run.invoker", f"function/{name}")}
    if function.trigger == "topic":
        wanted |= {
            Right("agent pubsub", "roles/pubsub.publisher", f"topic/{name}-dead"),
            Right("agent pubsub", "roles/pubsub.subscriber", f"subscription/{name}"),
        }
    return wanted


def _rollout(applied: Applied, function: Function) -> set[Right]:
    """What shifting traffic needs: finding all services, changing this one, as its identity."""
    who = f"serviceAccount:activation-build@{applied.outputs['project']}.iam.gserviceaccount.com"
    return {
        Right(who, "roles/run.viewer", "project"),
        Right(who, "roles/iam.serviceAccountOpenIdTokenCreator", "account/activation-build"),
        Right(who, "roles/run.developer", f"function/{function.name}"),
        Right(who, "roles/iam.serviceAccountUser", f"account/{function.name}"),
    }


def _keys() -> set[Right]:
    """Google's services that encrypt with our keys."""
    users = {
        "storage": ("storage",),
        "messages": ("pubsub",),
        "warehouse": ("bigquery",),
        "functions": ("storage", "artifactregistry", "cloudfunctions", "eventarc", "run"),
        "database": ("firestore",),
        "copies": ("storage",),
    }
    role = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
    return {Right(f"agent {u}", role, f"key/{key}") for key, named in users.items() for u in named}


def _building(applied: Applied) -> set[Right]:
    """Building, tokens of deliveries, and word of uploads."""
    (number,) = (one.values["number"] for one in applied.of("google_project"))
    copies = f"projects/_/buckets/gcf-v2-sources-{number}-{applied.outputs['region']}"
    return {
        Right(
            "builder",
            "roles/storage.objectViewer",
            f'project if resource.name.startsWith("{copies}")',
        ),
        Right("builder", "roles/artifactregistry.writer", "repository/images"),
        Right("builder", "roles/storage.objectViewer", "bucket/sources"),
        Right("builder", "roles/logging.logWriter", "project"),
        Right("agent pubsub", "roles/iam.serviceAccountTokenCreator", "account/topic"),
        Right("agent storage", "roles/pubsub.publisher", "topic/member-imports"),
        Right("sink audit", "roles/storage.objectCreator", "bucket/audit"),
    }


def check(applied: Applied, functions: tuple[Function, ...]) -> list[Finding]:
    """Rights that are too many, missing, or given under a name nobody knows."""
    return [*_differences(applied, functions)]


def _differences(applied: Applied, functions: tuple[Function, ...]) -> Iterator[Finding]:
    given = {Right(r.who, r.role, r.on): r.address for r in rights(applied) if not _at_door(r)}
    wanted = expected(applied, functions)
    for right in sorted(given.keys() - wanted):
        yield Finding("iam", given[right], f"{right}, and should not")
    for right in sorted(wanted - given.keys()):
        yield Finding("iam", "", f"{right} is missing")


def _at_door(right: Right) -> bool:
    """Callers of the API are a variable's."""
    return right.role == "roles/iap.httpsResourceAccessor" and right.on.startswith("backend/")
