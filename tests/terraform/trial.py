"""The real Terraform, offline: `validate`, and a trial apply whose every value can be looked at.

The stand-in provider gives the schema; `mock_provider` makes up what Google would compute, so an
e-mail or an address in the result is a random word, the same wherever it is used.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.terraform.configuration import Configuration, Finding
from tests.terraform.schema_check import schema

STAND_IN = Path(__file__).with_name("stand_in.py")
PROVIDERS = ("google", "google-beta")
TEST_FILE = "".join(f'mock_provider "{name}" {{}}\n' for name in PROVIDERS) + (
    'run "apply" {\n  command = apply\n}\n'
)
KNOWN_DATA = """
override_data {
  target = data.google_project.current
  values = { number = "123456789012" }
}

override_data {
  target = data.google_storage_project_service_account.agent
  values = { member = "serviceAccount:storage@example.com" }
}

override_data {
  target = data.google_bigquery_default_service_account.agent
  values = { member = "serviceAccount:bigquery@example.com" }
}
"""
"""What is read at Google stays what it was: a mock would make it up anew at each run."""
SECONDS = 300


@dataclass(frozen=True)
class Instance:
    """A resource that the trial apply made: its address, its type, its key, its values."""

    address: str
    type: str
    name: str
    key: str | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Applied:
    """What a trial apply made."""

    instances: tuple[Instance, ...]
    outputs: Mapping[str, Any]

    def of(self, type_: str, name: str | None = None) -> list[Instance]:
        """The instances of a type, or of one of its resources."""
        found = [one for one in self.instances if one.type == type_]
        return found if name is None else [one for one in found if one.name == name]

    def by_key(self, type_: str, name: str) -> dict[str, Mapping[str, Any]]:
        """The values of a resource with `for_each`, by key."""
        return {one.key or "": one.values for one in self.of(type_, name)}

    def one(self, type_: str, name: str) -> Mapping[str, Any]:
        """The values of a resource that is there once."""
        (found,) = self.of(type_, name)
        return found.values


@dataclass(frozen=True)
class Trial:
    """A copy of the configuration in a folder of its own: `{root}/terraform` beside `functions`."""

    root: Path

    @classmethod
    def of(cls, configuration: Path, root: Path) -> Trial:
        """Copy everything a plan reads; the archives are empty files."""
        shutil.copytree(configuration, root / "terraform", ignore=shutil.ignore_patterns(".*"))
        (root / "functions").mkdir()
        manifest = configuration.parent / "functions" / "manifest.json"
        shutil.copy(manifest, root / "functions" / "manifest.json")
        (root / "dist").mkdir()
        for function in json.loads(manifest.read_bytes())["functions"]:
            (root / "dist" / f"{function['name']}.zip").write_bytes(function["name"].encode())
        return cls(root)

    @property
    def folder(self) -> Path:
        """Where the configuration is."""
        return self.root / "terraform"

    def validate(self) -> list[Finding]:
        """What `terraform validate` finds."""
        with self._started("validate", "-json") as process:
            said, _ = process.communicate(timeout=SECONDS)
        answer = json.loads(said)
        return [_finding(one) for one in answer["diagnostics"] if one["severity"] == "error"]

    def apply(self, environment: str) -> tuple[Applied | None, list[Finding]]:
        """Apply with the values of an environment; what came of it, and what went wrong."""
        (self.folder / "tests").mkdir(exist_ok=True)
        (self.folder / "tests" / "trial.tftest.hcl").write_text(TEST_FILE)
        values = f"-var-file=environments/{environment}.tfvars"
        applied, findings = None, []
        with self._started("test", "-json", "-verbose", values) as process:
            assert process.stdout is not None
            for line in map(json.loads, process.stdout):
                if line["type"] == "test_state":
                    applied = _applied(line["test_state"])
                    process.kill()  # what is protected cannot be taken down again anyway
                    break
                if line["type"] == "diagnostic" and line["diagnostic"]["severity"] == "error":
                    findings.append(_finding(line["diagnostic"]))
        return applied, findings

    def again(self, environment: str, variables: str = "") -> dict[str, list[str]]:
        """What a second run would do after an apply, with other variables if some are given: the
        actions by address, of what would not stay as it is."""
        (self.folder / "tests").mkdir(exist_ok=True)
        second = f'run "again" {{\n  command = plan\n  variables {{\n{variables}  }}\n}}\n'
        text = TEST_FILE + KNOWN_DATA + second
        (self.folder / "tests" / "trial.tftest.hcl").write_text(text)
        values = f"-var-file=environments/{environment}.tfvars"
        with self._started("test", "-json", "-verbose", values) as process:
            assert process.stdout is not None
            for line in map(json.loads, process.stdout):
                if line["type"] == "test_plan":
                    process.kill()
                    changes = line["test_plan"].get("resource_changes", [])
                    acts = {one["address"]: one["change"]["actions"] for one in changes}
                    return {address: act for address, act in acts.items() if act != ["no-op"]}
                if line["type"] == "diagnostic" and line["diagnostic"]["severity"] == "error":
                    raise AssertionError(str(_finding(line["diagnostic"])))
        raise AssertionError("Terraform told no second plan.")

    def _started(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [_installed(), *arguments, "-no-color"],
            cwd=self.folder,
            env={
                **os.environ,
                "TF_CLI_CONFIG_FILE": str(self._settings),
                "CHECKPOINT_DISABLE": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @cached_property
    def _settings(self) -> Path:
        """Terraform's own settings: the stand-in for both providers, and nothing downloaded."""
        plugins = self.root / "plugins"
        plugins.mkdir()
        known = plugins / "schema.json"
        known.write_text(json.dumps(self._used()))
        for name in PROVIDERS:
            program = plugins / f"terraform-provider-{name}"
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "{known}"\n')
            program.chmod(0o755)
        overrides = "".join(f'    "hashicorp/{name}" = "{plugins}"\n' for name in PROVIDERS)
        settings = self.root / "terraformrc"
        settings.write_text(
            f"provider_installation {{\n  dev_overrides {{\n{overrides}  }}\n  direct {{}}\n}}\n"
        )
        return settings

    def _used(self) -> dict[str, Any]:
        """The schema of what the configuration uses: all of it would take seconds to hand over."""
        blocks = Configuration(self.folder).blocks
        used = {(block.kind, block.type) for block in blocks if block.kind in ("resource", "data")}
        return {
            "provider": schema()["provider"],
            "resources": {
                k: v for k, v in schema()["resources"].items() if ("resource", k) in used
            },
            "data": {k: v for k, v in schema()["data"].items() if ("data", k) in used},
        }


def _installed() -> str:
    found = shutil.which("terraform")
    if found is None:
        raise FileNotFoundError("terraform")
    return found


def _finding(diagnostic: Mapping[str, Any]) -> Finding:
    where = diagnostic.get("range", {}).get("filename", "")
    block = (diagnostic.get("snippet") or {}).get("context") or ""
    return Finding(where, block, f"{diagnostic['summary']} {diagnostic.get('detail', '')}".strip())


def _applied(state: Mapping[str, Any]) -> Applied:
    instances = tuple(
        Instance(
            one["address"],
            one["type"],
            one["name"],
            str(one["index"]) if "index" in one else None,
            one["values"],
        )
        for one in state["root_module"]["resources"]
    )
    outputs = {name: output["value"] for name, output in state.get("outputs", {}).items()}
    return Applied(instances, outputs)
