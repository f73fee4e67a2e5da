"""Importing a function loads nothing that only some requests need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from activation.function_manifest import Function, functions

HEAVY = (
    "google.cloud.firestore",
    "google.cloud.firestore_v1",
    "google.cloud.storage",
    "google.cloud.pubsub",
    "google.cloud.pubsub_v1",
    "google.cloud.kms",
    "grpc",
    "pyarrow",
    "numpy",
    "cryptography",
    "httpx",
    "redis",
    "jwt",
    "phonenumbers",
    "flask_openapi3",
    "opentelemetry",
    "opentelemetry.sdk",
    "prometheus_client",
    "activation.metrics_catalog",
    "uvicorn",
    "websockets",
    "activation.api.sockets",
    "activation.services.change_feed",
    "activation.services.change_hub",
)
PROBE = """
import json, sys
from activation.local import loaded
from activation.function_manifest import function
loaded(function(sys.argv[1]))
print(json.dumps(sorted(sys.modules)))
"""


def modules_after_loading(function: Function) -> set[str]:
    """The modules of a fresh process that loaded a function and served nothing."""
    found = subprocess.run(
        [sys.executable, "-c", PROBE, function.name], capture_output=True, check=True, text=True
    )
    return set(json.loads(found.stdout))


@pytest.mark.parametrize("function", functions(), ids=lambda one: one.name)
def test_function_loads_nothing_heavy(function: Function) -> None:
    loaded = modules_after_loading(function)
    print(f"{function.name}: {len(loaded)} modules")
    assert "functions_framework" in loaded
    assert sorted(loaded & set(HEAVY)) == []
