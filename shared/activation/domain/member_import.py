"""The import of a file of members: a job with exact counts."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Draft, Entity, Instant, Value
from activation.domain.identifier import IdentifierType
from activation.domain.manifest import StorageTier


class ImportStatus(StrEnum):
    """Where an import is."""

    AWAITING_UPLOAD = "awaiting_upload"
    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({ImportStatus.COMPLETED, ImportStatus.FAILED, ImportStatus.CANCELLED})


class FileFormat(StrEnum):
    """File formats that an import reads."""

    CSV = "csv"
    NDJSON = "ndjson"
    PARQUET = "parquet"


class HashRule(StrEnum):
    """How the values of a column arrive: raw, or hashed by a declared rule (SHA-256)."""

    RAW = "raw"
    PLAIN = "plain"
    GOOGLE = "google"
    UID2 = "uid2"
    E164 = "e164"
    DIGITS = "digits"


class ColumnMapping(Value):
    """What one column of the file holds."""

    column: str
    identifier_type: IdentifierType | None = None
    hash_rule: HashRule = HashRule.RAW
    role: str | None = None
    """attribute | expires_at | score | consent | ad_user_data | ad_personalization |
    limited_data_use | tcf | segments | identifier_type | identifier_value | hash_rule |
    attributes | ignore; None for an identifier column."""


class ImportOptions(Value):
    """How to read a file. What is left out is detected."""

    format: FileFormat | None = None
    columns: tuple[ColumnMapping, ...] | None = None
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    default_region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")
    """Country (ISO 3166) of phone numbers written without + or 00; such numbers are rejected
    when it is missing."""
    max_reject_ratio: float | None = Field(default=None, ge=0, le=1)
    """The import fails when more than this share of the received values is rejected; checked
    after every chunk of the file, once enough was read to judge."""
    canaries: tuple[str, ...] = Field(default=(), max_length=10)
    """Hex SHA-256 digests (plain rule) of addresses known to be in the file."""


class ImportCounts(Value):
    """Exact counts. A received value is an identifier found in a row; a row that holds none, or
    cannot be read, counts as one. received = accepted + duplicate + rejected, and
    accepted = added + updated once the import has completed."""

    rows: int = 0
    received: int = 0
    accepted: int = 0
    added: int = 0
    updated: int = 0
    duplicate: int = 0
    rejected: int = 0
    rejected_by_reason: dict[str, int] = Field(default_factory=dict)
    by_type: dict[str, int] = Field(default_factory=dict)
    """Good values in the file, by identifier type; repeated ones are counted each time."""


class ImportChunk(Value):
    """One committed piece of the file: where its rows went, and where the next one starts."""

    seq: int
    position: int
    row: int
    run: str | None
    rejects: str | None
    size: int


class StorageResult(Value):
    """What an import has stored (seed 000)."""

    storage_type: StorageTier
    duration_seconds: float
    records_stored: int
    """Members that are stored because of it: equals the accepted values."""
    segments: int
    """Stored parts of the audience afterwards: partitions and deltas."""
    partitions: int
    deltas: int = 0
    compressed_size: int = 0
    """Bytes of these parts."""
    location: str | None
    """What the names of the audience's objects begin with."""


class MemberImport(Entity):
    """The job resource of one import."""

    import_id: str
    audience_id: str
    user_id: str
    status: ImportStatus
    source: str
    """Object in the uploads area that holds the file."""
    source_bytes: int | None = None
    file_name: str | None = None
    options: ImportOptions = ImportOptions()
    detected: dict[str, Any] = Field(default_factory=dict)
    """What was found in the file: format, compression, delimiter, columns."""
    counts: ImportCounts = ImportCounts()
    percentage: float = 0.0
    rows_per_second: float | None = None
    eta_seconds: float | None = None
    chunks: tuple[ImportChunk, ...] = ()
    read_to_end: bool = False
    attempt: int = 0
    lease_until: Instant | None = None
    started_at: Instant | None = None
    completed_at: Instant | None = None
    duration_seconds: float | None = None
    error: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    storage_result: StorageResult | None = None
    trace_id: str | None = None

    def stored(self) -> dict[str, Any]:
        """The stored form; a job that is not final comes up for `run_due` at `lease_until`."""
        due = self.lease_until if self.status not in FINAL else None
        data = self.model_dump(mode="json")
        return {**data, "due_at": data["lease_until"] if due else None}

    @classmethod
    def restored(cls, data: Any) -> MemberImport:
        """The job from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "due_at"})

    def public(self) -> dict[str, Any]:
        """What callers see: everything but the machinery of resuming."""
        hidden = {"chunks", "attempt", "lease_until", "source", "read_to_end"}
        return self.model_dump(mode="json", exclude=hidden)


class ColumnDraft(Draft):
    """What one column of the file holds; see ColumnMapping."""

    column: str = Field(min_length=1, max_length=255)
    identifier_type: IdentifierType | None = None
    hash_rule: HashRule = HashRule.RAW
    role: str | None = Field(default=None, max_length=50)


class ImportDraft(Draft):
    """How to read a file that is about to be uploaded; what is left out is detected."""

    file_name: str | None = Field(default=None, max_length=255)
    format: FileFormat | None = None
    columns: tuple[ColumnDraft, ...] | None = Field(default=None, max_length=200)
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    default_region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")
    max_reject_ratio: float | None = Field(default=None, ge=0, le=1)
    canaries: tuple[str, ...] = Field(default=(), max_length=10)
