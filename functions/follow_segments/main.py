"""Topic segment-memberships: audiences that follow a changed segment are marked."""

import flask
import functions_framework

from activation.api import edge, messages

edge.adopt_framework()


@functions_framework.http
def follow_segments_event(request: flask.Request) -> flask.Response:
    """Take a message."""
    return messages.receive("follow_segments", request, messages.follow_segments)
