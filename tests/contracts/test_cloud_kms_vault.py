"""The vault on Cloud KMS under its contract, through the real client and a server of our own."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import pytest

from activation.adapters.envelope import EnvelopeVault
from activation.adapters.gcp.keys import CloudKmsKeys
from activation.errors import CredentialUnreadableError, StorageUnavailableError
from tests.contracts.vault import CONTEXT, SECRET, Bench, VaultContract
from tests.wire.cloud_kms import DESTROYED, DISABLED, ENABLED, KEY_NAME, CloudKmsServer, KmsFault
from tests.wire.fixtures import KmsServer

METHODS = ("Encrypt", "Decrypt", "GetCryptoKey")


@dataclass(frozen=True)
class CloudKeys:
    """The key behind the vault, and what may happen to it."""

    server: CloudKmsServer

    def rotate(self) -> None:
        self.server.rotate()

    def lose_first_version(self) -> None:
        self.server.set_state(1, DESTROYED)

    def break_down(self) -> None:
        code = grpc.StatusCode.UNAVAILABLE
        self.server.faults += [KmsFault(method, code, times=None) for method in METHODS]


@pytest.fixture
def keys(kms_server: KmsServer) -> CloudKmsKeys:
    return CloudKmsKeys(KEY_NAME, client=kms_server.client, call_seconds=2, patience_seconds=0.6)


@pytest.fixture
def vault(keys: CloudKmsKeys) -> EnvelopeVault:
    return EnvelopeVault(keys)


class TestCloudKmsVault(VaultContract):
    """The contract."""

    @pytest.fixture
    def bench(self, kms_server: KmsServer, keys: CloudKmsKeys) -> Bench:
        return Bench(EnvelopeVault(keys), CloudKeys(kms_server.server))


def test_a_disabled_version_opens_again_when_it_is_enabled(
    kms_server: KmsServer, vault: EnvelopeVault
) -> None:
    sealed = vault.seal(SECRET, CONTEXT)
    kms_server.server.set_state(1, DISABLED)
    with pytest.raises(CredentialUnreadableError):
        vault.open(sealed, CONTEXT)
    with pytest.raises(StorageUnavailableError):
        vault.seal(SECRET, CONTEXT)
    kms_server.server.set_state(1, ENABLED)
    assert vault.open(sealed, CONTEXT) == SECRET


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "NOT_FOUND", "FAILED_PRECONDITION"])
def test_a_key_out_of_reach_makes_a_secret_unreadable(
    kms_server: KmsServer, vault: EnvelopeVault, code: str
) -> None:
    sealed = vault.seal(SECRET, CONTEXT)
    kms_server.server.faults.append(KmsFault("Decrypt", grpc.StatusCode[code]))
    with pytest.raises(CredentialUnreadableError):
        vault.open(sealed, CONTEXT)
    assert vault.open(sealed, CONTEXT) == SECRET


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "NOT_FOUND", "RESOURCE_EXHAUSTED"])
def test_sealing_with_a_key_out_of_reach_can_be_tried_again(
    kms_server: KmsServer, vault: EnvelopeVault, code: str
) -> None:
    kms_server.server.faults.append(KmsFault("Encrypt", grpc.StatusCode[code]))
    with pytest.raises(StorageUnavailableError):
        vault.seal(SECRET, CONTEXT)


def test_a_short_outage_is_waited_for(kms_server: KmsServer, vault: EnvelopeVault) -> None:
    fault = KmsFault("Encrypt", grpc.StatusCode.UNAVAILABLE, times=2)
    kms_server.server.faults.append(fault)
    assert vault.open(vault.seal(SECRET, CONTEXT), CONTEXT) == SECRET
    assert kms_server.server.asked["Encrypt"] == 3


def test_garbled_answers_are_never_believed(kms_server: KmsServer, vault: EnvelopeVault) -> None:
    sealed = vault.seal(SECRET, CONTEXT)
    kms_server.server.garble = True
    with pytest.raises(StorageUnavailableError, match="misheard"):
        vault.seal(SECRET, CONTEXT)
    with pytest.raises(StorageUnavailableError, match="misheard"):
        vault.open(sealed, CONTEXT)


def test_a_refusal_to_show_the_key_is_an_answer(
    kms_server: KmsServer, vault: EnvelopeVault
) -> None:
    denied = grpc.StatusCode.PERMISSION_DENIED
    kms_server.server.faults.append(KmsFault("GetCryptoKey", denied))
    vault.ping()


def test_an_unknown_key_does_not_answer(kms_server: KmsServer) -> None:
    keys = CloudKmsKeys(KEY_NAME + "-other", client=kms_server.client)
    with pytest.raises(StorageUnavailableError):
        keys.ping()
    with pytest.raises(CredentialUnreadableError):
        keys.unwrap(b"wrapped", b"")


def test_a_secret_costs_one_call(kms_server: KmsServer, vault: EnvelopeVault) -> None:
    vault.open(vault.seal(SECRET, CONTEXT), CONTEXT)
    assert kms_server.server.asked == {"Encrypt": 1, "Decrypt": 1}
