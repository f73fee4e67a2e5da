"""Archives of the functions, as Google Cloud takes them: same bytes in, same bytes out.

    python functions/build.py [--out dist] [--json] [NAME ...]

An archive holds the function's `main.py`, the package `activation` without what only a terminal
needs, the bytecode of both, and `requirements.txt` pinned with hashes. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
PYTHON = (3, 11)
"""The version that runs the functions: another one would not read the bytecode."""
LEFT_OUT = (
    *("activation/cli/", "activation/demo/", "activation/digests/", "activation/streaming/"),
    *("activation/twins/", "activation/local.py", "activation/api/sockets.py"),
)
"""Paths of the package that no function imports (a test follows every import)."""
TERMINAL_ONLY = frozenset({"rich", "markdown-it-py", "mdurl", "pygments"})
"""Packages of the lock that nothing in an archive needs (a test follows every dependency)."""
DEPLOYED = PurePosixPath("/workspace")
"""Where Google Cloud unpacks an archive; bytecode names its source there."""
MODIFIED = (1980, 1, 1, 0, 0, 0)
PERMISSIONS = 0o100644
COMPILE = """
import json, py_compile, sys
for source, target, shown in json.load(sys.stdin):
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(source, target, shown, doraise=True, optimize=0, invalidation_mode=mode)
"""

Files = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Archive:
    """A written archive."""

    name: str
    path: str
    files: int
    bytes: int
    unpacked_bytes: int
    sha256: str


def manifest(root: Path = ROOT) -> list[str]:
    """The names of all functions, in the order of the manifest."""
    entries = json.loads((root / "functions" / "manifest.json").read_bytes())["functions"]
    return [entry["name"] for entry in entries]


def package(root: Path = ROOT) -> dict[str, Path]:
    """The source files of `activation` that go into every archive, by their place in it."""
    shared = root / "shared"
    found = {
        path.relative_to(shared).as_posix(): path for path in shared.rglob("activation/**/*.py")
    }
    return {name: found[name] for name in sorted(found) if not name.startswith(LEFT_OUT)}


def requirements(lock: str) -> str:
    """The entries of a lock that archives need, each with its hashes, as they stand there."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    return "".join(entry for entry in entries if entry.split("==")[0] not in TERMINAL_ONLY)


def bytecode(sources: Mapping[str, Path]) -> dict[str, bytes]:
    """Bytecode that is never compared with its source, by its place in an archive.

    A process of its own compiles all of it: what an interpreter has met before shows in the bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        targets = {name: Path(folder) / f"{number}" for number, name in enumerate(sources)}
        work = [
            (str(path), str(targets[name]), str(DEPLOYED / name)) for name, path in sources.items()
        ]
        subprocess.run(  # noqa: S603 - this interpreter, on files of this repository
            [sys.executable, "-s", "-S", "-P", "-c", COMPILE],
            input=json.dumps(work),
            env={"PYTHONHASHSEED": "0"},
            text=True,
            check=True,
        )
        return {cached(name): target.read_bytes() for name, target in targets.items()}


def cached(name: str) -> str:
    """Where Python looks for the bytecode of a source file."""
    return cache_from_source(name, optimization="")


def contents(names: Iterable[str], root: Path = ROOT) -> dict[str, Files]:
    """What goes into the archive of each of these functions."""
    sources = package(root)
    lock = (root / "shared" / "requirements.txt").read_text()
    common = {name: path.read_bytes() for name, path in sources.items()} | bytecode(sources)
    common["requirements.txt"] = requirements(lock).encode()
    return {name: common | _own(root / "functions" / name / "main.py") for name in names}


def _own(main: Path) -> Files:
    """The files of one function alone."""
    return {"main.py": main.read_bytes(), **bytecode({"main.py": main})}


def write(path: Path, files: Files) -> Archive:
    """Write an archive of these files, in the order of their names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, MODIFIED)
            info.create_system, info.external_attr = 3, PERMISSIONS << 16
            archive.writestr(info, files[name], zipfile.ZIP_DEFLATED, compresslevel=9)
    data = partial.read_bytes()
    partial.replace(path)
    unpacked = sum(map(len, files.values()))
    digest = hashlib.sha256(data).hexdigest()
    return Archive(path.stem, str(path), len(files), len(data), unpacked, digest)


def build(out: Path, names: Sequence[str], root: Path = ROOT) -> list[Archive]:
    """Write the archives of these functions into a folder."""
    return [write(out / f"{name}.zip", files) for name, files in contents(names, root).items()]


def table(archives: Sequence[Archive]) -> str:
    """The archives for people to read."""
    width = max(len(one.name) for one in archives)
    head = f"{'name':<{width}}  files      bytes  sha256"
    rows = [
        f"{one.name:<{width}}  {one.files:>5}  {one.bytes:>9,}  {one.sha256}" for one in archives
    ]
    return "\n".join([head, *rows])


def main() -> None:
    """Build what the command line names; exit code 2 for a wrong name or a wrong Python."""
    parser = argparse.ArgumentParser(description="Write dist/NAME.zip for each function.")
    known = manifest()
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {known}")
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"no such function: {', '.join(unknown)}")
    if sys.version_info[:2] != PYTHON:
        running = "{}.{}".format(*sys.version_info)
        parser.error(f"functions run on Python {PYTHON[0]}.{PYTHON[1]}; this is {running}")
    archives = build(given.out, given.names or known)
    shown = [{field: getattr(one, field) for field in Archive.__slots__} for one in archives]
    print(json.dumps(shown, indent=2) if given.json else table(archives))


if __name__ == "__main__":
    main()
