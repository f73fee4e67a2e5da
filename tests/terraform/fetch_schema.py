"""Downloads the bindings of the Google provider from npm and keeps their schema in `build/`.

`python -m tests.terraform.fetch_schema`: 65 MB of download become a file of about 250 KB. The
packages are versions of record: the provider's makers publish no newer bindings.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.terraform.bindings import Bindings, counted

FOLDER = Path(__file__).parents[2] / "build" / "terraform"
SCHEMA = FOLDER / "schema.json.gz"
PROVIDER_VERSION = "6.50.0"
PACKAGE = "@cdktf/provider-google@16.12.1"
BETA_PACKAGE = "@cdktf/provider-google-beta@16.12.1"
FROM_BETA = ("google-project-service-identity", "google-dataflow-flex-template-job")
"""What only the beta provider has, and we use; nothing else of it may be used."""


def main() -> None:
    """Make the file, unless it is there."""
    if SCHEMA.exists():
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        schema = _schema(_packed(PACKAGE, folder), _packed(BETA_PACKAGE, folder))
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = SCHEMA.with_suffix(".partial")
    partial.write_bytes(gzip.compress(json.dumps(schema, separators=(",", ":")).encode(), mtime=0))
    partial.rename(SCHEMA)
    listed = [
        a for kind in ("resources", "data") for b in schema[kind].values() for a in counted(b)
    ]
    print(
        f"Google provider {PROVIDER_VERSION}: {len(schema['resources'])} resources, "
        f"{len(schema['data'])} data sources, {len(listed)} arguments, "
        f"{sum(1 for a in listed if a['values'])} with listed values; "
        f"{time.monotonic() - began:.0f} s, {SCHEMA.stat().st_size // 1024} KB"
    )


def _packed(package: str, folder: str) -> Path:
    command = ["npm", "pack", "--silent", package, "--pack-destination", folder]
    name = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
    return Path(folder) / name


def _schema(package: Path, beta: Path) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    data: dict[str, Any] = {}
    provider: dict[str, Any] = {}
    for name, bindings in _all(package):
        if name == "provider":
            provider = bindings.schema()
        elif kind := bindings.resource_type:
            (data if name.startswith("data-google") else resources)[kind] = bindings.schema()
    for name, bindings in _all(beta):
        if name in FROM_BETA and bindings.resource_type:
            resources[bindings.resource_type] = bindings.schema() | {"beta": True}
    return {"version": PROVIDER_VERSION, "provider": provider, "resources": resources, "data": data}


def _all(package: Path) -> Iterator[tuple[str, Bindings]]:
    """Folder name and bindings of everything in a package."""
    code: dict[str, list[str]] = {}
    declarations: dict[str, list[str]] = {}
    with tarfile.open(package) as archive:
        for member in archive:
            parts = Path(member.name).parts
            if len(parts) != 4 or parts[1] != "lib" or not parts[3].startswith("index"):
                continue
            kept = declarations if parts[3].endswith(".d.ts") else code
            file = archive.extractfile(member)
            if file is not None and parts[3].endswith((".js", ".d.ts")):
                kept.setdefault(parts[2], []).append(file.read().decode())
    for name, texts in code.items():
        yield name, Bindings("\n".join(texts), "\n".join(declarations.get(name, [])))


if __name__ == "__main__":
    main()
