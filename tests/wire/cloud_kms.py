"""A Cloud KMS server for the real gRPC client: a symmetric key with its versions, a signing key,
associated data, faults.

The client library ships messages but no server stub, so its messages are registered by hand.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from google.cloud.kms_v1.types import resources, service
from google_crc32c import value as crc32c

SERVICE = "google.cloud.kms.v1.KeyManagementService"
KEY_NAME = "projects/tests/locations/europe/keyRings/ring/cryptoKeys/credentials"
SIGNING_KEY = "projects/tests/locations/europe/keyRings/ring/cryptoKeys/signing/cryptoKeyVersions/1"
MOST_BYTES = 64 * 1024
HEAD_BYTES, NONCE_BYTES = 4, 12

ENABLED, DISABLED, DESTROYED = "ENABLED", "DISABLED", "DESTROYED"


class AbortedError(Exception):
    """An answer with an error code."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass
class Version:
    """One version of the key."""

    material: bytes
    state: str = ENABLED


@dataclass
class KmsFault:
    """`code` is answered to the next `times` calls of `method`; None is for ever."""

    method: str
    code: grpc.StatusCode
    times: int | None = 1


@dataclass
class CloudKmsServer:
    """One key with its versions, numbered from 1; the last one is primary."""

    versions: list[Version] = field(default_factory=lambda: [Version(os.urandom(32))])
    faults: list[KmsFault] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    signing_key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    signing_algorithm: str = "EC_SIGN_P256_SHA256"
    garble: bool = False
    """Damage what is answered from now on, as a faulty network would."""

    def rotate(self) -> None:
        """Add a version that becomes primary."""
        self.versions.append(Version(os.urandom(32)))

    def set_state(self, number: int, state: str) -> None:
        """Enable, disable or destroy a version."""
        self.versions[number - 1].state = state

    def encrypt(self, request: Any) -> Any:
        """Encrypt with the primary version."""
        plaintext, aad = request.plaintext, request.additional_authenticated_data
        self._require_key(request.name)
        _require_checksum(plaintext, request.plaintext_crc32c)
        _require_checksum(aad, request.additional_authenticated_data_crc32c)
        number = len(self.versions)
        head, nonce = number.to_bytes(HEAD_BYTES, "big"), os.urandom(NONCE_BYTES)
        sealed = AESGCM(self._material(number)).encrypt(nonce, plaintext, aad)
        ciphertext = head + nonce + sealed
        return service.EncryptResponse(
            name=f"{KEY_NAME}/cryptoKeyVersions/{number}",
            ciphertext=self._sent(ciphertext),
            ciphertext_crc32c=crc32c(ciphertext),
            verified_plaintext_crc32c=True,
            verified_additional_authenticated_data_crc32c=True,
        )

    def decrypt(self, request: Any) -> Any:
        """Decrypt with the version that encrypted."""
        ciphertext, aad = request.ciphertext, request.additional_authenticated_data
        self._require_key(request.name)
        _require_checksum(ciphertext, request.ciphertext_crc32c)
        _require_checksum(aad, request.additional_authenticated_data_crc32c)
        head, rest = ciphertext[:HEAD_BYTES], ciphertext[HEAD_BYTES:]
        cipher = AESGCM(self._material(int.from_bytes(head, "big")))
        try:
            plaintext = cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], aad)
        except (InvalidTag, ValueError) as error:
            raise _invalid("Decryption failed: the ciphertext is invalid.") from error
        answer = {"plaintext": self._sent(plaintext), "plaintext_crc32c": crc32c(plaintext)}
        return service.DecryptResponse(**answer)

    def get_crypto_key(self, request: Any) -> Any:
        """Describe the key."""
        self._require_key(request.name)
        return resources.CryptoKey(name=KEY_NAME)

    def asymmetric_sign(self, request: Any) -> Any:
        """Sign a digest with the one version of the signing key."""
        self._require_key(request.name, SIGNING_KEY)
        digest = request.digest.sha256
        _require_checksum(digest, request.digest_crc32c)
        if len(digest) != SHA256.digest_size:
            raise _invalid("The digest has another length than the algorithm's.")
        signature = self.signing_key.sign(digest, ec.ECDSA(utils.Prehashed(SHA256())))
        return service.AsymmetricSignResponse(
            name=SIGNING_KEY,
            signature=self._sent(signature),
            signature_crc32c=crc32c(signature),
            verified_digest_crc32c=True,
        )

    def get_public_key(self, request: Any) -> Any:
        """Tell the public half of the signing key."""
        self._require_key(request.name, SIGNING_KEY)
        pem = self.signing_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return resources.PublicKey(
            name=SIGNING_KEY,
            pem=self._sent(pem).decode(),
            pem_crc32c=crc32c(pem),
            algorithm=self.signing_algorithm,
        )

    def handler(self, method: str, act: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        """`act` as a gRPC method, with faults and errors."""

        def handle(request: Any, context: Any) -> Any:
            try:
                self._meet_faults(method)
                return act(request)
            except AbortedError as error:
                context.abort(error.code, error.message)

        return handle

    def _meet_faults(self, method: str) -> None:
        self.asked[method] += 1
        for fault in self.faults:
            if fault.method == method and fault.times != 0:
                fault.times = None if fault.times is None else fault.times - 1
                raise AbortedError(fault.code, "planted")

    def _require_key(self, name: str, wanted: str = KEY_NAME) -> None:
        if name != wanted:
            raise AbortedError(grpc.StatusCode.NOT_FOUND, f"{name} not found.")

    def _material(self, number: int) -> bytes:
        if not 1 <= number <= len(self.versions):
            raise _invalid("Decryption failed: the ciphertext is invalid.")
        version = self.versions[number - 1]
        if version.state != ENABLED:
            raise AbortedError(grpc.StatusCode.FAILED_PRECONDITION, f"version is {version.state}")
        return version.material

    def _sent(self, data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:] if self.garble else data


@contextmanager
def served_kms(server: CloudKmsServer) -> Iterator[str]:
    """The address (host:port) at which the server answers."""
    methods: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
        "Encrypt": (server.encrypt, service.EncryptRequest, service.EncryptResponse),
        "Decrypt": (server.decrypt, service.DecryptRequest, service.DecryptResponse),
        "GetCryptoKey": (
            server.get_crypto_key,
            service.GetCryptoKeyRequest,
            resources.CryptoKey,
        ),
        "AsymmetricSign": (
            server.asymmetric_sign,
            service.AsymmetricSignRequest,
            service.AsymmetricSignResponse,
        ),
        "GetPublicKey": (
            server.get_public_key,
            service.GetPublicKeyRequest,
            resources.PublicKey,
        ),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            server.handler(name, act),
            request_deserializer=asked.deserialize,
            response_serializer=answered.serialize,
        )
        for name, (act, asked, answered) in methods.items()
    }
    with ThreadPoolExecutor(4) as pool:
        listener = grpc.server(pool)
        generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
        listener.add_generic_rpc_handlers((generic,))
        port = listener.add_insecure_port("127.0.0.1:0")
        listener.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            listener.stop(None).wait()


def _require_checksum(data: bytes, checksum: int) -> None:
    if len(data) > MOST_BYTES:
        raise _invalid("At most 64 KiB.")
    if crc32c(data) != checksum:
        raise _invalid("The checksum does not match.")


def _invalid(message: str) -> AbortedError:
    return AbortedError(grpc.StatusCode.INVALID_ARGUMENT, message)
