"""Files of `terraform/` that are made from what the code declares.

`python -m tests.terraform.generate` writes them; a test compares them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType

from activation.adapters.gcp.documents import firestore_indexes
from activation.metrics_catalog import as_json
from tests.terraform.configuration import FOLDER


def _indexes() -> str:
    return json.dumps(firestore_indexes(), indent=2) + "\n"


def _metrics() -> str:
    return json.dumps(as_json(), indent=2) + "\n"


GENERATED: Mapping[str, Callable[[], str]] = MappingProxyType(
    {"firestore.indexes.json": _indexes, "metrics.json": _metrics}
)
"""File name to what it should hold."""


def main() -> None:
    """Write all of them."""
    for name, made in GENERATED.items():
        (FOLDER / name).write_text(made())


if __name__ == "__main__":
    main()
