"""What hostile requests need: a key, and the description of the API."""

from __future__ import annotations

from tests.api.conftest import description, key_file

__all__ = ["description", "key_file"]
