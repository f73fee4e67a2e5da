"""Documents are true: settings table, links, and the tree that the README shows."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from activation.errors import ActivationError, ValidationError
from activation.settings import PREFIX, Settings, from_environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_readme_documents_every_setting_and_no_other() -> None:
    documented = set(re.findall(rf"^\| `{PREFIX}([A-Z_]+)` \|", README, re.MULTILINE))
    assert documented == {field.name.upper() for field in dataclasses.fields(Settings)}


def test_the_readme_tells_defaults_and_meanings_as_they_are() -> None:
    rows = dict(re.findall(rf"^\| `{PREFIX}([A-Z_]+)` \| (.*\|.*) \|$", README, re.MULTILINE))
    for field in dataclasses.fields(Settings):
        default, meaning = (part.strip() for part in rows[field.name.upper()].split("|", 1))
        shown = str(field.default)
        shown = shown.lower() if isinstance(field.default, bool) else shown
        assert default.strip("`") == shown, field.name
        assert meaning == field.metadata["doc"], field.name


@pytest.mark.parametrize(
    "path",
    [
        *("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/quotas.md", "docs/api.md"),
        "docs/build.md",
        "docs/operations.md",
        "docs/streaming.md",
        "docs/adr/0019-the-stream-takes-the-same-steps.md",
        *("docs/identity.md", "docs/roles.md", "docs/platforms.md"),
    ],
)
def test_links_lead_somewhere(path: str) -> None:
    page = ROOT / path
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{path}: {target}"


def test_every_room_of_the_readme_exists() -> None:
    rooms = re.findall(r"^\| `((?:functions|shared|tests|bench)[^`]*)`", README, re.MULTILINE)
    assert len(rooms) > 8
    for room in rooms:
        assert (ROOT / room).exists(), room


def test_settings_are_read_checked_and_refused() -> None:
    read = from_environment({"ACTIVATION_LEASE_SECONDS": "5", "ACTIVATION_LOG_LEVEL": "DEBUG"})
    assert (read.lease_seconds, read.log_level) == (5, "DEBUG")
    assert from_environment({"ACTIVATION_ALLOW_PRIVATE_HOSTS": "true"}).allow_private_hosts
    for wrong in (
        {"ACTIVATION_LEASE_SECOND": "5"},
        {"ACTIVATION_LEASE_SECONDS": "soon"},
        {"ACTIVATION_BACKEND": "aws"},
        {"ACTIVATION_ALLOW_PRIVATE_HOSTS": "maybe"},
    ):
        with pytest.raises(ValidationError):
            from_environment(wrong)


def test_the_api_page_lists_every_error_with_its_status() -> None:
    page = (ROOT / "docs/api.md").read_text()
    row = r"^\| `([A-Z_]+)` \| (\d+) \| (\w*) ?\|"
    documented = {
        code: (int(status), bool(again.strip()))
        for code, status, again in re.findall(row, page, re.MULTILINE)
    }
    documented.pop("INTERNAL")
    raised = [kind for kind in _kinds(ActivationError) if kind.__module__ == "activation.errors"]
    known = {kind.code: (kind.status, kind.retryable) for kind in raised}
    assert documented == known


def _kinds(root: type[ActivationError]) -> list[type[ActivationError]]:
    below = [kind for child in root.__subclasses__() for kind in _kinds(child)]
    return below if root is ActivationError else [root, *below]
