"""Files to import, and a bench to import them on."""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from activation.domain.manifest import Manifest
from activation.domain.member import Member, MemberFilter
from activation.domain.member_import import ImportChunk, ImportOptions
from activation.members.limits import ReadLimits
from activation.members.pipeline import ChunkResult, ImportPipeline
from activation.members.store import MemberStore, MergeResult
from activation.ports import BlobKey, BlobStore, Clock

ORGANIZATION = "acme"
AUDIENCE = "audience-1"
SMALL = ReadLimits(block_bytes=8_000, chunk_identifiers=700)
"""Limits that make several chunks of a small file."""


ALL = MemberFilter()
NORMAL = ReadLimits()


@dataclass(frozen=True)
class Workbench:
    """A store on real files, and short ways to import and look."""

    blobs: BlobStore
    store: MemberStore
    clock: Clock

    def pipeline(
        self,
        content: bytes,
        *,
        limits: ReadLimits = NORMAL,
        prefix: str = "imports/one",
        start: ImportChunk | None = None,
        **options: Any,
    ) -> ImportPipeline:
        return ImportPipeline(
            source=io.BytesIO(content),
            options=ImportOptions(**options),
            limits=limits,
            blobs=self.blobs,
            organization_id=ORGANIZATION,
            prefix=prefix,
            now=self.clock.now(),
            start=start,
        )

    def read(self, content: bytes, **how: Any) -> list[ChunkResult]:
        return list(self.pipeline(content, **how))

    def rejects(self, results: Sequence[ChunkResult]) -> list[tuple[int, str, str]]:
        found: list[tuple[int, str, str]] = []
        for result in results:
            if result.chunk.rejects:
                text = self.blobs.get(BlobKey(ORGANIZATION, result.chunk.rejects)).decode()
                rows = csv.reader(io.StringIO(text))
                found += [(int(row), column, reason) for row, column, reason in rows]
        return found

    def merge(
        self,
        results: Sequence[ChunkResult],
        parent: Manifest | None = None,
        manifest_id: str = "manifest-1",
    ) -> MergeResult:
        runs = [r.chunk.run for r in results if r.chunk.run]
        return self.store.merge(ORGANIZATION, AUDIENCE, manifest_id, parent, runs)

    def imported(self, content: bytes, **how: Any) -> Manifest:
        return self.merge(self.read(content, **how)).manifest

    def members(
        self,
        manifest: Manifest,
        wanted: MemberFilter = ALL,
        limit: int = 7,
    ) -> list[Member]:
        """All members, walked page by page."""
        found, after = list[Member](), None
        while True:
            page, after = self.store.page(manifest, wanted, after, limit)
            found += page
            if after is None:
                return found


def tiny_limits(**changes: Any) -> ReadLimits:
    return replace(SMALL, **changes)


def csv_file(rows: Sequence[Sequence[str]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def people(count: int, seed: int = 7) -> Iterator[list[str]]:
    """Rows of a messy CRM export: spellings, gaps, repeats, quoted newlines, bad values."""
    draw = random.Random(seed)
    for number in range(count):
        person = draw.randrange(max(1, number)) if draw.random() < 0.1 else number
        domain = ("gmail.com", "example.org", "googlemail.com")[person % 3]
        email = f"Ann.{person}@{domain}"
        email = draw.choice((email, email.upper(), f" {email} ", "nobody", ""))
        phone = draw.choice((f"+49 151 {person:07d}", f"0049151{person:07d}", "12", ""))
        city = draw.choice(("Berlin", 'the "old" town', "two\nlines", "a,b", ""))
        yield [email, phone, f"K{person}" if draw.random() < 0.7 else "", city]


HEADER = ["E-Mail", "Mobile", "Customer ID", "City"]


def crm(count: int, seed: int = 7) -> bytes:
    return csv_file([HEADER, *people(count, seed)])


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)
