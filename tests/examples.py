"""What Hypothesis draws: in every run of a commit the same, or by chance where one explores."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

UNHURRIED, EXPLORING = "unhurried", "exploring"
USUAL, FACTOR = 100, 10
FOUND = ".hypothesis/examples"

_constants_of_what_is_imported = providers._get_local_constants


def register_profiles() -> None:
    """Draw the same examples always; `--hypothesis-profile=exploring` draws others, and more.

    How long an example takes says nothing about its truth, and machines are shared. What the
    exploring profile has found is kept on this machine, and tried first the next time.
    """
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile(
        UNHURRIED, patient, max_examples=USUAL, derandomize=True, print_blob=True
    )
    settings.register_profile(
        EXPLORING,
        patient,
        max_examples=USUAL * FACTOR,
        derandomize=False,
        database=DirectoryBasedExampleDatabase(FOUND),
        print_blob=True,
    )
    settings.load_profile(UNHURRIED)
    providers._get_local_constants = _constants


def examples(usual: int) -> int:
    """How many examples a test draws that usually draws so many: more where one explores."""
    assert settings.default is not None
    return usual * settings.default.max_examples // USUAL


def _constants() -> Constants:
    """The constants that are mixed into what is drawn; none of the modules that are imported.

    Hypothesis takes the numbers and texts of our own code into account, of as much of it as other
    tests of the process have imported so far: by chance, when tests are shared out to processes.
    """
    if settings.default is not None and settings.default.derandomize:
        return providers._local_constants
    return _constants_of_what_is_imported()
