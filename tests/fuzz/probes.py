"""What an organization learns of another one: every id of A used by B, in every place of every
operation of the API description."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import shutil
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from activation.domain.caller import Role
from tests.api.client import PREFIX, Api, Description
from tests.api.test_roles import body_of
from tests.fuzz.judging import Answer, Judge, answered
from tests.fuzz.mutations import Findings
from tests.fuzz.requests import JSON, Request
from tests.fuzz.schemas import Sampler
from tests.fuzz.world import Objects, WatchedServer, furnished

FRESH_AFTER = 4_000
WORK_AFTER = 2_000
ENDING = re.compile(
    r"(delete|archive|set|share|forget|pause|release|unarchive)_(?!quota|retention)"
)
"""Operations after which other requests find less: they get B's last objects, not its first."""
ALIKE = frozenset({"erase_user"})
"""Operations whose answer is the same for every id, known or not."""
MARK, OWN_MARK = "CANARY-A7F3", "INTRUDER"
HEADERS = ("Idempotency-Key", "If-Match", "X-Org-Id", "X-Organization", "X-User-Id")
TENANT = "organization_id"
"""A field and a parameter that nobody may send."""
MAX_DEPTH = 4
Place = tuple[str, ...]
"""("path", names …), ("query", name), ("body", steps …) or ("header", name)."""


@dataclass(frozen=True)
class Probe:
    """A request of B with something of A's in it, and the same with something nobody has."""

    operation_id: str
    place: Place
    foreign: Request
    unknown: Request
    given: tuple[str, ...]
    """What it takes of A."""


def places_of(document: Mapping[str, Any], path: str, operation: Mapping[str, Any]) -> list[Place]:
    """Every place of an operation in which an id can be written."""
    names = [name for name in re.findall(r"\{(\w+)\}", path) if name != "number"]
    found: list[Place] = [
        ("path", *some) for n in range(1, len(names) + 1) for some in combinations(names, n)
    ]
    parameters = [one for one in operation.get("parameters", ()) if one.get("in") == "query"]
    found += [("query", one["name"]) for one in parameters] + [("query", TENANT)]
    found += [("header", name) for name in HEADERS]
    content = operation.get("requestBody", {}).get("content", {})
    if JSON in content:
        sampler = Sampler(document, {}, random.Random(0))
        leaves = dict.fromkeys(_leaves(sampler, content[JSON]["schema"], ()))
        found += [("body", *steps) for steps in leaves] + [("body", TENANT)]
    return found


