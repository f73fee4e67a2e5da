"""`cloudbuild.yaml` is well-formed, names what is there, and every check of it bites."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from activation.cli.acceptance import acceptance
from functions import rollout
from tests.pipeline.rules import Document, problems

ROOT = Path(__file__).parents[2]
FILE = ROOT / "cloudbuild.yaml"
DOCUMENT: Document = yaml.safe_load(FILE.read_text())


def schema_complaint(path: Path) -> str:
    """What the published schema of Cloud Build says against a file; empty when nothing."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.cloudbuild"]
    done = subprocess.run([*command, str(path)], capture_output=True, check=False, text=True)
    return "" if done.returncode == 0 else done.stdout


def test_it_follows_the_schema() -> None:
    assert schema_complaint(FILE) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("waitFor: [plan]", "waitsFor: [plan]"), ("E2_HIGHCPU_8", "E2_HUGECPU_8")],
)
def test_the_schema_finds(right: str, wrong: str, tmp_path: Path) -> None:
    text = FILE.read_text()
    assert right in text
    broken = tmp_path / "cloudbuild.yaml"
    broken.write_text(text.replace(right, wrong))
    assert wrong.split(":", maxsplit=1)[0] in schema_complaint(broken)


def test_everything_it_names_is_there() -> None:
    assert problems(DOCUMENT, ROOT) == []


def step(document: Document, name: str) -> dict[str, Any]:
    return next(one for one in document["steps"] if one["id"] == name)


