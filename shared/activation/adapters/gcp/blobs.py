"""Objects of the Google back-end: a Cloud Storage bucket."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import IO, Any

from activation.adapters.gcp.ranges import buffered
from activation.adapters.object_rules import (
    missing,
    require_composable,
    require_storage_class,
    require_within,
    taken,
)
from activation.domain.identifier import require_safe_id
from activation.errors import StorageUnavailableError
from activation.ports import BlobInfo, BlobKey, Clock, UploadTarget

CHUNK_BYTES = 8 * 1024 * 1024
WRITER = "activation-writer"
"""Metadata by which a writer knows its own object again when the answer to it was lost."""

LISTED = "items(name,size,timeCreated,storageClass,metadata,contentType,kmsKeyName),nextPageToken"


@dataclass(frozen=True)
class CloudStorageBlobs:
    """Port BlobStore on a bucket.

    A call waits `call_seconds` for an answer and is tried again for `patience_seconds`. A stream
    takes `chunk_bytes` (a multiple of 256 KiB) of memory; a shorter one goes in one request.
    Upload addresses are signed with the client's own key, or by IAM when it has none.
    """

    bucket: str
    clock: Clock
    client: Any = field(default=None, repr=False)
    chunk_bytes: int = CHUNK_BYTES
    call_seconds: float = 60.0
    patience_seconds: float = 120.0

    def put(
        self,
        key: BlobKey,
        data: bytes | IO[bytes],
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        storage_class: str = "STANDARD",
        max_bytes: int | None = None,
    ) -> BlobInfo:
        """Store an object durably; a stream is read in bounded pieces."""
        blob = self._blob(key)
        blob.storage_class = require_storage_class(storage_class)
        source = _Source(io.BytesIO(data) if isinstance(data, bytes) else data, max_bytes)
        first = source.peek(self.chunk_bytes)
        options = {"content_type": content_type, "checksum": "crc32c", "if_generation_match": 0}

        def upload() -> None:
            if len(first) < self.chunk_bytes:
                blob.upload_from_string(first, **options, **self._bounds)
            else:
                blob.chunk_size = self.chunk_bytes
                blob.upload_from_file(source, **options, **self._bounds)

        return self._created(key, blob, upload, metadata or {})

    def open(self, key: BlobKey) -> IO[bytes]:
        """A seekable reader that fetches ranges, more at a time the longer it reads on."""
        return buffered(lambda start, end: self.get(key, start, end), self._found(key).size)

    def get(self, key: BlobKey, start: int = 0, end: int | None = None) -> bytes:
        """The bytes [start, end); the checksum is verified when that is the whole object."""
        from google.api_core.exceptions import NotFound, RequestRangeNotSatisfiable

        if end is not None and end <= start:
            self._found(key)
            return b""
        whole = start == 0 and end is None
        part = {} if whole else {"start": start, "end": None if end is None else end - 1}
        with _failures_named():
            try:
                checksum = "auto" if whole else None
                blob = self._blob(key)
                return bytes(blob.download_as_bytes(checksum=checksum, **part, **self._bounds))
            except RequestRangeNotSatisfiable:
                return b""
            except NotFound as error:
                raise missing() from error

    def stat(self, key: BlobKey) -> BlobInfo | None:
        """Return what is known of the object, or None."""
        with _failures_named():
            blob = self._bucket.get_blob(str(key), **self._bounds)
        return None if blob is None else _described(key, blob)

    def list(self, organization_id: str, prefix: str = "") -> Iterator[BlobInfo]:
        """Objects of one organization in name order, read page by page."""
        folder = require_safe_id("organization_id", organization_id) + "/"
        with _failures_named():
            pages = self._storage.list_blobs(
                self._bucket, prefix=folder + prefix, fields=LISTED, **self._bounds
            )
            for blob in pages:
                yield _described(BlobKey(organization_id, blob.name.removeprefix(folder)), blob)

    def compose(self, sources: Sequence[BlobKey], target: BlobKey) -> BlobInfo:
        """Join up to 32 objects into a new one, which gets the content type of the first."""
        from google.api_core.exceptions import NotFound

        require_composable(sources)
        blob = self._blob(target)
        blob.content_type = self._found(sources[0]).content_type
        parts = [self._blob(source) for source in sources]

        def join() -> None:
            try:
                blob.compose(parts, if_generation_match=0, **self._bounds)
            except NotFound as error:
                raise missing() from error

        return self._created(target, blob, join, {})

    def set_class(self, key: BlobKey, storage_class: str) -> None:
        """Rewrite an object in place into another storage class; the copy counts as new."""
        wanted, blob = require_storage_class(storage_class), self._found(key)
        if blob.storage_class == wanted:
            return
        with _failures_named():
            blob.update_storage_class(wanted, if_generation_match=blob.generation, **self._bounds)

    def delete(self, key: BlobKey) -> bool:
        """Remove an object; False when there was none."""
        from google.api_core.exceptions import NotFound

        with _failures_named():
            try:
                self._blob(key).delete(**self._bounds)
            except NotFound:
                return False
        return True

    def upload_target(
        self, key: BlobKey, *, content_type: str, max_bytes: int, lifetime: timedelta
    ) -> UploadTarget:
        """A signed URL (V4): Cloud Storage itself refuses a taken name and a long body."""
        headers = {
            "Content-Type": content_type,
            "x-goog-if-generation-match": "0",
            "x-goog-content-length-range": f"0,{max_bytes}",
        }
        with _failures_named():
            url = self._blob(key).generate_signed_url(
                version="v4",
                method="PUT",
                expiration=lifetime,
                headers=dict(headers),
                credentials=self._signer,
            )
        return UploadTarget("PUT", url, headers, self.clock.now() + lifetime)

    def ping(self) -> None:
        """Return when the bucket answers a listing."""
        with _failures_named():
            next(iter(self._storage.list_blobs(self._bucket, max_results=1, **self._bounds)), None)

    def _created(
        self, key: BlobKey, blob: Any, create: Callable[[], None], metadata: Mapping[str, str]
    ) -> BlobInfo:
        """Create an object under a free name.

        A retry finds the name taken when only the answer to the first try was lost: then the
        object carries our mark.
        """
        from google.api_core.exceptions import PreconditionFailed

        mark = secrets.token_hex(16)
        blob.metadata = {**metadata, WRITER: mark}
        with _failures_named():
            try:
                create()
            except PreconditionFailed as error:
                blob = self._bucket.get_blob(str(key), **self._bounds)
                if blob is None or (blob.metadata or {}).get(WRITER) != mark:
                    raise taken() from error
            return _described(key, blob)

    def _found(self, key: BlobKey) -> Any:
        with _failures_named():
            blob = self._bucket.get_blob(str(key), **self._bounds)
        if blob is None:
            raise missing()
        return blob

    def _blob(self, key: BlobKey) -> Any:
        return self._bucket.blob(str(key))

    @cached_property
    def _storage(self) -> Any:
        if self.client is not None:
            return self.client
        from google.cloud.storage import Client

        return Client()

    @cached_property
    def _bucket(self) -> Any:
        return self._storage.bucket(self.bucket)

    @cached_property
    def _bounds(self) -> Mapping[str, Any]:
        from google.cloud.storage.retry import DEFAULT_RETRY

        retry = DEFAULT_RETRY.with_delay(initial=0.2, maximum=10.0, multiplier=2.0)
        return {
            "timeout": self.call_seconds,
            "retry": retry.with_timeout(self.patience_seconds),
        }

    @cached_property
    def _signer(self) -> Any:
        from google.auth.transport.requests import Request

        # The library offers no public way to ask a client for its credentials.
        return signing_credentials(self._storage._credentials, Request())  # noqa: SLF001


class _Source:
    """A stream as the client wants it: whole chunks until the end, and a position."""

    def __init__(self, stream: IO[bytes], max_bytes: int | None) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._ahead = bytearray()
        self._position = 0

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end; PayloadTooLargeError past the limit."""
        while len(self._ahead) < size:
            piece = self._stream.read(size - len(self._ahead))
            if not piece:
                break
            self._ahead += piece
            require_within(self._position + len(self._ahead), self._max_bytes)
        return bytes(self._ahead[:size])

    def read(self, size: int) -> bytes:
        """The same, and move on."""
        chunk = self.peek(size)
        del self._ahead[: len(chunk)]
        self._position += len(chunk)
        return chunk

    def tell(self) -> int:
        """How many bytes were read."""
        return self._position


