"""Topic distribution-requests: the only function that opens credentials."""

import flask
import functions_framework

from activation.api import edge, messages

edge.adopt_framework()


@functions_framework.http
def dispatch_distribution_event(request: flask.Request) -> flask.Response:
    """Take a message."""
    return messages.receive("dispatch_distribution", request, messages.dispatch_distribution)
