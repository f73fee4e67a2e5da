"""The flex template says of itself what the job takes; a value that cannot be is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from activation.errors import ValidationError
from activation.streaming.options import JobOptions, parsed, template_metadata
from tests.streaming.template_check import (
    DOCKERFILE,
    JOB,
    LOCK,
    METADATA,
    TEST_LOCK,
    Template,
    problems,
    template,
)

GOOD = {
    "subscription": "projects/example/subscriptions/activation-segments-stream",
    "members_bucket": "example-members",
    "events_bucket": "example-events",
    "database": "(default)",
    "suppression_kms_key": "projects/example/locations/l/keyRings/lists/cryptoKeys/lists",
}


def test_all_of_it_agrees() -> None:
    assert problems(template()) == []


FAULTS = {
    "a parameter that Terraform forgets": (
        JOB,
        "    topic_prefix        = local.topic_prefix\n",
        "",
    ),
    "one that the job has not": (
        JOB,
        "    topic_prefix        = local",
        "    topics              = local",
    ),
    "another regular expression": (METADATA, "10 to 60000", "10 to 600000"),
    "metadata of another release": (METADATA, '"name": "database"', '"name": "firestore"'),
    "another Beam in the image": (DOCKERFILE, "ARG BEAM=2.77.0", "ARG BEAM=2.76.0"),
    "packages without hashes": (DOCKERFILE, " --require-hashes", ""),
    "a file that is not there": (DOCKERFILE, "COPY shared/activation", "COPY activation"),
    "no launcher": (DOCKERFILE, "FLEX_TEMPLATE_PYTHON_PY_FILE", "FLEX_PYTHON_FILE"),
    "another entry point": (DOCKERFILE, '"/opt/apache/beam/boot"', '"python"'),
    "workers with public addresses": (JOB, '"WORKER_IP_PRIVATE"', '"WORKER_IP_PUBLIC"'),
    "a job that is cancelled": (JOB, '"drain"', '"cancel"'),
    "what was not tested": (LOCK, "\norjson==", "\norjson==0"),
    "a Beam that was not tested": (TEST_LOCK, "apache-beam==2", "apache-beam==3"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    file, right, wrong = FAULTS[name]
    texts = template().texts
    assert right in texts[file]
    assert problems(Template({**texts, file: texts[file].replace(right, wrong)}))


def test_help_explains_every_parameter() -> None:
    command = [sys.executable, "-m", "activation.streaming.job", "--help"]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert all(f"--{one.name}" in said for one in fields(JobOptions))


def test_without_a_needed_parameter_the_job_does_not_start() -> None:
    command = [sys.executable, "-m", "activation.streaming.job", "--database", "(default)"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 2
    assert "--subscription" in done.stderr


def test_what_is_not_ours_is_left_to_beam() -> None:
    given = [f"--{name}={value}" for name, value in GOOD.items()]
    options, rest = parsed([*given, "--region=europe-west1", "--runner=DataflowRunner"])
    assert rest == ["--region=europe-west1", "--runner=DataflowRunner"]
    assert options.settings().project == "example"
    assert options.settings().members_bucket == "example-members"
    assert options.settings().suppression_kms_key == GOOD["suppression_kms_key"]
    assert options.wait.total_seconds() == 0.5
    assert options.only is None


def test_organizations_are_a_list() -> None:
    assert JobOptions(**GOOD, organizations="acme,globex").only == frozenset({"acme", "globex"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subscription", "activation-segments-stream"),
        ("subscription", "projects/example/topics/user-events"),
        ("members_bucket", "gs://example-members"),
        ("database", ""),
        ("suppression_kms_key", "keyRings/of/lists"),
        ("topic_prefix", "a/b"),
        ("organizations", "acme,,globex"),
        ("organizations", "acme,"),
        ("wait_milliseconds", "5"),
        ("wait_milliseconds", "60001"),
        ("wait_milliseconds", "soon"),
        ("wait_milliseconds", "500\n"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(name: str, value: str) -> None:
    given: dict[str, Any] = {**GOOD, name: value}
    with pytest.raises(ValidationError) as refused:
        JobOptions(**given)
    assert refused.value.field == name
    assert value not in refused.value.message or value == ""


def test_every_parameter_has_a_check_in_the_template() -> None:
    parameters = json.loads(json.dumps(template_metadata()))["parameters"]
    assert all(one["regexes"] and one["helpText"] for one in parameters)
    needed = {one["name"] for one in parameters if not one["isOptional"]}
    assert needed == set(GOOD)