FAULTS: dict[str, tuple[Callable[[Document], Any], str]] = {
    "an id twice": (lambda d: step(d, "smoke").update(id="apply"), "step id apply"),
    "no wait": (lambda d: step(d, "check").pop("waitFor"), "check does not say"),
    "a wait for nobody": (
        lambda d: step(d, "pin").update(waitFor=["plans"]),
        "pin waits for plans",
    ),
    "a wait for later": (
        lambda d: step(d, "plan")["waitFor"].append("apply"),
        "plan waits for apply, which is no earlier step",
    ),
    "a deployment without audit": (
        lambda d: step(d, "plan")["waitFor"].remove("audit"),
        "plan does not wait for audit",
    ),
    "a streaming job that was not tested": (
        lambda d: step(d, "template-image")["waitFor"].remove("beam"),
        "template-image does not wait for beam",
    ),
    "no way back from half an apply": (
        lambda d: step(d, "apply").pop("allowFailure"),
        "goes on after failures of []",
    ),
    "an audit that nobody heeds": (
        lambda d: step(d, "audit").update(allowFailure=True),
        "not of apply alone",
    ),
    "traffic before the smoke test": (
        lambda d: step(d, "traffic").update(waitFor=["apply"]),
        "traffic does not wait for smoke",
    ),
    "no target": (lambda d: step(d, "tests").update(args=["tests"]), "no target tests"),
    "no script": (lambda d: step(d, "plan").update(args=[".ci/plans"]), "no script .ci/plans"),
    "a command of its own": (
        lambda d: step(d, "plan").update(entrypoint="terraform"),
        "plan: terraform is neither",
    ),
    "an undeclared substitution": (
        lambda d: d["substitutions"].pop("_URL"),
        "_URL is not declared",
    ),
    "an unused substitution": (
        lambda d: d["substitutions"].update(_EXTRA="x"),
        "_EXTRA is not used",
    ),
    "a secret from nowhere": (
        lambda d: d["availableSecrets"]["secretManager"][0].update(env="KEYS"),
        "secret CLIENTS is nowhere",
    ),
    "Google's own account": (lambda d: d.pop("serviceAccount"), "no service account"),
    "no timeout": (lambda d: step(d, "apply").pop("timeout"), "apply has no timeout"),
    "too short a build": (lambda d: d.update(timeout="600s"), "may end before"),
    "a variable that is not set": (
        lambda d: step(d, "plan")["env"].pop(1),
        "plan: plan reads STATE_BUCKET",
    ),
    "a variable of a script behind": (
        lambda d: step(d, "traffic")["env"].remove("URL=${_URL}"),
        "traffic: rollout reads URL",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    plant, expected = FAULTS[name]
    broken = copy.deepcopy(DOCUMENT)
    plant(broken)
    assert [one for one in problems(broken, ROOT) if expected in one]


@pytest.mark.parametrize("script", sorted((ROOT / ".ci").iterdir()), ids=lambda one: one.name)
def test_scripts_parse_and_stop_at_the_first_failure(script: Path) -> None:
    shell = "sh" if script.read_text().startswith("#!/bin/sh") else "bash"
    subprocess.run([shell, "-n", str(script)], check=True)
    assert re.search(r"^set -eu(o pipefail)?$", script.read_text(), re.MULTILINE)
    assert script.stat().st_mode & 0o111


def test_the_page_explains_every_substitution_and_no_other() -> None:
    page = (ROOT / "docs/build.md").read_text()
    explained = set(re.findall(r"^\| `(_[A-Z_]+)` \|", page, re.MULTILINE))
    assert explained == set(DOCUMENT["substitutions"])
    for name in {one["id"] for one in DOCUMENT["steps"]}:
        assert f"| `{name}` |" in page, name


def test_what_the_plan_sets_is_a_variable_and_each_environment_has_its_file() -> None:
    plan = (ROOT / ".ci/plan").read_text()
    variables = (ROOT / "terraform/variables.tf").read_text()
    for name in re.findall(r"-var=(\w+)=", plan):
        assert f'variable "{name}"' in variables
    environment = DOCUMENT["substitutions"]["_ENVIRONMENT"]
    assert (ROOT / f"terraform/environments/{environment}.tfvars").is_file()


# the scripts, where they can be run -------------------------------------------------------------


def run(
    script: str, root: Path, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a script of `root` with a small environment."""
    path = environ.pop("PATH", "/usr/local/bin:/usr/bin:/bin")
    return subprocess.run(
        [str(root / ".ci" / script), *arguments],
        env={"PATH": path, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The scripts in another place."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "terraform").mkdir()
    return tmp_path


@pytest.mark.slow
def test_archives_are_built_twice_and_an_unstable_build_is_refused(copied: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "demo", "twins")
    for folder in ("functions", "shared/activation"):
        shutil.copytree(ROOT / folder, copied / folder, ignore=ignore)
    shutil.copy(ROOT / "shared/requirements.txt", copied / "shared/requirements.txt")
    manifest = copied / "functions/manifest.json"
    two = json.loads(manifest.read_bytes())["functions"][:2]
    manifest.write_text(json.dumps({"functions": two}))
    done = run("archives", copied, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert "2 archives, built twice: the same bytes." in done.stdout
    builder = copied / "functions/build.py"
    text = builder.read_text()
    planted = text.replace("str(DEPLOYED / name)", "str(path)")  # where it was built
    assert planted != text
    builder.write_text(planted)
    done = run("archives", copied, PYTHON=sys.executable)
    assert done.returncode != 0
    assert "differ" in done.stdout + done.stderr


TERRAFORM = """#!/bin/sh
echo "$PWD: $*" >>"$TOLD"
if [ "$1" = "$FAILS" ]; then exit 1; fi
if [ "$1" = output ]; then echo '{"url": {"value": "x"}}'; fi
"""


@pytest.fixture
def terraform(copied: Path) -> dict[str, str]:
    """A program of that name that writes down what it is told."""
    program = copied / "bin/terraform"
    program.parent.mkdir(exist_ok=True)
    program.write_text(TERRAFORM)
    program.chmod(0o755)
    (copied / "dist").mkdir()
    return {"PATH": f"{program.parent}:/usr/bin:/bin", "TOLD": str(copied / "told"), "FAILS": ""}


def test_what_is_applied_is_what_was_planned(copied: Path, terraform: dict[str, str]) -> None:
    given = {**terraform, "ENVIRONMENT": "prod", "STATE_BUCKET": "state"}
    assert run("plan", copied, **given).returncode == 0
    assert run("apply", copied, **terraform).returncode == 0
    told = (copied / "told").read_text()
    where = f"{copied}/terraform: "
    assert all(line.startswith(where) for line in told.splitlines())
    assert "-backend-config=bucket=state -backend-config=prefix=activation/prod" in told
    given_to = "-var-file=environments/prod.tfvars -var=gradual_traffic=true"
    assert f"{given_to} -out=../dist/plan.tfplan" in told
    assert re.search(r": apply .* \.\./dist/plan\.tfplan$", told, re.MULTILINE)
    assert "-auto-approve" not in told
    assert "url" in (copied / "dist/outputs.json").read_text()


@pytest.mark.parametrize("command", ["init", "plan", "show"])
def test_a_plan_that_fails_stops_the_build(
    command: str, copied: Path, terraform: dict[str, str]
) -> None:
    given = {**terraform, "FAILS": command, "ENVIRONMENT": "prod", "STATE_BUCKET": "state"}
    assert run("plan", copied, **given).returncode != 0


DOCKER = """#!/bin/sh
echo "$PWD: $*" >>"$TOLD"
if [ "$1" = "$FAILS" ]; then exit 1; fi
if [ "$1" = inspect ]; then echo "repository/sockets@sha256:0123"; fi
"""


@pytest.mark.parametrize("fails", ["", "build", "push"])
def test_the_image_that_was_pushed_is_the_one_that_is_planned(
    copied: Path, terraform: dict[str, str], fails: str
) -> None:
    program = copied / "bin/docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    given = {**terraform, "FAILS": fails, "REPOSITORY": "repository", "BUILD": "b1"}
    done = run("image", copied, **given)
    assert (done.returncode == 0) is (fails == "")
    told = (copied / "told").read_text()
    assert f"{copied}: build --quiet --file containers/sockets/Dockerfile" in told
    run("plan", copied, **{**terraform, "ENVIRONMENT": "dev", "STATE_BUCKET": "state"})
    planned = "-var=sockets_image=repository/sockets@sha256:0123" in (copied / "told").read_text()
    assert planned is (fails == "")


@pytest.mark.parametrize("script", ["image", "template-image"])
def test_images_are_built_by_what_reads_their_own_ignore_file(
    copied: Path, terraform: dict[str, str], script: str
) -> None:
    program = copied / "bin/docker"
    program.write_text('#!/bin/sh\necho "$DOCKER_BUILDKIT $*" >>"$TOLD"\n')
    program.chmod(0o755)
    given = {"REPOSITORY": "repository", "BUILD": "b1", "TEMPLATE_IMAGE": "repository/job:1"}
    assert run(script, copied, **terraform, **given).returncode == 0
    (built,) = re.findall(r"^(.*)build .*--file (\S+)", (copied / "told").read_text(), re.MULTILINE)
    assert built[0] == "1 "
    dockerfile = ROOT / built[1]
    own = dockerfile.with_name("Dockerfile.dockerignore")
    ignored = (own if own.exists() else ROOT / ".dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY (?!--)(\S+)", dockerfile.read_text(), re.MULTILINE):
        let_in = [line[1:] for line in ignored if line.startswith("!")]
        assert any(source == one or source.startswith(f"{one}/") for one in let_in), source


def test_a_plan_needs_to_know_where(copied: Path, terraform: dict[str, str]) -> None:
    assert run("plan", copied, **terraform, ENVIRONMENT="prod").returncode != 0


STAND_IN = """#!/bin/sh
cat >/dev/null
echo "$(basename "$0") $*" >>"$TOLD"
"""


@pytest.fixture
def programs(copied: Path) -> dict[str, str]:
    """`python` and `activation` that write down what they are told."""
    for name in ("python", "activation"):
        program = copied / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(STAND_IN)
        program.chmod(0o755)
    given = ("PROJECT", "REGION", "URL", "SINK", "PROXY_AUDIENCE", "CLIENTS")
    told = {"TOLD": str(copied / "told"), "BIN": str(copied / "bin"), "TMPDIR": str(copied / "tmp")}
    (copied / "tmp").mkdir()
    return {**told, **{name: name.lower() for name in given}}


def test_traffic_is_shifted_by_options_that_there_are(
    copied: Path, programs: dict[str, str]
) -> None:
    (copied / "dist").mkdir()
    (copied / "dist/outputs.json").touch()
    for script in ("pin", "rollout"):
        arguments = ["10", "50"] if script == "rollout" else []
        assert run(script, copied, *arguments, **programs).returncode == 0
    pinned, shifted = (line.split() for line in (copied / "told").read_text().splitlines())
    assert pinned[:2] == shifted[:2] == ["python", "functions/rollout.py"]
    first, second = rollout.parsed(pinned[2:]), rollout.parsed(shifted[2:])
    assert (first.action, first.project, first.region) == ("pin", "project", "region")
    assert (second.action, second.percent, second.command) == ("shift", [10, 50], [".ci/accept"])
    assert first.state == second.state


def test_an_apply_that_failed_is_never_accepted(
    copied: Path, programs: dict[str, str], terraform: dict[str, str]
) -> None:
    """What it let in before it stopped goes back: the command that accepts says no."""
    for fails, command in (("apply", "false"), ("output", "false"), ("", ".ci/accept")):
        done = run("apply", copied, **{**terraform, "FAILS": fails})
        assert (done.returncode == 0) is (fails == "")
        run("rollout", copied, "0", **programs)
        shifted = (copied / "told").read_text().splitlines()[-1].split()[2:]
        assert rollout.parsed(shifted).command == [command]


PATIENT = """#!/bin/sh
trap 'echo "going back" >>"$TOLD"; exit 1' TERM
echo shifting
while true; do sleep 0.05; done
"""


def test_a_build_that_is_stopped_tells_who_shifts_the_traffic(
    copied: Path, programs: dict[str, str]
) -> None:
    """The script is the first process of its container: what stops the build reaches it alone."""
    (copied / "bin/python").write_text(PATIENT)
    command = [str(copied / ".ci/rollout"), "10"]
    environ = {"PATH": "/usr/bin:/bin", **programs}
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"shifting\n"
            process.terminate()
            assert process.wait(timeout=10) == 1
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert (copied / "told").read_text() == "going back\n"


def test_an_acceptance_has_fresh_tokens_and_leaves_none(
    copied: Path, programs: dict[str, str]
) -> None:
    done = run("accept", copied, **programs)
    assert done.returncode == 0, done.stderr
    fetched, tried = (line.split() for line in (copied / "told").read_text().splitlines())
    assert fetched[:2] == ["python", "functions/tokens.py"]
    assert fetched[-2:] == ["--proxy-audience", "proxy_audience"]
    assert tried[:2] == ["activation", "acceptance"]
    given = acceptance.make_context("acceptance", tried[2:]).params
    assert (given["sink"], given["project"], given["region"]) == ("sink", "project", "region")
    assert given["viewer_token"] == f"@{fetched[3]}/viewer"
    assert list((copied / "tmp").iterdir()) == []
