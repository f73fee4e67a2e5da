"""Lists: bounded pages, opaque cursors, one shape for the answer."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from activation.documents import Page
from activation.domain.entity import Entity, first_id
from activation.domain.identifier import require_safe_id
from activation.errors import ValidationError

E = TypeVar("E", bound=Entity)


class Query(BaseModel):
    """Query parameters: unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        """As pydantic's; the plain form is made once, because the router asks at every request."""
        if args or options:
            return super().model_json_schema(*args, **options)
        return _plain_schema(cls)

    def equal(self, *names: str) -> dict[str, str]:
        """The filters that were given, as a store compares them."""
        given = self.model_dump(mode="json", include=set(names), exclude_none=True)
        return {name: str(value) for name, value in given.items()}


@cache
def _plain_schema(query: type[Query]) -> dict[str, Any]:
    return super(Query, query).model_json_schema()


class ListQuery(Query):
    """Which page of a list, newest first."""

    limit: int = Field(default=50, ge=1, le=200, description="Records per page.")
    cursor: str | None = Field(
        default=None, max_length=400, description="`next_cursor` of the page before."
    )

    @property
    def after(self) -> str | None:
        """The id that the cursor stands for."""
        return None if self.cursor is None else opened(self.cursor)


def list_of(answer: type[BaseModel]) -> type[BaseModel]:
    """The schema of a page; `next_cursor` is null on the last one, `total` counts all pages."""
    return create_model(
        f"{answer.__name__.removesuffix('Answer')}List",
        __doc__="A page of a list.",
        data=(list[answer], ...),  # type: ignore[valid-type]
        next_cursor=(str | None, ...),
        limit=(int, ...),
        total=(int, ...),
    )


def sealed(after: str | None) -> str | None:
    """The cursor for an id."""
    return None if after is None else base64.urlsafe_b64encode(after.encode()).decode().rstrip("=")


def opened(cursor: str) -> str:
    """The id in a cursor; ValidationError for text that is none of ours."""
    try:
        data = cursor + "=" * (-len(cursor) % 4)
        return require_safe_id("cursor", base64.b64decode(data, b"-_", validate=True).decode())
    except (binascii.Error, ValueError, ValidationError):
        raise ValidationError("cursor is not one of ours.", field="cursor", reason="invalid") from (
            None
        )


def since_id(instant: datetime | None) -> str | None:
    """The smallest id of records made at `instant` or later."""
    return None if instant is None else first_id(instant)


def listed(page: Page[E], limit: int, total: int) -> dict[str, Any]:
    """The answer for a page of records."""
    return shown([item.public() for item in page.items], page.next_after, limit, total)


def shown(
    data: Sequence[dict[str, Any]], next_after: str | None, limit: int, total: int
) -> dict[str, Any]:
    """The answer for a page of anything."""
    return {"data": data, "next_cursor": sealed(next_after), "limit": limit, "total": total}
