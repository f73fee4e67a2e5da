"""Rows in a request as a setting, for platforms that publish no limit we could verify."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from activation.adapters.connectors.config import invalid
from activation.domain.platform import ConnectorSpec, SettingField

SETTING = "rows_per_request"
MOST = 100_000


def rows_field(default: int) -> SettingField:
    """The setting, with what a connector sends without it."""
    return SettingField(
        SETTING, f"Rows in one request, 1 to {MOST:,}", default=default, kind="integer"
    )


def require_rows(settings: Mapping[str, Any]) -> None:
    """Raise ValidationError for a number of rows that no request may have."""
    if not 1 <= settings[SETTING] <= MOST:
        raise invalid(f"settings.{SETTING}", f"must be 1 to {MOST:,}")


def with_rows(spec: ConnectorSpec, settings: Mapping[str, Any]) -> ConnectorSpec:
    """The spec with the number of rows that the account has set."""
    return replace(spec, max_rows=settings[SETTING])
