"""The outside world on one page: what the rest of the code may ask of stores, time and platforms.

Back-ends live in `activation.adapters`; `activation.app` chooses between them. The contract of
every port is its docstring, and the suite `tests/contracts` holds each back-end to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import IO, Any, Protocol

from activation.domain.cache import CacheLayer
from activation.domain.delivery import (
    AccountCheck,
    Delivery,
    MatchReport,
    PlatformSize,
    SendOutcome,
)
from activation.domain.identifier import require_safe_id
from activation.domain.platform import ConnectorSpec, PlatformType

JSONObject = Mapping[str, Any]

# Documents ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """The address of a document; without an organization it cannot be written down."""

    organization_id: str
    collection: str
    id: str

    def __post_init__(self) -> None:
        require_safe_id("organization_id", self.organization_id)
        require_safe_id("collection", self.collection)
        require_safe_id("id", self.id)


Revision = str
"""Opaque mark of one state of a document, made by the store, usable as an ETag."""

ABSENT: Revision = ""
"""As `Write.expected`: the document must not exist."""


@dataclass(frozen=True, slots=True)
class Document:
    """A stored JSON object with its address and the revision it was read at."""

    key: Key
    data: JSONObject
    revision: Revision


@dataclass(frozen=True, slots=True)
class Write:
    """Put (`data`) or delete (`data=None`) one document.

    `expected` is a revision that must still be current, `ABSENT`, or None for no precondition.
    A field `due_at` (RFC 3339 text, UTC) makes the document appear in `DocumentStore.due`.
    """

    key: Key
    data: JSONObject | None
    expected: Revision | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What one of our functions tells another; `data` holds no secret, and no identifier but for
    the events of users on their way to evaluation.

    `id` is stable: a consumer may treat two deliveries with one id as the same message.
    Messages with the same `ordering_key` are delivered one after the other, in order of
    publication.
    """

    topic: str
    organization_id: str
    id: str
    data: JSONObject
    ordering_key: str | None = None
    trace_id: str | None = None
    traceparent: str | None = None
    """The span that brought it about, when it is other than the one that sends it on."""
    published_at: datetime | None = field(default=None, compare=False)
    """When the bus took it for the first time; None before, and where no bus tells."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one use case changes: all of it is committed, or nothing."""

    writes: Sequence[Write] = ()
    messages: Sequence[Message] = ()


OUTBOX = "outbox"
"""Collection in which a store keeps the messages of a batch until they are published."""


@dataclass(frozen=True, slots=True)
class Query:
    """Documents of one organization and collection, newest id first.

    `equal` compares fields declared in `activation.indexes`; a list value in the document matches
    when it contains the asked value. `since` keeps ids >= it. `after` is the id to go on from.
    """

    organization_id: str
    collection: str
    equal: Mapping[str, str | bool | int] = field(default_factory=dict)
    since: str | None = None
    after: str | None = None
    limit: int = 50


class Watch(Protocol):
    """Tells of one collection of one organization; made by `DocumentStore.watch`.

    What it tells is a hint: it may come late, more than once, or, when a connection broke in a way
    that nobody noticed, not at all. Whoever relies on it looks for himself from time to time.
    """

    def wait(self, timeout_seconds: float) -> list[Document]:
        """The documents that were written since the last call, each as it was last written; at the
        first call, all there are. Waits for one until the time is over or the watch is closed.

        Deletes are not told. Raises StorageUnavailableError when the store does not answer.
        """

    def close(self) -> None:
        """Tell nothing more, and let go whoever waits. May be called again, by any thread."""


