"""`activation evidence`, `evidence-key`, `verify`, and what the commands tell of a distribution."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from activation.adapters.clock import SystemClock
from activation.services.evidence_form import canonical, signed
from activation.twins.catalog import OFFERS
from activation.twins.facebook import FacebookTwin
from activation.twins.server import serve
from tests.cli.conftest import Program
from tests.services.forger import Forger

PEOPLE = 120
PLATFORM = "Meta, Germany"


@pytest.fixture(autouse=True)
def _local_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIVATION_ALLOW_PRIVATE_HOSTS", "true")
    monkeypatch.setenv("ACTIVATION_MATCH_POLL_SECONDS", "0.1")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    running = serve({"facebook": FacebookTwin(SystemClock(), match_delay_seconds=0)})
    yield running.url_of("facebook")
    running.close()


@pytest.fixture
def job(program: Program, address: str, tmp_path: Path) -> dict[str, Any]:
    """A distribution that is done, with its matches."""
    file = tmp_path / "people.csv"
    file.write_text("email\n" + "".join(f"p{n}@example.com\n" for n in range(PEOPLE)))
    program.ok("import", str(file), "--audience", "Buyers", "--create")
    settings = ("--setting", "ad_account_id=1001", "--setting", f"api_url={address}")
    add = ("platforms", "add", PLATFORM, "--type", "facebook", *settings)
    program.ok(
        *add, "--credentials-file", "-", stdin=json.dumps(dict(OFFERS["facebook"].credentials))
    )
    done: dict[str, Any] = program.json("distribute", "Buyers", PLATFORM, "--matches")
    return done


@pytest.fixture
def nowhere(tmp_path: Path) -> Program:
    """The program without a store."""
    return Program(tmp_path / "no-store")


def test_the_whole_way_from_a_store_to_an_auditor(
    program: Program, job: dict[str, Any], nowhere: Program, tmp_path: Path
) -> None:
    pack, key = tmp_path / "evidence.json", tmp_path / "key.pem"
    assert str(pack) in program.ok("evidence", job["distribution_id"], "-o", str(pack))
    assert str(key) in program.ok("evidence-key", "-o", str(key))
    assert key.read_text().startswith("-----BEGIN PUBLIC KEY-----")

    said = nowhere.ok("verify", str(pack), "--public-key", str(key))
    assert said.startswith("Valid")
    assert job["distribution_id"] in said
    assert "anybody" not in said
    assert not nowhere.folder.exists()

    alone = nowhere.ok("verify", str(pack))
    assert "anybody can sign with a key of his own" in alone
    shown = nowhere.json("verify", str(pack))
    assert (shown["valid"], shown["key_trusted"], shown["altered"]) == (True, False, [])
    fingerprint = program.json("evidence-key")["public_key_sha256"]
    assert fingerprint == shown["header"]["signer"]["public_key_sha256"]
    assert fingerprint in alone


def test_a_pack_goes_to_standard_output_too(program: Program, job: dict[str, Any]) -> None:
    pack = program.ok("evidence", job["distribution_id"])
    assert orjson.loads(pack)["sections"]["counts"]["sent"] == PEOPLE
    assert program.ok("verify", "-", stdin=pack).startswith("Valid")


def test_what_was_altered_is_named(
    program: Program, job: dict[str, Any], nowhere: Program, tmp_path: Path
) -> None:
    pack, key = tmp_path / "evidence.json", tmp_path / "key.pem"
    program.ok("evidence", job["distribution_id"], "-o", str(pack))
    program.ok("evidence-key", "-o", str(key))
    whole = pack.read_bytes()
    parsed = orjson.loads(whole)
    parsed["sections"]["counts"]["sent"] -= 1
    pack.write_bytes(canonical(parsed))
    assert "section 'counts' was altered" in nowhere.fails(1, "verify", str(pack))
    told = json.loads(nowhere("--json", "verify", str(pack)).stdout)
    assert (told["valid"], told["altered"], told["header"]) == (False, ["section:counts"], None)

    pack.write_bytes(whole[:-40])
    assert "part of it is missing" in nowhere.fails(1, "verify", str(pack))
    pack.write_bytes(json.dumps(json.loads(whole), indent=1).encode())
    assert "bytes are not those" in nowhere.fails(1, "verify", str(pack))
    pack.write_bytes(signed(parsed["header"], parsed["sections"], Forger("x")))
    assert nowhere.ok("verify", str(pack)).startswith("Valid")
    assert "another key" in nowhere.fails(1, "verify", str(pack), "--public-key", str(key))


def test_wrong_files_are_wrong_usage_or_refused(nowhere: Program, tmp_path: Path) -> None:
    assert "No such file" in nowhere.fails(2, "verify", str(tmp_path / "none.json"))
    (tmp_path / "key.pem").write_bytes(b"\xff\x00")
    (tmp_path / "pack.json").write_text("{}")
    words = ("verify", str(tmp_path / "pack.json"), "--public-key", str(tmp_path / "key.pem"))
    assert "no PEM text" in nowhere.fails(3, *words)


def test_a_pack_of_a_stranger_does_not_speak_to_the_terminal(
    nowhere: Program, tmp_path: Path
) -> None:
    head = {"distribution_id": "\x1b[2J[bold]x", "status": 7}
    pack = signed(head, {"counts": {}}, Forger("[/red]\x1b]0;x"))
    (tmp_path / "pack.json").write_bytes(pack)
    said = nowhere.ok("verify", str(tmp_path / "pack.json"))
    assert "\x1b" not in said
    assert "[bold]x" in said
    evil = orjson.loads(pack)
    evil["sections"]["[/red]\x1b[2J"] = 1
    (tmp_path / "pack.json").write_bytes(canonical(evil))
    result = nowhere("verify", str(tmp_path / "pack.json"))
    assert result.exit_code == 1
    assert "\x1b" not in result.output


def test_history_requests_rates_and_rejects_of_an_audience(
    program: Program, job: dict[str, Any], tmp_path: Path
) -> None:
    program.ok("audiences", "create", "Others")
    assert program.json("distributions", "list", "--audience", "Others") == []
    [listed] = program.json("distributions", "list", "--audience", "Buyers")
    assert listed["distribution_id"] == job["distribution_id"]
    assert "no audience 'Nobody'" in program.fails(
        3, "distributions", "list", "--audience", "Nobody"
    )

    shown = program.ok("distributions", "requests", job["distribution_id"])
    assert "/users" in shown
    assert "OK" in shown
    requests = program.json("distributions", "requests", job["distribution_id"])
    assert any(one["batch"] == "1" for one in requests)
    assert "p1@example.com" not in json.dumps(requests)

    rates = program.json("platforms", "match-rates", PLATFORM, "--audience", "Buyers")
    [point] = rates[0]["points"]
    assert point["match_rate"] == job["match_results"]["match_rate"]
    assert "Buyers" in program.ok("platforms", "match-rates", PLATFORM)

    assert program.ok("distributions", "rejects", job["distribution_id"]).splitlines() == [
        "batch,operation,row,reason,retriable,rows"
    ]
    target = tmp_path / "rejects.csv"
    program.ok("distributions", "rejects", job["distribution_id"], "-o", str(target))
    assert target.read_text().startswith("batch,operation,row")
