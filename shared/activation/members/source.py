"""An uploaded file as a bounded stream of unpacked bytes."""

from __future__ import annotations

import io
from typing import IO, Any

from activation.errors import PayloadTooLargeError, UploadRefusedError
from activation.members.limits import ReadLimits

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_PARQUET = b"PAR1"


def refused(message: str, reason: str, field: str = "file") -> UploadRefusedError:
    """The error for a file that cannot be an import."""
    return UploadRefusedError(message, field=field, reason=reason)


class Source:
    """Unpacks by magic number, never by name, and refuses bombs while it reads.

    `position` counts unpacked bytes delivered; `read` raises UploadRefusedError for damaged or
    suspicious archives and PayloadTooLargeError beyond the unpacked limit.
    """

    def __init__(self, raw: IO[bytes], limits: ReadLimits) -> None:
        self._limits = limits
        self.size = raw.seek(0, io.SEEK_END)
        raw.seek(0)
        head = raw.read(8)
        raw.seek(0)
        self.raw = raw
        self.is_parquet = head.startswith(_PARQUET)
        self.compression = next((n for m, n in _MAGIC.items() if head.startswith(m)), None)
        self.position = 0
        self._packed = _Counting(raw)
        self._stream: Any = self._opened()

    def _opened(self) -> Any:
        if self.compression is None:
            return self._packed
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(self._packed, "r"), self.compression)

    @property
    def fraction(self) -> float:
        """Share of the packed file consumed so far, 0 to 1."""
        return min(1.0, self._packed.count / self.size) if self.size else 1.0

    def read(self, size: int) -> bytes:
        """Up to `size` unpacked bytes; empty at the end."""
        try:
            data: bytes = self._stream.read(size)
        except OSError as error:
            if self.compression is None:
                raise
            raise _damaged(error) from None
        self.position += len(data)
        self._check_expansion()
        return data

    def skip_to(self, position: int) -> None:
        """Go on at an unpacked position; packed files are unpacked up to there once more."""
        if self.compression is None:
            self._packed.seek(position)
            self.position = position
        while self.position < position:
            if not self.read(min(self._limits.block_bytes, position - self.position)):
                raise refused("The file is shorter than when its import began.", "file_changed")

    def _check_expansion(self) -> None:
        if self.position > self._limits.max_unpacked_bytes:
            limit = self._limits.max_unpacked_bytes
            raise PayloadTooLargeError(
                f"The unpacked file is larger than {limit} bytes.", field="file", reason="unpacked"
            )
        suspicious = self.position > self._limits.ratio_after
        if suspicious and self.position > self._limits.max_ratio * max(1, self._packed.count):
            raise refused("The file unpacks to far more than its size.", "compression_ratio")


def _damaged(error: OSError) -> UploadRefusedError:
    if "Truncated" in str(error):
        return refused("The compressed file ends too early.", "truncated")
    return refused("The compressed file is damaged or has bytes after its end.", "damaged")


class _Counting(io.RawIOBase):
    """Counts the packed bytes that are read."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.count = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self.count += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.count = self._raw.seek(offset, whence)
        return self.count
