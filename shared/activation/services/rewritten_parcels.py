"""What an erasure has made of a step that a database names as it was before.

The database went back, its objects did not. An erasure stores a step anew, without somebody, under
another name in the step's own folder; only a worker who lost a race leaves anything else there, in
the moment of the step.
"""

from __future__ import annotations

from datetime import timedelta

from activation.errors import NotFoundError, StorageUnavailableError
from activation.ports import BlobKey, Document
from activation.segments.codec import CHECKSUM, unpack
from activation.segments.minutes import instant_of
from activation.services.parcels import FOLDER, Parcels

IN_THE_MOMENT = timedelta(seconds=30)
"""What was stored so soon after a step may be of somebody who lost it."""


def rewritten(parcels: Parcels, document: Document) -> Document | None:
    """The document of a step, naming what its lost object was replaced by last; None when nothing
    of it is left."""
    key = document.key
    folder = f"{FOLDER}/{key.collection}/{key.id}/"
    found = list(parcels.blobs.list(key.organization_id, folder))
    for info in sorted(found, key=lambda one: one.created_at, reverse=True):
        data = _read(parcels, info.key)
        if data is None:
            continue
        header, _ = unpack(data)
        if info.created_at > instant_of(header["micros"]) + IN_THE_MOMENT:
            named = {**document.data, "object": info.key.path, "size_bytes": len(data)}
            return Document(key, named, document.revision)
    return None


def _read(parcels: Parcels, key: BlobKey) -> bytes | None:
    """The bytes of an object that is whole."""
    try:
        data = parcels.blobs.get(key)
        unpack(data)
    except NotFoundError:
        return None
    except StorageUnavailableError as error:
        if error.reason != CHECKSUM:
            raise
        return None
    return data
