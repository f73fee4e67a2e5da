"""Settings: `ACTIVATION_*` variables, read once, checked, and documented in the README table."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from activation.errors import ValidationError

PREFIX = "ACTIVATION_"
MIN_EVENT_DAYS = 32
"""Ids of events are known for 31 days: so long the archive can say what a shard is to know."""
MIN_STREAM_SECONDS = 10
MIN_MEMBERSHIP_DAYS = 2
"""Audiences follow segments by what was told since all members were compared: a day at most."""

_SHARES = ("max_reject_ratio", "retention_max_share", "match_rate_fall")
_LEAST = {
    **dict.fromkeys(("max_body_bytes", "max_upload_bytes", "max_unpacked_bytes"), 1),
    **dict.fromkeys(("lease_seconds", "lanes_per_organization", "backup_days"), 1),
    **dict.fromkeys(("database_threshold", "segmented_threshold", "version_days"), 0),
    **dict.fromkeys(("cache_bytes", "work_seconds", "follow_seconds", "match_poll_seconds"), 0),
    **dict.fromkeys(("retention_free_count", "rate_reads", "rate_writes", "rate_work"), 0),
}
"""The least that numbers without a rule of their own can sensibly be."""


def _setting(default: Any, doc: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; a field `data_folder` is the variable `ACTIVATION_DATA_FOLDER`."""

    backend: str = _setting("embedded", "`embedded` (this machine) or `google`")
    data_folder: str = _setting(
        "./activation-data", "embedded: folder of database, objects and keys"
    )
    project: str = _setting("", "google: project id")
    database: str = _setting("(default)", "google: Firestore database")
    uploads_bucket: str = _setting("", "google: bucket of uploaded files")
    members_bucket: str = _setting("", "google: bucket of member partitions")
    backup_bucket: str = _setting("", "google: bucket of backups of versions")
    archive_bucket: str = _setting("", "google: bucket of archived audiences")
    events_bucket: str = _setting("", "google: bucket of the archive of events")
    journal_bucket: str = _setting(
        "", "google: bucket of the journal of suppressions; none: the archive bucket"
    )
    journal_folder: str = _setting(
        "", "embedded: folder of the journal of suppressions; none: in the data folder"
    )
    topic_prefix: str = _setting("", "google: put before every topic name")
    kms_key: str = _setting("", "google: KMS key that wraps credentials")
    signing_key: str = _setting("", "google: version of the KMS key that signs evidence packs")
    suppression_kms_key: str = _setting(
        "", "google: KMS key that wraps the keys of suppression lists"
    )
    issuer: str = _setting("", "token issuer; embedded: made by itself")
    audience: str = _setting("audience-activation", "`aud` that tokens must carry")
    jwks_url: str = _setting("", "address of the issuer's keys; embedded: none")
    push_audience: str = _setting("", "`aud` of Pub/Sub and Scheduler tokens; google only")
    push_service_accounts: str = _setting(
        "",
        "service accounts that may call event functions, comma-separated, each `account` or"
        " `function=account`; google only",
    )
    push_checked: bool = _setting(
        False,
        "google: event functions are private, so the platform has checked a push token whose"
        " signature it removed",
    )
    max_body_bytes: int = _setting(32 * 1024 * 1024, "largest body of a JSON request")
    max_upload_bytes: int = _setting(5 * 1024**3, "largest uploaded file, packed")
    max_unpacked_bytes: int = _setting(64 * 1024**3, "largest uploaded file, unpacked")
    max_reject_ratio: float = _setting(0.5, "an import stops above this share of rejects")
    database_threshold: int = _setting(100_000, "members below: tier `database`")
    segmented_threshold: int = _setting(10_000_000, "members below: tier `segmented`")
    match_poll_seconds: float = _setting(
        0.0, "pause between looks at match results; 0: as each platform advises"
    )
    match_rate_fall: float = _setting(
        0.2, "a match rate lower than the last ones by more than this share is flagged"
    )
    redis_url: str = _setting("", "Redis that processes share as a cache; none: memory only")
    cache_bytes: int = _setting(64 * 1024 * 1024, "memory of a process for cached answers")
    lease_seconds: int = _setting(60, "a job whose worker is silent this long is taken over")
    work_seconds: int = _setting(420, "a function hands over to its successor after this")
    lanes_per_organization: int = _setting(
        8, "workers that send for one organization at a time, over all its platforms"
    )
    follow_seconds: int = _setting(
        60, "an audience that follows a segment gets at most one version in this time"
    )
    version_days: int = _setting(
        90, "a version keeps its members this many days after the next one followed"
    )
    event_days: int = _setting(
        365, "older events leave the archive; at least 32, for as long as ids of events are known"
    )
    backup_days: int = _setting(365, "older backups of versions are deleted")
    membership_days: int = _setting(
        365,
        "entries and exits of segments are kept this many days after they were told; at least 2,"
        " for as long as audiences follow them",
    )
    retention_max_share: float = _setting(
        0.2, "a retention run that would archive or delete a larger share of audiences is held"
    )
    retention_free_count: int = _setting(10, "so many audiences never hold a retention run")
    retention_webhook_url: str = _setting("", "address that gets the reports of retention runs")
    retention_webhook_secret: str = _setting(
        "", "`whsec_` secret that signs these reports", secret=True
    )
    allow_private_hosts: bool = _setting(
        False, "let webhooks and platform addresses point to private hosts (local twins)"
    )
    rate_window_seconds: int = _setting(60, "requests are counted in windows of this length")
    rate_reads: int = _setting(
        30_000, "requests that read, per organization and window; 0: no limit"
    )
    rate_writes: int = _setting(
        12_000, "requests that change something, per organization and window; 0: no limit"
    )
    rate_work: int = _setting(
        1_200, "requests that start long work, per organization and window; 0: no limit"
    )
    realtime_connections: int = _setting(
        100, "open realtime connections of an organization, in one process"
    )
    realtime_poll_seconds: float = _setting(
        30.0,
        "how often a process looks for changes of segments that somebody follows, told or not",
    )
    realtime_stream_seconds: int = _setting(
        3_300,
        "a realtime connection ends after this, and the client goes on with a new one; at least 10",
    )
    cors_origins: str = _setting("", "origins a browser may call from, comma-separated")
    log_level: str = _setting("INFO", "lowest level of log lines")
    otlp_endpoint: str = _setting("", "address that spans go to by OTLP over HTTP; none: no traces")
    trace_ratio: float = _setting(0.1, "share of traces that are kept, by trace id")
    otlp_metrics: bool = _setting(False, "send metrics to `otlp_endpoint` too, every minute")
    metrics_port: int = _setting(
        0, "`activation serve`: loopback port of `/metrics` for Prometheus; 0: none"
    )

    @property
    def data_path(self) -> Path:
        """`data_folder` as a path."""
        return Path(self.data_folder)

    @property
    def realtime_room(self) -> int:
        """How many realtime connections one process takes, of all organizations."""
        return 4 * self.realtime_connections

    @property
    def journal_path(self) -> Path:
        """The folder of the journal of suppressions."""
        return Path(self.journal_folder) if self.journal_folder else self.data_path / "journal"


