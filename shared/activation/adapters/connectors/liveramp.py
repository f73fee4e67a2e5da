"""Audiences for LiveRamp as files, over SFTP or into the drop folder. Facts: docs/platforms.md."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from activation.adapters.connectors.config import invalid, require_choice, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.drop_folder import DropFolder, folder_parts
from activation.adapters.connectors.http import ATTEMPTS, MAX_WAIT_SECONDS, pause
from activation.adapters.connectors.liveramp_file import (
    DELIMITERS,
    Folder,
    append,
    batch_text,
    complete,
)
from activation.adapters.connectors.sftp import HOST_KEY, Login, opened
from activation.domain.delivery import AccountCheck, Delivery, Operation, SendOutcome
from activation.domain.identifier import IdentifierType, Variant, require_safe_id
from activation.domain.platform import ConnectorSpec, PlatformType, Replacement, SettingField
from activation.errors import PlatformError, ValidationError
from activation.ports import Account

FULL, INCREMENTAL = "full_refresh", "incremental"
UPDATES: Mapping[str, Operation] = {FULL: Operation.REPLACE, INCREMENTAL: Operation.ADD}
SFTP, FOLDER = "sftp", "folder"
MINIMUM_ROWS = 25

SPEC = ConnectorSpec(
    platform_type=PlatformType.LIVERAMP,
    title="LiveRamp file",
    identifiers={IdentifierType.EMAIL: Variant.PLAIN, IdentifierType.MAID: Variant.RAW},
    max_rows=100_000,
    max_bytes=None,
    requests_per_minute=600,
    credentials=(
        SettingField("username", "SFTP user"),
        SettingField("password", "Its password, or else private_key", secret=True),
        SettingField("private_key", "Its private key, PEM or OpenSSH text", secret=True),
    ),
    settings=(
        SettingField("update", f"{FULL} | {INCREMENTAL}: as set up at LiveRamp", default=FULL),
        SettingField("delivery", f"{SFTP} | {FOLDER}", default=SFTP),
        SettingField("delimiter", " | ".join(DELIMITERS), default="comma"),
        SettingField("ramp_ids", "Send RampIDs too", default=False, kind="boolean"),
        SettingField(
            "folder", "Relative folder, which LiveRamp has made", default="uploads", place=True
        ),
        SettingField(
            "sftp_host", "Address of the server", default="files.liveramp.com", trusted=True
        ),
        SettingField("sftp_port", "Its port", default=22, kind="integer", trusted=True),
        SettingField(
            "host_key", "Fingerprints of the server's keys: SHA256:…, by spaces", trusted=True
        ),
    ),
    multi_key=True,
    adds=False,
    removes=False,
    replacement=Replacement.SESSION,
    minimum_size=MINIMUM_ROWS,
    reports_matches=False,
)


def spec_under(settings: Mapping[str, Any]) -> ConnectorSpec:
    """The spec of an account: what a file does is set up at LiveRamp, and said in `update`."""
    identifiers = dict(SPEC.identifiers)
    if settings["ramp_ids"]:
        identifiers[IdentifierType.RAMP_ID] = Variant.RAW
    adds = settings["update"] == INCREMENTAL
    return dataclasses.replace(
        SPEC,
        identifiers=identifiers,
        adds=adds,
        replacement=Replacement.NONE if adds else Replacement.SESSION,
    )


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    require_choice("settings.update", settings["update"], UPDATES)
    require_choice("settings.delivery", settings["delivery"], (SFTP, FOLDER))
    require_choice("settings.delimiter", settings["delimiter"], DELIMITERS)
    try:
        folder_parts(settings["folder"])
    except ValidationError:
        raise invalid("settings.folder", "must be a relative path of plain names") from None
    if settings["delivery"] == SFTP:
        _validate_login(credentials, settings)


def _validate_login(credentials: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    if not credentials.get("username"):
        raise invalid("credentials.username", "is required", "missing")
    if not credentials.get("password") and not credentials.get("private_key"):
        raise invalid("credentials.password", "or private_key is required", "missing")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}", settings["sftp_host"]):
        raise invalid("settings.sftp_host", "must be the name of a host")
    if not 1 <= settings["sftp_port"] <= 65_535:
        raise invalid("settings.sftp_port", "must be 1 to 65535")
    keys = (settings["host_key"] or "").split()
    if not keys or not all(map(HOST_KEY.fullmatch, keys)):
        raise invalid("settings.host_key", "must be fingerprints like SHA256: and 43 characters")


class LiveRamp(Defaults):
    """One file per lane. It grows under another name, and gets its own when it is whole."""

    def __init__(
        self, spec: ConnectorSpec, drop_root: Path | None, *, allow_private_hosts: bool
    ) -> None:
        self.spec = spec
        self._root = drop_root
        self._allow_private_hosts = allow_private_hosts

    def check(self, account: Account) -> AccountCheck:
        """Look into the folder, with the host's key compared and the credentials used."""
        self._within(account, (), lambda folder: folder.names(""))
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Make the audience's folder, which is named after our own external id."""
        name = require_safe_id("external_id", delivery.external_id)
        self._within(account, (name,), lambda folder: folder.make())
        return name

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Append one batch to the growing file."""
        settings = resolved(SPEC, account.settings)
        self._require_fitting(settings, delivery)
        kinds = sorted(self.spec.identifiers)
        content = batch_text(columns, kinds, DELIMITERS[settings["delimiter"]], first=seq == 1)
        rows = len(next(iter(columns.values())))
        stem, names = file_stem(delivery), (delivery.external_id,)
        self._within(account, names, lambda f: append(f, stem, seq, rows, content.encode()))
        return SendOutcome()

    def finish(self, account: Account, delivery: Delivery) -> None:
        """Give the file its name; PlatformError when batches or rows are missing."""
        stem, names = file_stem(delivery), (delivery.external_id,)
        self._within(account, names, lambda f: complete(f, stem, delivery.batches, delivery.rows))

    def _require_fitting(self, settings: Mapping[str, Any], delivery: Delivery) -> None:
        """A file that held additions only would be taken for the whole audience, or the reverse."""
        if delivery.operation != UPDATES[settings["update"]]:
            raise PlatformError(
                f"With update {settings['update']} files cannot {delivery.operation} members.",
                reason="unsupported",
            )
        if delivery.rows < MINIMUM_ROWS:
            raise PlatformError(
                f"LiveRamp takes files of at least {MINIMUM_ROWS} rows.", reason="too_few_rows"
            )

    def _within(
        self, account: Account, names: Sequence[str], work: Callable[[Folder], object]
    ) -> None:
        """Do something in a folder, which may be done again after a failure that passes."""
        import stamina

        waits = stamina.retry_context(
            on=pause, attempts=ATTEMPTS, timeout=MAX_WAIT_SECONDS, wait_initial=0.5, wait_max=8.0
        )
        for attempt in waits:
            with attempt, self._folder(account, names) as folder:
                work(folder)

    @contextmanager
    def _folder(self, account: Account, names: Sequence[str]) -> Iterator[Folder]:
        settings = resolved(SPEC, account.settings)
        if settings["delivery"] == FOLDER:
            folder = DropFolder.of(self._root, account, settings["folder"], *names)
            folder.make()
            yield folder
            return
        parts = [*folder_parts(settings["folder"]), *(require_safe_id("path", n) for n in names)]
        login = Login(
            host=settings["sftp_host"],
            port=settings["sftp_port"],
            host_keys=tuple((settings["host_key"] or "").split()),
            username=account.credentials.get("username", ""),
            password=account.credentials.get("password") or None,
            private_key=account.credentials.get("private_key") or None,
        )
        with opened(login, parts, allow_private_hosts=self._allow_private_hosts) as remote:
            yield remote


def file_stem(delivery: Delivery) -> str:
    """The lane's file without its ending: audience, distribution and lane, so that it is new."""
    names = (delivery.external_id, delivery.distribution_id, f"{delivery.session_id:x}")
    return "_".join(require_safe_id("path", name) for name in names)
