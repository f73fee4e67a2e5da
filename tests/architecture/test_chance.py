"""What tests draw by chance: the same in every run of a commit, more where one explores."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.examples import EXPLORING, FACTOR, UNHURRIED, USUAL, examples

ROOT = Path(__file__).parents[2]
BEAM = "test_beam_digest.py"  # draws by numbers of its own, in an environment of its own
DRAW = """
import sys
from hypothesis import given, settings, strategies as st
from tests.examples import register_profiles
register_profiles()
settings.load_profile(sys.argv[1])
for name in sys.argv[2:]:
    __import__(name)

@settings(max_examples=50)
@given(st.tuples(st.integers(), st.text(), st.lists(st.floats()), st.binary()))
def drawn(values):
    print(ascii(values))

drawn()
"""


def drawn(profile: str, seed: int, *modules: str) -> list[str]:
    """What a process of its own draws that has imported these modules."""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": str(seed),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "shared"), str(ROOT)]),
    }
    command = [sys.executable, "-c", DRAW, profile, *modules]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_processes_draw_the_same_whatever_they_have_imported() -> None:
    """Hash seeds and the constants of imported code differ between processes that share a run."""
    first = drawn(UNHURRIED, 1)
    assert len(set(first)) > 25
    assert drawn(UNHURRIED, 2, "activation.domain.segment") == first


def test_where_one_explores_something_else_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert drawn(EXPLORING, 1) != drawn(EXPLORING, 1)
    assert not set(tmp_path.iterdir()) - {tmp_path / ".hypothesis"}


def test_tests_draw_more_where_one_explores() -> None:
    assert settings.get_profile(UNHURRIED).max_examples == USUAL
    assert settings.get_profile(EXPLORING).max_examples == USUAL * FACTOR
    assert examples(8) in (8, 8 * FACTOR)


# how tests ask for it -----------------------------------------------------------------------------


def chances(source: str) -> Iterator[str]:
    """The places of a test file that a second run, or an exploring one, does not come to again."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "max_examples":
            if isinstance(node.value, ast.Constant):
                yield f"{node.value.lineno}: max_examples without examples()"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in UNSEEDED or (called in SEEDED and not node.args):
                yield f"{node.lineno}: {called} without a seed"


SEEDED = {"random.Random", "Random", "np.random.default_rng", "numpy.random.default_rng"}
NAMES = "random randint randrange choice choices sample shuffle uniform randbytes permutation"
UNSEEDED = {
    f"{module}.{name}"
    for module in ("random", "np.random", "numpy.random")
    for name in NAMES.split()
}


def test_chance_has_a_seed_and_counts_of_examples_a_factor() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{one}"
        for path in (ROOT / "tests").rglob("*.py")
        if path.name not in (BEAM, "test_chance.py")
        if any(word in (text := path.read_text()) for word in ("andom", "max_examples"))
        for one in chances(text)
    }
    assert found == set()


@pytest.mark.parametrize(
    "line",
    [
        "settings(max_examples=300)",
        "draw = random.Random()",
        "random.shuffle(rows)",
        "np.random.default_rng().integers(3)",
        "users = random.sample(names, 3)",
    ],
)
def test_what_has_no_seed_is_found(line: str) -> None:
    assert len(list(chances(line))) == 1
