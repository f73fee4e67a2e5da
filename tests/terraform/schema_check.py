"""Resources against the provider's schema: types, arguments, blocks, and values where listed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from tests.terraform.configuration import (
    DYNAMIC,
    Block,
    Configuration,
    Finding,
    is_blocks,
    literal,
    unquoted,
)
from tests.terraform.fetch_schema import SCHEMA

META = frozenset({"count", "for_each", "depends_on", "provider", "lifecycle", DYNAMIC})


@cache
def schema() -> Any:
    """The schema that was fetched; FileNotFoundError when none was."""
    return json.loads(gzip.decompress(SCHEMA.read_bytes()))


def check(configuration: Configuration) -> list[Finding]:
    """What the provider would not take."""
    findings: list[Finding] = []
    for kind, known in (("resource", schema()["resources"]), ("data", schema()["data"])):
        for block in configuration.of(kind):
            if block.type == "terraform_data":
                continue
            if block.type not in known:
                findings.append(block.finding(f"the provider has no {kind} {block.type}"))
                continue
            findings += _body(block, block.body, known[block.type], block.type)
            findings += _provider(block, known[block.type])
    return findings


def _provider(block: Block, known: Mapping[str, Any]) -> Iterator[Finding]:
    given = str(block.body.get("provider", "google")).strip("${}")
    if (given == "google-beta") is not bool(known.get("beta")):
        yield block.finding(f"{block.type} is not of the provider {given}")


def _body(block: Block, body: Any, known: Any, path: str) -> Iterator[Finding]:
    made = [(unquoted(n), inner) for entry in body.get(DYNAMIC, []) for n, inner in entry.items()]
    dynamic = [(name, inner) for name, inner in made if not name.startswith("__")]
    yield from _missing(block, {*body, *(name for name, _ in dynamic)}, known, path)
    for name, value in body.items():
        if name.startswith("__") or (name in META and name not in known["attributes"]):
            continue
        if name in known["blocks"] and is_blocks(value):
            yield from _blocks(block, value, known["blocks"][name], f"{path}.{name}")
        elif name in known["attributes"] and not is_blocks(value):
            yield from _argument(block, value, known["attributes"][name], f"{path}.{name}")
        else:
            yield block.finding(f"{path} has no {name}")
    for name, inner in dynamic:
        if name in known["blocks"]:
            contents = inner.get("content", [])
            yield from _blocks(block, contents, known["blocks"][name], f"{path}.{name}")
        else:
            yield block.finding(f"{path} has no block {name}")


def _missing(block: Block, given: set[str], known: Any, path: str) -> Iterator[Finding]:
    for name, attribute in known["attributes"].items():
        if attribute["required"] and name not in given:
            yield block.finding(f"{path} needs {name}")
    for name, inner in known["blocks"].items():
        if inner["min"] and name not in given:
            yield block.finding(f"{path} needs a block {name}")


def _blocks(block: Block, given: list[Any], known: Any, path: str) -> Iterator[Finding]:
    if known["max"] and len(given) > known["max"]:
        yield block.finding(f"{path} is there {len(given)} times, at most {known['max']}")
    for body in given:
        yield from _body(block, body, known["block"], path)


def _argument(block: Block, value: Any, known: Any, path: str) -> Iterator[Finding]:
    if not known["optional"] and not known["required"]:
        yield block.finding(f"{path} is computed and cannot be given")
    given = literal(value)
    if known["values"] and isinstance(given, str) and given not in known["values"]:
        yield block.finding(f"{path} cannot be {given}")
    kind = known["type"]
    if (
        kind == "bool"
        and given is not None
        and str(given) not in ("True", "False", "true", "false")
    ):
        yield block.finding(f"{path} is true or false, not {given}")
    if kind == "number" and isinstance(given, str) and not given.replace(".", "", 1).isdigit():
        yield block.finding(f"{path} is a number, not {given}")
    if isinstance(kind, list) and given is not None:
        yield block.finding(f"{path} is a {kind[0]}, not {given}")