class DocumentStore(Protocol):
    """Metadata: small JSON documents, strongly consistent, with optimistic revisions.

    Raises StorageUnavailableError when the store does not answer; after a commit that raised it
    the outcome is unknown, and the caller redoes the whole use case under the same preconditions.
    """

    def get(self, key: Key) -> Document | None:
        """Return the document as of the last commit, or None."""

    def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        """`get` for each key, in order, in one round trip."""

    def query(self, query: Query) -> list[Document]:
        """One page of a query. An undeclared field raises ValueError: that is our mistake."""

    def count(self, query: Query) -> int:
        """How many documents the query has without `after` and `limit`."""

    def due(self, collection: str, until: datetime, limit: int) -> list[Document]:
        """Documents of every organization whose `due_at` has come, oldest first."""

    def organizations(self) -> list[str]:
        """The ids of all organizations that have a document, sorted."""

    def commit(self, batch: Batch) -> list[Revision]:
        """Apply all writes and keep all messages in the outbox, atomically and durably.

        Returns the new revision of each write (ABSENT for deletes). Raises ConflictError, with
        nothing applied, when any precondition does not hold. A batch may touch a key only once.
        """

    def watch(self, organization_id: str, collection: str) -> Watch:
        """Be told of a collection of few documents, whoever writes them; without reading while
        nothing is written. Close it."""

    def ping(self) -> None:
        """Return when the store answers; raise StorageUnavailableError otherwise."""


# Blobs ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlobKey:
    """The address of an object inside one area; `path` is relative, made by us, never reused."""

    organization_id: str
    path: str

    def __post_init__(self) -> None:
        require_safe_id("organization_id", self.organization_id)
        for part in self.path.split("/"):
            require_safe_id("path", part)

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.path}"


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What a store knows of an object. `storage_class` is STANDARD, NEARLINE, COLDLINE, ARCHIVE;
    `key_reference` the version of the key that encrypts it, where the store has one."""

    key: BlobKey
    size_bytes: int
    created_at: datetime
    storage_class: str
    metadata: Mapping[str, str]
    content_type: str
    key_reference: str | None = None


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """Where and how a client may put one object by itself: method, address, headers to send."""

    method: str
    url: str
    headers: Mapping[str, str]
    expires_at: datetime


class BlobStore(Protocol):
    """One area (bucket) of immutable objects; written once, whole or not at all.

    Raises NotFoundError for a missing object on `open`, `get` and `set_class`;
    StorageUnavailableError when the store does not answer.
    """

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
        """Store an object durably; a stream is read in bounded pieces.

        Raises ConflictError when the name is taken, PayloadTooLargeError when a stream is longer
        than `max_bytes`; then nothing is stored.
        """

    def open(self, key: BlobKey) -> IO[bytes]:
        """A seekable reader that fetches ranges; close it."""

    def get(self, key: BlobKey, start: int = 0, end: int | None = None) -> bytes:
        """The bytes [start, end)."""

    def stat(self, key: BlobKey) -> BlobInfo | None:
        """Return what is known of the object, or None."""

    def list(self, organization_id: str, prefix: str = "") -> Iterator[BlobInfo]:
        """Objects of one organization in name order."""

    def compose(self, sources: Sequence[BlobKey], target: BlobKey) -> BlobInfo:
        """Join up to 32 objects into a new one, without fetching them."""

    def set_class(self, key: BlobKey, storage_class: str) -> None:
        """Move an object to another storage class."""

    def delete(self, key: BlobKey) -> bool:
        """Remove an object; False when there was none."""

    def upload_target(
        self, key: BlobKey, *, content_type: str, max_bytes: int, lifetime: timedelta
    ) -> UploadTarget:
        """An address at which a client without other rights may create exactly this object."""

    def ping(self) -> None:
        """Return when the store answers; raise StorageUnavailableError otherwise."""


# Bus ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that its subscriber could not take, with the last reason."""

    subscription: str
    message: Message
    attempts: int
    reason: str


