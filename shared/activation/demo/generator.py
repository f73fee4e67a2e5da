"""Writes the CRM export of a made-up organization, and says exactly what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from activation.demo.draws import Draws
from activation.demo.people import MAX_PEOPLE, Kind, Purpose, kinds
from activation.demo.rows import HEADER, Block, is_national
from activation.errors import ValidationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEED = 2025
REGION = "DE"
"""The default region with which the counts of Contents hold."""
BLOCK_ROWS = 100_000
REPEATED_SHARE = 0.03
"""Share of rows about people who had a row before."""

OnRows = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Contents:
    """What an import of the file into an empty audience counts, with the default region REGION.

    `received` and the rest are those of `ImportCounts`; `national_phones` of the accepted or
    repeated values are phone numbers that a missing default region turns into rejects.
    """

    rows: int
    people: int
    received: int
    accepted: int
    duplicate: int
    rejected_by_reason: dict[str, int]
    accepted_by_type: dict[str, int]
    national_phones: int

    @property
    def rejected(self) -> int:
        """All values and rows that are not taken."""
        return sum(self.rejected_by_reason.values())


def write_export(
    path: Path,
    rows: int,
    *,
    seed: int = SEED,
    block_rows: int = BLOCK_ROWS,
    on_rows: OnRows = lambda _: None,
) -> Contents:
    """Write `rows` rows of CSV; the same bytes for the same `rows` and `seed`.

    `on_rows` hears the number of each block's rows. Memory depends on `block_rows` only. Raises
    ValidationError for a number of rows that it cannot make.
    """
    if not 1 <= rows <= MAX_PEOPLE:
        raise ValidationError(
            f"The generator makes 1 to {MAX_PEOPLE:,} rows.", field="rows", reason="out_of_range"
        )
    total: Counter[str] = Counter()
    with path.open("wb") as file:
        file.write(HEADER.encode() + b"\n")
        for block in blocks(rows, seed, block_rows):
            file.write(block.text())
            total.update(_counted(block))
            on_rows(len(block.rows))
    return _contents(total)


def blocks(rows: int, seed: int, block_rows: int) -> Iterator[Block]:
    """The rows, block by block; where blocks end changes nothing."""
    import numpy as np

    draws = Draws(seed)
    met = 0
    for start in range(0, rows, block_rows):
        numbers = np.arange(start, min(start + block_rows, rows), dtype=np.uint64)
        people, repeated = _people(draws, numbers, met)
        met += int((~repeated).sum())
        yield Block(draws, numbers, people, repeated, kinds(draws, people))


def _people(
    draws: Draws, rows: NDArray[np.uint64], met: int
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Whom each row is about: the next person, or one of all those met before."""
    import numpy as np

    repeated = (draws.shares(rows, Purpose.REPEATED) < REPEATED_SHARE) & (rows > 0)
    before = met + np.cumsum(~repeated) - ~repeated
    original = np.floor(draws.shares(rows, Purpose.ORIGINAL) * before)
    return np.where(repeated, original, before).astype(np.uint64), repeated


def _counted(block: Block) -> Counter[str]:
    """The block's share of every number in Contents."""
    email, phone, new = block.has_email, block.has_phone, ~block.repeated
    emails = email & (new | block.has_tagged_mailbox)
    masks = {
        "rows": new | block.repeated,
        "people": new,
        "email": emails,
        "phone": phone & new,
        "duplicate.email": email & ~emails,
        "duplicate.phone": phone & block.repeated,
        "national_phones": phone & is_national(block),
        "wrong_column_count": block.of_kind(Kind.WRONG_COLUMN_COUNT),
        "no_identifier": block.of_kind(Kind.NO_IDENTIFIER),
        "invalid_email": block.of_kind(Kind.BAD_EMAIL),
        "invalid_phone": block.of_kind(Kind.BAD_PHONE),
    }
    return Counter({name: int(mask.sum()) for name, mask in masks.items()})


def _contents(total: Counter[str]) -> Contents:
    def named(*names: str) -> dict[str, int]:
        return {name: total[name] for name in names if total[name]}

    accepted = named("email", "phone")
    rejected = named("wrong_column_count", "no_identifier", "invalid_email", "invalid_phone")
    duplicate = sum(named("duplicate.email", "duplicate.phone").values())
    return Contents(
        rows=total["rows"],
        people=total["people"],
        received=sum(accepted.values()) + duplicate + sum(rejected.values()),
        accepted=sum(accepted.values()),
        duplicate=duplicate,
        rejected_by_reason=rejected,
        accepted_by_type=accepted,
        national_phones=total["national_phones"],
    )
