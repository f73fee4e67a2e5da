"""The table of rights as `docs/roles.md` has it: the one place where it is written down."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from activation.domain.caller import Role
from tests.api.client import PREFIX

PAGE = Path(__file__).parents[2] / "docs/roles.md"
Route = tuple[str, str]
"""Method and path template."""
_ROW = re.compile(r"\| (\w+) \| `(/\S+)` \| (yes|no) \| (yes|no) \| (yes|no) \| (yes|no) \|")


@cache
def rights() -> dict[Route, frozenset[Role]]:
    """Which roles each route is open to."""
    return parsed(PAGE.read_text())


def parsed(text: str) -> dict[Route, frozenset[Role]]:
    """The rows of a page; a row that is not understood, or is there twice, fails."""
    found: dict[Route, frozenset[Role]] = {}
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    for row in rows:
        match = _ROW.fullmatch(row)
        assert match, row
        method, path, *cells = match.groups()
        route = (method, PREFIX + path)
        assert route not in found, row
        open_to = zip(Role, cells, strict=True)
        found[route] = frozenset(role for role, cell in open_to if cell == "yes")
    return found
