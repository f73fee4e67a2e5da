"""The cache of answers: warming it up, and what it did."""

from __future__ import annotations

from activation.api.answers import JobAnswer
from activation.api.routes import Ask, Resource
from activation.documents import Stored
from activation.domain.cache import CacheReport, WarmDraft, report_of
from activation.domain.caller import Role
from activation.domain.job import Job

cache = Resource("cache", "Answers kept for a while; none is ever older than its record.")


@cache.route("GET", "/cache", role=Role.ADMIN, answer=CacheReport)
def get_cache(ask: Ask) -> CacheReport:
    """Say what the cache of the answering process did since it started, by layer and kind."""
    return report_of(ask.app.cache.layers())


@cache.route("POST", "/cache/warm", role=Role.EDITOR, answer=JobAnswer, status=202)
def warm_cache(ask: Ask, body: WarmDraft) -> Stored[Job]:
    """Fill the cache for up to 100 audiences; the job says when it is done, and what failed."""
    return ask.app.warming.request(ask.caller, body)
