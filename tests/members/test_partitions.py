"""Which partition holds a member: known answers, spread, and growth.

The partition of a member is the number that the leading bits of its digest spell: at 16 the first
hex digit, at 256 the first two, at 64 the first two without their last two bits.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from activation.domain.identifier import IdentifierType
from activation.domain.manifest import partition_count_for
from activation.domain.member import MemberInput
from activation.domain.member_change import MemberReference
from activation.members.layout import first_bytes, partition_of
from tests.members.support import AUDIENCE, ORGANIZATION, Workbench

EMAIL, PHONE = IdentifierType.EMAIL, IdentifierType.PHONE
MAID, CUSTOMER = IdentifierType.MAID, IdentifierType.CUSTOMER_ID


@pytest.mark.parametrize(
    ("kind", "given", "stored", "beginning", "of_16", "of_64", "of_256"),
    [
        (EMAIL, "ann@example.com", "ann@example.com", "71d4f55f", 0x7, 28, 0x71),
        (EMAIL, " Bob.Smith@GMAIL.com ", "bob.smith@gmail.com", "6bf6e70b", 0x6, 26, 0x6B),
        (EMAIL, "carla+news@example.org", "carla+news@example.org", "dafb5beb", 0xD, 54, 0xDA),
        (EMAIL, "b@example.net", "b@example.net", "65f46064", 0x6, 25, 0x65),
        (PHONE, "+49 170 1234567", "+491701234567", "b4267a22", 0xB, 45, 0xB4),
        (PHONE, "+1 (415) 555-0100", "+14155550100", "40d3f4e0", 0x4, 16, 0x40),
        (PHONE, "+442071838750", "+442071838750", "e631c253", 0xE, 57, 0xE6),
        (CUSTOMER, "K-1001", "K-1001", "20234e37", 0x2, 8, 0x20),
        (CUSTOMER, "k-1001", "k-1001", "b6750604", 0xB, 45, 0xB6),
        (
            MAID,
            "3F2504E0-4F89-41D3-9A0C-0305E82C3301",
            "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            "16362f56",
            0x1,
            5,
            0x16,
        ),
    ],
)
def test_known_answers(
    kind: IdentifierType,
    given: str,
    stored: str,
    beginning: str,
    of_16: int,
    of_64: int,
    of_256: int,
) -> None:
    digest = MemberReference(identifier_type=kind, identifier_value=given).digest()
    assert digest == hashlib.sha256(stored.encode()).digest()
    assert digest.hex().startswith(beginning)
    assert [partition_of(digest, count) for count in (16, 64, 256)] == [of_16, of_64, of_256]


@pytest.mark.parametrize(
    ("members", "partitions"),
    [
        (0, 16),
        (1, 16),
        (100_000, 16),
        (3_200_000, 16),
        (3_200_001, 32),
        (6_400_001, 64),
        (10_000_000, 64),
        (12_800_001, 128),
        (25_600_001, 256),
        (100_000_000, 256),
    ],
)
def test_how_many_partitions_an_audience_has(members: int, partitions: int) -> None:
    assert partition_count_for(members) == partitions


def test_members_spread_evenly() -> None:
    values = [f"customer-{number}" for number in range(100_000)]
    held = Counter(partition_of(hashlib.sha256(v.encode()).digest(), 16) for v in values)
    assert sorted(held) == list(range(16))
    even = len(values) / 16
    assert max(abs(rows - even) for rows in held.values()) <= 0.05 * even


@pytest.mark.parametrize(("fewer", "more"), [(16, 64), (64, 256), (16, 256), (16, 32)])
def test_a_partition_grows_into_its_neighbours(fewer: int, more: int) -> None:
    for byte in range(256):
        digest = bytes([byte]) + b"\xff" * 31
        parent, child = partition_of(digest, fewer), partition_of(digest, more)
        assert child * fewer // more == parent
        assert byte in first_bytes(child, more)
        assert set(first_bytes(child, more)) <= set(first_bytes(parent, fewer))


@pytest.mark.parametrize("count", [16, 32, 64, 128, 256])
def test_partitions_cover_all_digests_in_order(count: int) -> None:
    covered = [byte for number in range(count) for byte in first_bytes(number, count)]
    assert covered == list(range(256))


def test_one_value_in_two_types_is_two_members(bench: Workbench) -> None:
    """The documents' key leaves out the type: there, one of the two would be lost."""
    kinds = (CUSTOMER, IdentifierType.COOKIE_ID)
    both = [MemberInput(identifier_type=kind, identifier_value="X-1") for kind in kinds]
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, both)
    assert run.path is not None
    manifest = bench.store.merge(ORGANIZATION, AUDIENCE, "m-1", None, [run.path]).manifest
    assert (manifest.size, manifest.by_type) == (2, {"cookie_id": 1, "customer_id": 1})
    assert len(manifest.partitions) == 1
    digest = hashlib.sha256(b"X-1").digest()
    removals = [(IdentifierType.COOKIE_ID, digest)]
    after = bench.store.merge(ORGANIZATION, AUDIENCE, "m-2", manifest, [], removals).manifest
    assert after.by_type == {"customer_id": 1}
    assert bench.store.find(after, CUSTOMER, digest) is not None
    assert bench.store.find(after, IdentifierType.COOKIE_ID, digest) is None
