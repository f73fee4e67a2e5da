"""Tables for people to read."""

from __future__ import annotations

from collections.abc import Sequence


def printed(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as needed; the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    shown = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [head, *lines]
    ]
    return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:]])
