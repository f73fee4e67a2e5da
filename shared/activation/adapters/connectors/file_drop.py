"""Batches written as files into a folder: CSV parts, and a manifest when all are there.

Part names and bytes depend on the batch alone, so a batch that is written again changes nothing.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from activation.adapters.connectors.config import invalid, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.webhook import IDENTIFIERS
from activation.domain.delivery import AccountCheck, Delivery, SendOutcome
from activation.domain.identifier import require_safe_id
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import PlatformError, PlatformTransientError, ValidationError
from activation.ports import Account

MANIFEST = "_SUCCESS.json"
FORMULA_STARTS = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\0",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)
"""First characters by which spreadsheets take a cell for a formula, full-width ones too."""
CHUNK_BYTES = 1024 * 1024

SPEC = ConnectorSpec(
    platform_type=PlatformType.FILE_DROP,
    title="File drop",
    identifiers=IDENTIFIERS,
    max_rows=100_000,
    max_bytes=None,
    requests_per_minute=6_000,
    credentials=(),
    settings=(
        SettingField("folder", "Relative folder of this platform's drops", default="audiences"),
    ),
    multi_key=True,
    reports_matches=False,
)


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError when the folder could lead out of the platform's own."""
    try:
        _folder_parts(resolved(SPEC, config)["folder"])
    except ValidationError:
        raise invalid("settings.folder", "must be a relative path of plain names") from None


class FileDrop(Defaults):
    """Files lie at `{root}/{platform}/{folder}/{audience}/{distribution}/{operation}/`.

    `root` is the one folder below which anything may be written; the platform's id in the path
    keeps organizations apart whatever they set.
    """

    spec: ConnectorSpec = SPEC

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def check(self, account: Account) -> AccountCheck:
        """Make the platform's folder."""
        self._made(self._platform_folder(account))
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """The audience's folder is named after our own external id."""
        return require_safe_id("external_id", delivery.external_id)

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Write one part; the receipt is its name."""
        name = f"part-{seq:05d}.csv.gz"
        folder = self._made(self._delivery_folder(account, delivery))
        self._write(folder / name, packed_csv(columns))
        return SendOutcome(receipt=name)

    def finish(self, account: Account, delivery: Delivery) -> None:
        """Write the manifest; PlatformError when parts or rows are missing."""
        folder = self._delivery_folder(account, delivery)
        parts = [_described(path) for path in sorted(folder.glob("part-*.csv.gz"))]
        rows = sum(part["rows"] for part in parts)
        if len(parts) != delivery.batches or rows != delivery.rows:
            raise PlatformError("The drop is not complete.", reason="incomplete_drop")
        summary = {
            "distribution_id": delivery.distribution_id,
            "audience_id": delivery.external_id,
            "operation": delivery.operation,
            "rows": rows,
            "bytes": sum(part["bytes"] for part in parts),
            "parts": parts,
        }
        self._write(folder / MANIFEST, orjson.dumps(summary, option=orjson.OPT_INDENT_2))

    def _platform_folder(self, account: Account) -> Path:
        if self._root is None:
            raise PlatformError("No folder for drops is set up here.", reason="not_configured")
        parts = _folder_parts(resolved(SPEC, account.settings)["folder"])
        return self._root.joinpath(require_safe_id("platform_id", account.platform_id), *parts)

    def _delivery_folder(self, account: Account, delivery: Delivery) -> Path:
        names = (delivery.external_id, delivery.distribution_id, delivery.operation)
        return self._platform_folder(account).joinpath(
            *(require_safe_id("path", name) for name in names)
        )

    def _made(self, folder: Path) -> Path:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(error) from error
        if self._root is None or not folder.resolve().is_relative_to(self._root.resolve()):
            raise PlatformError("The folder leads out of the drop root.", reason="path_refused")
        return folder

    def _write(self, path: Path, content: bytes) -> None:
        """The name appears with its whole content or not at all, also after a crash."""
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise _unwritable(error) from error


def packed_csv(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """A gzip file of a header line and one line per person; equal columns, equal bytes."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180, and so both are quoted in cells
    writer.writerow([str(kind) for kind in columns])
    writer.writerows(zip(*(map(guarded, column) for column in columns.values()), strict=True))
    return gzip.compress(text.getvalue().encode(), compresslevel=6, mtime=0)


def guarded(value: str | None) -> str:
    """The cell's text, with an apostrophe before what a spreadsheet would run as a formula."""
    if not value:
        return ""
    return f"'{value}" if value.startswith(FORMULA_STARTS) else value


def _folder_parts(folder: str) -> list[str]:
    return [require_safe_id("folder", part) for part in folder.split("/")]


def _described(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        rows = sum(1 for _ in csv.reader(text)) - 1
    size = path.stat().st_size
    return {"name": path.name, "rows": rows, "bytes": size, "sha256": digest.hexdigest()}


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(error: OSError) -> PlatformTransientError:
    return PlatformTransientError(f"The drop folder cannot be written ({type(error).__name__}).")