class MessageBus(Protocol):
    """Topics with at-least-once delivery to the functions of the function manifest.

    A function that fails sees the message again with growing delay; after the subscription's
    number of attempts it becomes a dead letter. While a message with an ordering key is retried,
    later ones with that key wait.
    """

    def publish(self, messages: Sequence[Message]) -> None:
        """Return when all messages are durable; raises StorageUnavailableError otherwise."""

    def dead_letters(self, subscription: str, limit: int = 100) -> list[DeadLetter]:
        """The oldest dead letters of a subscription (a function's name)."""

    def redrive(self, subscription: str, limit: int = 100) -> int:
        """Publish dead letters again under their own ids, then drop them; returns how many."""

    def revise(self, subscription: str, revised: Callable[[Message], Message | None]) -> bool:
        """Put in the place of each dead letter what `revised` makes of it, nothing for None, and
        leave those alone that it returns as they are. False, and nothing is done, on a bus whose
        messages cannot be changed: there they go by themselves, after a month at the latest."""

    def ping(self) -> None:
        """Return when the bus answers; raise StorageUnavailableError otherwise."""


# Secrets --------------------------------------------------------------------------------------


class Vault(Protocol):
    """Seals secrets by envelope encryption: AES-256-GCM under a fresh data key per secret.

    `context` (purpose, organization, platform, record version …) is bound as length-prefixed
    associated data: a sealed text opens only with the very same context. Raises
    CredentialUnreadableError when it does not open, StorageUnavailableError when the key service
    does not answer.
    """

    def seal(self, plaintext: bytes, context: Sequence[str]) -> str:
        """Return the sealed text; printable, with a version prefix and the key's name."""

    def open(self, sealed: str, context: Sequence[str]) -> bytes:
        """Return the plaintext."""

    def rewrap(self, sealed: str, context: Sequence[str]) -> str:
        """Wrap the same data key with the current key version; the ciphertext stays."""

    def key_version(self, sealed: str) -> str:
        """The version of the key that wrapped the data key of `sealed`."""

    def reseal(self, sealed: str, plaintext: bytes, context: Sequence[str]) -> str:
        """Put another plaintext under the data key of `sealed`; needs no right to wrap keys."""

    def ping(self) -> None:
        """Return when the key service answers; raise StorageUnavailableError otherwise."""


class Signer(Protocol):
    """Signs what others have to be able to check without us: ECDSA on P-256 with SHA-256.

    The private key never leaves it. Raises StorageUnavailableError when the key cannot be used.
    """

    @property
    def key_id(self) -> str:
        """The name of the key, the same for as long as the key is."""

    def sign(self, data: bytes) -> bytes:
        """The signature over `data`, in DER."""

    def public_key(self) -> str:
        """The key that verifies, as PEM (SubjectPublicKeyInfo)."""


# Cache ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CacheKey:
    """The name of a value that can be made again: it says what the value was made from, so that
    another state has another name. `kind` is what counters tell apart.

    `hidden` tells apart values of one name by what nobody may read in a cache: cursors, filters.
    """

    organization_id: str
    name: str
    kind: str
    hidden: str = ""

    def __str__(self) -> str:
        return f"{self.organization_id}:{self.name}"


class Cache(Protocol):
    """Values that cost something to make, kept for a while. It never fails and never waits long:
    a cache that is down misses, and keeps nothing."""

    def get(self, key: CacheKey) -> bytes | None:
        """The value as it was set, until its time is over; None when it is not there."""

    def set(self, key: CacheKey, value: bytes, ttl_seconds: float) -> None:
        """Keep a value, in the place of an older one. It may go before its time."""

    def layers(self) -> Sequence[CacheLayer]:
        """What each layer did since the process started, in the order they are asked."""


