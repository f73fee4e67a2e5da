"""Every check is seen failing: a fault planted in a copy of the files is named, with its file."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from activation.function_manifest import functions
from tests.terraform import (
    agreement,
    policies,
    references,
    rights,
    run_checkov,
    schema_check,
)
from tests.terraform.configuration import FOLDER, Configuration
from tests.terraform.faults import (
    OUTCOMES,
    POLICY_FAULTS,
    REAL,
    REFERENCE_FAULTS,
    SCHEMA_FAULTS,
    Fault,
)
from tests.terraform.generate import GENERATED
from tests.terraform.trial import Applied, Trial


def planted(fault: Fault, root: Path) -> Configuration:
    """A copy of the files with the fault."""
    folder = root / "terraform"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns(".*"))
    file = folder / fault.file
    text = file.read_text()
    assert fault.old in text, "the fault is of another time: correct it"
    file.write_text(text.replace(fault.old, fault.new, 1))
    return Configuration(folder)


def assert_named(found: list[Any], fault: Fault) -> None:
    """Some finding names the file, the block and the fault."""
    told = [one for one in found if fault.words in one.what and one.file == fault.file]
    assert [one for one in told if fault.address in one.address], list(map(str, found))


@pytest.mark.parametrize("name", SCHEMA_FAULTS)
def test_a_fault_against_the_schema_is_named(
    name: str, provider_schema: Path, tmp_path: Path
) -> None:
    fault = SCHEMA_FAULTS[name]
    assert_named(schema_check.check(planted(fault, tmp_path)), fault)


@pytest.mark.parametrize("name", REFERENCE_FAULTS)
def test_a_reference_to_nothing_is_named(name: str, tmp_path: Path) -> None:
    fault = REFERENCE_FAULTS[name]
    assert_named(references.check(planted(fault, tmp_path)), fault)


@pytest.mark.parametrize("name", POLICY_FAULTS)
def test_a_broken_policy_is_named(name: str, tmp_path: Path) -> None:
    fault = POLICY_FAULTS[name]
    assert_named(policies.check(planted(fault, tmp_path)), fault)


def test_every_policy_has_a_fault() -> None:
    """A policy that nothing breaks may check nothing."""
    wanted = {policy.__name__ for policy in policies.POLICIES}
    broken = set()
    for fault in POLICY_FAULTS.values():
        configuration = Configuration(FOLDER)
        text = configuration.texts[fault.file].replace(fault.old, fault.new, 1)
        configuration.__dict__["texts"] = {**configuration.texts, fault.file: text}
        broken |= {p.__name__ for p in policies.POLICIES if list(p(configuration))}
    assert broken == wanted


def test_untidy_files_are_named(terraform: str, tmp_path: Path) -> None:
    fault = Fault("kms.tf", '  purpose                    = "ASYM', '  purpose = "ASYM', "", "")
    planted(fault, tmp_path)
    command = [terraform, "fmt", "-check", "-recursive", str(tmp_path / "terraform")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "kms.tf" in done.stdout


def test_an_index_file_of_other_times_is_noticed(tmp_path: Path) -> None:
    fault = Fault("firestore.indexes.json", '"fieldPath": "due_at"', '"fieldPath": "due"', "", "")
    text = planted(fault, tmp_path).texts[fault.file]
    assert text != GENERATED[fault.file]()


# what only an apply shows ---------------------------------------------------------------------


def changed(applied: Applied, address: str, change: Mapping[str, Any]) -> Applied:
    """An apply in which one instance came out otherwise; a path leads into blocks: `a.0.b`."""
    values = deepcopy(next(one.values for one in applied.instances if one.address == address))
    for path, value in change.items():
        inner: Any = values
        *parts, last = path.split(".")
        for part in parts:
            inner = inner[int(part) if part.isdigit() else part]
        inner[last] = value
    instances = tuple(
        dataclasses.replace(one, values=values) if one.address == address else one
        for one in applied.instances
    )
    return dataclasses.replace(applied, instances=instances)


def test_a_ban_that_cannot_be_counted_is_named(applied: Applied) -> None:
    policy = applied.one("google_compute_security_policy", "api")
    (number,) = (n for n, rule in enumerate(policy["rule"]) if rule["rate_limit_options"])
    path = f"rule.{number}.rate_limit_options.0.ban_threshold.0.count"
    other = changed(applied, "google_compute_security_policy.api", {path: 12_000})
    found = [str(finding) for finding in agreement.of_floods(other)]
    assert len(found) == 1
    assert "ban_threshold" in found[0]
    assert "counts to 12000" in found[0]


@pytest.mark.parametrize("name", OUTCOMES)
def test_an_outcome_the_code_does_not_expect_is_named(name: str, applied: Applied) -> None:
    address, change, words = OUTCOMES[name]
    other = changed(applied, address, change)
    found = [finding for check in agreement.CHECKS for finding in check(other)]
    assert [finding for finding in found if words in str(finding)], list(map(str, found))


def test_a_right_too_many_and_one_missing_are_named(applied: Applied) -> None:
    dispatcher = next(
        one.values["member"]
        for one in applied.of("google_service_account", "function")
        if one.key == "dispatch_distribution"
    )
    (address,) = (
        one.address
        for one in applied.of("google_kms_crypto_key_iam_member", "function")
        if one.values["member"] == dispatcher and "credentials" in one.address
    )
    platforms = applied.by_key("google_service_account", "function")["platforms"]["member"]
    found = rights.check(changed(applied, address, {"member": platforms}), functions())
    role = "roles/cloudkms.cryptoKeyDecrypter on key/credentials"
    assert [finding.what for finding in found] == [
        f"fn-platforms has {role}, and should not",
        f"fn-dispatch-distribution has {role} is missing",
    ]
    assert found[0].address == address


# what the real Terraform says of real files ---------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_terraform_refuses(
    name: str, terraform: str, provider_schema: Path, tmp_path: Path
) -> None:
    fault = REAL[name]
    trial = Trial.of(FOLDER, tmp_path)
    file = trial.folder / fault.file
    assert fault.old in file.read_text()
    file.write_text(file.read_text().replace(fault.old, fault.new, 1))
    _, found = trial.apply("dev")
    assert [one for one in found if fault.words in one.what], list(map(str, found))


@pytest.mark.slow
def test_a_kind_of_right_that_no_grant_knows_is_refused(
    terraform: str, provider_schema: Path, tmp_path: Path
) -> None:
    trial = Trial.of(FOLDER, tmp_path)
    manifest = trial.root / "functions" / "manifest.json"
    known = json.loads(manifest.read_bytes())
    known["functions"][0]["roles"].append("queue/x:cloudtasks.enqueuer")
    manifest.write_text(json.dumps(known))
    _, found = trial.apply("dev")
    assert "names a kind of resource that no grant" in "\n".join(map(str, found))


# what Checkov says --------------------------------------------------------------------------


@pytest.mark.slow
def test_checkov_names_faults_and_what_it_cannot_read(checkov: Path, tmp_path: Path) -> None:
    open_bucket = POLICY_FAULTS["bucket with access lists"]
    folder = planted(open_bucket, tmp_path).folder
    old_tls = POLICY_FAULTS["old TLS"]
    door = folder / old_tls.file
    door.write_text(door.read_text().replace(old_tls.old, old_tls.new))
    (folder / "outputs.tf").write_text("output {{\n")
    found = sorted(map(str, run_checkov.scan(checkov, folder).findings))
    assert [one for one in found if "storage.tf" in one and "CKV_GCP_29" in one], found
    assert [one for one in found if "load_balancer.tf" in one and "CKV_GCP_4" in one], found
    assert [one for one in found if "outputs.tf" in one and "was not read" in one], found
    assert len(found) == 3
