"""A generated file of members in the long shape: identifier type, value, attributes as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

BLOCK = 500_000
FIRST = ["anna", "john", "maria", "peter", "liam", "noah", "emma", "olivia", "lucas", "mia", "wei"]
LAST = ["smith", "jones", "garcia", "mueller", "rossi", "kim", "chen", "patel", "silva", "novak"]
DOMAINS = ["gmail.com", "yahoo.com", "outlook.com", "example.org", "web.de", "icloud.com", "a.uk"]
CITIES = ["Berlin", "Paris", "London", "New York", "Tokyo", "Austin", "Madrid", "Rome", "Oslo"]
TIERS = ["gold", "silver", "bronze", "none"]


def write_long(path: Path, rows: int) -> None:
    """60 % e-mails, 25 % phones, 15 % device ids; 1 % invalid, 3 % repeated; JSON attributes."""
    names = ["identifier_type", "identifier_value", "attributes"]
    schema = pa.schema([(name, pa.string()) for name in names])
    with csv.CSVWriter(path, schema) as writer:
        for start in range(0, rows, BLOCK):
            writer.write_table(_block(start, min(BLOCK, rows - start)).cast(schema))


def _block(start: int, rows: int) -> Any:
    draw = np.random.default_rng(start + 1)
    people = np.arange(start, start + rows)
    repeated = draw.random(rows) < 0.03
    people = np.where(
        repeated, (draw.random(rows) * np.maximum(people, 1)).astype(np.int64), people
    )
    mixed = people.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    kind = np.searchsorted([60, 85], (people * 2654435761) % 100, side="right")
    style = draw.integers(0, 10, rows)
    values = pc.choose(
        pa.array(kind), _emails(people, mixed, style), _phones(people, style), _devices(mixed)
    )
    values = pc.if_else(pa.array(draw.random(rows) < 0.01), "not-valid", values)
    kinds = pa.array(["email", "phone", "maid"]).take(pa.array(kind))
    return pa.table(
        {
            "identifier_type": kinds,
            "identifier_value": values,
            "attributes": _attributes(draw, rows),
        }
    )


def _picked(choices: list[str], numbers: Any) -> Any:
    return pa.array(choices).take(pa.array(numbers % len(choices)))


def _emails(people: Any, mixed: Any, style: Any) -> Any:
    first = _picked(FIRST, (mixed >> np.uint64(8)).astype(np.int64))
    last = _picked(LAST, (mixed >> np.uint64(16)).astype(np.int64))
    domain = _picked(DOMAINS, (mixed >> np.uint64(24)).astype(np.int64))
    number = pa.array(people).cast(pa.string())
    local = pc.binary_join_element_wise(first, ".", last, number, "")
    plain = pc.binary_join_element_wise(local, domain, "@")
    loud = pc.binary_join_element_wise(" ", pc.ascii_upper(plain), " ", "")
    return pc.if_else(pa.array(style < 2), loud, plain)


def _phones(people: Any, style: Any) -> Any:
    number = pa.array(2_000_000_000 + people * 7919 % 7_999_999_999).cast(pa.string())
    area, exchange, line = (
        pc.utf8_slice_codeunits(number, start, stop) for start, stop in ((0, 3), (3, 6), (6, 10))
    )
    forms = [
        pc.binary_join_element_wise("+1 (", area, ") ", exchange, "-", line, ""),
        pc.binary_join_element_wise("001", number, ""),
        pc.binary_join_element_wise(area, exchange, line, "-"),
        pc.binary_join_element_wise("+1", number, ""),
    ]
    return pc.choose(pa.array(np.searchsorted([3, 6, 8], style, side="right")), *forms)


def _devices(mixed: Any) -> Any:
    digits = pc.binary_join_element_wise(
        pc.utf8_lpad(pa.array(mixed).cast(pa.string()), 20, "0"), "a" * 12, ""
    )
    cuts = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
    parts = [pc.utf8_slice_codeunits(digits, start, stop) for start, stop in cuts]
    return pc.ascii_upper(pc.binary_join_element_wise(*parts, "-"))


def _attributes(draw: Any, rows: int) -> Any:
    value = pa.array(np.round(draw.gamma(2, 50, rows), 2)).cast(pa.string())
    city, tier = (
        _picked(CITIES, draw.integers(0, 99, rows)),
        _picked(TIERS, draw.integers(0, 4, rows)),
    )
    return pc.binary_join_element_wise(
        '{"ltv":', value, ',"city":"', city, '","tier":"', tier, '"}', ""
    )
