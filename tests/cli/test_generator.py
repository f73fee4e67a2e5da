"""The demo's file: deterministic, and its stated contents are those that a slow reader counts."""

from __future__ import annotations

import csv
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from activation.demo.generator import Contents, write_export
from activation.domain.identifier import (
    GOOGLE_DOMAINS,
    IdentifierType,
    folded,
    lacks_region,
    normalised,
)
from activation.errors import ValidationError

ROWS = 4_000
COLUMNS = {
    "E-Mail": IdentifierType.EMAIL,
    "Mobile Phone": IdentifierType.PHONE,
}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents]:
    path = tmp_path_factory.mktemp("export") / "crm.csv"
    return path, write_export(path, ROWS)


def records(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


class SlowCount:
    """Row by row, value by value, with the scalar rules."""

    def __init__(self, lines: list[list[str]]) -> None:
        self.members: set[tuple[str, str]] = set()
        self.rejected: Counter[str] = Counter()
        self.received = self.national = 0
        self.header = lines[0]
        for line in lines[1:]:
            self.row(line)

    def row(self, line: list[str]) -> None:
        if len(line) != len(self.header):
            return self.reject("wrong_column_count")
        given = {COLUMNS[n]: v for n, v in zip(self.header, line, strict=True) if n in COLUMNS}
        filled = {kind: value for kind, value in given.items() if value.strip()}
        if not filled:
            return self.reject("no_identifier")
        for kind, value in filled.items():
            self.value(kind, value)
        return None

    def value(self, kind: IdentifierType, value: str) -> None:
        stored = normalised(kind, value, "DE")
        if stored is None:
            return self.reject(f"invalid_{kind}")
        self.received += 1
        self.national += kind is IdentifierType.PHONE and lacks_region(value)
        return self.members.add((kind, stored))

    def reject(self, reason: str) -> None:
        self.received += 1
        self.rejected[reason] += 1


def test_says_exactly_what_is_in_the_file(export: tuple[Path, Contents]) -> None:
    path, contents = export
    lines = records(path)
    slow = SlowCount(lines)
    assert len(lines) == contents.rows + 1 == ROWS + 1
    assert contents.rejected_by_reason == dict(slow.rejected)
    assert contents.accepted == len(slow.members)
    assert contents.accepted_by_type == dict(Counter(kind for kind, _ in slow.members))
    assert contents.received == slow.received
    assert contents.received == contents.accepted + contents.duplicate + contents.rejected
    assert contents.national_phones == slow.national


def test_every_kind_of_trouble_occurs(export: tuple[Path, Contents]) -> None:
    path, contents = export
    text = path.read_text(encoding="utf-8")
    assert len(contents.rejected_by_reason) == 4
    assert contents.duplicate > ROWS * 0.03
    assert contents.people == pytest.approx(ROWS * 0.97, rel=0.02)
    for part in (
        "美咲",
        "Jürgen",
        '"Köln\nDeutz"',
        '"Frankfurt, Main"',
        '"Otto ""Otti"""',
        "+shop",
    ):
        assert part in text
    for part in ("+49 151 ", "0044", "+1 (55", ",0151/", "@@", " at ", "ask reception"):
        assert part in text


def test_a_tagged_google_mailbox_folds_to_the_first_spelling(
    export: tuple[Path, Contents],
) -> None:
    mails = [line[1] for line in records(export[0])[1:] if len(line) > 2]
    plain = {m for m in (normalised(IdentifierType.EMAIL, mail) for mail in mails) if m}
    tagged = {mail for mail in plain if "+shop" in mail}
    others = {folded(mail, GOOGLE_DOMAINS) for mail in plain - tagged}
    assert tagged
    assert all(folded(mail, GOOGLE_DOMAINS) in others for mail in tagged)


def test_the_same_seed_gives_the_same_bytes_in_blocks_of_any_size(
    export: tuple[Path, Contents], tmp_path: Path
) -> None:
    path, contents = export
    again = tmp_path / "again.csv"
    assert write_export(again, ROWS, block_rows=777) == contents
    assert again.read_bytes() == path.read_bytes()


def test_another_seed_gives_other_rows(export: tuple[Path, Contents], tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    write_export(other, ROWS, seed=7)
    assert other.read_bytes() != export[0].read_bytes()


def test_a_shorter_file_is_the_beginning_of_a_longer_one(
    export: tuple[Path, Contents], tmp_path: Path
) -> None:
    short = tmp_path / "short.csv"
    write_export(short, 500)
    assert export[0].read_bytes().startswith(short.read_bytes())


def test_reports_its_progress(tmp_path: Path) -> None:
    heard: list[int] = []
    write_export(tmp_path / "crm.csv", 250, block_rows=100, on_rows=heard.append)
    assert heard == [100, 100, 50]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        tracemalloc.start()
        write_export(tmp_path / f"{rows}.csv", rows, block_rows=1_000)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1_000)  # imports
    assert peak(20_000) < 2 * peak(2_000)


@pytest.mark.parametrize("rows", [0, -1, 100_000_001])
def test_refuses_a_number_of_rows_that_it_cannot_make(tmp_path: Path, rows: int) -> None:
    with pytest.raises(ValidationError, match="1 to 100,000,000 rows"):
        write_export(tmp_path / "crm.csv", rows)
