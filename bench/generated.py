"""Generated members, straight as rows of runs: there is no file to read and nothing to hash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from activation.domain.identifier import IdentifierType
from activation.members.layout import RULES, TYPES, binary_array, schema

BLOCK = 250_000
ADDED_AT = 1_795_000_000_000_000
CITIES = ["Berlin", "Paris", "London", "New York", "Tokyo", "Austin", "Madrid", "Rome", "Oslo"]
TIERS = ["gold", "silver", "bronze", "none"]
SHAPES = ("long", "wide")
KINDS = (
    *(IdentifierType.EMAIL,) * 6,
    *(IdentifierType.PHONE,) * 3,
    IdentifierType.MAID,
)
"""The type of a member, by the last digit of its number."""


def blocks(numbers: range) -> Iterator[range]:
    """Numbers, in pieces that are made at once."""
    for start in range(numbers.start, numbers.stop, BLOCK):
        yield range(start, min(start + BLOCK, numbers.stop))


def digests(numbers: range, salt: int = 0) -> Any:
    """(n, 32) bytes: as uniform as SHA-256."""
    words = np.arange(numbers.start, numbers.stop, dtype=np.uint64)
    places = [words * np.uint64(8) + np.uint64(place + 4 * salt) for place in range(4)]
    return np.stack([_mixed(word) for word in places], axis=1).view(np.uint8).reshape(-1, 32)


def kind_of(number: int) -> IdentifierType:
    """The type of a member."""
    return KINDS[number % len(KINDS)]


def members(numbers: range, shape: str = "long") -> Any:
    """Members by number. `long`: one identifier a row, three attributes. `wide`: rows of a CRM
    export with e-mail, phone and device of one person, consent, score, labels, eight attributes."""
    rows = len(numbers)
    of_type = np.array([TYPES.index(kind) for kind in KINDS], np.uint8)
    kinds = of_type[np.arange(numbers.start, numbers.stop) % len(KINDS)]
    octets, others = digests(numbers), digests(numbers, salt=1)
    is_phone = kinds == TYPES.index(IdentifierType.PHONE)
    columns = {
        "digest": binary_array(octets),
        "identifier_type": pa.array(kinds),
        "value": _devices(octets, kinds == TYPES.index(IdentifierType.MAID)),
        "alternate": binary_array(others, is_phone),
        "hash_rule": pa.array(np.full(rows, len(RULES) - 1, np.uint8)),
        "attributes": _attributes(octets, shape),
        "added_at": pa.array(np.full(rows, ADDED_AT)).cast(pa.timestamp("us", "UTC")),
    }
    if shape == "wide":
        columns |= _of_people(numbers, octets)
    return pa.table(
        [columns.get(field.name, pa.nulls(rows, field.type)) for field in schema()],
        schema=schema(),
    )


def _mixed(words: Any) -> Any:
    """SplitMix64."""
    words = words * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _devices(octets: Any, present: Any) -> Any:
    """Device ids, which are stored as they are."""
    digits = pc.binary_join_element_wise(
        *(pa.array(octets[:, at].astype(np.uint32) + 10_000).cast(pa.string()) for at in range(7)),
        "",
    )
    cuts = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
    parts = [pc.utf8_slice_codeunits(digits, start, stop) for start, stop in cuts]
    values = pc.binary_join_element_wise(*parts, "-")
    return pc.if_else(pa.array(present), values, pa.scalar(None, pa.string()))


def _attributes(octets: Any, shape: str) -> Any:
    spent = pa.array(np.round(octets[:, 9] ** 2 / 7.0 + octets[:, 10] / 100, 2)).cast(pa.string())
    city = pa.array(CITIES).take(pa.array(octets[:, 11] % len(CITIES)))
    tier = pa.array(TIERS).take(pa.array(octets[:, 12] % len(TIERS)))
    parts = ['{"ltv":', spent, ',"city":"', city, '","tier":"', tier, '"']
    if shape == "wide":
        for place, name in enumerate(("orders", "visits", "age", "days_since_order", "returns")):
            parts += [f',"{name}":', pa.array(octets[:, 13 + place] % 90).cast(pa.string())]
    return pc.binary_join_element_wise(*parts, "}", "")


def _of_people(numbers: range, octets: Any) -> dict[str, Any]:
    people = np.arange(numbers.start, numbers.stop, dtype=np.uint64) // np.uint64(3)
    words = _mixed(people).view(np.uint8).reshape(-1, 8)
    labels = pa.array([["vip"], ["vip", "newsletter"], [], ["newsletter"]])
    return {
        "person": binary_array(words),
        "score": pa.array(np.round(octets[:, 20] / 255, 2)),
        "consent": pa.array(octets[:, 21] % 2),
        "segments": labels.take(pa.array(octets[:, 22] % 4)),
    }
