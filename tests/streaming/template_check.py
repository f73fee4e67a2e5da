"""What must agree about the flex template: parameters, metadata, Terraform, image and locks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from activation.streaming.options import JobOptions, parser
from tests.streaming.make_template import made

ROOT = Path(__file__).parents[2]
JOB = "terraform/dataflow.tf"
DOCKERFILE = "terraform/dataflow/Dockerfile"
METADATA = "terraform/dataflow/metadata.json"
LOCK, TEST_LOCK = "terraform/dataflow/requirements.txt", "requirements-beam.txt"
FILES = (JOB, DOCKERFILE, METADATA, LOCK, TEST_LOCK)
PACKAGES = ("pydantic", "orjson", "numpy", "pyarrow", "google-cloud-firestore")


@dataclass(frozen=True, slots=True)
class Template:
    """The files, by name."""

    texts: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.texts[name]


def template() -> Template:
    """What is there."""
    return Template({name: (ROOT / name).read_text() for name in FILES})


def problems(found: Template) -> list[str]:
    """Everything that does not agree."""
    checks = (_metadata, _terraform, _help, _image, _locks)
    return [problem for check in checks for problem in check(found)]


def _metadata(found: Template) -> Iterator[str]:
    if found[METADATA] != made():
        yield "metadata.json is not made of the parameters: make template"
    for one in json.loads(found[METADATA])["parameters"]:
        default = one.get("defaultValue")
        if default is not None and not re.fullmatch(one["regexes"][0], default):
            yield f"the default of {one['name']} is none that it takes"
        if len(one["helpText"]) < 20:
            yield f"{one['name']} is not explained"


def _terraform(found: Template) -> Iterator[str]:
    names = {one.name for one in fields(JobOptions)}
    block = re.search(r"\n  parameters = \{\n(.*?)\n  \}", found[JOB], re.DOTALL)
    given = set(re.findall(r"^    (\w+) +=", block[1], re.MULTILINE)) if block else set()
    yield from (f"Terraform does not give {name}" for name in sorted(names - given))
    yield from (f"the job has no parameter {name}" for name in sorted(given - names))
    for setting in ("WORKER_IP_PRIVATE", '"drain"', "enable_streaming_engine = true"):
        if setting not in found[JOB]:
            yield f"the job has no {setting}"


def _help(_found: Template) -> Iterator[str]:
    text = " ".join(parser().format_help().split())
    for one in fields(JobOptions):
        if f"--{one.name}" not in text or one.metadata["help"].split(":")[0] not in text:
            yield f"--help does not explain {one.name}"


def _image(found: Template) -> Iterator[str]:
    text, locked = found[DOCKERFILE], _version(found[LOCK], "apache-beam")
    if f"ARG BEAM={locked}\n" not in text:
        yield f"the image's Beam is not the locked {locked}"
    if "--require-hashes -r /template/requirements.txt" not in text:
        yield "the image installs what is not locked"
    for source in re.findall(r"^COPY (?!--)(\S+)", text, re.MULTILINE):
        if not (ROOT / source).exists():
            yield f"the image copies {source}, which is not there"
    if 'ENTRYPOINT ["/opt/apache/beam/boot"]' not in text:
        yield "the image does not start as a worker"
    if "FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py" not in text:
        yield "the launcher is not told what to run"


def _locks(found: Template) -> Iterator[str]:
    for name in ("apache-beam", *PACKAGES):
        image, tested = _version(found[LOCK], name), _version(found[TEST_LOCK], name)
        if image is None or image != tested:
            yield f"{name} {image} of the image is not the tested {tested}"


def _version(lock: str, name: str) -> str | None:
    entry = re.search(rf"^{name}==(\S+)", lock, re.MULTILINE)
    return entry[1] if entry else None
