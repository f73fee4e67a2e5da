"""The evidence page is true: its sections, its limits, and the programs it gives to outsiders."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from activation.adapters.connectors import masking
from activation.adapters.embedded.signing import LocalSigner
from activation.domain import exchange, match_rate
from activation.domain.rejects import REJECT_COLUMNS
from activation.members.set_digest import SetDigest
from activation.services.evidence import SECTIONS
from activation.services.evidence_form import canonical, signed

PAGE = (Path(__file__).parents[2] / "docs/evidence.md").read_text()
CHECK, DIGEST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_section_is_told() -> None:
    table = PAGE.partition("## What is in it")[2].partition("## Check it")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(SECTIONS)


def test_limits_are_those_of_the_code() -> None:
    assert f"the last {exchange.KEPT}" in PAGE
    assert f"one in {exchange.EVERY} after it" in PAGE
    assert f"above {masking.MAX_BODY_BYTES // 1024} KiB" in PAGE
    assert f"below {masking.MAX_NUMBER:,}" in PAGE
    assert f"all but {masking.MAX_ELEMENTS} elements" in PAGE
    assert f"the last {match_rate.KEPT} final match results" in PAGE
    assert (match_rate.COMPARED, match_rate.ENOUGH) == (5, 3)
    assert f"`{REJECT_COLUMNS.decode().strip()}`" in PAGE


def test_the_digest_of_the_page_is_ours() -> None:
    told: dict[str, Any] = {}
    exec(DIGEST, told)
    columns = {"email": ["aa", "bb", None], "customer_id": ["K1", None, "ü:1"]}
    pairs = [(kind, v) for kind, values in columns.items() for v in values if v is not None]
    assert told["digest"](reversed(pairs)) == SetDigest().with_columns(columns).value
    assert told["digest"]([]) == SetDigest().value


@pytest.mark.parametrize("altered", [False, True])
def test_outsiders_check_a_pack_with_python_and_openssl(tmp_path: Path, altered: bool) -> None:
    signer = LocalSigner(tmp_path / "keys" / "key.pem")
    sections = {"counts": {"sent": 2, "rate": 0.25}, "definition": {"name": "Käufer"}}
    pack = signed({"distribution_id": "d1"}, sections, signer)
    if altered:
        pack = pack.replace(canonical({"sent": 2})[1:-1], b'"sent":3')
    (tmp_path / "evidence.json").write_bytes(pack)
    (tmp_path / "evidence-key.pem").write_text(signer.public_key())
    (tmp_path / "check.py").write_text(CHECK)
    told = run(tmp_path, [sys.executable, "check.py", "evidence.json"])[1].decode()
    assert ("counts ALTERED" in told) is altered
    assert "definition as signed" in told
    if which("openssl") is None:
        pytest.skip("there is no openssl")
    [verify] = re.findall(r"^openssl dgst .*$", PAGE, re.MULTILINE)
    assert run(tmp_path, verify.split()) == (0, b"Verified OK\n")
    (tmp_path / "header.json").write_bytes((tmp_path / "header.json").read_bytes() + b" ")
    assert run(tmp_path, verify.split())[0] == 1
    [key] = re.findall(r"`(openssl pkey .*) \| sha256sum`", PAGE)
    der = run(tmp_path, key.split())[1]
    assert hashlib.sha256(der).hexdigest() in pack.decode()


def run(folder: Path, words: list[str]) -> tuple[int, bytes]:
    """Exit code and output of a command of the page."""
    done = subprocess.run(words, cwd=folder, capture_output=True, check=False)
    return done.returncode, done.stdout