def signing_credentials(credentials: Any, request: Any) -> Any:
    """`credentials` when they hold a key, else the same identity signing through IAM's signBlob."""
    from google.auth.credentials import Signing

    if isinstance(credentials, Signing):
        return credentials
    from google.auth import iam
    from google.oauth2 import service_account

    if not credentials.valid:
        credentials.refresh(request)  # the metadata server tells the e-mail address with it
    email = credentials.service_account_email
    signer = iam.Signer(request, credentials, email)
    return service_account.Credentials(signer, email, token_uri="")


def _described(key: BlobKey, blob: Any) -> BlobInfo:
    metadata = {name: text for name, text in (blob.metadata or {}).items() if name != WRITER}
    return BlobInfo(
        key=key,
        size_bytes=blob.size,
        created_at=blob.time_created,
        storage_class=blob.storage_class,
        metadata=metadata,
        content_type=blob.content_type,
        key_reference=blob.kms_key_name,
    )


@contextmanager
def _failures_named() -> Iterator[None]:
    """Whatever Cloud Storage still says after the retries means: not now."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests.exceptions import RequestException

    try:
        yield
    except (
        GoogleAPIError,
        GoogleAuthError,
        RequestException,
        DataCorruption,
        InvalidResponse,
    ) as error:
        raise StorageUnavailableError("The store of objects does not answer.") from error
