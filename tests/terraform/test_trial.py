"""The real Terraform validates and applies the files, and what comes out agrees with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from activation.function_manifest import functions
from activation.metrics_catalog import METRICS
from activation.settings import from_environment
from activation.streaming.options import JobOptions
from tests.terraform import agreement, rights
from tests.terraform.configuration import FOLDER
from tests.terraform.conftest import applied_as
from tests.terraform.trial import Applied, Trial

MADE_BY_GOOGLE = {
    "subscription": "projects/example/subscriptions/segments",
    "suppression_kms_key": "projects/example/locations/l/keyRings/lists/cryptoKeys/lists",
}
"""Names that Google makes; a trial apply makes up something else."""


def test_terraform_validates(terraform: str, provider_schema: Path, tmp_path: Path) -> None:
    assert list(map(str, Trial.of(FOLDER, tmp_path).validate())) == []


def test_every_identity_has_the_rights_of_the_manifest_and_no_other(applied: Applied) -> None:
    given = rights.rights(applied)
    assert len(given) > 60
    assert list(map(str, rights.check(applied, functions()))) == []


@pytest.mark.parametrize("check", agreement.CHECKS, ids=lambda one: one.__name__)
def test_what_is_deployed_is_what_the_code_expects(check: object, applied: Applied) -> None:
    assert callable(check)
    assert list(map(str, check(applied))) == []


def test_only_callers_that_were_named_pass_the_proxy(applied: Applied) -> None:
    members = {
        one.values["member"] for one in applied.of("google_iap_web_backend_service_iam_member")
    }
    assert members == {"group:activation-operators@example.com"}


def test_what_terraform_decides_no_setting_may_say_otherwise(applied: Applied) -> None:
    """A bucket would delete events after 400 days that a setting promises for 730."""
    text = (FOLDER / "variables.tf").read_text()
    (pattern,) = re.findall(r'!can\(regex\("([^"]+)"', text)
    decided = {*applied.outputs["environment"], "ACTIVATION_PUSH_AUDIENCE"}
    assert [name for name in sorted(decided) if not re.search(pattern, name)] == []


def test_the_proxy_takes_tokens_of_programs(applied: Applied) -> None:
    """Its own client takes none: the audience of the pipeline's token is one that was named."""
    settings = applied.by_key("google_iap_settings", "function")
    assert set(settings) == {one.name for one in functions() if one.trigger == "http"}
    pipeline = yaml.safe_load((FOLDER.parent / "cloudbuild.yaml").read_text())
    audience = pipeline["substitutions"]["_PROXY_AUDIENCE"]
    for one in settings.values():
        (access,) = one["access_settings"]
        assert access["oauth_settings"][0]["programmatic_clients"] == [audience]
        assert access["cors_settings"][0]["allow_http_options"] is True


def test_people_are_not_kept_in_buckets_after_erasure(applied: Applied) -> None:
    """What is deleted there is gone at once; only what names nobody may linger."""
    buckets = applied.by_key("google_storage_bucket", "bucket")
    seconds = {
        name: values["soft_delete_policy"][0]["retention_duration_seconds"]
        for name, values in buckets.items()
    }
    lingering = {name for name, kept in seconds.items() if kept}
    assert lingering == {"exports", "sources"}
    kept = [
        rule["condition"][0]["age"]
        for rule in buckets["exports"]["lifecycle_rule"]
        if rule["action"][0]["type"] == "Delete"
    ]
    assert kept[0] + seconds["exports"] / 86_400 <= 28
    assert not any(values["versioning"][0]["enabled"] for values in buckets.values())
    assert {name for name, values in buckets.items() if values["retention_policy"]} == {"audit"}
    assert buckets["audit"]["retention_policy"][0]["is_locked"] is True


def test_an_apply_by_hand_can_be_told_what_image_runs(applied: Applied) -> None:
    """The pipeline's plan names the image; without it a plan would take the service away."""
    assert applied.outputs["sockets_image"] == ""
    given = '-var="sockets_image=$(terraform output -raw sockets_image)"'
    for page in ("deployment", "operations"):
        text = (FOLDER.parent / "docs" / f"{page}.md").read_text()
        applies = re.findall(r"^terraform apply .*$", text, re.MULTILINE)
        assert applies
        assert any(given in one for one in applies), page


