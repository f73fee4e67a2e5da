"""HTTP: changes of memberships as they happen, as server-sent events."""

import flask
import functions_framework

from activation.api import edge

edge.adopt_framework()


@functions_framework.http
def realtime_http(request: flask.Request) -> flask.Response:
    """Answer a request."""
    return edge.serve("realtime", request)
