"""Files under the contract of objects, and what only files promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from werkzeug.wrappers import Request, Response

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.errors import ActivationError
from tests.contracts.blobs import BlobStoreContract
from tests.wire.http import served


def store(root: Path, clock: MovableClock) -> FileBlobs:
    return FileBlobs(root / "members", clock, signing_key=b"k" * 32)


class TestFileBlobs(BlobStoreContract):
    """The contract."""

    @pytest.fixture
    def clock(self) -> MovableClock:
        return MovableClock()

    @pytest.fixture
    def blobs(self, tmp_path: Path, clock: MovableClock) -> Iterator[FileBlobs]:
        blobs = store(tmp_path, clock)

        def accept(request: Request) -> Response:
            token = request.path.removeprefix("/api/v1/uploads/")
            try:
                blobs.accept(token, request.stream, request.headers["Content-Type"])
            except ActivationError as error:
                return Response(error.code, error.status)
            return Response(status=204)

        with served(accept) as url:
            yield replace(blobs, base_url=url)
