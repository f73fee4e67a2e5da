"""The signer on a key file under its contract, and what only the file promises."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from activation.adapters.embedded.signing import LocalSigner
from activation.app import App
from activation.errors import StorageUnavailableError
from tests.contracts.blobs import at_once
from tests.contracts.signer import DATA, Bench, SignerContract, verifies


@dataclass(frozen=True)
class FileKey:
    """The file behind a signer, and what may happen to it."""

    path: Path

    def replace(self) -> None:
        self.path.unlink()

    def break_down(self) -> None:
        content = self.path.read_bytes()
        self.path.write_bytes(content[: len(content) // 2])

    def secret(self) -> list[str]:
        return [line for line in self.path.read_text().splitlines() if "KEY" not in line]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "signing-key.pem"


class TestLocalSigner(SignerContract):
    """The contract."""

    @pytest.fixture
    def bench(self, path: Path) -> Bench:
        return Bench(LocalSigner(path), FileKey(path))


def test_the_key_file_is_for_its_owner_only(path: Path) -> None:
    assert LocalSigner(path).sign(DATA)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["signing-key.pem"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o777])
def test_a_key_file_open_to_others_is_refused(path: Path, mode: int) -> None:
    LocalSigner(path).sign(DATA)
    path.chmod(mode)
    with pytest.raises(StorageUnavailableError, match="0600"):
        LocalSigner(path).sign(DATA)
    with pytest.raises(StorageUnavailableError, match="0600"):
        LocalSigner(path).public_key()


def test_threads_that_start_together_share_one_key(path: Path) -> None:
    signatures: list[bytes] = []

    def sign(_: int) -> bool:
        signatures.append(LocalSigner(path).sign(DATA))
        return True

    at_once(8, sign)
    public_key = LocalSigner(path).public_key()
    assert [verifies(public_key, one, DATA) for one in signatures] == [True] * 8


@pytest.mark.parametrize("kind", ["P-384", "Ed25519", "a public key"])
def test_a_key_of_another_kind_is_damage(path: Path, kind: str) -> None:
    signer = LocalSigner(path)
    public = signer.public_key().encode()
    others = {
        "P-384": _private(ec.generate_private_key(ec.SECP384R1())),
        "Ed25519": _private(ed25519.Ed25519PrivateKey.generate()),
        "a public key": public,
    }
    path.write_bytes(others[kind])
    with pytest.raises(StorageUnavailableError, match="damaged"):
        signer.sign(DATA)


def test_the_key_has_nothing_to_do_with_the_one_that_wraps(app: App) -> None:
    app.vault.ping()
    before = app.settings.data_path / "keys.json"
    wrapping = before.read_bytes()
    app.signer.sign(DATA)
    first = app.signer.public_key()
    assert before.read_bytes() == wrapping
    (app.settings.data_path / "signing-key.pem").unlink()
    assert app.signer.public_key() != first, "it is drawn, not derived"


def _private(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
