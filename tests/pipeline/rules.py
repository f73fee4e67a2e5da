"""What must hold of `cloudbuild.yaml` beyond its schema: everything it names is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

BUILT_IN = {"PROJECT_ID", "BUILD_ID"}
"""Substitutions that Cloud Build always has, of those we use."""
ORDER = (
    ("template-image", ("check", "tests", "beam")),
    (
        "plan",
        ("check", "tests", "contracts", "archives", "beam", "image", "audit", "template-spec"),
    ),
    ("apply", ("plan", "pin")),
    ("smoke", ("apply",)),
    ("traffic", ("smoke",)),
)
"""What must have ended before what begins."""

Document = dict[str, Any]


def problems(document: Document, root: Path) -> list[str]:
    """Everything that is wrong, in the order of the checks; empty when nothing is."""
    checks = (_steps, _order, _rescue, _commands, _substitutions, _secrets, _limits, _environment)
    return [problem for check in checks for problem in check(document, root)]


def _steps(document: Document, _root: Path) -> Iterator[str]:
    """Ids are there once, and a step waits for earlier ones."""
    before: set[str] = set()
    for step in document["steps"]:
        name = step.get("id")
        if not name or name in before:
            yield f"step id {name} is missing or there twice"
        if "waitFor" not in step:
            yield f"{name} does not say what it waits for"
        for other in step.get("waitFor", []):
            if other != "-" and other not in before:
                yield f"{name} waits for {other}, which is no earlier step"
        before.add(str(name))


def _order(document: Document, _root: Path) -> Iterator[str]:
    waits = {step.get("id"): step.get("waitFor", []) for step in document["steps"]}

    def ended(name: str, found: set[str]) -> set[str]:
        for other in waits.get(name, []):
            if other not in found:
                found.add(other)
                ended(other, found)
        return found

    for name, needed in ORDER:
        for other in sorted(set(needed) - ended(name, set())):
            yield f"{name} does not wait for {other}"


def _rescue(document: Document, _root: Path) -> Iterator[str]:
    """A build goes on after an apply that failed, to take traffic back; and after nothing else."""
    goes_on = [step.get("id") for step in document["steps"] if step.get("allowFailure")]
    if goes_on != ["apply"]:
        yield f"a build goes on after failures of {goes_on}, not of apply alone"


def _commands(document: Document, root: Path) -> Iterator[str]:
    """A step runs a target of the Makefile or a script of `.ci/`."""
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE))
    for step in document["steps"]:
        first = step.get("args", [""])[0]
        if step.get("entrypoint") == "make":
            if first not in targets | {".venv/.dev"}:
                yield f"{step['id']}: the Makefile has no target {first}"
        elif step.get("entrypoint") in ("bash", "sh"):
            script = root / first
            if not first.startswith(".ci/") or not script.is_file():
                yield f"{step['id']}: there is no script {first}"
            elif not script.read_text().startswith(("#!/usr/bin/env bash", "#!/bin/sh")):
                yield f"{step['id']}: {first} does not say what runs it"
        else:
            yield f"{step['id']}: {step.get('entrypoint')} is neither make, bash nor sh"


def _substitutions(document: Document, _root: Path) -> Iterator[str]:
    """What is used is declared, and what is declared is used: builds are refused otherwise."""
    declared = set(document["substitutions"])
    rest = {name: value for name, value in document.items() if name != "substitutions"}
    used = {
        braced or bare
        for text in _texts(rest)
        for braced, bare in re.findall(r"(?<!\$)\$(?:\{(\w+)\}|(\w+))", text)
    }
    yield from (f"{name} is not declared" for name in sorted(used - declared - BUILT_IN))
    yield from (f"{name} is not used" for name in sorted(declared - used))


def _texts(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        part = part.values()
    if isinstance(part, str):
        yield part
    elif hasattr(part, "__iter__"):
        for inner in part:
            yield from _texts(inner)


def _secrets(document: Document, _root: Path) -> Iterator[str]:
    """Secrets come from Secret Manager, and only to steps that say so."""
    known = {one["env"] for one in document["availableSecrets"]["secretManager"]}
    asked = {name for step in document["steps"] for name in step.get("secretEnv", [])}
    yield from (f"secret {name} is nowhere" for name in sorted(asked - known))
    yield from (f"secret {name} is read by nobody" for name in sorted(known - asked))
    if "Admin" in str(document.get("serviceAccount")) or not document.get("serviceAccount"):
        yield "the build has no service account of its own"


def _limits(document: Document, _root: Path) -> Iterator[str]:
    """Every step ends, and the build lets the slowest way through it end."""
    seconds = {step.get("id"): _seconds(step.get("timeout")) for step in document["steps"]}
    yield from (f"{name} has no timeout" for name, limit in seconds.items() if not limit)
    waits = {step.get("id"): step.get("waitFor", []) for step in document["steps"]}
    ends: dict[str, int] = {}
    for name, others in waits.items():
        ends[name] = seconds[name] + max((ends.get(other, 0) for other in others), default=0)
    if max(ends.values()) > _seconds(document.get("timeout")):
        yield "the build may end before its steps do"


def _seconds(text: Any) -> int:
    found = re.fullmatch(r"(\d+)s", str(text))
    return int(found[1]) if found else 0


def _environment(document: Document, root: Path) -> Iterator[str]:
    """A step gets every variable that its script reads and does not choose itself."""
    for step in document["steps"]:
        script = root / step.get("args", [""])[0]
        if step.get("entrypoint") == "make" or not script.is_file():
            continue
        given = {text.split("=")[0] for text in step.get("env", [])} | set(
            step.get("secretEnv", [])
        )
        for name in sorted(read_by(script, root) - given):
            yield f"{step['id']}: {script.name} reads {name}"


def read_by(script: Path, root: Path) -> set[str]:
    """The variables that a script, and those of `.ci/` it runs, take from outside."""
    text = script.read_text()
    pairs = re.findall(r"\$(?:\{([A-Z][A-Z_]+)\}|([A-Z][A-Z_]+)\b)", text)
    found = {braced or bare for braced, bare in pairs}
    called = re.findall(r"-- (\.ci/\w+)", text)
    return found.union(*(read_by(root / one, root) for one in called))
