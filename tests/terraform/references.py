"""Names: what is referred to exists, and variables and local values are referred to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.terraform.configuration import Block, Configuration, Finding, strings

_REFERENCE = re.compile(
    r"(?<![\w.-])(?:(var|local)\.(\w+)|((?:data\.)?(?:google|terraform)_\w+)\.(\w+))"
)


def check(configuration: Configuration) -> list[Finding]:
    """References to nothing, and values that nobody refers to."""
    findings: list[Finding] = []
    used: set[str] = set()
    for block in configuration.blocks:
        for name in _names(block):
            used.add(name)
            if name not in _declared(configuration):
                findings.append(block.finding(f"there is no {name}"))
    for name in sorted(_named(configuration) - used):
        file = _file(configuration, name)
        findings.append(Finding(file, name, "nobody refers to it"))
    return findings + _given(configuration)


def _names(block: Block) -> Iterator[str]:
    for text in strings(block.body):
        for match in _REFERENCE.finditer(text):
            yield ".".join(part for part in match.groups() if part)


def _declared(configuration: Configuration) -> set[str]:
    resources = {block.address for kind in ("resource", "data") for block in configuration.of(kind)}
    return resources | _named(configuration)


def _named(configuration: Configuration) -> set[str]:
    """Variables and local values."""
    variables = {block.address for block in configuration.of("variable")}
    return variables | {f"local.{name}" for name in configuration.locals}


def _file(configuration: Configuration, name: str) -> str:
    kind, _, rest = name.partition(".")
    if kind == "local":
        return configuration.locals[rest][0]
    return next(b.file for b in configuration.of("variable") if b.address == name)


def _given(configuration: Configuration) -> list[Finding]:
    """Values for variables: each is of a variable, and each variable without default has one."""
    variables = {block.labels[0]: block for block in configuration.of("variable")}
    findings = []
    for file, text in configuration.texts.items():
        if file.endswith(".tfvars"):
            given = set(re.findall(r"^(\w+)\s*=", text, re.MULTILINE))
            findings += [
                Finding(file, name, "there is no such variable") for name in given - {*variables}
            ]
            findings += [
                Finding(file, name, "has no value here")
                for name, block in variables.items()
                if "default" not in block.body and name not in given
            ]
    return findings
