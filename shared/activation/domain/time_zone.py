"""Names of time zones, as the IANA database has them."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from pydantic import AfterValidator, Field

UTC_NAME = "UTC"
NO_ZONE = "Factory"
"""The database's name for a machine whose zone nobody has set."""


@cache
def time_zones() -> frozenset[str]:
    """All names there are: the same on every machine, whatever its system knows."""
    from importlib.resources import files

    names = files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()
    return frozenset(names) - {NO_ZONE}


def _known(name: str) -> str:
    if name not in time_zones():
        raise ValueError("not a time zone of the IANA database, such as Europe/Berlin")
    return name


TimeZone = Annotated[str, AfterValidator(_known), Field(max_length=64)]
"""The IANA name of a time zone, such as `Europe/Berlin`."""