def test_what_cannot_be_deleted_is_written_by_somebody(applied: Applied) -> None:
    """A locked bucket that stays empty proves nothing."""
    sink = applied.one("google_logging_project_sink", "audit")
    bucket = applied.outputs["buckets"]["audit"]
    assert sink["destination"] == f"storage.googleapis.com/{bucket}"
    assert sink["unique_writer_identity"] is True
    assert 'logName:"cloudaudit.googleapis.com"' in sink["filter"]
    kept = applied.by_key("google_storage_bucket", "bucket")["audit"]
    (ends,) = (
        rule["condition"][0]["age"]
        for rule in kept["lifecycle_rule"]
        if rule["action"][0]["type"] == "Delete"
    )
    assert ends * 86_400 > kept["retention_policy"][0]["retention_period"]
    (line,) = re.findall(r'jsonPayload\.message="(\w+)"', sink["filter"])
    assert line in {one.event for one in METRICS}


@pytest.mark.parametrize(
    ("method", "seen"),
    [
        ("SetIamPolicy", True),
        ("google.iam.admin.v1.SetIAMPolicy", True),
        ("storage.setIamPermissions", True),
        ("storage.buckets.update", True),
        ("storage.objects.create", False),
        ("v1.compute.securityPolicies.patchRule", True),
        ("google.pubsub.v1.Subscriber.UpdateSubscription", True),
        ("google.cloud.scheduler.v1.CloudScheduler.UpdateJob", True),
        ("google.firestore.admin.v1.FirestoreAdmin.UpdateDatabase", True),
        ("google.firestore.v1.Firestore.Commit", False),
        ("Decrypt", False),
    ],
)
def test_whoever_changes_a_right_or_the_door_is_written_down(
    applied: Applied, method: str, seen: bool
) -> None:
    alert = applied.by_key("google_monitoring_alert_policy", "log")["configuration"]
    text = alert["conditions"][0]["condition_matched_log"][0]["filter"]
    (pattern,) = re.findall(r'methodName=~"([^"]+)"', text)
    assert bool(re.search(pattern, method)) is seen


def test_backups_of_the_database_end_before_erasure_must(applied: Applied) -> None:
    kept = [
        int(one.values["retention"].removesuffix("s")) / 86_400
        for one in applied.of("google_firestore_backup_schedule")
    ]
    assert len(kept) == 2
    assert max(kept) <= 28


@pytest.mark.slow
def test_the_small_environment_agrees_too(
    terraform: str, provider_schema: Path, tmp_path: Path
) -> None:
    applied = applied_as("dev", tmp_path)
    found = rights.check(applied, functions())
    for check in agreement.CHECKS:
        found += check(applied)
    assert list(map(str, found)) == []
    (lock,) = applied.by_key("google_storage_bucket", "bucket")["audit"]["retention_policy"]
    assert lock["is_locked"] is False


@pytest.mark.slow
def test_a_second_apply_switches_another_api_on_and_does_nothing_else(
    terraform: str, provider_schema: Path, tmp_path: Path
) -> None:
    """Rights on keys that are taken and given again leave buckets and topics shut for a while."""
    trial = Trial.of(FOLDER, tmp_path)
    file = trial.folder / "apis.tf"
    first = '    "artifactregistry.googleapis.com",\n'
    assert first in file.read_text()
    more = f"    var.more,\n{first}"
    variable = 'variable "more" {\n  default = "artifactregistry.googleapis.com"\n}\n'
    file.write_text(file.read_text().replace(first, more, 1) + variable)
    changes = trial.again("prod", 'more = "translate.googleapis.com"\n')
    assert changes == {'google_project_service.api["translate.googleapis.com"]': ["create"]}


@pytest.mark.slow
def test_who_sends_to_the_collector_of_google_may(
    terraform: str, provider_schema: Path, tmp_path: Path
) -> None:
    trial = Trial.of(FOLDER, tmp_path)
    values = trial.folder / "environments" / "dev.tfvars"
    sent = 'ACTIVATION_OTLP_ENDPOINT = "https://telemetry.googleapis.com"\n'
    sent += 'ACTIVATION_OTLP_METRICS = "true"\n'
    text = values.read_text()
    assert "settings = {\n" in text
    values.write_text(text.replace("settings = {\n", f"settings = {{\n{sent}"))
    applied, findings = trial.apply("dev")
    assert findings == []
    assert applied is not None
    given = [one for one in rights.rights(applied) if "telemetry" in one.role]
    roles = ("tracesWriter", "metricsWriter")
    whose = {f"fn-{one.name.replace('_', '-')}" for one in functions()}
    assert {(one.who, one.role, one.on) for one in given} == {
        (who, f"roles/telemetry.{role}", "project") for who in whose for role in roles
    }
    assert list(agreement.of_settings(applied)) == []


