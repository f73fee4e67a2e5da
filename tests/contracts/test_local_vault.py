"""The vault on a key file under its contract, and what only the file promises."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from activation.adapters.embedded.keys import LocalKeys
from activation.adapters.envelope import EnvelopeVault
from activation.errors import CredentialUnreadableError, StorageUnavailableError
from tests.contracts.blobs import at_once
from tests.contracts.vault import CONTEXT, SECRET, Bench, VaultContract

WRAPS = """
import sys
from pathlib import Path
from activation.adapters.embedded.keys import LocalKeys
print(LocalKeys(Path(sys.argv[1])).wrap(bytes(32), b"aad")[0].hex())
"""


@dataclass(frozen=True)
class FileKeys:
    """Keys behind the vault, and what may happen to their file."""

    path: Path

    def rotate(self) -> None:
        LocalKeys(self.path).rotate()

    def lose_first_version(self) -> None:
        content = json.loads(self.path.read_text())
        del content["keys"]["1"]
        self.path.write_text(json.dumps(content))

    def break_down(self) -> None:
        self.path.write_text("{")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "vault.json"


class TestLocalVault(VaultContract):
    """The contract."""

    @pytest.fixture
    def bench(self, path: Path) -> Bench:
        return Bench(EnvelopeVault(LocalKeys(path)), FileKeys(path))


def test_the_key_file_is_for_its_owner_only(path: Path) -> None:
    LocalKeys(path).ping()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["vault.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_a_key_file_open_to_others_is_refused(path: Path, mode: int) -> None:
    vault = EnvelopeVault(LocalKeys(path))
    sealed = vault.seal(SECRET, CONTEXT)
    path.chmod(mode)
    with pytest.raises(StorageUnavailableError, match="0600"):
        vault.open(sealed, CONTEXT)
    with pytest.raises(StorageUnavailableError, match="0600"):
        vault.seal(SECRET, CONTEXT)
    path.chmod(0o600)
    assert vault.open(sealed, CONTEXT) == SECRET


def test_processes_that_start_together_share_one_key(path: Path) -> None:
    command = [sys.executable, "-c", WRAPS, str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    wrapped = [process.communicate()[0].strip() for process in running]
    assert all(process.returncode == 0 for process in running)
    for text in wrapped:
        assert LocalKeys(path).unwrap(bytes.fromhex(text), b"aad") == bytes(32)


def test_threads_that_start_together_share_one_key(path: Path) -> None:
    wrapped: list[bytes] = []

    def wrap(_: int) -> bool:
        wrapped.append(LocalKeys(path).wrap(b"k" * 32, b"aad")[0])
        return True

    at_once(8, wrap)
    assert [LocalKeys(path).unwrap(each, b"aad") for each in wrapped] == [b"k" * 32] * 8


def test_rotations_that_start_together_all_count(path: Path) -> None:
    wrapped = LocalKeys(path).wrap(b"k" * 32, b"")[0]
    at_once(8, lambda _: bool(LocalKeys(path).rotate()))
    assert LocalKeys(path).rotate() == "10"
    assert LocalKeys(path).unwrap(wrapped, b"") == b"k" * 32


def test_a_lost_key_file_is_not_replaced_when_opening(path: Path) -> None:
    vault = EnvelopeVault(LocalKeys(path))
    sealed = vault.seal(SECRET, CONTEXT)
    path.unlink()
    with pytest.raises(CredentialUnreadableError):
        vault.open(sealed, CONTEXT)
    assert not path.exists()


def test_a_damaged_key_file_shows_nothing(path: Path) -> None:
    LocalKeys(path).ping()
    text = path.read_text()
    key = json.loads(text)["keys"]["1"]
    path.write_text(text[:-1])
    with pytest.raises(StorageUnavailableError) as caught:
        LocalKeys(path).ping()
    assert key not in repr(caught.value)
    assert len(base64.b64decode(key)) == 32
    assert key not in repr(LocalKeys(path))


def test_a_key_file_that_cannot_be_made_is_a_store_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailableError):
        LocalKeys(tmp_path / "file" / "keys.json").wrap(bytes(32), b"")


def test_derived_keys_outlive_a_rotation_and_differ_by_purpose(path: Path) -> None:
    derived = LocalKeys(path).derived("uploads")
    LocalKeys(path).rotate()
    assert LocalKeys(path).derived("uploads") == derived
    assert len(derived) == 32
    assert LocalKeys(path).derived("other") != derived