def from_environment(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from variables; raises ValidationError for unknown names and bad values."""
    found = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in (os.environ if environ is None else environ).items()
        if name.startswith(PREFIX)
    }
    kinds = {f.name: type(f.default) for f in dataclasses.fields(Settings)}
    unknown = sorted(found.keys() - kinds.keys())
    if unknown:
        names = ", ".join(PREFIX + name.upper() for name in unknown)
        raise ValidationError(f"Unknown settings: {names}.", field=unknown[0], reason="unknown")
    values: dict[str, Any] = {n: _parsed(n, value, kinds[n]) for n, value in found.items()}
    settings = Settings(**values)
    if settings.backend not in ("embedded", "google"):
        raise ValidationError("ACTIVATION_BACKEND is `embedded` or `google`.", field="backend")
    if settings.rate_window_seconds < 1:
        raise ValidationError(
            "ACTIVATION_RATE_WINDOW_SECONDS is at least 1.", field="rate_window_seconds"
        )
    if settings.event_days < MIN_EVENT_DAYS:
        raise ValidationError(
            f"ACTIVATION_EVENT_DAYS is at least {MIN_EVENT_DAYS}.", field="event_days"
        )
    if settings.membership_days < MIN_MEMBERSHIP_DAYS:
        raise ValidationError(
            f"ACTIVATION_MEMBERSHIP_DAYS is at least {MIN_MEMBERSHIP_DAYS}.",
            field="membership_days",
        )
    _check_realtime(settings)
    if settings.jwks_url and not _is_safe(settings.jwks_url, settings):
        raise ValidationError("ACTIVATION_JWKS_URL is no https:// address.", field="jwks_url")
    if settings.redis_url and not _is_redis(settings.redis_url):
        raise ValidationError("ACTIVATION_REDIS_URL is no redis:// address.", field="redis_url")
    _check_numbers(settings)
    _check_telemetry(settings)
    return settings


def _check_realtime(settings: Settings) -> None:
    if settings.realtime_stream_seconds < MIN_STREAM_SECONDS:
        raise ValidationError(
            f"ACTIVATION_REALTIME_STREAM_SECONDS is at least {MIN_STREAM_SECONDS}.",
            field="realtime_stream_seconds",
        )
    if settings.realtime_connections < 1 or not 0.05 <= settings.realtime_poll_seconds <= 60:
        raise ValidationError(
            "ACTIVATION_REALTIME_CONNECTIONS is at least 1, ACTIVATION_REALTIME_POLL_SECONDS from"
            " 0.05 to 60.",
            field="realtime_poll_seconds",
        )


def emulator_hosts(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where Google's emulators are, by the variables that its clients read, too; empty: nowhere."""
    found = os.environ if environ is None else environ
    return {n: found.get(n, "") for n in ("FIRESTORE_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST")}


def _check_numbers(settings: Settings) -> None:
    """A share of 20 would be no limit at all, and days below 0 would delete what is new."""
    for name in _SHARES:
        if not 0 <= getattr(settings, name) <= 1:
            raise ValidationError(
                f"{PREFIX}{name.upper()} is a share from 0 to 1, such as 0.2.", field=name
            )
    for name, least in _LEAST.items():
        if not least <= getattr(settings, name) < float("inf"):
            raise ValidationError(f"{PREFIX}{name.upper()} is at least {least}.", field=name)
    if settings.segmented_threshold < settings.database_threshold:
        raise ValidationError(
            "ACTIVATION_SEGMENTED_THRESHOLD is not below ACTIVATION_DATABASE_THRESHOLD.",
            field="segmented_threshold",
        )


def _check_telemetry(settings: Settings) -> None:
    endpoint = settings.otlp_endpoint
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ValidationError("ACTIVATION_OTLP_ENDPOINT is no http address.", field="otlp_endpoint")
    if not 0 <= settings.trace_ratio <= 1:
        raise ValidationError("ACTIVATION_TRACE_RATIO is from 0 to 1.", field="trace_ratio")


def _is_safe(url: str, settings: Settings) -> bool:
    return url.startswith("https://") or settings.allow_private_hosts


def _is_redis(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _parsed(name: str, value: str, kind: type) -> object:
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        return kind(value)
    except (ValueError, KeyError) as error:
        variable = PREFIX + name.upper()
        raise ValidationError(
            f"{variable} must be a {kind.__name__}.", field=name, reason="invalid"
        ) from error
