"""Values that fit a schema, made by chance."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WORDS = ("a", "Buyers", "gold", "email", "x-1", "Grüße", "日本", "a@example.com", "2026-11-21")
INSTANTS = ("2026-11-21T09:00:00Z", "2027-01-31T23:59:59.5+01:00", "2020-02-29T00:00:00Z")
URL = "http://127.0.0.1:9/hook"
MAX_DEPTH = 6


@dataclass(frozen=True)
class Sampler:
    """Makes values by the schemas of an API description; `ids` are those that exist, by name."""

    document: Mapping[str, Any]
    ids: Mapping[str, Sequence[str]]
    chance: random.Random

    def value(self, schema: Mapping[str, Any], name: str = "", depth: int = 0) -> Any:
        """A value that fits, or nearly: patterns and rules across fields are guessed."""
        schema = self.resolved(schema)
        for kind in ("anyOf", "oneOf"):
            if kind in schema:
                return self.value(self.chance.choice(schema[kind]), name, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.chance.choice(schema["enum"])
        made = _MADE.get(schema.get("type", "string"), Sampler.text)
        return made(self, schema, name, depth)

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema behind references."""
        while "$ref" in schema or "allOf" in schema:
            if "allOf" in schema:
                merged: dict[str, Any] = {}
                for part in schema["allOf"]:
                    merged |= self.resolved(part)
                schema = {**merged, **{k: v for k, v in schema.items() if k != "allOf"}}
                continue
            place: Any = self.document
            for step in schema["$ref"].removeprefix("#/").split("/"):
                place = place[step]
            schema = place
        return schema

    def record(self, schema: Mapping[str, Any], _name: str, depth: int) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        share = 0.0 if depth > MAX_DEPTH else self.chance.random()
        return {
            name: self.value(part, name, depth + 1)
            for name, part in schema.get("properties", {}).items()
            if name in required or self.chance.random() < share
        }

    def row(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        most = min(schema.get("maxItems", 3), least + 2)
        count = least if depth > MAX_DEPTH else self.chance.randint(least, max(least, most))
        return [self.value(schema.get("items", {}), name, depth + 1) for _ in range(count)]

    def text(self, schema: Mapping[str, Any], name: str, _depth: int) -> str:
        if self.ids.get(name) and self.chance.random() < 0.9:
            return self.chance.choice(self.ids[name])
        if schema.get("format") in ("date-time", "date") or name.endswith(("_at", "_after", "of")):
            return self.chance.choice(INSTANTS)
        if "url" in name:
            return URL
        if name == "ids":
            return ",".join(self.chance.choices(self.ids["audience_id"], k=2))
        word = self.chance.choice(WORDS)
        return word.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength", 99)]

    def whole(self, schema: Mapping[str, Any], _name: str, _depth: int) -> int:
        least, most = schema.get("minimum", 0), schema.get("maximum", 100)
        return self.chance.randint(int(least), int(max(least, most)))

    def number(self, schema: Mapping[str, Any], _name: str, _depth: int) -> float:
        least, most = schema.get("minimum", 0), schema.get("maximum", 1)
        return round(self.chance.uniform(least, most), 3)

    def flag(self, _schema: Mapping[str, Any], _name: str, _depth: int) -> bool:
        return self.chance.random() < 0.5


_MADE: dict[str, Any] = {
    "object": Sampler.record,
    "array": Sampler.row,
    "string": Sampler.text,
    "integer": Sampler.whole,
    "number": Sampler.number,
    "boolean": Sampler.flag,
    "null": lambda *_: None,
}
