"""`python -m activation.cli` is the `activation` program."""

from __future__ import annotations

from activation.cli import main

if __name__ == "__main__":
    main()
