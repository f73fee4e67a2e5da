"""Fixtures of the deployment's tests: the files, the provider's schema, a trial apply.

The schema is downloaded by `make terraform-schema`, never by a test. Without it, or without
Terraform, the tests that need them are skipped; with REQUIRE_TERRAFORM=1 they fail.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from activation.function_manifest import FOLDER as FUNCTIONS
from tests.terraform import stand_in, trial
from tests.terraform.configuration import FOLDER, Configuration
from tests.terraform.fetch_schema import SCHEMA
from tests.terraform.trial import Applied, Trial

CHECKOV = SCHEMA.with_name("checkov") / "bin" / "checkov"


def missing(reason: str) -> NoReturn:
    """Skip, or fail where everything must run."""
    if os.environ.get("REQUIRE_TERRAFORM") == "1":
        pytest.fail(f"Terraform's tests are required, and {reason}.")
    pytest.skip(f"Needs Terraform and the provider's schema: {reason}.")


@pytest.fixture(scope="session")
def configuration() -> Configuration:
    """The files as they are."""
    return Configuration(FOLDER)


@pytest.fixture(scope="session")
def provider_schema() -> Path:
    """The file of the schema."""
    if not SCHEMA.exists():
        missing("`make terraform-schema` has not been run")
    return SCHEMA


@pytest.fixture(scope="session")
def terraform() -> str:
    """The program."""
    return shutil.which("terraform") or missing("terraform is not installed")


@pytest.fixture(scope="session")
def checkov() -> Path:
    """The program."""
    if not CHECKOV.exists():
        missing("`make check-terraform` has not been run")
    return CHECKOV


@pytest.fixture(scope="session")
def applied(
    terraform: str, provider_schema: Path, tmp_path_factory: pytest.TempPathFactory
) -> Applied:
    """What production would be."""
    return applied_as("prod", tmp_path_factory.mktemp("trial"))


def applied_as(environment: str, root: Path) -> Applied:
    """A trial apply of the files as they are; kept until one of them changes."""
    kept = SCHEMA.with_name(f"trial-{environment}-{_fingerprint()}.pickle")
    if kept.exists():
        found: Applied = pickle.loads(kept.read_bytes())
        return found
    made, findings = Trial.of(FOLDER, root).apply(environment)
    assert findings == []
    assert made is not None
    for old in kept.parent.glob(f"trial-{environment}-*.pickle"):
        old.unlink(missing_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_bytes(pickle.dumps(made))
    partial.rename(kept)
    return made


def _fingerprint() -> str:
    """Changes with everything that a trial apply reads."""
    read = [Path(stand_in.__file__), Path(trial.__file__), FUNCTIONS / "manifest.json", SCHEMA]
    read += [path for path in sorted(FOLDER.rglob("*")) if path.is_file()]
    digest = hashlib.sha256()
    for path in read:
        digest.update(f"{path.name} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
