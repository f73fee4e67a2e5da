"""The scripts of the page are run as they stand, by Node, against a running server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from activation.api import sockets
from activation.services import change_feed, segment_changes
from tests.realtime.following import PREFIX, SECONDS, Site

PAGE = (Path(__file__).parents[2] / "docs/realtime.md").read_text()
SCRIPTS = re.findall(r"^```js\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
USE = """
const [url, token, count, lastId] = process.argv.slice(-4);
let left = Number(count);
const heard = (kind, data, id) => {
  if (kind === "entered") { console.log(JSON.stringify({ ...data, id })); left -= 1; }
  if (kind === "size") console.error(kind);
  if (left === 0) { setTimeout(() => process.exit(0), 10); return false; }
};
FOLLOW(url, () => token, heard, lastId === "-" ? undefined : lastId);
"""


def missing() -> NoReturn:
    """Skip, or fail where everything must run."""
    if os.environ.get("REQUIRE_NODE") == "1":
        pytest.fail("The page's scripts are required to run, and Node is not installed.")
    pytest.skip("Needs Node, which is not installed.")


class Script:
    """A script of the page at work."""

    def __init__(self, function: str, site: Site, path: str, count: int, last: str = "-") -> None:
        node = shutil.which("node") or missing()
        (script,) = [one for one in SCRIPTS if f"function {function}(" in one]
        base = site.sockets if function == "followSocket" else site.url + PREFIX
        token = site.mint("acme", "ann", "admin")
        code = script + USE.replace("FOLLOW", function)
        words = [
            node,
            "--experimental-websocket",
            "-e",
            code,
            "--",
            base + path,
            token,
            str(count),
            last,
        ]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def wait_for_size(self) -> None:
        assert self.process.stderr is not None
        lines = iter(self.process.stderr.readline, "")
        assert "size\n" in lines

    def heard(self) -> list[dict[str, str]]:
        """The entries it has printed, at its end."""
        out, errors = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 0, errors
        return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("function", ["follow", "followSocket"])
def test_the_script_follows_and_goes_on(function: str, site: Site) -> None:
    segment_id = site.define()
    paths = {
        "follow": f"/segments/{segment_id}/realtime",
        "followSocket": f"/ws/segments/{segment_id}/realtime",
    }
    with Script(function, site, paths[function], 2) as first:
        first.wait_for_size()
        site.order("ann", "bob")
        told = first.heard()
    assert {one["user_id"] for one in told} == {"ann", "bob"}
    site.order("cid")
    with Script(function, site, paths[function], 1, told[-1]["id"]) as again:
        assert [one["user_id"] for one in again.heard()] == ["cid"]


def test_the_page_has_every_code_and_reason() -> None:
    numbers = {
        value for name, value in vars(sockets).items() if name.isupper() and isinstance(value, int)
    }
    codes = {number for number in numbers if 1000 <= number < 5000} - {sockets.FOREIGN_ORIGIN}
    rows = re.findall(r"^\| (\d{4}(?:, \d{4})*) \|", PAGE, re.MULTILINE)
    told = {int(code) for row in rows for code in row.split(", ")}
    assert codes | {1012} == told
    for reason in sockets.ENDS:
        assert f"`{reason}`" in PAGE
    assert f"{change_feed.MAX_PENDING:,} changes" in PAGE
    assert len(segment_changes.ALL_SHARDS) == 64
