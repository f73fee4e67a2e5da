"""Archives of the functions: the same bytes from the same source, and nothing missing or spare."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from functions import build

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "shared/requirements.txt").read_text()
STEM = "activation/errors"


def copied(target: Path) -> Path:
    """What archives are made of, in another place."""
    shutil.copytree(
        ROOT / "functions", target / "functions", ignore=shutil.ignore_patterns("__pycache__")
    )
    left_out = shutil.ignore_patterns("__pycache__", "cli", "demo", "digests", "streaming", "twins")
    shutil.copytree(ROOT / "shared/activation", target / "shared/activation", ignore=left_out)
    shutil.copy(ROOT / "shared/requirements.txt", target / "shared/requirements.txt")
    return target


def built(root: Path, out: Path, *names: str, umask: int = 0o022, **environ: str) -> dict[str, str]:
    """Build as a user does; the digest of each archive by its name."""
    command = [sys.executable, "functions/build.py", "--json", "--out", str(out), *names]
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, **environ},
        umask=umask,
        capture_output=True,
        check=True,
        text=True,
    )
    return {one["name"]: one["sha256"] for one in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The archives of all functions, by name."""
    out = tmp_path_factory.mktemp("dist")
    return {one.name: Path(one.path) for one in build.build(out, build.manifest())}


@pytest.fixture
def unpacked(archives: dict[str, Path], tmp_path: Path) -> Path:
    with zipfile.ZipFile(archives["audiences"]) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


def test_same_bytes_whatever_folder_time_umask_and_environment(
    archives: dict[str, Path], tmp_path: Path
) -> None:
    names = ("run_due", "audiences")
    here = built(copied(tmp_path / "here"), tmp_path / "a", *names)
    there = copied(tmp_path / "much/further/there")
    for path in there.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    other = {"LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "2"}
    assert built(there, tmp_path / "b", *names, umask=0o077, **other) == here
    among_all = {name: archives[name].read_bytes() for name in names}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in among_all.items()} == here

    main = there / "functions/run_due/main.py"
    main.write_text(main.read_text() + "\n")
    changed = built(there, tmp_path / "b", *names)
    assert changed["run_due"] != here["run_due"]
    assert changed["audiences"] == here["audiences"]


