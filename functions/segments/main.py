"""HTTP: segments, their members and statistics."""

import flask
import functions_framework

from activation.api import edge

edge.adopt_framework()


@functions_framework.http
def segments_http(request: flask.Request) -> flask.Response:
    """Answer a request."""
    return edge.serve("segments", request)
