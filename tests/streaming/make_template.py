"""`python -m tests.streaming.make_template`: the metadata of the flex template, from the parameters
of the job. A test compares them."""

from __future__ import annotations

import json
from pathlib import Path

from activation.streaming.options import template_metadata

FOLDER = Path(__file__).parents[2] / "terraform" / "dataflow"
FILE = FOLDER / "metadata.json"


def made() -> str:
    """What the file should hold."""
    return json.dumps(template_metadata(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(made())
