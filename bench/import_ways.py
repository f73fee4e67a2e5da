"""Three ways to import a file of members: ours, the design notes' way, and pandas."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

EMAIL = re.compile(r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
PHONE = re.compile(r"^\+[1-9][0-9]{7,14}$")
OTHER = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
PARTITIONS = 16
WIDE = {"E-Mail": "email", "Mobile Phone": "phone", "Customer ID": "customer_id"}


def ours(source: Path, folder: Path, region: str) -> tuple[int, int]:
    """The pipeline and the merge, on files; returns members and stored bytes."""
    from activation.adapters.clock import SystemClock
    from activation.adapters.embedded.blobs import FileBlobs
    from activation.adapters.embedded.documents import SqliteDocuments
    from activation.domain.manifest import TierLimits
    from activation.domain.member_import import ImportOptions
    from activation.members.limits import ReadLimits
    from activation.members.pipeline import ImportPipeline
    from activation.members.store import MemberStore

    clock = SystemClock()
    blobs = FileBlobs(folder, clock)
    options = ImportOptions(default_region=region)
    with source.open("rb") as file:
        reading = ImportPipeline(
            file, options, ReadLimits(), blobs, "bench", "imports/one", clock.now()
        )
        runs = [result.chunk.run for result in reading]
    documents = SqliteDocuments(folder / "documents.sqlite", clock)
    store = MemberStore(blobs, documents, clock, TierLimits())
    manifest = store.merge("bench", "a", "m", None, [run for run in runs if run]).manifest
    return manifest.size, manifest.bytes


def row_by_row(source: Path, folder: Path, region: str) -> tuple[int, int]:
    """The design notes' way: a loop, hashlib, everything in dictionaries, gzipped JSON lines."""
    folder.mkdir()
    code = {"US": "+1", "DE": "+49"}[region]
    parts: dict[int, dict[str, dict[str, object]]] = defaultdict(dict)
    for kind, value, attributes in _identifiers(source):
        stored = _normalised(kind, value, code)
        if stored is None:
            continue
        hashed = kind in ("email", "phone")
        digest = hashlib.sha256(stored.encode()).hexdigest() if hashed else stored
        number = hashlib.md5(digest.encode()).digest()[0] % PARTITIONS
        parts[number][f"{kind}:{digest}"] = {
            "identifier_type": kind,
            "identifier_value": digest,
            "attributes": attributes,
            "added_at": "2026-11-21T09:00:00Z",
        }
    size = 0
    for number, members in parts.items():
        packed = gzip.compress(
            "".join(json.dumps(member) + "\n" for member in members.values()).encode()
        )
        hashlib.sha256(packed).hexdigest()
        size += (folder / f"part-{number}.json.gz").write_bytes(packed)
    return sum(map(len, parts.values())), size


def _identifiers(source: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    with source.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if "identifier_type" in row:
                attributes = json.loads(row["attributes"])
                yield row["identifier_type"], row["identifier_value"], attributes
                continue
            attributes = {k: v for k, v in row.items() if k not in WIDE and k is not None}
            for column, kind in WIDE.items():
                if row.get(column):
                    yield kind, row[column], attributes


def _normalised(kind: str, value: str, code: str) -> str | None:
    if kind == "email":
        text, shape = value.strip().lower(), EMAIL
    elif kind == "phone":
        text, shape = re.sub(r"[^0-9+]", "", value), PHONE
        if text.startswith("00"):
            text = "+" + text[2:]
        elif not text.startswith("+"):
            text = code + text.removeprefix("0")
    else:
        text, shape = value.strip().lower(), OTHER
    return text if shape.match(text) else None


def with_pandas(source: Path, folder: Path, region: str) -> tuple[int, int]:
    """What one writes with pandas: columns of Python strings, then Parquet."""
    import pandas as pd

    folder.mkdir()
    code = {"US": "+1", "DE": "+49"}[region]
    frame = pd.read_csv(
        source, dtype=str, keep_default_na=False, on_bad_lines="skip", encoding_errors="replace"
    )
    if "identifier_type" not in frame:
        frame = _long(frame)
    kind, value = frame["identifier_type"], frame["identifier_value"]
    email, phone = kind == "email", kind == "phone"
    text = value.str.strip().str.lower()
    dialled = value[phone].str.replace(r"[^0-9+]", "", regex=True)
    dialled = dialled.str.replace(r"^00", "+", regex=True)
    dialled = dialled.where(
        dialled.str.startswith("+"), code + dialled.str.replace(r"^0", "", regex=True)
    )
    text[phone] = dialled
    other = ~email & ~phone
    good = (
        (email & text.str.match(EMAIL.pattern))
        | (phone & text.str.match(PHONE.pattern))
        | (other & text.str.match(OTHER.pattern))
    )
    frame = frame.assign(identifier_value=text)[good]
    hashed = frame["identifier_type"].isin(["email", "phone"])
    digests = frame.loc[hashed, "identifier_value"].map(
        lambda v: hashlib.sha256(v.encode()).hexdigest()
    )
    frame.loc[hashed, "identifier_value"] = digests
    frame = frame.drop_duplicates(["identifier_type", "identifier_value"], keep="last")
    parts = frame["identifier_value"].map(
        lambda v: hashlib.md5(v.encode()).digest()[0] % PARTITIONS
    )
    size = 0
    for number, part in frame.groupby(parts):
        target = folder / f"part-{number}.parquet"
        part.to_parquet(target, compression="zstd", index=False)
        size += len(target.read_bytes())
    return len(frame), size


def _long(frame):  # type: ignore[no-untyped-def]
    import pandas as pd

    columns = {column: kind for column, kind in WIDE.items() if column in frame}
    rest = frame.drop(columns=list(columns))
    attributes = [json.dumps(row) for row in rest.to_dict("records")]
    parts = [
        pd.DataFrame(
            {"identifier_type": kind, "identifier_value": frame[column], "attributes": attributes}
        )
        for column, kind in columns.items()
    ]
    whole = pd.concat(parts, ignore_index=True)
    return whole[whole["identifier_value"] != ""]


WAYS: dict[str, Callable[[Path, Path, str], tuple[int, int]]] = {
    "ours": ours,
    "row by row": row_by_row,
    "pandas": with_pandas,
}
