"""`activation demo`: the main job end to end, and no trace of a person or a secret left."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from activation.cli.group import activation
from activation.demo.generator import Contents, write_export
from activation.local import LocalServer
from activation.settings import Settings
from activation.twins.catalog import OFFERS
from tests.e2e.scan import leaks

ROWS = 3_000
SAMPLED = 10
"""One of so many identifiers is looked for in every byte; of all, the marks they share."""


@dataclass(frozen=True)
class Told:
    """A demo that has run: its folder, what it printed, and what was in its file."""

    folder: Path
    text: str
    contents: Contents
    raw: list[str]
    """E-mail addresses and phone numbers as they stood in the file, and as bare digits."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    place = tmp_path_factory.mktemp("demo")
    folder = place / "store"
    result = CliRunner().invoke(activation, ["demo", f"--rows={ROWS}", "--data", str(folder)])
    assert result.exit_code == 0, result.output
    assert list(place.iterdir()) == [folder], "the made-up file is gone"
    path = place / "same.csv"
    contents = write_export(path, ROWS)
    return Told(folder, result.output, contents, raw_identifiers(path))


def raw_identifiers(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) > 2][1:]
    mails = {row[1].strip() for row in rows if "@" in row[1]}
    phones = {row[2] for row in rows if re.search(r"\d{4}", row[2])}
    digits = {re.sub(r"\D", "", phone).removeprefix("00") for phone in phones}
    return sorted(mails | phones | digits)


def test_tells_every_number(told: Told) -> None:
    flat = " ".join(told.text.split())
    contents = told.contents
    for name in ("received", "accepted", "duplicate", "rejected"):
        assert f"{name} {getattr(contents, name):,} " in flat
    assert "Every number is the one that the generator wrote." in flat
    assert f"members {contents.accepted:,} tier database partitions 16" in flat
    assert "removed 300 members in " in flat
    assert f"300 removed, 0 added, {contents.accepted - 300:,} kept" in flat
    assert re.search(rf"restored version \d+: {contents.accepted:,} members", flat)
    assert len(re.findall(r"✓ (?:Google Ads|Meta) [\d,]+ identifiers on both sides", flat)) == 4
    assert "300 members left the audience." in flat
    for name in ("Google Ads", "Meta"):
        found = re.search(rf"{name} completed ([\d,]+) ([\d,]+) 0 0 ", flat)
        assert found is not None
        assert found[1] == found[2]


def test_prints_plain_lines_without_a_terminal(told: Told) -> None:
    assert "\x1b" not in told.text
    assert "\r" not in told.text
    assert max(map(len, told.text.splitlines())) < 160


def test_no_raw_identifier_and_no_credential_is_left_in_any_byte(told: Told) -> None:
    secrets = [text for offer in OFFERS.values() for text in offer.credentials.values()]
    marks = ["@example", "@mail.example", "@gmail", "@googlemail", ".demo1", "-----BEGIN RSA"]
    some = told.raw[::SAMPLED]
    assert len(some) > 500
    assert leaks(told.folder, [*some, *secrets, *marks]) == []
    assert [text for text in [*told.raw, *secrets] if text in told.text] == []


def test_the_scan_finds_what_is_packed_away(tmp_path: Path) -> None:
    secret = "Ann@Example.com"
    (tmp_path / "a.gz").write_bytes(gzip.compress(secret.encode()))
    cells = pa.table({"x": [secret] * 3, "y": [secret.encode()] * 3})
    pq.write_table(cells, tmp_path / "b.parquet", compression="zstd")
    with pa.OSFile(str(tmp_path / "c.zst"), "wb") as file:
        pa.CompressedOutputStream(file, "zstd").write(secret.encode())
    connection = sqlite3.connect(tmp_path / "d.sqlite")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("INSERT INTO t VALUES (?)", (gzip.compress(secret.encode()),))
    connection.commit()
    connection.close()
    (tmp_path / "e").write_text("nothing")
    found = leaks(tmp_path, [secret.lower(), "absent"])
    assert [line[0] for line in found] == ["a", "b", "c", "d"]


def test_the_commands_it_ends_with_work(told: Told) -> None:
    line = next(x for x in told.text.splitlines() if "$(activation token" in x)
    command = shlex.split(line.partition("$(activation ")[2].rstrip(")"))
    token = CliRunner().invoke(activation, command).stdout.strip()
    paths = re.findall(r'"\$API(/[^"]+)"', told.text)
    settings = Settings(data_folder=str(told.folder), log_level="ERROR")
    with LocalServer(settings, port=0).running() as url:
        headers = {"Authorization": f"Bearer {token}"}
        answers = [httpx.get(f"{url}/api/v1{path}", headers=headers) for path in paths]
        assert httpx.get(f"{url}/docs").status_code == 200
    audience, members, distribution = (answer.json() for answer in answers)
    assert audience["size"] == told.contents.accepted - 300
    assert len(members["data"]) == 3
    assert distribution["status"] == "completed"


def json_of(*arguments: str) -> Any:
    result = CliRunner().invoke(activation, ["--json", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_takes_a_file_of_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(
        "email,phone\n" + "".join(f"p{n}@example.com,(212) 555-01{n:02d}\n" for n in range(20))
    )
    store = ("--data", str(tmp_path / "store"))
    told = json_of("demo", "--input", str(file), "--default-region", "US", *store)
    assert told["import"]["counts"]["accepted"] == 40
    assert [job["progress"]["sent"] for job in told["distributions"]] == [20, 20]
    assert file.exists()


def test_never_takes_the_place_of_another_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    json_of("audiences", "create", "Precious", "--data", str(store))
    result = CliRunner().invoke(activation, ["demo", "--rows=10", "--data", str(store)])
    assert result.exit_code == 3
    assert "something that no demo made" in result.stderr
    assert [a["name"] for a in json_of("audiences", "list", "--data", str(store))] == ["Precious"]


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from activation.cli import main
main()
"""
"""A shell that runs the tests in its background has switched Ctrl-C off; here it is on again."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_leaves_no_process_behind_when_it_is_stopped(how: signal.Signals, tmp_path: Path) -> None:
    command = (sys.executable, "-c", PROGRAM, "demo", "--rows=100000000", "--data")
    process = subprocess.Popen(
        (*command, str(tmp_path / "store")),
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # what a kill leaves there goes with the test
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if b"made-up export" in line:
                break
        twins = children_of(process.pid)
        assert len(twins) == 2
        process.send_signal(how)
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 60
    while any(map(is_alive, twins)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in twins if is_alive(pid)] == []
