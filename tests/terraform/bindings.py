"""The Google provider's schema, read out of the JavaScript bindings that npm publishes for it.

The bindings are generated from the provider: every resource is a class with a comment for each
argument (computed, optional, required), a table of what is a block and of which type, and an
interface whose comments list the possible values. Types of nested computed values that this does
not tell are `dynamic`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Table = dict[str, Any]
"""A part of the schema as JSON."""

TOP = "__top__"
MAX_DEPTH = 12
GIVEN_OR_COMPUTED = frozenset({"id", "project", "region", "zone", "location", "etag"})
"""Arguments that Google fills in when they are left out; the bindings do not say which."""

SIMPLE: Mapping[str, Any] = {
    "string": "string",
    "number": "number",
    "boolean": "bool",
    "any": "dynamic",
    **{f"{kind}Map": ["map", kind] for kind in ("string", "number")},
    "booleanMap": ["map", "bool"],
    "anyMap": ["map", "dynamic"],
    **{f"{kind}List": ["list", kind] for kind in ("string", "number")},
    "booleanList": ["list", "bool"],
}
READ_AS: tuple[tuple[str, Any], ...] = (
    ("cdktf.StringMap", ["map", "string"]),
    ("cdktf.NumberMap", ["map", "number"]),
    ("cdktf.BooleanMap", ["map", "bool"]),
    ("cdktf.AnyMap", ["map", "dynamic"]),
    ("getStringAttribute", "string"),
    ("getNumberAttribute", "number"),
    ("getBooleanAttribute", "bool"),
    ("getListAttribute", ["list", "string"]),
    ("getNumberListAttribute", ["list", "number"]),
    ("getStringMapAttribute", ["map", "string"]),
    ("cdktf.Fn.tolist", ["set", "string"]),
    ("cdktf.Token.asList", ["set", "string"]),
)

_LINES = re.MULTILINE | re.DOTALL
_CLASS = re.compile(r"^class (\w+) extends [\w.]+ \{(.*?)^\}", _LINES)
_RESOURCE = re.compile(r"^(\w+)\.tfResourceType = \"(\w+)\"", re.MULTILINE)
_FLAGS = re.compile(
    r"// ([a-z0-9_]+) - computed: (true|false), "
    r"optional: (?:true|false), required: (?:true|false)\n"
    r"(.*?)(?=\n\s*// [a-z0-9_]+ - computed|\Z)",
    re.DOTALL,
)
_STRUCT = re.compile(
    r"^function (\w+)ToHclTerraform\(struct\) \{(.*?)^\}", re.MULTILINE | re.DOTALL
)
_TOP_TABLE = re.compile(r"synthesizeHclAttributes\(\) \{(.*?)^    \}", _LINES)
_ENTRY = re.compile(
    r"^\s{4,12}([a-z0-9_]+): \{\n\s+value: .*?\n\s+isBlock: (true|false),\n"
    r"\s+type: \"(\w+)\",\n\s+storageClassType: \"(\w+)\",",
    re.MULTILINE,
)
_INTERFACE = re.compile(
    r"^export interface (\w+) (?:extends [\w.]+ )?\{(.*?)^\}", re.MULTILINE | re.DOTALL
)
_PROPERTY = re.compile(
    r"/\*\*((?:(?!\*/).)*?)#([a-z0-9_]+) \w+#(?:(?!\*/).)*\*/\s*readonly \w+(\??):", re.DOTALL
)
_VALUES = re.compile(r"Possible values: (\[[^\]]*\])")
_NESTED = re.compile(r"new (\w+?)(?:List|Map)?\(this, \"[a-z0-9_]+\"(?:, (true|false))?\)")


@dataclass(frozen=True)
class Bindings:
    """The text of one resource's bindings: its code and its declarations."""

    code: str
    declarations: str

    @property
    def resource_type(self) -> str | None:
        """The name in Terraform; None for what is no resource."""
        found = _RESOURCE.search(self.code)
        return found[2] if found else None

    def schema(self) -> Table:
        """The block of the resource, or of the provider's own arguments."""
        found = _RESOURCE.search(self.code)
        owner = found[1] if found else next(c for c in self._classes if c.endswith("Provider"))
        return self._block(owner, TOP, 0)

    @cached_property
    def _classes(self) -> dict[str, str]:
        return {match[1]: match[2] for match in _CLASS.finditer(self.code)}

    @cached_property
    def _structs(self) -> dict[str, dict[str, tuple[bool, str, str]]]:
        """Per structure, each argument: is it a block, how it nests, its type."""
        tables = {match[1]: match[2] for match in _STRUCT.finditer(self.code)}
        if top := _TOP_TABLE.search(self.code):
            tables[TOP] = top[1]
        return {
            name: {e[1]: (e[2] == "true", e[3], e[4]) for e in _ENTRY.finditer(table)}
            for name, table in tables.items()
        }

    @cached_property
    def _declared(self) -> dict[str, dict[str, tuple[bool, list[str]]]]:
        """Per structure, each argument: is it required, and its possible values."""
        declared = {}
        for match in _INTERFACE.finditer(self.declarations):
            top = "TerraformMetaArguments" in match[0] or match[1].endswith("ProviderConfig")
            declared[TOP if top else _lower(match[1])] = {
                p[2]: (not p[3], _possible(p[1])) for p in _PROPERTY.finditer(match[2])
            }
        return declared

    def _block(self, owner: str, struct: str, depth: int) -> Table:
        body = self._classes.get(owner, "")
        flags = {match[1]: match for match in reversed(list(_FLAGS.finditer(body)))}
        block: Table = {"attributes": {}, "blocks": {}}
        for name, (is_block, nesting, kind) in self._structs.get(struct, {}).items():
            required, values = self._declared.get(struct, {}).get(name, (False, []))
            inner = kind.removesuffix("List").removesuffix("Map")
            if is_block and _lower(inner) in self._structs:
                single = re.search(rf'\w+OutputReference\(this, "{name}"', body) is not None
                block["blocks"][name] = {
                    "nesting": nesting,
                    "min": int(required),
                    "max": int(single and nesting in ("list", "set")),
                    "block": self._inner(inner, depth),
                }
                continue
            flag = flags.get(name)
            computed = flag[2] == "true" if flag else name in GIVEN_OR_COMPUTED
            block["attributes"][name] = {
                "type": self._type(nesting, kind, inner),
                "required": required,
                "optional": not required,
                "computed": computed and not required,
                "values": values,
            }
        self._add_computed(block, flags)
        return block

    def _inner(self, inner: str, depth: int) -> Table:
        if depth >= MAX_DEPTH:
            return {"attributes": {}, "blocks": {}}
        return self._block(f"{inner}OutputReference", _lower(inner), depth + 1)

    def _add_computed(self, block: Table, flags: Mapping[str, re.Match[str]]) -> None:
        for name, flag in flags.items():
            if name not in block["attributes"] and name not in block["blocks"]:
                block["attributes"][name] = {
                    "type": self._computed_type(flag[3], 0),
                    "required": False,
                    "optional": False,
                    "computed": True,
                    "values": [],
                }

    def _type(self, nesting: str, kind: str, inner: str) -> Any:
        if fields := self._structs.get(_lower(inner)):
            types = {name: SIMPLE.get(entry[2], "dynamic") for name, entry in fields.items()}
            return ["set" if nesting == "set" else "list", ["object", types]]
        simple = SIMPLE.get(kind, "dynamic")
        return ["set", simple[1]] if nesting == "set" and isinstance(simple, list) else simple

    def _computed_type(self, body: str, depth: int) -> Any:
        """The type of a computed value, from the code that reads it."""
        head = body[:260]
        if (nested := _NESTED.search(head)) and depth < MAX_DEPTH:
            reader = self._classes.get(
                nested[1].removesuffix("OutputReference") + "OutputReference"
            )
            if reader is not None:
                fields = {
                    f[1]: self._computed_type(f[3], depth + 1) for f in _FLAGS.finditer(reader)
                }
                return ["set" if nested[2] == "true" else "list", ["object", fields]]
        return next((kind for mark, kind in READ_AS if mark in head), "dynamic")


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]


def _possible(comment: str) -> list[str]:
    """The values that a comment lists; none when it gives only some of them."""
    found = _VALUES.search(comment)
    if found is None:
        return []
    try:
        values = json.loads(re.sub(r"\s*\*?\s*\n\s*\*?\s*", " ", found[1]))
    except ValueError:
        return []
    return [value for value in values if isinstance(value, str)]


def counted(block: Table) -> Iterator[Table]:
    """All attributes of a block and of those in it."""
    yield from block["attributes"].values()
    for inner in block["blocks"].values():
        yield from counted(inner["block"])
