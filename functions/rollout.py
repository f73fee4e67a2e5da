"""Traffic of the functions on Google Cloud: new revisions get it step by step, or not at all.

    python functions/rollout.py pin   --project P --region R STATE
    python functions/rollout.py shift --project P --region R [--percent N ...] STATE -- COMMAND ...

`pin` comes before a deployment: it names, at every function, the revisions that now get traffic, so
that a new one gets none, and writes them to STATE. `shift` comes after: at each percentage it gives
new revisions that share and runs COMMAND; when that fails, or anything else does, all traffic goes
back to what STATE names. Exit code 0, or 1 after going back.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from activation.cli.cloud_run import READY, CloudRun, Service, Shares, connected
from activation.errors import ActivationError, InvalidStateError

PERCENTS = (10, 50, 100)
State = dict[str, dict[str, int]]
"""Percent by revision, by function."""


def pin(cloud_run: CloudRun) -> State:
    """Hold the traffic where it is, whatever is deployed next; returns where that is."""
    services = cloud_run.services()
    state = {name: {r: n for r, n in one.shares.items() if n} for name, one in services.items()}
    _send(cloud_run, services, state)
    return state


def shift(
    cloud_run: CloudRun, state: State, percents: Sequence[int], accepted: Callable[[], bool]
) -> bool:
    """Let the newest revisions have more and more; False when all went back to `state`."""
    services = cloud_run.services()
    try:
        require_ready(services)
        for percent in percents:
            shares = {
                name: blended(state.get(name, {}), service.ready, percent)
                for name, service in services.items()
            }
            _send(cloud_run, services, shares)
            if not accepted():
                raise InvalidStateError(f"Not accepted at {percent} %.")
    except (ActivationError, OSError, SystemExit) as error:
        print(f"Going back: {error}", file=sys.stderr, flush=True)
        _send(cloud_run, services, state)
        return False
    return True


def require_ready(services: Mapping[str, Service]) -> None:
    """Raise InvalidStateError unless the newest revision of every function is ready."""
    waiting = {name: one.state for name, one in services.items() if one.state != READY}
    if waiting:
        raise InvalidStateError(f"Not ready: {waiting}.")


def blended(before: Shares, newest: str, percent: int) -> dict[str, int]:
    """What revisions get when the newest one has `percent`; all, where nothing was before it."""
    old = {revision: share for revision, share in before.items() if revision != newest}
    if not old:
        return {newest: 100}
    rest = 100 - percent
    shares = {revision: rest * share // sum(old.values()) for revision, share in old.items()}
    largest = max(old, key=old.__getitem__)
    shares[largest] += rest - sum(shares.values())
    return {**shares, newest: percent}


def _send(cloud_run: CloudRun, services: Mapping[str, Service], shares: State) -> None:
    for name in sorted(services.keys() & shares.keys()):
        told = (f"{n} % {revision}" for revision, n in shares[name].items() if n)
        print(f"{name}: {', '.join(told)}", flush=True)
    cloud_run.send({name: (services[name], shares[name]) for name in services.keys() & shares})


def runs(command: Sequence[str]) -> Callable[[], bool]:
    """Whether a command succeeds."""
    return lambda: subprocess.run(command, check=False).returncode == 0  # noqa: S603


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The command line; what follows `--` is the command."""
    before, dashes, command = words, [], []
    if "--" in words:
        at = list(words).index("--")
        before, dashes, command = words[:at], ["--"], list(words[at + 1 :])
    parser = argparse.ArgumentParser(description="Shift the traffic of the functions.")
    parser.add_argument("action", choices=("pin", "shift"))
    parser.add_argument("state", type=Path, metavar="STATE")
    parser.add_argument("--project", required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--percent", type=int, nargs="+", default=PERCENTS, choices=range(101))
    given = parser.parse_args(before)
    given.command = command
    if given.action == "shift" and not (dashes and command):
        parser.error("shift needs -- and the command that accepts a share")
    return given


def main(words: Sequence[str]) -> int:
    """Do what the command line says."""
    given = parsed(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # a build that is stopped goes back too
    with connected(given.project, given.region) as cloud_run:
        if given.action == "pin":
            given.state.write_text(json.dumps(pin(cloud_run), indent=2))
            return 0
        state = json.loads(given.state.read_text())
        return 0 if shift(cloud_run, state, given.percent, runs(given.command)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
