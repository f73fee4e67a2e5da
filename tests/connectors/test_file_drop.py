"""The file drop: parts, manifest, and nothing outside its root."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from activation.adapters.connectors.drop_files import guarded, packed_csv, replayed
from activation.adapters.connectors.file_drop import FileDrop
from activation.domain.delivery import Delivery
from activation.errors import PlatformError, PlatformTransientError, ValidationError
from activation.ports import Account, Connector
from tests.connectors.support import ADD, Columns, members_of, people, to

ACCOUNT = Account("platform-1", {"folder": "crm/out"}, {})
FOLDER = f"drops/platform-1/crm/out/{ADD.external_id}/{ADD.distribution_id}/add"


def rows_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_parts_and_a_manifest_that_names_them(file_drop: Connector, tmp_path: Path) -> None:
    delivery = to(ADD, file_drop.create_audience(ACCOUNT, ADD), batches=2, rows=5)
    first, second = people(3), people(2, start=3)
    file_drop.send(ACCOUNT, delivery, 1, first)
    file_drop.send(ACCOUNT, delivery, 2, second)
    folder = tmp_path / FOLDER
    assert not (folder / "_SUCCESS.json").exists()
    file_drop.finish(ACCOUNT, delivery)
    manifest = orjson.loads((folder / "_SUCCESS.json").read_bytes())
    parts = [folder / part["name"] for part in manifest["parts"]]
    assert [p.name for p in parts] == ["part-00001.csv.gz", "part-00002.csv.gz"]
    assert manifest["rows"] == 5
    for part, path in zip(manifest["parts"], parts, strict=True):
        content = path.read_bytes()
        assert part["sha256"] == hashlib.sha256(content).hexdigest()
        assert part["bytes"] == len(content)
    assert rows_of(parts[0])[1] == {"email": first["email"][1], "phone": first["phone"][1]}
    assert rows_of(parts[0])[0]["phone"] == ""


def test_a_repeat_writes_the_same_bytes_and_leaves_nothing_else(
    file_drop: Connector, tmp_path: Path
) -> None:
    delivery = to(ADD, "x", batches=1, rows=3)
    contents = []
    for _ in range(2):
        file_drop.send(ACCOUNT, delivery, 1, people(3))
        file_drop.finish(ACCOUNT, delivery)
        files = sorted((tmp_path / FOLDER).iterdir())
        contents.append({file.name: file.read_bytes() for file in files})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2


@pytest.mark.parametrize("changes", [{"batches": 2, "rows": 5}, {"batches": 1, "rows": 4}])
def test_an_incomplete_drop_gets_no_manifest(
    file_drop: Connector, tmp_path: Path, changes: dict[str, Any]
) -> None:
    delivery = to(ADD, "x", **changes)
    file_drop.send(ACCOUNT, delivery, 1, people(3))
    with pytest.raises(PlatformError):
        file_drop.finish(ACCOUNT, delivery)
    assert not (tmp_path / FOLDER / "_SUCCESS.json").exists()


@pytest.mark.parametrize(
    "value", ["=1+1", "'=1", "'x", "+4930", "-1", "@x", "\t=1", "\r=1", "\uff1d1", "\uff20x"]
)
def test_a_formula_becomes_text(value: str) -> None:
    packed = packed_csv({"customer_id": [value]})
    read = list(csv.reader(io.StringIO(gzip.decompress(packed).decode(), newline="")))
    assert read == [["customer_id"], [f"'{value}"]]
    assert guarded("plain-1") == "plain-1"


@pytest.mark.parametrize("folder", ["../x", "/etc", "a/../../b", "a//b", "~", "a/./b", "a\\b"])
def test_a_folder_cannot_lead_out(file_drop: Connector, folder: str) -> None:
    account = Account("platform-1", {"folder": folder}, {})
    with pytest.raises(ValidationError):
        file_drop.check(account)


def test_a_link_cannot_lead_out(file_drop: Connector, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "drops" / "platform-1").mkdir(parents=True)
    (tmp_path / "drops" / "platform-1" / "crm").symlink_to(outside)
    with pytest.raises(PlatformError) as caught:
        file_drop.send(ACCOUNT, to(ADD, "x"), 1, people(1))
    assert caught.value.reason == "path_refused"


def test_without_a_root_there_are_no_drops() -> None:
    with pytest.raises(PlatformError) as caught:
        FileDrop(None).check(ACCOUNT)
    assert caught.value.reason == "not_configured"


def test_a_folder_that_is_in_the_way_is_tried_again_later(tmp_path: Path) -> None:
    (tmp_path / "drops").write_text("a file")
    with pytest.raises(PlatformTransientError):
        FileDrop(tmp_path / "drops").check(ACCOUNT)


# Listing ----------------------------------------------------------------------------------------

HOUR = timedelta(hours=1)
START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
OTHERS: Columns = {"customer_id": ["=1+1", "'=1", "'x", "-7", "b"], "maid": [None, "M", *"ijk"]}


def drop(file_drop: Connector, number: int, operation: str, columns: Columns) -> Delivery:
    """One complete drop in two parts; later ids have earlier starts."""
    rows = len(next(iter(columns.values())))
    delivery = to(
        ADD,
        ADD.external_id,
        distribution_id=f"d{9 - number}",
        operation=operation,
        started_at=START + number * HOUR,
        batches=2,
        rows=rows,
    )
    for seq, part in ((1, slice(0, 1)), (2, slice(1, None))):
        chosen = {kind: values[part] for kind, values in columns.items()}
        file_drop.send(ACCOUNT, delivery, seq, chosen)
    file_drop.finish(ACCOUNT, delivery)
    return delivery


def test_drops_are_read_again_in_the_order_they_were_sent(
    file_drop: Connector, tmp_path: Path
) -> None:
    assert file_drop.spec.lists_members
    assert list(file_drop.listing(ACCOUNT, ADD)) == []
    drop(file_drop, 1, "add", people(20))
    drop(file_drop, 2, "remove", people(10))
    drop(file_drop, 3, "add", people(4))
    drop(file_drop, 3, "remove", people(2, start=3))
    drop(file_drop, 4, "add", OTHERS)
    file_drop.send(ACCOUNT, to(ADD, "x", distribution_id="open"), 1, people(5, start=90))
    expected = members_of(people(4), people(10, start=10), OTHERS)
    assert sorted(file_drop.listing(ACCOUNT, ADD)) == expected
    another = dataclasses.replace(ADD, external_id="aa-another")
    assert list(file_drop.listing(ACCOUNT, another)) == []
    folder = tmp_path / "drops/platform-1/crm/out" / ADD.external_id
    spread = list(replayed(folder, "_SUCCESS.json", max_held=7))
    assert sorted(spread) == expected


@pytest.mark.parametrize("damage", ["lost", "changed", "manifest", "link"])
def test_damaged_drops_are_not_listed(file_drop: Connector, tmp_path: Path, damage: str) -> None:
    drop(file_drop, 8, "add", people(5))
    folder = tmp_path / "drops/platform-1/crm/out" / ADD.external_id / "d1" / "add"
    part, manifest = folder / "part-00002.csv.gz", folder / "_SUCCESS.json"
    if damage == "lost":
        part.unlink()
    elif damage == "changed":
        part.write_bytes(packed_csv(people(4)))
    elif damage == "manifest":
        manifest.write_bytes(manifest.read_bytes()[:-9])
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PlatformError) as caught:
        list(file_drop.listing(ACCOUNT, ADD))
    assert caught.value.reason == "damaged_drop"
