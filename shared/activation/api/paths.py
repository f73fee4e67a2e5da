"""Ids in addresses."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel

from activation.domain.caller import USER_ID
from activation.domain.event import is_possible_id
from activation.domain.identifier import require_safe_id
from activation.errors import NotFoundError, ValidationError


def _possible(value: str) -> str:
    """What cannot be an id names nothing: the answer is 404, as for any unknown id."""
    try:
        return require_safe_id("id", value)
    except ValidationError:
        raise NotFoundError("There is no such record.", reason="not_found") from None


Id = Annotated[str, AfterValidator(_possible)]


def _possible_user(value: str) -> str:
    if not USER_ID.fullmatch(value):
        raise NotFoundError("There is no such record.", reason="not_found")
    return value


class AudiencePath(BaseModel):
    """An audience."""

    audience_id: Id


class ImportPath(AudiencePath):
    """An import into an audience."""

    import_id: Id


class VersionPath(AudiencePath):
    """A version of an audience."""

    number: int


class JobPath(BaseModel):
    """A job."""

    job_id: Id


class PlatformPath(BaseModel):
    """A platform account."""

    platform_id: Id


class WebhookPath(BaseModel):
    """A webhook."""

    webhook_id: Id


class WebhookDeliveryPath(WebhookPath):
    """A delivery to a webhook."""

    delivery_id: Id


class DistributionPath(BaseModel):
    """A distribution."""

    distribution_id: Id


class OperatorPath(BaseModel):
    """An operator."""

    user_id: Annotated[str, AfterValidator(_possible_user)]


class SegmentPath(BaseModel):
    """A segment."""

    segment_id: Id


class SegmentVersionPath(SegmentPath):
    """A definition of a segment."""

    number: int


SLASH = "\x1f"
"""What stands in a path for a slash of an id; no id can hold it."""


def _possible_person(value: str) -> str:
    value = value.replace(SLASH, "/")
    if not is_possible_id(value):
        raise NotFoundError("There is no such user.", reason="not_found")
    return value


class UserPath(BaseModel):
    """A user whose events are counted."""

    user_id: Annotated[str, AfterValidator(_possible_person)]


def _possible_session(value: str) -> str:
    if not is_possible_id(value):
        raise NotFoundError("There is no such session.", reason="not_found")
    return value


class UserSessionPath(UserPath):
    """A user and a session of his."""

    session_id: Annotated[str, AfterValidator(_possible_session)]


class UserSegmentPath(UserPath):
    """A user and a segment."""

    segment_id: Id
