"""Summaries of audiences."""

from __future__ import annotations

from activation.api.audiences import ONE
from activation.api.paths import AudiencePath
from activation.api.routes import Ask, Resource
from activation.domain.caller import Role
from activation.domain.summary import AudienceSummary

summaries = Resource("summaries", "What members look like as a whole.")


@summaries.route("GET", f"{ONE}/summary", role=Role.VIEWER, answer=AudienceSummary)
def get_summary(ask: Ask, path: AudiencePath) -> AudienceSummary:
    """Count the members by type, attribute and label."""
    return ask.app.summaries.summary(ask.caller, path.audience_id)
