"""The functions as the framework runs them, behind doors of an App in an empty folder."""

from __future__ import annotations

from tests.api.conftest import api, description, key_file, public, server, settings

__all__ = ["api", "description", "key_file", "public", "server", "settings"]
