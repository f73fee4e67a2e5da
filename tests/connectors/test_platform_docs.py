"""docs/platforms.md keeps up with the specs."""

from __future__ import annotations

from pathlib import Path

import pytest

from activation.adapters.connectors.google_spec import KEY_TYPES
from activation.adapters.connectors.registry import specs
from activation.domain.platform import ConnectorSpec

TEXT = (Path(__file__).parents[2] / "docs" / "platforms.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: str(spec.platform_type))
def test_every_field_and_limit_is_documented(spec: ConnectorSpec) -> None:
    names = [field.name for field in (*spec.credentials, *spec.settings)]
    missing = [name for name in (str(spec.platform_type), *names) if f"`{name}`" not in TEXT]
    assert missing == []
    assert f"{spec.max_rows:,}" in TEXT
    assert str(spec.requests_per_minute) in TEXT.replace(",", "")


def test_every_kind_of_google_list_is_documented() -> None:
    assert [key for key in KEY_TYPES if f"`{key}`" not in TEXT] == []