def _leaves(
    sampler: Sampler, schema: Mapping[str, Any], at: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    schema = sampler.resolved(schema)
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _leaves(sampler, part, at)
    if len(at) >= MAX_DEPTH:
        return
    for name, part in schema.get("properties", {}).items():
        yield (*at, name)
        yield from _leaves(sampler, part, (*at, name))
    if schema.get("type") == "array" and at:
        yield (*at, "0")
        yield from _leaves(sampler, schema.get("items", {}), (*at, "0"))


@dataclass
class Intruder:
    """B, who knows all ids of A."""

    server: WatchedServer
    description: Description
    chance: random.Random
    victim: Objects
    own: Objects
    tokens: Mapping[Role, str]
    kept: set[str] = field(default_factory=set)
    """Texts of A's that B has stored as its own, so that it is told them again."""

    def probe(self, method: str, path: str, operation: Mapping[str, Any], place: Place) -> Probe:
        """A probe of one place, the rest of the request being B's own."""
        role = self.chance.choice((Role.ADMIN, Role.ADMIN, Role.ADMIN, Role.EDITOR, Role.VIEWER))
        good, like_it = (self._good(method, path, operation, role) for _ in range(2))
        kind, *names = place
        given, unknown = self._taken(kind, names)
        at = -1 if ENDING.match(operation["operationId"]) else 0
        path = self._with_own_path(path, names if kind == "path" else [], at)
        foreign = self._put(good, path, kind, names, given)
        return Probe(
            operation["operationId"],
            place,
            self._varied(foreign, kind),
            self._put(like_it, path, kind, names, unknown),
            given,
        )

    def _with_own_path(self, path: str, left: list[str], at: int) -> str:
        """The path with ids of B's, but for the names in `left`."""
        for name in re.findall(r"\{(\w+)\}", path):
            if name not in left:
                own = "1" if name == "number" else self.own.ids[name][at]
                path = path.replace(f"{{{name}}}", own)
        return path

    def _good(self, method: str, path: str, operation: Mapping[str, Any], role: Role) -> Request:
        token = self.tokens[role]
        body = body_of(operation["operationId"])
        for name, required in ((n, r) for n, r in _needed(operation)):
            assert name in _QUERIES or not required, name
        query = {n: _QUERIES[n] for n, required in _needed(operation) if required}
        query = {n: self.own.ids["audience_id"][0] if v == "" else v for n, v in query.items()}
        if "ids" in query:
            query["ids"] = ",".join(self.own.ids["audience_id"][:2])
        written = b"" if body is None else json.dumps(self._with_own_ids(body)).encode()
        return Request(
            method,
            path,
            urlencode(query),
            {"Authorization": f"Bearer {token}"},
            written,
            JSON if written else "",
        )

    def _with_own_ids(self, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        found = {n: self.own.ids[n][0] if n in self.own.ids else v for n, v in body.items()}
        if "name" in found:  # each of B's has another one
            found["name"] = f"{OWN_MARK}-{self.chance.getrandbits(64):016x}"
        return found

    def _taken(self, kind: str, names: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What of A's goes into the place, and what nobody has in the same form."""
        if kind == "path":
            given = tuple(self._foreign_id(name) for name in names)
            return given, tuple(str(uuid.UUID(int=self.chance.getrandbits(128))) for _ in names)
        nobody = str(uuid.UUID(int=self.chance.getrandbits(128)))
        if names[-1] == "cursor" and self.chance.random() < 0.7:
            return (self.chance.choice(self.victim.cursors),), (_cursor(nobody),)
        if names == ["Idempotency-Key"]:
            return (self.chance.choice(list(self.victim.keys.values())),), (nobody,)
        if names == ["If-Match"]:
            return (self.chance.choice(self.victim.etags),), (f'"{nobody}"',)
        if names[-1] in (TENANT, "X-Org-Id", "X-Organization"):
            return ("acme",), (nobody,)
        if kind == "body" and names[-1] not in self.victim.ids:
            plain = [one for _, one in self.victim.every if MARK not in one]
            return (self.chance.choice(plain),), (nobody,)
        return (self._foreign_id(names[-1]),), (nobody,)

    def _foreign_id(self, name: str) -> str:
        """An id of A: mostly of the kind that belongs there."""
        name = "audience_id" if name == "ids" else name
        if name in self.victim.ids and self.chance.random() < 0.8:
            return self.chance.choice(self.victim.ids[name])
        return self.chance.choice(self.victim.every)[1]

    def _put(
        self, good: Request, template: str, kind: str, names: list[str], values: tuple[str, ...]
    ) -> Request:
        path = template
        for name, value in zip(names, values, strict=True) if kind == "path" else ():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        request = replace(good, path=path)
        if kind == "query":
            more = urlencode({names[0]: values[0]})
            kept = [one for one in good.query.split("&") if one and not one.startswith(names[0])]
            return replace(request, query="&".join([*kept, more]))
        if kind == "header":
            return replace(request, headers={**good.headers, names[0]: values[0]})
        if kind == "body":
            body = json.loads(good.body or b"{}")
            return replace(
                request, body=json.dumps(_set(body, names, values[0])).encode(), kind=JSON
            )
        return request

    def _varied(self, request: Request, kind: str) -> Request:
        """The same address, sometimes written in another way."""
        drawn = self.chance.random()
        if drawn < 0.1:
            return replace(request, path=request.path.replace(PREFIX, "/api", 1))
        if drawn < 0.15 and kind == "path":
            return replace(request, path=request.path.replace("-", "%2D"))
        if drawn < 0.2 and request.method == "GET":
            return replace(request, method="HEAD")
        return request

    def faults(self, probe: Probe, judge: Judge) -> list[str]:
        """What A would not like of the answer."""
        answer = answered(self.server, probe.foreign)
        found = judge.faults(probe.foreign, answer)
        found += [f"tells {what!r}" for what in self._told(probe, answer)]
        if probe.place[0] == "path" and probe.operation_id in ALIKE:
            found += self._differs(probe, answer)
        elif probe.place[0] == "path":
            own_user = "/users/" in probe.foreign.path and self.kept.issuperset(probe.given)
            if answer.status not in (403, 404) and not own_user:
                found.append(f"path: {answer.status}")
        elif probe.place[0] in ("query", "body") and probe.foreign.method != "HEAD":
            found += self._differs(probe, answer)
        if answer.status < 300 and probe.place[0] == "body":
            self.kept.update(probe.given)
        return found

    def _told(self, probe: Probe, answer: Answer) -> list[str]:
        """Texts and ids of A in the answer that B neither sends nor has stored."""
        said = answer.body + "\n".join(f"{n}: {v}" for n, v in answer.headers).encode()
        for stored in sorted(self.kept, key=len, reverse=True):
            said = said.replace(stored.encode(), b"")
        sent = " ".join((*probe.given, probe.foreign.query))
        secrets = [*self.victim.canaries, *(one for _, one in self.victim.every)]
        known = [one for one in secrets if one in sent or one in self.kept]
        return [one for one in secrets if one not in known and one.encode() in said]

    def _differs(self, probe: Probe, answer: Answer) -> list[str]:
        """Nothing, when the answer is that to a value that nobody has."""
        unknown = answered(self.server, probe.unknown)
        if answer.status == unknown.status:
            return [] if answer.status < 400 or answer.code == unknown.code else ["another code"]
        if probe.given[0] in self.kept and (
            (answer.status == 409 and answer.code == "NAME_TAKEN") or "segment" in probe.place[1]
        ):
            return []  # a name or a label of B's own, by now
        return [f"{answer.status} where nobody's is {unknown.status}"]


_QUERIES = {"ids": "", "from": "1", "to": "1"}
"""Values for parameters that are required."""


def _needed(operation: Mapping[str, Any]) -> list[tuple[str, bool]]:
    return [
        (one["name"], bool(one.get("required")))
        for one in operation.get("parameters", ())
        if one.get("in") == "query"
    ]


def _cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _set(node: Any, steps: list[str], value: str) -> Any:
    if not steps:
        return value
    step, *rest = steps
    if step == "0":
        items = node if isinstance(node, list) else []
        return [_set(items[0] if items else {}, rest, value), *items[1:]]
    kept = dict(node) if isinstance(node, dict) else {}
    return {**kept, step: _set(kept.get(step, {}), rest, value)}


def state_of(server: WatchedServer, organization_id: str) -> str:
    """A digest of all that an organization has in the stores."""
    digest, folder = hashlib.sha256(), server.app.settings.data_path
    with sqlite3.connect(folder / "documents.sqlite") as database:
        rows = database.execute(
            "SELECT revision, collection, id, due_at, data FROM documents"
            " WHERE organization_id = ? ORDER BY revision",
            (organization_id,),
        ).fetchall()
    database.close()
    assert len(rows) > 20
    digest.update(repr(rows).encode())
    for file in sorted(folder.rglob("*")):
        if file.is_file() and organization_id in file.parts:
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


@dataclass
class Sweep:
    """What a run of probes has found, and which places it has been at."""

    findings: Findings = field(default_factory=Findings)
    asked: Counter[tuple[str, Place]] = field(default_factory=Counter)
    unchanged: int = 0
    """Worlds in which nothing of A's had changed at the end."""


def swept(
    folder: Path,
    key_file: Path,
    description: Description,
    count: int,
    seed: int,
    organization: str = "evil-corp",
) -> Sweep:
    """Make `count` probes: every place once, in an order of chance, then again and again."""
    chance, sweep = random.Random(seed), Sweep()
    waiting: list[tuple[str, str, Mapping[str, Any], Place]] = []
    for number in range(0, count, FRESH_AFTER):
        server = WatchedServer(folder / f"{seed}-{number}", key_file)
        try:
            town = Town(server, description, chance, organization)
            _break_in(town, min(FRESH_AFTER, count - number), waiting, sweep)
        finally:
            server.stop()
            shutil.rmtree(server.app.settings.data_path)
    return sweep


def targets(description: Description) -> list[tuple[str, str, Mapping[str, Any], Place]]:
    """(method, path, operation, place) of every place of every operation."""
    return [
        (method, path, operation, place)
        for method, path, operation in description.operations
        for place in places_of(description.document, path, operation)
    ]


@dataclass(frozen=True)
class Town:
    """One server, and the organization that B belongs to."""

    server: WatchedServer
    description: Description
    chance: random.Random
    organization: str

    def victim(self) -> Objects:
        """A, with all its work done."""
        found = furnished(Api(self.server, self.description).as_(org="acme", user="ann"), MARK)
        while self.server.deliver(200):
            pass
        return found

    def intruder(self, victim: Objects, kept: set[str]) -> Intruder:
        """B with objects of its own, new ones each time: it has changed what it had."""
        mark, user = f"{OWN_MARK}-{self.chance.getrandbits(32):08x}", f"{OWN_MARK}-admin"
        api = Api(self.server, self.description).as_(org=self.organization, user=user)
        for webhook in api.get("/webhooks").get_json()["data"]:
            if self.organization != "acme":  # there is a limit to how many there may be
                api.delete(f"/webhooks/{webhook['webhook_id']}")
        own = furnished(api, mark)
        issuer = self.server.issuer
        tokens = {role: issuer.token(self.organization, user, role) for role in Role}
        return Intruder(self.server, self.description, self.chance, victim, own, tokens, kept)


def _break_in(
    town: Town,
    count: int,
    waiting: list[tuple[str, str, Mapping[str, Any], Place]],
    sweep: Sweep,
) -> None:
    victim = town.victim()
    before = state_of(town.server, "acme")
    intruder = town.intruder(victim, set())
    judge = Judge(town.description, sweep.findings.statuses)
    for number in range(count):
        if not waiting:
            waiting += targets(town.description)
            town.chance.shuffle(waiting)
        method, path, operation, place = waiting.pop()
        probe = intruder.probe(method, path, operation, place)
        sweep.asked[operation["operationId"], place] += 1
        sweep.findings.requests += 1
        for fault in intruder.faults(probe, judge):
            sweep.findings.note(f"{probe.operation_id} {place}: {fault}", probe.foreign)
        if number % WORK_AFTER == WORK_AFTER - 1:
            town.server.work()
            intruder = town.intruder(victim, intruder.kept)
    if state_of(town.server, "acme") == before:
        sweep.unchanged += 1
    else:
        sweep.findings.note("something of A's has changed", Request("", ""))
