"""The files themselves: style, names, policies, and what they have in common with the code."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from activation.adapters.gcp.documents import firestore_indexes
from activation.settings import PREFIX, Settings
from tests.terraform import policies, references, schema_check
from tests.terraform.configuration import FOLDER, Configuration
from tests.terraform.generate import GENERATED

SHARED = FOLDER.parent / "shared" / "activation"
DOCS = FOLDER.parent / "docs"
COLUMNS = {
    "audiences": "audience_id user_id name description created_at updated_at status data_type "
    "original_query selected_variables variable_details segments total_audience_size metadata",
    "platforms": "platform_id user_id platform_type name created_at updated_at status credentials "
    "settings last_sync sync_status",
    "distributions": "distribution_id user_id audience_id platform_id created_at scheduled_at "
    "executed_at status distribution_type segments_distributed match_results error_details "
    "metadata",
}
"""The columns that the analysis tables were designed with; the tenant comes before them."""
REQUIRED = {
    "audiences": "audience_id user_id name created_at updated_at status data_type",
    "platforms": "platform_id user_id platform_type name created_at updated_at status",
    "distributions": "distribution_id user_id audience_id platform_id created_at status",
}


def test_files_are_formatted(terraform: str) -> None:
    command = [terraform, "fmt", "-check", "-recursive", "-diff", str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_provider_knows_every_argument(
    configuration: Configuration, provider_schema: Path
) -> None:
    assert len(configuration.of("resource")) > 50
    assert list(map(str, schema_check.check(configuration))) == []


def test_every_reference_resolves(configuration: Configuration) -> None:
    assert list(map(str, references.check(configuration))) == []


@pytest.mark.parametrize("policy", policies.POLICIES, ids=lambda one: one.__name__)
def test_policy_holds(policy: object, configuration: Configuration) -> None:
    assert callable(policy)
    assert list(map(str, policy(configuration))) == []


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_file_is_what_the_code_declares(name: str) -> None:
    """`make terraform-data` makes it anew."""
    assert (FOLDER / name).read_text() == GENERATED[name]()


def test_the_index_file_is_the_declared_list() -> None:
    assert json.loads((FOLDER / "firestore.indexes.json").read_bytes()) == firestore_indexes()


def test_every_metric_is_counted_from_a_line_that_the_code_writes() -> None:
    source = "\n".join(path.read_text() for path in SHARED.rglob("*.py"))
    metrics = json.loads((FOLDER / "metrics.json").read_bytes())
    assert len({one["name"] for one in metrics}) == len(metrics) > 0
    for one in metrics:
        assert f'"{one["event"]}"' in source, one["name"]
        assert one["kind"] in ("counter", "gauge", "histogram")
        assert (one["kind"] == "counter") or one["value"]


def test_an_alert_waits_only_for_metrics_that_there_are() -> None:
    """An alert on a name that no metric will ever have would be left out without a word."""
    named = set(re.findall(r'metric\s+= "(activation_\w+)"', (FOLDER / "alerts.tf").read_text()))
    metrics = {one["name"] for one in json.loads((FOLDER / "metrics.json").read_bytes())}
    assert len(named) >= 5
    assert named - metrics == set()


def test_every_alert_of_a_line_is_of_one_that_the_code_writes() -> None:
    text = (FOLDER / "alerts.tf").read_text()
    messages = re.findall(r'jsonPayload\.message=\\"([^"\\]+)\\"', text)
    source = "\n".join(path.read_text() for path in SHARED.rglob("*.py"))
    assert len(messages) >= 3
    assert [message for message in messages if f'"{message}"' not in source] == []


@pytest.mark.parametrize("table", COLUMNS)
def test_a_table_has_the_columns_it_was_designed_with(table: str) -> None:
    columns = json.loads((FOLDER / "tables" / f"{table}.json").read_bytes())
    assert [one["name"] for one in columns] == ["organization_id", *COLUMNS[table].split()]
    required = {one["name"] for one in columns if one["mode"] == "REQUIRED"}
    assert required == {"organization_id", *REQUIRED[table].split()}
    assert all(one["description"] for one in columns)


def test_settings_of_every_environment_exist() -> None:
    known = {PREFIX + name.upper() for name in Settings.__dataclass_fields__}
    for path in (FOLDER / "environments").glob("*.tfvars"):
        named = set(re.findall(rf"\b{PREFIX}[A-Z_]+", path.read_text()))
        assert named <= known, path.name


def test_no_file_names_a_real_project_or_secret() -> None:
    for path in (FOLDER / "environments").glob("*.tfvars"):
        text = path.read_text()
        assert re.findall(r'^project\s+= "(example-[a-z-]+)"', text, re.MULTILINE)
        assert set(re.findall(r"@([a-z.]+)", text)) == {"example.com"}
        assert not re.search(r"secret|password|PRIVATE KEY", text, re.IGNORECASE)


def test_the_page_names_every_file(configuration: Configuration) -> None:
    page = (DOCS / "deployment.md").read_text()
    files = [name for name in configuration.texts if name.endswith(".tf")]
    assert [name for name in files if f"`{name}`" not in page] == []