@pytest.mark.slow
def test_a_restored_database_is_the_one_that_everybody_may_use(
    terraform: str, provider_schema: Path, tmp_path: Path
) -> None:
    """Rights on a database are rights on its name; the expiry of records is no part of a backup."""
    trial = Trial.of(FOLDER, tmp_path)
    values = trial.folder / "environments" / "dev.tfvars"
    by_hand = 'database = "restored-2"\nsockets_image = ""\n'
    values.write_text(values.read_text() + by_hand)
    applied, findings = trial.apply("dev")
    assert findings == []
    assert applied is not None
    assert applied.outputs["environment"]["ACTIVATION_DATABASE"] == "restored-2"
    assert applied.of("google_cloud_run_v2_service") == []
    conditions = {
        one.values["condition"][0]["expression"]
        for one in applied.of("google_project_iam_member", "function_database")
    }
    project = applied.outputs["project"]
    assert conditions == {f'resource.name == "projects/{project}/databases/restored-2"'}
    fields = applied.of("google_firestore_field")
    schedules = applied.of("google_firestore_backup_schedule")
    assert [one for one in fields if one.values["ttl_config"]]
    assert {one.values["database"] for one in fields + schedules} == {"restored-2"}
    assert rights.check(applied, functions()) == []


@pytest.mark.slow
def test_the_streaming_job_comes_when_it_is_asked_for(
    terraform: str, provider_schema: Path, tmp_path: Path
) -> None:
    applied = _with_job(tmp_path, "")
    job = applied.by_key("google_dataflow_flex_template_job", "segments")["segments"]
    account = applied.by_key("google_service_account", "dataflow")["segments"]
    assert job["service_account_email"] == account["email"]
    extra = {str(r) for r in rights.rights(applied) if r.who == "dataflow-segments"}
    (database,) = {one for one in extra if "datastore" in one}
    assert database.startswith("dataflow-segments has roles/datastore.user on project if resource")
    (worker,) = (one for one in functions() if one.name == "process_events")
    theirs = {role.replace(":", " roles/") for role in worker.roles if "database" not in role}
    ours = {f"{r.on} {r.role}" for r in rights.rights(applied) if r.who == "dataflow-segments"}
    assert theirs <= ours  # the same steps need the same rights
    assert extra - {database} == {
        "dataflow-segments has roles/cloudkms.cryptoKeyDecrypter on key/suppressions",
        "dataflow-segments has roles/artifactregistry.reader on repository/images",
        "dataflow-segments has roles/dataflow.worker on project",
        "dataflow-segments has roles/pubsub.publisher on topic/segment-memberships",
        "dataflow-segments has roles/pubsub.publisher on topic/user-events",
        "dataflow-segments has roles/pubsub.subscriber on subscription/segments",
        "dataflow-segments has roles/pubsub.viewer on subscription/segments",
        "dataflow-segments has roles/storage.objectUser on bucket/events",
        "dataflow-segments has roles/storage.objectUser on bucket/members",
    }
    environment = applied.outputs["environment"]
    options = JobOptions(**{**job["parameters"], **MADE_BY_GOOGLE})
    key = job["parameters"]["suppression_kms_key"]
    assert key == environment["ACTIVATION_SUPPRESSION_KMS_KEY"]
    assert options.members_bucket == environment["ACTIVATION_MEMBERS_BUCKET"]
    assert options.events_bucket == environment["ACTIVATION_EVENTS_BUCKET"]
    assert options.database == environment["ACTIVATION_DATABASE"]
    assert options.topic_prefix == environment["ACTIVATION_TOPIC_PREFIX"]
    assert options.only is None
    function = applied.by_key("google_pubsub_subscription", "function")["process_events"]
    assert function["filter"] is None
    (condition,) = applied.by_key("google_monitoring_alert_policy", "threshold")["messages-wait"][
        "conditions"
    ]
    (watched,) = re.findall(
        r'full_match\("([^"]+)"\)', condition["condition_threshold"][0]["filter"]
    )
    page = (FOLDER.parent / "docs" / "streaming.md").read_text()
    known = {one.values["name"] for one in applied.of("google_pubsub_subscription")}
    named = set(re.findall(r"(?:`|seek )(activation-[a-z_-]+)", page))
    assert {"activation-process_events", "activation-segments-stream"} <= named <= known
    for made in applied.of("google_pubsub_subscription"):
        waits = "dead" if made.name == "dead" else "work"
        assert bool(re.fullmatch(watched, made.values["name"])) is (waits == "work"), made.address


