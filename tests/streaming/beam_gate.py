"""Tests of the pipeline run where Apache Beam is: in its own environment, `make test-beam`."""

from __future__ import annotations

import importlib.util
import os

import pytest


def require_beam() -> None:
    """Skip the module without Apache Beam; with REQUIRE_BEAM=1 fail instead."""
    if importlib.util.find_spec("apache_beam") is not None:
        return
    if os.environ.get("REQUIRE_BEAM") == "1":
        pytest.fail("Apache Beam is required, and not installed.")
    pytest.skip("Needs Apache Beam: make test-beam", allow_module_level=True)
