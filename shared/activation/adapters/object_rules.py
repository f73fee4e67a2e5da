"""What holds for objects on every back-end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from activation.errors import ConflictError, NotFoundError, PayloadTooLargeError
from activation.ports import BlobKey

MAX_COMPOSED = 32
STORAGE_CLASSES = frozenset({"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"})


def require_storage_class(name: str) -> str:
    """Return `name`; ValueError, as that is our mistake, when there is no such storage class."""
    if name not in STORAGE_CLASSES:
        raise ValueError(f"{name} is not a storage class")
    return name


def require_composable(sources: Sequence[BlobKey]) -> None:
    """Raise ValueError unless there are 1 to 32 sources."""
    if not 1 <= len(sources) <= MAX_COMPOSED:
        raise ValueError(f"{len(sources)} objects cannot be composed; 1 to {MAX_COMPOSED} can")


def require_within(size: int, max_bytes: int | None) -> None:
    """Raise PayloadTooLargeError when `size` is more than `max_bytes`."""
    if max_bytes is not None and size > max_bytes:
        raise PayloadTooLargeError(f"The object may have at most {max_bytes} bytes.")


def within_limit(pieces: Iterable[bytes], max_bytes: int | None) -> Iterator[bytes]:
    """The same pieces; PayloadTooLargeError as soon as they are more than `max_bytes`."""
    size = 0
    for piece in pieces:
        size += len(piece)
        require_within(size, max_bytes)
        yield piece


def taken() -> ConflictError:
    """There is an object of this name."""
    return ConflictError("An object of this name exists already.", reason="name_taken")


def missing() -> NotFoundError:
    """There is no object of this name."""
    return NotFoundError("There is no such object.", reason="not_found")
