"""The file drop: parts, manifest, and nothing outside its root."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from pathlib import Path
from typing import Any

import orjson
import pytest

from activation.adapters.connectors.file_drop import FileDrop, guarded, packed_csv
from activation.errors import PlatformError, PlatformTransientError, ValidationError
from activation.ports import Account, Connector
from tests.connectors.support import ADD, people, to

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


@pytest.mark.parametrize("changes", [{"batches": 2, "rows": 3}, {"batches": 1, "rows": 4}])
def test_an_incomplete_drop_gets_no_manifest(
    file_drop: Connector, tmp_path: Path, changes: dict[str, Any]
) -> None:
    delivery = to(ADD, "x", **changes)
    file_drop.send(ACCOUNT, delivery, 1, people(3))
    with pytest.raises(PlatformError):
        file_drop.finish(ACCOUNT, delivery)
    assert not (tmp_path / FOLDER / "_SUCCESS.json").exists()


@pytest.mark.parametrize(
    "value", ["=1+1", "+4930", "-1", "@x", "\t=1", "\r=1", "\uff1d1", "\uff20x"]
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
