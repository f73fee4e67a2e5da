"""What a platform must hold after a distribution, worked out from the stored members alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.identifier import Variant
from activation.domain.manifest import Place
from activation.domain.platform import ConnectorSpec
from activation.domain.storage import StoragePart
from activation.errors import InvalidStateError, StorageUnavailableError
from activation.ports import BlobKey, Key
from activation.twins.members import member_key, set_digest

COLUMNS = ["identifier_type", "digest", "alternate", "value"]
COLLECTION = "member_parts"
KEY_VARIANTS = frozenset({Variant.PLAIN, Variant.E164})
"""The variants that are the members' own digests; GOOGLE and DIGITS stand next to them."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A set of identifiers: how many, and the digest of the set."""

    members: int
    digest: str


def expected(app: App, caller: Caller, audience_id: str, platform_id: str) -> Holding:
    """The identifiers of the audience that the platform takes, in the form it takes them.

    The stored partitions are read as any Parquet reader would; the way of a distribution through
    list, batches and connector is not used. Raises InvalidStateError where small changes lie
    beside the partitions: those only our own readers apply.
    """
    platform = app.platforms.get(caller, platform_id).entity
    spec = app.connectors.spec_for(platform.platform_type, platform.settings.config)
    keys = set(_keys(app, caller, audience_id, spec))
    return Holding(len(keys), set_digest(keys))


def _keys(app: App, caller: Caller, audience_id: str, spec: ConnectorSpec) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    stored = app.storages.info(caller, audience_id)
    if stored.deltas:
        raise InvalidStateError("The audience has to be compacted first.", reason="has_deltas")
    for part in stored.parts:
        with _opened(app, caller.organization_id, part) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=COLUMNS):
                yield from _batch_keys(batch, spec)


def _opened(app: App, organization_id: str, part: StoragePart) -> IO[bytes]:
    """A part as it is stored: an object of the members area, or text in a document."""
    if part.place is Place.OBJECT:
        return app.member_blobs.open(BlobKey(organization_id, part.location))
    found = app.documents.get(Key(organization_id, COLLECTION, part.location))
    if found is None:
        raise StorageUnavailableError("A part is not there.")
    return io.BytesIO(base64.b64decode(found.data["content"]))


def _batch_keys(batch: Any, spec: ConnectorSpec) -> Iterator[bytes]:
    import pyarrow.compute as pc

    for kind, variant in spec.identifiers.items():
        chosen = batch.filter(pc.equal(batch["identifier_type"], kind.value))
        for value in _values(chosen, variant):
            yield member_key(kind, value)


def _values(batch: Any, variant: Variant) -> Iterator[str]:
    import pyarrow.compute as pc

    if variant is Variant.RAW:
        return iter(batch["value"].to_pylist())
    digests = batch["digest"]
    if variant not in KEY_VARIANTS:
        digests = pc.coalesce(batch["alternate"], digests)
    return (digest.hex() for digest in digests.to_pylist())
