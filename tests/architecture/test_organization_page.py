"""docs/organization.md and docs/quotas.md say what the code does."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

from activation.domain.platform import PlatformSettings
from activation.domain.quota import LIMIT_FIELDS, QuotaDraft
from activation.services.quotas import GUARDS

DOCS = Path(__file__).parents[2] / "docs"


def test_settings_of_refreshes_have_the_defaults_that_the_page_shows() -> None:
    page = (DOCS / "organization.md").read_text()
    shown = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", page, re.MULTILINE))
    elsewhere = {"default_match_rate", "cost_per_thousand", "requests_per_minute", "config"}
    elsewhere |= {"require_consent"}
    fields = {n: f.default for n, f in PlatformSettings.model_fields.items() if n not in elsewhere}
    assert {name: text.strip("`") for name, text in shown.items()} == {
        name: _text(value) for name, value in fields.items()
    }


def _text(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return str(value).lower()


def test_limits_have_the_names_that_the_page_shows() -> None:
    page = (DOCS / "quotas.md").read_text()
    shown = re.findall(r"^\| `(max_\w+)` \|", page, re.MULTILINE)
    assert shown == list(LIMIT_FIELDS.values()) == list(QuotaDraft.model_fields)


def test_the_decision_knows_how_many_guards_there_are() -> None:
    page = (DOCS / "adr/0008-quotas-count-what-is-there.md").read_text()
    assert f"{GUARDS} guard documents" in page
    assert f"one of the {GUARDS} guards" in page
