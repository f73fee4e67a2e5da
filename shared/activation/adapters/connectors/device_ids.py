"""Device ids for platforms that want them hashed: we store them plain, in lower case."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def hashed_device_ids(values: Sequence[str | None]) -> list[str | None]:
    """SHA-256 of each id in lower case, as hexadecimal text; what is absent stays so."""
    return [hashlib.sha256(v.lower().encode()).hexdigest() if v else None for v in values]
