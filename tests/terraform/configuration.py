"""Terraform files, parsed: their blocks, with file and line, and what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import hcl2

FOLDER = Path(__file__).parents[2] / "terraform"
OPTIONS = hcl2.SerializationOptions(with_comments=False, with_meta=True, explicit_blocks=True)
IS_BLOCK, DYNAMIC = "__is_block__", "dynamic"


@dataclass(frozen=True, order=True)
class Finding:
    """Something wrong: where, in which block, and what."""

    file: str
    address: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.address}: {self.what}"


@dataclass(frozen=True)
class Block:
    """One block of the top level: `kind` is resource, data, variable, output, …"""

    kind: str
    labels: tuple[str, ...]
    body: Mapping[str, Any] = field(repr=False, hash=False)
    file: str = ""

    @property
    def type(self) -> str:
        """The type of a resource or data source."""
        return self.labels[0]

    @property
    def address(self) -> str:
        """As it is named in an expression: `google_x.y`, `data.google_x.y`, `var.x`."""
        prefixes = {"resource": (), "data": ("data",), "variable": ("var",)}
        return ".".join((*prefixes.get(self.kind, (self.kind,)), *self.labels))

    def finding(self, what: str) -> Finding:
        """A finding in this block."""
        return Finding(self.file, self.address, what)

    def get(self, path: str) -> Any:
        """The first value at a path of blocks and arguments, None where there is none."""
        return next(iter(self.all(path)), None)

    def all(self, path: str) -> list[Any]:
        """All values at a path; what a `dynamic` block would make is among them."""
        found: list[Any] = [self.body]
        for name in path.split("."):
            found = [value for body in found for value in _named(body, name)]
        return found


def _named(body: Any, name: str) -> Iterator[Any]:
    if not isinstance(body, Mapping):
        return
    if name in body:
        value = body[name]
        yield from value if is_blocks(value) else [value]
    for made in body.get(DYNAMIC, []):
        for label, inner in made.items():
            if unquoted(label) == name:
                yield from inner.get("content", [])


@dataclass(frozen=True)
class Configuration:
    """All files of a folder."""

    folder: Path

    @cached_property
    def texts(self) -> dict[str, str]:
        """File name to text: configuration, variables and JSON."""
        paths = [p for ending in ("tf", "tfvars", "json") for p in self.folder.rglob(f"*.{ending}")]
        return {p.relative_to(self.folder).as_posix(): p.read_text() for p in sorted(paths)}

    @cached_property
    def blocks(self) -> list[Block]:
        """All blocks of the top level."""
        return [
            block
            for name, text in self.texts.items()
            if name.endswith(".tf")
            for block in _blocks(name, text)
        ]

    def of(self, kind: str, type_: str | None = None) -> list[Block]:
        """The blocks of a kind, and of a type of resource."""
        found = [block for block in self.blocks if block.kind == kind]
        return found if type_ is None else [block for block in found if block.type == type_]

    @cached_property
    def locals(self) -> dict[str, tuple[str, Any]]:
        """Name of a local value to its file and expression."""
        return {
            name: (block.file, value)
            for block in self.of("locals")
            for name, value in block.body.items()
            if not name.startswith("__")
        }


@cache
def _blocks(file: str, text: str) -> tuple[Block, ...]:
    found = []
    for kind, entries in hcl2.loads(text, serialization_options=OPTIONS).items():
        if not kind.startswith("__"):
            found += [block for entry in entries for block in _labelled(kind, (), entry, file)]
    return tuple(found)


def _labelled(kind: str, labels: tuple[str, ...], entry: Any, file: str) -> Iterator[Block]:
    if IS_BLOCK in entry:
        yield Block(kind, labels, entry, file)
        return
    for label, inner in entry.items():
        if not label.startswith("__"):
            yield from _labelled(kind, (*labels, unquoted(label)), inner, file)


def is_blocks(value: Any) -> bool:
    """Whether a value is a list of blocks and not an argument."""
    return isinstance(value, list) and bool(value) and _is_block(value[0])


def _is_block(value: Any) -> bool:
    return isinstance(value, Mapping) and IS_BLOCK in value


def unquoted(value: str) -> str:
    """A string without its quotes; an expression as it is."""
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value


def literal(value: Any) -> Any:
    """The value of a string, number or truth value; None for an expression."""
    if not isinstance(value, str):
        return value if isinstance(value, bool | int | float) else None
    return None if "${" in value or not value.startswith('"') else unquoted(value)


def expression(value: Any) -> str:
    """An expression as text, without the marks around it and without spaces."""
    text = value.removeprefix("${").removesuffix("}") if isinstance(value, str) else str(value)
    return re.sub(r"\s+", "", text)


def strings(value: Any) -> Iterator[str]:
    """Every string in a value, expressions included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if not name.startswith("__"):
                yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
