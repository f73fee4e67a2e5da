"""The page about rules lists the operators as they are."""

from __future__ import annotations

import re
from pathlib import Path

from activation.domain.operators import MEMBER_FIELDS, OPERATORS

PAGE = (Path(__file__).parents[2] / "docs/rules.md").read_text()


def test_the_table_is_the_registry() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (
            info.code,
            " ".join(f"`{alias}`" for alias in info.aliases),
            ", ".join(info.value_types),
            info.meaning,
        )
        for info in OPERATORS.values()
    ]


def test_every_field_of_members_is_named() -> None:
    assert set(re.findall(r"`member\.(\w+)`", PAGE)) == set(MEMBER_FIELDS)
