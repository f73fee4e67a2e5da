"""docs/consent.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from werkzeug.test import Client

from activation.domain.consent import PLATFORM_VENDORS, Vendor
from activation.domain.suppression import MAX_BATCH, SuppressionReason
from activation.domain.tcf import PERSONALIZATION_PURPOSES, USER_DATA_PURPOSES, VENDOR_IDS
from activation.local import LocalServer
from activation.members import selection
from activation.members.fields import PARSERS
from activation.members.suppression_change import MAX_PARTS
from activation.services.suppression_imports import CHUNK_IDENTIFIERS, MAX_REJECTS
from activation.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs/consent.md").read_text()
WITHHELD = (
    *(selection.NOT_SELECTED, selection.EXPIRED, selection.SUPPRESSED, selection.CONSENT_DENIED),
    *(selection.VENDOR_DENIED, selection.CONSENT_MISSING, selection.LIMITED_DATA_USE),
    *(selection.UNSUPPORTED_IDENTIFIER, selection.HASH_RULE_MISMATCH),
)


def rows(first: str) -> dict[str, list[str]]:
    """The table whose head begins with a cell, by its first column."""
    table = PAGE[PAGE.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {name.strip("`"): rest for name, *rest in cells}


def test_the_columns_are_those_that_files_may_have() -> None:
    roles = {role.value for role, (name, *_) in PARSERS.items() if name == "consent"}
    assert set(rows("column or field")) == roles


def test_vendors_and_purposes_are_those_of_the_code() -> None:
    shown = rows("vendor")
    assert {name: int(cells[0]) for name, cells in shown.items()} == {
        vendor.value: number for vendor, number in VENDOR_IDS.items()
    }
    for vendor in Vendor:
        platforms = re.findall(r"`(\w+)`", shown[vendor][1])
        assert platforms == [one for one, behind in PLATFORM_VENDORS.items() if behind is vendor]
    for purposes in (USER_DATA_PURPOSES, PERSONALIZATION_PURPOSES):
        assert f"| purposes {purposes[0]} and {purposes[1]} |" in PAGE


def test_reasons_stand_in_the_order_in_which_they_are_tried() -> None:
    assert tuple(rows("reason")) == WITHHELD
    listed = ", ".join(f"`{reason.value}`" for reason in SuppressionReason)
    assert f"reason:\n{listed}" in PAGE


def test_routes_are_those_of_the_api(tmp_path: Path) -> None:
    server = LocalServer(Settings(data_folder=str(tmp_path)))
    paths = Client(server.wsgi).get("/openapi.json").get_json()["paths"]
    server.stop()
    shown = re.findall(r"^\| `([A-Z]+) (/api/v1/[\w/]+)` \| (\w+) \|", PAGE, re.MULTILINE)
    assert {(method, path): role for method, path, role in shown} == {
        (method.upper(), path): operation["x-required-role"]
        for path, item in paths.items()
        for method, operation in item.items()
        if path.startswith("/api/v1/suppressions")
    }


def test_numbers_are_those_of_the_code() -> None:
    assert f"adds up to {MAX_BATCH:,}" in PAGE
    assert f"Each {CHUNK_IDENTIFIERS:,} identifiers" in PAGE
    assert f"up to {MAX_REJECTS} rejected rows" in PAGE
    assert MAX_PARTS == 16
    assert "The seventeenth part" in PAGE