def _files(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_archive_is_plain_and_says_nothing_of_where_it_was_made(
    archives: dict[str, Path],
) -> None:
    for path in archives.values():
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            assert {(one.date_time, one.external_attr) for one in entries} == {
                (build.MODIFIED, 0o100644 << 16)
            }
            names = [one.filename for one in entries]
            assert names == sorted(set(names))
    assert not [name for name, data in _files(path).items() if str(ROOT).encode() in data]


def test_archive_holds_main_lock_package_and_the_bytecode_of_each(
    archives: dict[str, Path],
) -> None:
    for name, path in archives.items():
        files = _files(path)
        assert files["main.py"] == (ROOT / "functions" / name / "main.py").read_bytes()
        sources = {one for one in files if one.endswith(".py")}
        assert f"{STEM}.py" in sources
        assert {build.cached(one) for one in sources} == files.keys() - sources - {
            "requirements.txt"
        }


def test_bytecode_runs_without_a_look_at_its_source(unpacked: Path) -> None:
    """Whatever times unpacking leaves behind: what runs is the bytecode."""
    bytecode = (unpacked / build.cached(f"{STEM}.py")).read_bytes()
    assert int.from_bytes(bytecode[4:8], "little") == 0b01  # checked by nothing
    (unpacked / f"{STEM}.py").write_text("not Python")
    probe = "import activation.errors as e; print(e.__file__); e.NotFoundError('x')"
    found = subprocess.run(
        [sys.executable, "-c", probe], cwd=unpacked, capture_output=True, check=True, text=True
    )
    assert found.stdout.strip() == str(unpacked / f"{STEM}.py")


def test_bytecode_of_the_cloud_s_own_build_survives_new_times(unpacked: Path) -> None:
    """Google's build compiles over ours; told SOURCE_DATE_EPOCH, so that times do not matter."""
    command = [sys.executable, "-m", "compileall", "-f", "-q", "."]

    def header(**environ: str) -> int:
        subprocess.run(command, cwd=unpacked, env={**os.environ, **environ}, check=True)
        return (unpacked / build.cached(f"{STEM}.py")).read_bytes()[4]

    timestamped, hashed = 0b00, 0b11
    assert header() == timestamped
    assert header(SOURCE_DATE_EPOCH="315532800") == hashed


def absent(files: set[str], sources: dict[str, str]) -> Iterator[str]:
    """What `sources` import of `activation`, at whatever place, that is not among `files`."""
    for name, text in sources.items():
        for module in _imported(text):
            path = module.replace(".", "/")
            if not {f"{path}.py", f"{path}/__init__.py"} & files:
                yield f"{name} imports {module}"


def _imported(text: str) -> Iterator[str]:
    """Modules of ours in import statements, those for type checkers left out."""
    tree = ast.parse(text)
    checked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.startswith("activation"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("activation"):
            assert node.module is not None
            yield node.module
            folder = ROOT / "shared" / node.module.replace(".", "/")
            yield from (
                f"{node.module}.{one.name}"
                for one in node.names
                if (folder / f"{one.name}.py").exists() or (folder / one.name).is_dir()
            )


def test_every_module_that_an_archive_imports_is_in_it(archives: dict[str, Path]) -> None:
    files = _files(archives["dispatch_distribution"])
    sources = {name: text.decode() for name, text in files.items() if name.endswith(".py")}
    assert list(absent(set(files), sources)) == []
    planted = {**sources, "activation/x.py": "def f():\n    from activation.cli import output\n"}
    assert list(absent(set(files), planted)) == [
        "activation/x.py imports activation.cli",
        "activation/x.py imports activation.cli.output",
    ]


def test_what_is_left_out_is_there_to_be_left_out() -> None:
    assert all((ROOT / "shared" / path).exists() for path in build.LEFT_OUT)
    assert all(re.search(rf"^{name}==", LOCK, re.MULTILINE) for name in build.TERMINAL_ONLY)


def needed(lock: str, terminal_only: frozenset[str]) -> list[str]:
    """Which packages that stay in the lock need one that is left out."""
    kept = set(re.findall(r"^([a-z0-9._-]+)==", build.requirements(lock), re.MULTILINE))
    return [
        f"{name} needs {requirement.name}"
        for name in sorted(kept)
        for requirement in _requirements(name)
        if requirement.name.lower() in terminal_only
    ]


def _requirements(name: str) -> list[Requirement]:
    """What a package needs here without extras; nothing when it is not for this Python."""
    try:
        found = map(Requirement, importlib.metadata.requires(name) or [])
    except importlib.metadata.PackageNotFoundError:
        return []
    return [one for one in found if not one.marker or one.marker.evaluate({"extra": ""})]


def test_nothing_in_an_archive_needs_what_only_a_terminal_does() -> None:
    assert needed(LOCK, build.TERMINAL_ONLY) == []
    assert "functions-framework needs click" in needed(LOCK, frozenset({"click"}))
    spoken = {name.replace("-", "_") for name in build.TERMINAL_ONLY}
    for path in build.package().values():
        assert not re.search(rf"(import|from) ({'|'.join(spoken)})\b", path.read_text()), path


def test_requirements_are_the_lock_with_all_its_hashes() -> None:
    kept = build.requirements(LOCK)
    entries = re.split(r"^(?=[A-Za-z0-9])", kept, flags=re.MULTILINE)[1:]
    assert all("==" in one and "--hash=sha256:" in one for one in entries)
    assert LOCK.count("\n") - kept.count("\n") > len(build.TERMINAL_ONLY)
    assert {one.split("==")[0] for one in entries} > {"functions-framework", "pyarrow", "numpy"}


def test_a_function_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "functions/build.py", "--out", str(tmp_path), "audience"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert done.returncode == 2
    assert "no such function: audience" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_table_names_every_archive(tmp_path: Path) -> None:
    command = [sys.executable, "functions/build.py", "--out", str(tmp_path), "run_due"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    head, row = done.stdout.splitlines()
    assert head.split() == ["name", "files", "bytes", "sha256"]
    assert row.split()[0] == "run_due"
    assert re.fullmatch("[0-9a-f]{64}", row.split()[-1])


def test_source_that_does_not_compile_stops_the_build(tmp_path: Path) -> None:
    root = copied(tmp_path / "broken")
    (root / "shared/activation/errors.py").write_text("def f(:\n")
    with pytest.raises(subprocess.CalledProcessError):
        build.build(tmp_path / "dist", ["run_due"], root)
    assert not (tmp_path / "dist").exists()