class Clock(Protocol):
    """Time, so that tests can move it."""

    def now(self) -> datetime:
        """The current instant, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


# Ad platforms ---------------------------------------------------------------------------------


class Login(Protocol):
    """The kept credentials of an account, of which a platform may replace a part at any time."""

    def latest(self) -> Mapping[str, str]:
        """The credentials as they are kept now; PlatformAuthError when the account is gone."""

    def keep(self, credentials: Mapping[str, str]) -> bool:
        """Keep what the platform has made of the credentials. False, with nothing changed, when
        their owner has entered other ones since the account was opened."""


@dataclass(frozen=True, slots=True)
class Account:
    """An organization's account on a platform with its opened secrets; lives in memory only.

    `login` is where they are kept; without it, what a platform replaces is lost with the process.
    """

    platform_id: str
    settings: JSONObject
    credentials: Mapping[str, str] = field(repr=False)
    login: Login | None = field(default=None, repr=False, compare=False)


class Connector(Protocol):
    """Our code that speaks to one kind of ad platform.

    All methods raise PlatformTransientError (the same bytes may be sent again),
    PlatformAuthError (credentials), PlatformRowsError (some rows spoil the batch) or
    PlatformError (permanent). Adding and removing are idempotent on every platform: the engine
    re-sends a batch whose outcome is unknown under the same `Delivery` and sequence number.
    What only some platforms can do has a default in `adapters/connectors/defaults.py`.
    """

    spec: ConnectorSpec

    def check(self, account: Account) -> AccountCheck:
        """Ask the platform something harmless that only good credentials can have answered."""

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the platform's id of the audience, made at most once per `external_id`."""

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Send batch `seq` (1-based) of `delivery`, by its `operation`.

        `columns` maps identifier types to equally long lists in the form the spec asks for; one
        position is one person, None where the person has no such identifier. With `one_type` in
        the spec there is one column.
        """

    def finish(self, account: Account, delivery: Delivery) -> None:
        """Tell the platform that the last batch of the lane is through, where it wants to know;
        `delivery.rows` are those that it has taken."""

    def clear(self, account: Account, delivery: Delivery) -> str | None:
        """Take out all that was last added before `delivery.started_at` (`Replacement.AS_OF`);
        returns the platform's receipt."""

    def match_results(
        self, account: Account, delivery: Delivery, receipts: Sequence[str]
    ) -> MatchReport:
        """What the platform matched so far; `receipts` are those that `send` returned."""

    def size(self, account: Account, delivery: Delivery) -> PlatformSize | None:
        """How many people the platform counts in the audience; None while it does not say."""

    def listing(self, account: Account, delivery: Delivery) -> Iterator[tuple[str, str]]:
        """The identifiers in the audience as the platform holds them: type and outgoing value."""


class Connectors(Protocol):
    """The connectors there are, and what they need."""

    def specs(self) -> Sequence[ConnectorSpec]:
        """One spec per kind of platform, with default settings."""

    def spec_for(self, platform_type: PlatformType, config: JSONObject) -> ConnectorSpec:
        """The spec under an account's settings."""

    def validate(
        self, platform_type: PlatformType, credentials: Mapping[str, Any], config: JSONObject
    ) -> None:
        """Raise ValidationError naming a credential or setting that is missing or unknown."""

    def validate_settings(
        self,
        platform_type: PlatformType,
        sealed: Sequence[str],
        config: JSONObject,
        before: JSONObject,
    ) -> None:
        """The same of settings that take the place of `before`, where of the credentials only
        the names are known: what names the receiver of credentials stays as it was."""

    def connector(self, platform_type: PlatformType, config: JSONObject) -> Connector:
        """The connector that speaks to this kind of platform."""


# Operators ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HookReply:
    """What a receiver of events answered."""

    status: int
    retry_after_seconds: float | None = None


class Hooks(Protocol):
    """Posts signed events to addresses that organizations have registered."""

    def require(self, url: str) -> None:
        """Raise ValidationError (URL_NOT_ALLOWED) unless `url` may be registered."""

    def post(
        self, url: str, secrets: Sequence[str], message_id: str, document: JSONObject
    ) -> HookReply:
        """Post a JSON document once, signed with each of `secrets`; a receiver may treat two with
        one id as the same.

        Raises PlatformTransientError when there is no answer in time, PlatformError when the
        address may not be called.
        """


class Notifier(Protocol):
    """Tells a system of the operator what has happened, such as the report of a retention run."""

    def send(self, message_id: str, document: JSONObject) -> None:
        """Deliver a JSON document; the receiver may treat two with one id as the same.

        Raises PlatformTransientError when the same may be sent again, else PlatformError.
        """