@pytest.mark.slow
def test_a_job_that_is_alone_leaves_the_function_what_has_no_shard(
    terraform: str, provider_schema: Path, tmp_path: Path
) -> None:
    applied = _with_job(tmp_path, ", alone = true")
    made = applied.by_key("google_pubsub_subscription", "function")
    assert {name: one["filter"] for name, one in made.items() if one["filter"]} == {
        "process_events": "NOT attributes:ordering_key"
    }


def _with_job(folder: Path, more: str) -> Applied:
    """A trial apply with the streaming job."""
    trial = Trial.of(FOLDER, folder)
    values = trial.folder / "environments" / "dev.tfvars"
    job = 'template = "gs://example-templates/segments.json", image = "example.com/segments:1"'
    values.write_text(values.read_text() + f"dataflow = {{ {job}{more} }}\n")
    applied, findings = trial.apply("dev")
    assert findings == []
    assert applied is not None
    return applied


IMAGE = "europe-west1-docker.pkg.dev/example/builds/sockets@sha256:" + "0" * 64


@pytest.mark.slow
def test_the_service_for_sockets_comes_with_its_image(
    terraform: str, provider_schema: Path, tmp_path: Path
) -> None:
    trial = Trial.of(FOLDER, tmp_path)
    values = trial.folder / "environments" / "dev.tfvars"
    asked = f'sockets_image = "{IMAGE}"\nsockets_instances = {{ min = 1, max = 3 }}\n'
    values.write_text(values.read_text() + asked)
    applied, findings = trial.apply("dev")
    assert findings == []
    assert applied is not None
    service = applied.by_key("google_cloud_run_v2_service", "sockets")["sockets"]
    account = applied.by_key("google_service_account", "sockets")["sockets"]
    (template,) = service["template"]
    (container,) = template["containers"]
    assert template["service_account"] == account["email"]
    assert (template["timeout"], template["session_affinity"]) == ("3600s", True)
    assert template["scaling"][0]["min_instance_count"] == 1
    assert container["image"] == IMAGE
    given = {one["name"]: one["value"] for one in container["env"]}
    settings = from_environment(given)
    assert settings.backend == "google"
    assert template["max_instance_request_concurrency"] == settings.realtime_room
    assert settings.realtime_stream_seconds < 3600
    _require_way_to(applied, service["name"])
    assert {str(r) for r in rights.rights(applied) if r.who == "run-sockets"} == {
        "run-sockets has roles/datastore.user on " + rights.database(applied),
        "run-sockets has roles/storage.objectViewer on bucket/members",
    }
    assert {(r.who, r.role) for r in rights.rights(applied) if r.on == "service/sockets"} == {
        ("agent iap", "roles/run.invoker")
    }
    assert applied.outputs["sockets_image"] == IMAGE
    (proxy,) = applied.of("google_iap_settings", "sockets")
    assert proxy.values["access_settings"][0]["oauth_settings"][0]["programmatic_clients"]
    found = [finding for check in agreement.CHECKS for finding in check(applied)]
    assert list(map(str, found)) == []


def _require_way_to(applied: Applied, service: str) -> None:
    """`/ws/` leads to the service, through the firewall and the proxy."""
    backend = applied.by_key("google_compute_backend_service", "sockets")["sockets"]
    group = applied.by_key("google_compute_region_network_endpoint_group", "sockets")["sockets"]
    assert backend["backend"][0]["group"] == group["id"]
    assert group["cloud_run"][0]["service"] == service
    assert backend["iap"][0]["enabled"] is True
    rules = applied.one("google_compute_url_map", "api")["path_matcher"][0]["route_rules"]
    led = [one["service"] for one in rules if one["match_rules"][0]["prefix_match"] == "/ws/"]
    assert led == [backend["id"]]
