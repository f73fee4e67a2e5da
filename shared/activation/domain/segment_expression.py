"""Expressions of derived segments: `vip AND NOT (lapsed OR "new this week")`, and their graph.

NOT binds closer than AND, AND closer than OR (K-19). A segment is named by a word of letters,
digits and `_ - . :`, or by any text in double quotes. Words are not case-sensitive, ids are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from activation.errors import ValidationError

MAX_EXPRESSION_DEPTH = 32
MAX_REFERENCES = 100
MAX_CHAIN = 16
"""How many derived segments may stand on each other."""

_TOKEN = re.compile(r'\s*(?:(\()|(\))|"((?:[^"\\]|\\.)*)"|([\w.:-]+))')
_WORDS = frozenset({"AND", "OR", "NOT"})
_BARE = re.compile(r"[\w.:-]+")


@dataclass(frozen=True, slots=True)
class Ref:
    """Is in a segment."""

    segment_id: str


@dataclass(frozen=True, slots=True)
class Not:
    """Is not in …"""

    part: Node


@dataclass(frozen=True, slots=True)
class And:
    """Is in all of …"""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Is in at least one of …"""

    parts: tuple[Node, ...]


Node = Ref | Not | And | Or


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parsed(text: str) -> Node:
    """The tree of an expression; ValidationError names the position (from 1) of a mistake."""
    reader = _Reader(text, _tokens(text))
    tree = reader.either(0)
    reader.end()
    if len(set(references(tree))) > MAX_REFERENCES:
        raise ValidationError(
            f"An expression names at most {MAX_REFERENCES} segments.",
            field="expression",
            reason="too_many_segments",
        )
    return tree


def written(tree: Node) -> str:
    """The text of a tree; `parsed` makes the same tree of it."""
    match tree:
        case Ref(segment_id):
            return _word(segment_id)
        case Not(part):
            return f"NOT {_within(part, Not, Ref)}"
        case And(parts):
            return " AND ".join(_within(part, Not, Ref) for part in parts)
        case Or(parts):
            return " OR ".join(_within(part, Not, Ref, And) for part in parts)


def references(tree: Node) -> Iterator[str]:
    """The segments that an expression names, in order, as often as it does."""
    match tree:
        case Ref(segment_id):
            yield segment_id
        case Not(part):
            yield from references(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from references(part)


def dependency_order(depends_on: Mapping[str, frozenset[str]]) -> list[str]:
    """The segments, each after those it depends on; unknown ones are passed over.

    Raises ValidationError for a cycle, which it shows, and for a chain longer than `MAX_CHAIN`.
    """
    height: dict[str, int] = {}
    for start in sorted(depends_on):
        _climb(start, depends_on, height)
    highest = max(height.values(), default=0)
    if highest > MAX_CHAIN:
        raise ValidationError(
            f"Derived segments stand on each other at most {MAX_CHAIN} times.",
            field="expression",
            reason="chain_too_long",
        )
    return sorted(height, key=lambda one: (height[one], one))


def require_known(tree: Node, known: frozenset[str]) -> None:
    """Raise ValidationError unless all segments of an expression exist."""
    for segment_id in references(tree):
        if segment_id not in known:
            raise ValidationError(
                "The expression names a segment that does not exist.",
                field="expression",
                reason=f"unknown_segment: {segment_id}",
            )


# the graph ----------------------------------------------------------------------------------------


def _climb(start: str, depends_on: Mapping[str, frozenset[str]], height: dict[str, int]) -> None:
    """Give `start` and all below it a height: one more than the highest they depend on."""
    path: list[tuple[str, Iterator[str]]] = []
    on_path: dict[str, None] = {}

    def enter(segment_id: str) -> None:
        path.append((segment_id, iter(sorted(depends_on[segment_id]))))
        on_path[segment_id] = None

    if start not in height:
        enter(start)
    while path:
        segment_id, below = path[-1]
        following = next((one for one in below if one in depends_on and one not in height), None)
        if following is None:
            known = [height[one] + 1 for one in depends_on[segment_id] if one in height]
            height[segment_id] = max(known, default=0)
            path.pop()
            del on_path[segment_id]
        elif following in on_path:
            _refuse_cycle([*on_path][[*on_path].index(following) :])
        else:
            enter(following)


def _refuse_cycle(cycle: Sequence[str]) -> NoReturn:
    raise ValidationError(
        "Segments may not depend on each other in a circle.",
        field="expression",
        reason="cycle: " + " -> ".join([*cycle, cycle[0]]),
    )


# text ---------------------------------------------------------------------------------------------


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if found is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            raise _mistake(f"{text[start]!r} is not part of an expression", start)
        kind, start = '()"w'[(found.lastindex or 1) - 1], found.start(found.lastindex or 0)
        tokens.append(_Token(kind, found.group(found.lastindex or 0), start))
        at = found.end()
    return tokens


class _Reader:
    """One pass over the tokens of an expression."""

    def __init__(self, text: str, tokens: Sequence[_Token]) -> None:
        self._text, self._tokens, self._next = text, tokens, 0

    def either(self, depth: int) -> Node:
        """A chain of OR."""
        parts = [self._both(depth)]
        while self._took("OR"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def end(self) -> None:
        """Raise unless everything was read."""
        if self._next < len(self._tokens):
            token = self._tokens[self._next]
            raise _mistake(f"AND, OR or the end expected, not {token.text!r}", token.at)

    def _both(self, depth: int) -> Node:
        parts = [self._one(depth)]
        while self._took("AND"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self, depth: int) -> Node:
        if depth > MAX_EXPRESSION_DEPTH:
            raise _mistake(f"nested more than {MAX_EXPRESSION_DEPTH} deep", self._position())
        if self._took("NOT"):
            return Not(self._one(depth + 1))
        token = self._tokens[self._next] if self._next < len(self._tokens) else None
        if token is None:
            raise _mistake("a segment or '(' expected at the end", len(self._text))
        self._next += 1
        if token.kind == "(":
            inner = self.either(depth + 1)
            self._close(token.at)
            return inner
        if token.kind == ")" or (token.kind == "w" and token.text.upper() in _WORDS):
            raise _mistake(f"a segment or '(' expected, not {token.text!r}", token.at)
        name = re.sub(r"\\(.)", r"\1", token.text) if token.kind == '"' else token.text
        if not name:
            raise _mistake("a segment has a name", token.at)
        return Ref(name)

    def _close(self, opened: int) -> None:
        if self._next >= len(self._tokens) or self._tokens[self._next].kind != ")":
            raise _mistake(f"')' expected for the '(' at position {opened + 1}", self._position())
        self._next += 1

    def _took(self, word: str) -> bool:
        token = self._tokens[self._next] if self._next < len(self._tokens) else None
        if token is None or token.kind != "w" or token.text.upper() != word:
            return False
        self._next += 1
        return True

    def _position(self) -> int:
        ended = self._next >= len(self._tokens)
        return len(self._text) if ended else self._tokens[self._next].at


def _mistake(what: str, at: int) -> ValidationError:
    return ValidationError(
        f"Position {at + 1}: {what}.", field="expression", reason=f"position {at + 1}"
    )


def _word(segment_id: str) -> str:
    if _BARE.fullmatch(segment_id) and segment_id.upper() not in _WORDS:
        return segment_id
    escaped = segment_id.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _within(tree: Node, *closer: type) -> str:
    return written(tree) if isinstance(tree, closer) else f"({written(tree)})"
