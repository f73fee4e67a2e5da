"""Fixtures: real Google clients that talk to servers of this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt
from google.cloud.kms import KeyManagementServiceClient
from google.cloud.kms_v1.services.key_management_service.transports import (
    KeyManagementServiceGrpcTransport,
)
from google.cloud.storage import Client
from google.oauth2.service_account import Credentials

from activation.adapters.clock import MovableClock
from tests.wire.cloud_kms import CloudKmsServer, served_kms
from tests.wire.cloud_storage import CloudStorageServer
from tests.wire.faults import Traffic
from tests.wire.http import served
from tests.wire.objects import Objects
from tests.wire.signatures import SignedRequests

BUCKET = "tests-members"
SIGNER = "uploader@tests.iam.gserviceaccount.com"


class LocalCredentials(Credentials):
    """A service account whose key was made for this run; its token is not asked for anywhere."""

    def before_request(self, *_: object) -> None:
        """Send requests as they are: the server knows no tokens."""


@cache
def signing_key() -> rsa.RSAPrivateKey:
    """The throw-away key of the service account."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class StorageServer:
    """A running storage server with one bucket, and clients for it."""

    url: str
    bucket: str
    clock: MovableClock
    traffic: Traffic
    objects: Objects

    def client(self, credentials: Any = None) -> Client:
        """A real client, by default as the service account whose signatures count."""
        return storage_client(self.url, credentials)


def storage_client(url: str, credentials: Any = None) -> Client:
    """A real client of the storage server at `url`."""
    account = credentials or _account(url)
    return Client(project="tests", credentials=account, client_options={"api_endpoint": url})


def _account(url: str) -> Any:
    pem = signing_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    credentials: Any = LocalCredentials
    return credentials(crypt.RSASigner.from_string(pem), SIGNER, token_uri=url)


@dataclass(frozen=True)
class KmsServer:
    """A running KMS server and a real client for it."""

    server: CloudKmsServer
    client: Any


@pytest.fixture
def storage_server() -> Iterator[StorageServer]:
    """A storage server of its own for one test; its clock starts now, as clients sign by theirs."""
    clock = MovableClock(datetime.now(UTC))
    objects, traffic = Objects(BUCKET, clock), Traffic()
    signatures = SignedRequests(SIGNER, signing_key().public_key(), clock)
    with served(CloudStorageServer(objects, signatures, traffic)) as url:
        yield StorageServer(url, BUCKET, clock, traffic, objects)


@pytest.fixture
def kms_server() -> Iterator[KmsServer]:
    """A KMS server of its own for one test."""
    server = CloudKmsServer()
    with served_kms(server) as address, grpc.insecure_channel(address) as channel:
        transport = KeyManagementServiceGrpcTransport(channel=channel)
        yield KmsServer(server, KeyManagementServiceClient(transport=transport))
