"""Hash canaries: addresses known to be in a file tell whether its hashes were made right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from activation.domain.identifier import digest_from
from activation.domain.member_import import ImportOptions
from activation.members.runs import Runs
from activation.ports import BlobStore

_FOUND_NONE = (
    "None of the canaries is in the file: the addresses are missing, or were hashed without "
    "trimming and lower-casing them, or by another rule than the declared one."
)
_TWICE = "The canaries are in the file hashed twice: hash the address, not its hash."
_TWICE_UPPER = "The canaries are in the file hashed twice, the second time from upper-case hex."
_AS_BYTES = "The canaries are in the file hashed twice, the second time from the raw digest."


def canary_warnings(
    blobs: BlobStore,
    organization_id: str,
    prefix: str,
    last: Sequence[Any],
    options: ImportOptions,
) -> list[str]:
    """What the canaries say about a file: nothing when one of them is there as it should be.

    Looks into the runs stored under `prefix` and the tables not stored yet.
    """
    expected = [d for d in (digest_from(text) for text in options.canaries) if d is not None]
    if not expected:
        return []
    paths = [info.key for info in blobs.list(organization_id, f"{prefix}/run-")]
    with Runs(blobs, paths) as runs:
        for warning, mistake in _MISTAKES:
            if any(_occurs(mistake(digest), runs, last) for digest in expected):
                return [warning] if warning else []
    return [_FOUND_NONE]


def _occurs(digest: bytes, runs: Runs, last: Sequence[Any]) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array([digest], pa.binary(32))
    tables = [*runs.batches([digest[0]]), *last]
    return any(
        pc.any(pc.is_in(table.column("digest"), value_set=wanted)).as_py() for table in tables
    )


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


_MISTAKES = (
    ("", lambda digest: digest),
    (_TWICE, lambda digest: _sha256(digest.hex().encode())),
    (_TWICE_UPPER, lambda digest: _sha256(digest.hex().upper().encode())),
    (_AS_BYTES, _sha256),
)
"""What may have happened to an expected digest, likeliest first."""
