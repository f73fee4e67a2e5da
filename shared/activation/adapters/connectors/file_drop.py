"""Batches written as files into a folder: CSV parts, and a manifest when all are there.

Part names and bytes depend on the batch alone, so a batch that is written again changes nothing.
What an audience holds is told by reading the files of all its distributions again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from activation.adapters.connectors.config import invalid, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.drop_files import described, packed_csv, replayed
from activation.adapters.connectors.drop_folder import DropFolder, folder_parts
from activation.adapters.connectors.webhook import IDENTIFIERS
from activation.domain.delivery import AccountCheck, Delivery, SendOutcome
from activation.domain.identifier import require_safe_id
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import PlatformError, ValidationError
from activation.ports import Account

MANIFEST = "_SUCCESS.json"

SPEC = ConnectorSpec(
    platform_type=PlatformType.FILE_DROP,
    title="File drop",
    identifiers=IDENTIFIERS,
    max_rows=100_000,
    max_bytes=None,
    requests_per_minute=6_000,
    credentials=(),
    settings=(
        SettingField(
            "folder", "Relative folder of this platform's drops", default="audiences", place=True
        ),
    ),
    multi_key=True,
    lists_members=True,
    reports_matches=False,
)


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError when the folder could lead out of the platform's own."""
    try:
        folder_parts(resolved(SPEC, config)["folder"])
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
        self._folder(account).make()
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """The audience's folder is named after our own external id."""
        return require_safe_id("external_id", delivery.external_id)

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Write one part; the receipt is its name."""
        name = f"part-{seq:05d}.csv.gz"
        folder = self._delivery_folder(account, delivery)
        folder.make()
        folder.write(name, packed_csv(columns))
        return SendOutcome(receipt=name)

    def finish(self, account: Account, delivery: Delivery) -> None:
        """Write the manifest; PlatformError when rows are missing. A batch of nobody but people who
        opted out has no part."""
        folder = self._delivery_folder(account, delivery)
        parts = [described(path) for path in sorted(folder.path.glob("part-*.csv.gz"))]
        rows = sum(part["rows"] for part in parts)
        if len(parts) > delivery.batches or rows != delivery.rows:
            raise PlatformError("The drop is not complete.", reason="incomplete_drop")
        started = delivery.started_at
        summary = {
            "distribution_id": delivery.distribution_id,
            "audience_id": delivery.external_id,
            "operation": delivery.operation,
            "started_at": None if started is None else started.isoformat(),
            "rows": rows,
            "bytes": sum(part["bytes"] for part in parts),
            "parts": parts,
        }
        folder.write(MANIFEST, orjson.dumps(summary, option=orjson.OPT_INDENT_2))

    def listing(self, account: Account, delivery: Delivery) -> Iterator[tuple[str, str]]:
        """What all complete drops of the audience, one after the other, come to."""
        folder = self._folder(account, delivery.external_id)
        return replayed(folder.path, MANIFEST) if folder.exists() else iter(())

    def _folder(self, account: Account, *names: str) -> DropFolder:
        return DropFolder.of(
            self._root, account, resolved(SPEC, account.settings)["folder"], *names
        )

    def _delivery_folder(self, account: Account, delivery: Delivery) -> DropFolder:
        names = (delivery.external_id, delivery.distribution_id, delivery.operation)
        return self._folder(account, *names)
