"""Checkov over `terraform/`: `python -m tests.terraform.run_checkov CHECKOV`.

CHECKOV is the program, which has a virtual environment of its own (`make check-terraform` makes
it): it brings 280 MB of libraries that nothing else here wants. It runs offline. A check that is
set aside is set aside for a reason, and no longer than it fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.terraform.configuration import FOLDER, Finding

SET_ASIDE: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        (
            "CKV_GCP_78",
            "google_storage_bucket.bucket",
        ): "no versioning: old versions would keep people who were erased; names are used once",
        (
            "CKV_GCP_62",
            "google_storage_bucket.bucket",
        ): "no access logs in buckets: Cloud Audit Logs say who read what",
    }
)
"""(check, resource) to the reason why it does not count here."""

LEAST_CHECKS = 50
"""Fewer mean that it has not understood the files."""


@dataclass(frozen=True)
class Report:
    """What Checkov said."""

    passed: int
    findings: tuple[Finding, ...]


def scan(checkov: Path, folder: Path = FOLDER) -> Report:
    """Scan a folder; what is set aside is left out, unless it no longer fails."""
    values = folder / "environments" / "prod.tfvars"
    command = [str(checkov), "--skip-download", "--framework", "terraform", "--output", "json"]
    done = subprocess.run(
        [*command, "--directory", str(folder), "--var-file", str(values)],
        capture_output=True,
        text=True,
        check=False,
    )
    results = json.loads(done.stdout)["results"]
    failed = {
        (one["check_id"], one["resource"].split("[")[0]): Finding(
            one["file_path"].lstrip("/"), one["resource"], f"{one['check_id']} {one['check_name']}"
        )
        for one in results["failed_checks"]
    }
    found = [finding for key, finding in failed.items() if key not in SET_ASIDE]
    found += [
        Finding("", resource, f"{check} is set aside and passes")
        for check, resource in SET_ASIDE
        if (check, resource) not in failed
    ]
    found += [Finding(Path(one).name, "", "was not read") for one in results["parsing_errors"]]
    passed = len(results["passed_checks"])
    if passed < LEAST_CHECKS:
        found.append(Finding("", "", f"only {passed} checks passed"))
    return Report(passed, tuple(found))


def main(checkov: str) -> int:
    """Print what was found; 1 when there is something."""
    report = scan(Path(checkov))
    print(
        f"Checkov: {report.passed} passed, {len(report.findings)} found, {len(SET_ASIDE)} set aside"
    )
    print(*report.findings, sep="\n", end="\n" if report.findings else "")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
