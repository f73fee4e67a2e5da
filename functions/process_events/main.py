"""Topic user-events: events become memberships."""

import flask
import functions_framework

from activation.api import edge, messages

edge.adopt_framework()


@functions_framework.http
def process_events_event(request: flask.Request) -> flask.Response:
    """Take a message."""
    return messages.receive("process_events", request, messages.process_events)
