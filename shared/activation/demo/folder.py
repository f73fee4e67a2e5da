"""The folder that a demo works in: made anew each time, and never somebody's own store."""

from __future__ import annotations

import shutil
from pathlib import Path

from activation.errors import InvalidStateError

DEFAULT = "activation-demo"
MARK = "THIS-IS-A-DEMO"


def fresh(folder: Path) -> None:
    """Make the folder, in the place of an earlier demo's.

    Raises InvalidStateError, with nothing touched, when it holds anything else.
    """
    if folder.exists() and not folder.is_dir():
        raise InvalidStateError(f"{folder} is not a folder.", reason="not_a_folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise InvalidStateError(
                f"{folder} holds something that no demo made; name another with --data.",
                reason="not_a_demo",
            )
        shutil.rmtree(folder)
    folder.mkdir(0o700, parents=True, exist_ok=True)
    (folder / MARK).write_text("`activation demo` removes this folder when it runs again.\n")
