"""Folders below the drop root: nobody's path leads out, and a file is there whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from activation.domain.identifier import require_safe_id
from activation.errors import PlatformError, PlatformTransientError
from activation.ports import Account


@dataclass(frozen=True, slots=True)
class DropFolder:
    """One folder of one platform account. `root` is that below which anything may be written."""

    root: Path
    path: Path

    @classmethod
    def of(cls, root: Path | None, account: Account, folder: str, *names: str) -> DropFolder:
        """The folder `{root}/{platform}/{folder}/{names}`.

        The platform's id keeps organizations apart whatever they set. Raises ValidationError for
        a name that could lead elsewhere, PlatformError where there is no root.
        """
        if root is None:
            raise PlatformError("No folder for drops is set up here.", reason="not_configured")
        parts = [require_safe_id("platform_id", account.platform_id), *folder_parts(folder)]
        return cls(root, root.joinpath(*parts, *(require_safe_id("path", n) for n in names)))

    def make(self) -> None:
        """Create the folder where it is not there; PlatformError when a link leads it out."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(error) from error
        self._require_inside()

    def exists(self) -> bool:
        """Whether the folder is there; PlatformError when a link leads it out."""
        self._require_inside()
        return self.path.is_dir()

    def write(self, name: str, content: bytes) -> None:
        """The name appears with its whole content or not at all, also after a crash."""
        temporary = self.path / f".{name}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / name)
            sync_folder(self.path)
        except OSError as error:
            raise unwritable(error) from error

    def names(self, start: str) -> list[str]:
        """The names in the folder that begin with `start`."""
        return [path.name for path in self.path.iterdir() if path.name.startswith(start)]

    def write_at(self, name: str, offset: int, content: bytes) -> int:
        """Write behind `offset` bytes of a file, made when it is not there; returns its size."""
        path = self.path / name
        try:
            with path.open("r+b" if offset else "wb") as file:
                file.seek(offset)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            return self.size(name)
        except OSError as error:
            raise unwritable(error) from error

    def size(self, name: str) -> int:
        """How many bytes a file has."""
        try:
            return (self.path / name).stat().st_size
        except OSError as error:
            raise unwritable(error) from error

    def remove(self, name: str) -> None:
        """Remove a file."""
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(error) from error

    def rename(self, name: str, new_name: str) -> None:
        """Give a file another name, at once and durably."""
        try:
            (self.path / name).rename(self.path / new_name)
            sync_folder(self.path)
        except OSError as error:
            raise unwritable(error) from error

    def _require_inside(self) -> None:
        if not self.path.resolve().is_relative_to(self.root.resolve()):
            raise PlatformError("The folder leads out of the drop root.", reason="path_refused")


def folder_parts(folder: str) -> list[str]:
    """The names in a relative path; ValidationError when one could lead elsewhere."""
    return [require_safe_id("folder", part) for part in folder.split("/")]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(error: OSError) -> PlatformTransientError:
    """The error about a folder that cannot be written now."""
    return PlatformTransientError(f"The drop folder cannot be written ({type(error).__name__}).")
