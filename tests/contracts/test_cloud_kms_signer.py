"""The signer on Cloud KMS under its contract, through the real client and a server of our own."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from activation.adapters.gcp.signing import CloudKmsSigner
from activation.errors import InvalidStateError, StorageUnavailableError
from tests.contracts.signer import DATA, Bench, SignerContract, verifies
from tests.wire.cloud_kms import SIGNING_KEY, CloudKmsServer, KmsFault
from tests.wire.fixtures import KmsServer

METHODS = ("AsymmetricSign", "GetPublicKey")


@dataclass(frozen=True)
class CloudKey:
    """The key behind the signer, and what may happen to it."""

    server: CloudKmsServer

    def replace(self) -> None:
        self.server.signing_key = ec.generate_private_key(ec.SECP256R1())

    def break_down(self) -> None:
        code = grpc.StatusCode.UNAVAILABLE
        self.server.faults += [KmsFault(method, code, times=None) for method in METHODS]

    def secret(self) -> list[str]:
        return [str(self.server.signing_key.private_numbers().private_value)]


@pytest.fixture
def cloud(kms_server: KmsServer) -> CloudKmsSigner:
    limits = {"call_seconds": 2.0, "patience_seconds": 0.6}
    return CloudKmsSigner(SIGNING_KEY, client=kms_server.client, **limits)


class TestCloudKmsSigner(SignerContract):
    """The contract."""

    @pytest.fixture
    def bench(self, kms_server: KmsServer, cloud: CloudKmsSigner) -> Bench:
        return Bench(cloud, CloudKey(kms_server.server))


def test_a_pack_costs_one_call_and_the_public_key_one_more(
    kms_server: KmsServer, cloud: CloudKmsSigner
) -> None:
    for _ in range(3):
        assert verifies(cloud.public_key(), cloud.sign(DATA), DATA)
    assert kms_server.server.asked == {"AsymmetricSign": 3, "GetPublicKey": 1}


def test_garbled_answers_are_never_believed(kms_server: KmsServer, cloud: CloudKmsSigner) -> None:
    kms_server.server.garble = True
    with pytest.raises(StorageUnavailableError, match="misheard"):
        cloud.sign(DATA)
    with pytest.raises(StorageUnavailableError, match="misheard"):
        cloud.public_key()


def test_a_short_outage_is_waited_for(kms_server: KmsServer, cloud: CloudKmsSigner) -> None:
    kms_server.server.faults.append(
        KmsFault("AsymmetricSign", grpc.StatusCode.UNAVAILABLE, times=2)
    )
    assert verifies(cloud.public_key(), cloud.sign(DATA), DATA)
    assert kms_server.server.asked["AsymmetricSign"] == 3


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "NOT_FOUND", "FAILED_PRECONDITION"])
def test_a_key_out_of_reach_can_be_tried_again(
    kms_server: KmsServer, cloud: CloudKmsSigner, code: str
) -> None:
    kms_server.server.faults.append(KmsFault("AsymmetricSign", grpc.StatusCode[code]))
    with pytest.raises(StorageUnavailableError):
        cloud.sign(DATA)
    assert cloud.sign(DATA)


def test_a_key_of_another_kind_is_refused(kms_server: KmsServer, cloud: CloudKmsSigner) -> None:
    kms_server.server.signing_algorithm = "EC_SIGN_P384_SHA384"
    with pytest.raises(StorageUnavailableError, match="EC_SIGN_P256_SHA256"):
        cloud.public_key()


def test_without_a_key_the_setting_is_named(kms_server: KmsServer) -> None:
    signer = CloudKmsSigner("", client=kms_server.client)
    for act in (lambda: signer.key_id, lambda: signer.sign(DATA), signer.public_key):
        with pytest.raises(InvalidStateError, match="ACTIVATION_SIGNING_KEY"):
            act()
